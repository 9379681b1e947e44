"""Measures decoding against transformers' `generate`: rows per second on real inputs of mixed lengths.

    python tools/bench/decode.py --torch-python=TORCH/bin/python --data=../shared/data
    python tools/bench/decode.py --torch-python=TORCH/bin/python --data=../shared/data --size=tiny --rows=200

The inputs are instances of Super-Natural Instructions, definition and input, in random order. Both sides get them in
that order, with the same batch size, the same random float32 T5 1.1 weights, and the same limits. The end of sequence
is made likely enough that rows end at varied positions; the program checks that both sides generate the same tokens.
This project sorts and batches rows by itself. transformers decodes one padded batch after the other, and once more with
`--sorted`, after its user sorted the rows by length. Each side runs in its own process, and they take turns. The first
pass, which compiles, is not counted. The table shows medians and, in parentheses, the range.
"""

import argparse
import contextlib
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import step_contender as contender
from rich.console import Console
from rich.table import Table

TOOLS = Path(__file__).resolve().parent
SIZES = {
    "tiny": {"emb_dim": 128, "num_heads": 4, "num_layers": 2, "head_dim": 32, "mlp_dim": 256, "vocab_size": 32128},
    "small": {"emb_dim": 512, "num_heads": 6, "num_layers": 8, "head_dim": 64, "mlp_dim": 1024, "vocab_size": 32128},
}
STRATEGIES = {"greedy": {}, "beam 4": {"num_beams": 4}}
EOS_SCALE = 6.0  # Of the output layer's column: outputs of 1 token to the limit, half of them up to a dozen.


def config_of(sizes: dict):
    from flan_jax.models.t5.config import T5Config

    sizes = dict(sizes)
    layers = sizes.pop("num_layers")
    return T5Config(**sizes, num_encoder_layers=layers, num_decoder_layers=layers, logits_via_embedding=False)


def write_weights(path: Path, sizes: dict, *, eos_scale: float) -> None:
    """Draws the weights and writes them under T5X's names."""
    import jax
    from flax.traverse_util import flatten_dict

    from flan_jax.models.t5 import model as t5

    params = flatten_dict(t5.init_params(config_of(sizes), rng=jax.random.key(0)), sep="/")
    arrays = {name: np.array(value) for name, value in params.items()}
    arrays["decoder/logits_dense/kernel"][:, 1] *= eos_scale
    np.savez(path, **arrays)


def read_inputs(data: Path, *, rows: int, longest: int) -> list[list[int]]:
    """Returns token ids of instances, drawn over all tasks, truncated."""
    from flan_jax import vocab

    vocabulary = vocab.load(str(next((data / "vocab_t5").glob("*.model"))))
    texts = []
    for file in sorted((data / "superni_default").glob("test-*.jsonl.gz")):
        with gzip.open(file, "rt") as lines:
            for task in map(json.loads, lines):
                prompts = (f"{task['Definition'][0]}\n\nInput: {one['input']}\nOutput:" for one in task["Instances"])
                texts += list(prompts)[:40]
    order = np.random.default_rng(0).permutation(len(texts))[:rows]
    encoded = vocabulary.encode_batch([texts[i] for i in order])
    return [[*ids[: longest - 1], vocabulary.eos_id] for ids in encoded]


