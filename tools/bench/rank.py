"""Measures rank classification: rows per second next to one pass per option, here and in transformers.

    python tools/bench/rank.py --torch-python=TORCH/bin/python
    python tools/bench/rank.py --size tiny --rows 2000

The rows are real: COPA, PIQA, CosmosQA, CommonsenseQA and the classification tasks of Super-NaturalInstructions, in equal
parts, with 2 to 20 options. All contenders score the same tokens with the same random float32 weights and up to 32 rows
per batch: "packed" is what evaluation does, "per option" gives each option a row of its own to the same scorer, and
"transformers" computes batches of single options, padded to the longest, in order of length, as lm-evaluation-harness
does. Each runs in its own process, and they take turns; the first turn, which compiles, is not counted. Scores are
compared before anything is measured. The table shows medians and, in parentheses, the range.
"""

import argparse
import contextlib
import csv
import gzip
import importlib.metadata
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import step_contender as contender
from rich.console import Console
from rich.table import Table

TOOLS = Path(__file__).resolve().parent
SIZES = {
    "small": {"emb_dim": 512, "num_heads": 6, "num_layers": 8, "head_dim": 64, "mlp_dim": 1024, "vocab_size": 32128},
    "tiny": {"emb_dim": 64, "num_heads": 4, "num_layers": 2, "head_dim": 16, "mlp_dim": 128, "vocab_size": 32128},
}
BATCH_SIZE, INPUT_LENGTH = 32, 512
Row = tuple[str, list[str]]


def read_rows(data: Path) -> dict[str, list[Row]]:
    """Returns the rows (inputs, options) of each task."""

    def lines(name: str) -> Iterator[dict]:
        path = data / name
        with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as file:
            yield from map(json.loads, file)

    tasks: dict[str, list[Row]] = {
        "copa": [
            (f"{row['premise']} What is the {row['question']}?", [row["choice1"], row["choice2"]])
            for row in lines("superglue_copa/val.jsonl")
        ],
        "piqa": [(f"Goal: {row['goal']}", [row["sol1"], row["sol2"]]) for row in lines("piqa/valid.jsonl.gz")],
        "commonsenseqa": [
            (row["question"]["stem"], [choice["text"] for choice in row["question"]["choices"]])
            for row in lines(next((data / "commonsenseqa").glob("dev*")).relative_to(data).as_posix())
        ],
        "superni": [],
    }
    with gzip.open(data / "cosmosqa/valid.csv.gz", "rt") as file:
        tasks["cosmosqa"] = [
            (f"{row['context']} {row['question']}", [row[f"answer{i}"] for i in range(4)])
            for row in csv.DictReader(file)
        ]
    for path in sorted((data / "superni_default").glob("test-*.jsonl.gz")):
        for task in lines(path.relative_to(data).as_posix()):
            outputs = [
                row["output"] if isinstance(row["output"], str) else row["output"][0] for row in task["Instances"]
            ]
            if 2 <= len(set(outputs)) <= 20 and len(outputs) >= 50:
                definition = " ".join(task["Definition"])
                rows = [(f"{definition} {row['input']}", sorted(set(outputs))) for row in task["Instances"]]
                tasks["superni"] += rows[:20]
    return tasks


def tokenized(rows: list[Row], vocabulary_path: Path) -> list[tuple[list[int], list[list[int]]]]:
    """Returns the tokens of inputs and options, with the end of sequence."""
    from flan_jax import vocab

    vocabulary = vocab.load(str(vocabulary_path))
    end = [vocabulary.eos_id]
    return [
        (vocabulary.encode(inputs)[: INPUT_LENGTH - 1] + end, [ids + end for ids in vocabulary.encode_batch(options)])
        for inputs, options in rows
    ]


def serve_ours() -> None:
    """Our process: a line is the name of a contender, and is answered with the time of scoring all rows."""
    import jax

    from flan_jax import backend
    from flan_jax.checkpoint import formats
    from flan_jax.checkpoint.trees import nested
    from flan_jax.run.network import Network
    from flan_jax.sharding import MeshPlan

    backend.compute_in_calling_thread()
    spec = contender.read_spec()
    weights = formats.open_weights(Path(spec["weights"]))
    network = Network(weights.config, plan=MeshPlan())
    params = jax.tree.map(lambda leaf: jax.numpy.asarray(leaf.whole()), nested(weights.params), is_leaf=_is_leaf)
    rows = [(number, inputs, options) for number, (inputs, options) in enumerate(json.loads(spec["rows"]))]
    single = [(row, option) for row, (_, _, options) in enumerate(rows) for option in range(len(options))]
    requests = {
        "packed": rows,
        "per option": [(i, rows[row][1], [rows[row][2][option]]) for i, (row, option) in enumerate(single)],
    }
    contender.tell({"about": contender.versions("jax", "flax")})
    with network.within():
        scorers = {name: network.scorer(params, batch_size=BATCH_SIZE, input_length=INPUT_LENGTH) for name in requests}
        for line in sys.stdin:
            name = line.strip()
            wall, processor = time.perf_counter(), time.process_time()
            scored = dict(scorers[name](requests[name]))
            took = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
            scores = [score.total for number in sorted(scored) for score in scored[number]]
            contender.tell({**took, "scores": scores, "programs": scorers[name].programs})