def serve_ours() -> None:
    """Our process: a line names a strategy, and is answered with the seconds and the tokens."""
    import jax
    from flax.traverse_util import unflatten_dict

    from flan_jax.decoding.strategies import strategy_of
    from flan_jax.run.network import Network
    from flan_jax.sharding import MeshPlan

    spec = contender.read_spec()
    network = Network(config_of(spec["sizes"]), plan=MeshPlan())
    with np.load(spec["weights"]) as arrays:
        params = unflatten_dict(dict(arrays), sep="/")
    params = jax.tree.map(jax.numpy.asarray, params)
    rows = list(enumerate(contender.read_rows(spec["inputs"])))
    contender.tell({"about": contender.versions("jax", "flax")})
    for line in sys.stdin:
        decode = network.decoder(
            params,
            strategy=strategy_of(**STRATEGIES[line.strip()]),
            max_decode_length=spec["new_tokens"],
            batch_size=spec["batch_size"],
            vocabulary=None,
            eos_id=1,
        )
        wall, processor = time.perf_counter(), time.process_time()
        tokens = {number: hypotheses[0].tokens.tolist() for number, hypotheses in decode(rows)}
        spent = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
        contender.tell({**spent, "programs": decode.programs, "tokens": [tokens[n] for n in range(len(rows))]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--input-tokens", type=int, default=512, help="longer inputs are truncated")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--data", type=Path, required=True, help="a folder with superni_default and vocab_t5")
    parser.add_argument("--torch-python", help="of an environment with torch and transformers")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--sorted", action="store_true", help="also measure transformers on rows sorted by length")
    parser.add_argument("--eos-scale", type=float, default=EOS_SCALE, help="larger ends rows earlier")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        place = Path(directory)
        rows = read_inputs(given.data, rows=given.rows, longest=given.input_tokens)
        contender.write_rows(place / "inputs.npz", rows)
        write_weights(place / "weights.npz", SIZES[given.size], eos_scale=given.eos_scale)
        spec = {
            "sizes": SIZES[given.size],
            "weights": str(place / "weights.npz"),
            "inputs": str(place / "inputs.npz"),
            "new_tokens": given.new_tokens,
            "batch_size": given.batch_size,
            "dropout": 0.0,
            "seed": 0,
        }
        (place / "spec.json").write_text(json.dumps(spec))
        ours = f"import sys; sys.path.insert(0, {str(TOOLS)!r}); import decode; decode.serve_ours()"
        processes = {
            "ours": contender.Server([sys.executable, "-c", ours], place / "spec.json", stderr=subprocess.DEVNULL)
        }
        turns = [("ours", "ours", "{}")]
        if given.torch_python:
            command = [given.torch_python, str(TOOLS / "decode_torch.py")]
            processes["transformers"] = contender.Server(command, place / "spec.json", stderr=subprocess.DEVNULL)
            turns.append(("transformers", "transformers", "{}"))
            if given.sorted:
                turns.append(("transformers, sorted", "transformers", "{} sorted"))
        for one in processes.values():
            stack.callback(one.close)
        measured: dict[tuple[str, str], list[dict]] = {}
        for strategy in given.strategies:
            # Compiles ours; transformers has nothing to compile, and its first pass differs by little.
            processes["ours"].ask(strategy)
            for _ in range(given.repeats):
                for name, process, request in turns:
                    done = processes[process].ask(request.format(strategy))
                    measured.setdefault((strategy, name), []).append(done)
                    print(strategy, name, f"{done['wall']:.1f} s", file=sys.stderr, flush=True)
    show(measured, rows, given, {name: process.about for name, process in processes.items()})


def show(measured: dict, rows: list[list[int]], given: argparse.Namespace, about: dict) -> None:
    """Prints the table."""
    lengths = [len(row) for row in rows]
    title = f"T5 1.1 {given.size}, float32: {len(rows):,} inputs of {np.mean(lengths):.0f} tokens ({min(lengths)} to "
    table = Table(title=title + f"{max(lengths)}), up to {given.new_tokens} out, batch {given.batch_size}")
    for head in (
        "strategy",
        "contender",
        "rows/s",
        "processor ms a row",
        "ratio",
        "tokens out",
        "equal rows",
        "programs",
    ):
        table.add_column(head, justify="right")
    for (strategy, name), turns in measured.items():
        speeds = [len(rows) / turn["wall"] for turn in turns]
        ours = measured[strategy, "ours"]
        ratio = statistics.median(len(rows) / turn["wall"] for turn in ours) / statistics.median(speeds)
        tokens = turns[0]["tokens"]
        sizes = [len(row) for row in tokens]
        equal = sum(a == b for a, b in zip(tokens, ours[0]["tokens"], strict=True)) / len(rows)
        table.add_row(
            strategy,
            name,
            f"{statistics.median(speeds):.2f} ({min(speeds):.2f}-{max(speeds):.2f})",
            f"{statistics.median(turn['processor'] for turn in turns) / len(rows) * 1e3:.1f}",
            "" if name == "ours" else f"{ratio:.2f}x",
            f"{np.mean(sizes):.1f} ({np.percentile(sizes, 10):.0f}-{np.percentile(sizes, 90):.0f})",
            f"{equal:.1%}",
            str(turns[-1].get("programs", "")),
        )
    console = Console(width=150)
    console.print(table)
    console.print(about)


if __name__ == "__main__":
    main()