def _is_leaf(value: object) -> bool:
    return hasattr(value, "whole")


def export_weights(size: str, path: Path) -> None:
    """Writes a T5 1.1 of that size with random weights as a Hugging Face folder."""
    import jax

    from flan_jax.checkpoint.huggingface import folder
    from flan_jax.checkpoint.leaves import from_array
    from flan_jax.checkpoint.weights import Weights
    from flan_jax.models.t5 import model as t5
    from flan_jax.models.t5.config import T5Config

    sizes = dict(SIZES[size])
    layers = sizes.pop("num_layers")
    config = T5Config(**sizes, num_encoder_layers=layers, num_decoder_layers=layers)
    params = t5.init_params(config, rng=jax.random.key(0))
    flat = {"/".join(key.key for key in keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(params)}
    weights = Weights(
        format="flan_jax",
        layout="random",
        path="random",
        step=0,
        config=config,
        config_is_stated=True,
        params={name: from_array(np.asarray(leaf)) for name, leaf in flat.items()},
    )
    path.mkdir()
    folder.write(weights, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--data", type=Path, default=TOOLS.parents[2] / "shared" / "data")
    parser.add_argument("--torch-python", help="of an environment with torch and transformers")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    tasks = read_rows(given.data)
    share = given.rows // len(tasks)
    # Evenly spread over each task, and interleaved: the order is no help to anyone.
    chosen = [tasks[name][i * len(tasks[name]) // share] for i in range(share) for name in tasks if tasks[name]]
    rows = tokenized(chosen, next((given.data / "vocab_t5").glob("*.model")))
    num_options = sum(len(options) for _, options in rows)
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        place = Path(directory)
        export_weights(given.size, place / "weights")
        spec = {"weights": str(place / "weights"), "rows": json.dumps(rows), "batch_size": BATCH_SIZE}
        (place / "spec.json").write_text(json.dumps(spec))
        ours = [
            sys.executable,
            "-c",
            f"import sys; sys.path.insert(0, {str(TOOLS)!r}); import rank; rank.serve_ours()",
        ]
        served = contender.Server(ours, place / "spec.json")
        contenders = {"packed": served, "per option": served}
        if given.torch_python:
            contenders["transformers"] = contender.Server(
                [given.torch_python, str(TOOLS / "rank_torch.py")], place / "spec.json"
            )
        for one in dict.fromkeys(contenders.values()):
            stack.callback(one.close)
        first = {name: one.ask(name) for name, one in contenders.items()}
        for name in contenders:
            np.testing.assert_allclose(first[name]["scores"], first["packed"]["scores"], rtol=1e-5, atol=1e-4)
        measured: dict[str, list[dict]] = {name: [] for name in contenders}
        for _ in range(given.repeats):
            for name, one in contenders.items():
                measured[name].append(one.ask(name))
    inputs = [len(ids) for ids, _ in rows]
    table = Table(
        title=f"T5 1.1 {given.size}, float32: {len(rows)} rows of {min(inputs)} to {max(inputs)} input tokens, "
        f"{num_options / len(rows):.1f} options"
    )
    for head in ("contender", "rows/s", "processor ms a row", "against transformers", "against per option"):
        table.add_column(head, justify="right")
    medians = {name: statistics.median(len(rows) / turn["wall"] for turn in turns) for name, turns in measured.items()}
    for name, turns in measured.items():
        speeds = sorted(len(rows) / turn["wall"] for turn in turns)
        used = statistics.median(turn["processor"] for turn in turns) / len(rows) * 1e3
        ratios = [
            f"{medians[name] / medians[other]:.2f}" if other in medians else "-"
            for other in ("transformers", "per option")
        ]
        table.add_row(name, f"{medians[name]:,.1f} ({speeds[0]:,.1f}-{speeds[-1]:,.1f})", f"{used:.2f}", *ratios)
    console = Console(width=150)
    console.print(table)
    console.print(f"compiled programs: {first['packed']['programs']}, {first['per option']['programs']} per option")
    packages = {"flan_jax": importlib.metadata.version("flan_jax")}
    for one in contenders.values():
        packages |= one.about
    shown = ", ".join(f"{name} {version}" for name, version in packages.items())
    console.print(f"{shown}; {os.cpu_count()} processors; {' '.join(sys.argv)}", soft_wrap=True)


if __name__ == "__main__":
    main()
