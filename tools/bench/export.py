"""Measures an export against SentencePiece alone on the same rendered texts, and how it scales with cores.

    python tools/bench/export.py                                                  # the embedded vocabulary
    python tools/bench/export.py --vocabulary ../shared/data/vocab_t5/cc_all.32000.sentencepiece.model
    python tools/bench/export.py --rows more.jsonl --inputs "{question}" --targets "{answer}"

Synthetic rows consist of words of this project's documents, with log-normal lengths. An export reads JSON lines,
renders them under three templates, tokenizes, truncates, and writes shards with a manifest. "alone" tokenizes the same
rendered texts, a thousand per call, in the same process, between the exports. Times are medians over the repeats, of
wall and processor time; on a busy machine the processor time is more reliable. The ratio is tokens/s of the export
divided by tokens/s of SentencePiece. The scaling test exports eight tasks of a YAML file with the process limited to a
number of cores; the time includes starting the worker processes.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
SETS = {"short": (40, 8), "middle": (160, 30), "long": (300, 60)}
LENGTHS = {"inputs": 1024, "targets": 256}
TEMPLATES = (
    ("Answer the question below.\n{question}", "{answer}"),
    ("{question}\n\nWhat is the answer?", "The answer is: {answer}"),
    ("Q: {question}\nA:", "{answer}"),
)


def write_rows(path: Path, *, examples: int, medians: tuple[int, int], seed: int = 0) -> None:
    """Writes rows of a question and an answer with log-normal numbers of words."""
    draws = random.Random(seed)
    words = " ".join(file.read_text() for file in sorted(ROOT.glob("docs/*.md"))).split()
    with path.open("w") as file:
        for _ in range(examples):
            counts = [max(1, min(600, round(median * draws.lognormvariate(0, 1)))) for median in medians]
            starts = [draws.randrange(len(words) - 600) for _ in counts]
            question, answer = (" ".join(words[start : start + n]) for start, n in zip(starts, counts, strict=True))
            file.write(json.dumps({"question": question, "answer": answer}) + "\n")


def one_core(name: str, path: Path, *, templates, vocabulary: str, repeats: int) -> dict[str, object]:
    """Exports a file and tokenizes its texts, in turns, on one core."""
    from flan_jax.tasks import registry
    from flan_jax.tasks.exporting.plans import plan
    from flan_jax.tasks.exporting.splits import export_split
    from flan_jax.tasks.rendering import iter_rendered
    from flan_jax.tasks.sources.file_sources import JsonlSource
    from flan_jax.templates.render import Template

    record = registry.TemplatedTask(
        name=name,
        source=JsonlSource(files={"train": path}),
        cluster="bench",
        templates=tuple(Template(inputs=inputs, targets=targets) for inputs, targets in templates),
    )
    task = registry.register(record, vocabulary=vocabulary)
    tokenizer = registry.vocabulary(vocabulary)
    tokenizer.encode("loaded")
    texts = [text for row in iter_rendered(record, "train") for text in (row.rendered.inputs, row.rendered.targets)]
    exported, alone = [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as directory:
            clock, processor = time.perf_counter(), time.process_time()
            planned = plan(registry.of_seqio(task), "train", lengths=LENGTHS, export_dir=Path(directory))
            manifest = export_split(planned, Path(directory))
            exported.append((time.perf_counter() - clock, time.process_time() - processor))
        clock, processor, tokens = time.perf_counter(), time.process_time(), 0
        for start in range(0, len(texts), 1024):
            tokens += sum(map(len, tokenizer.encode_batch(texts[start : start + 1024])))
        alone.append((time.perf_counter() - clock, time.process_time() - processor))
    wall, cpu = (statistics.median(column) for column in zip(*exported, strict=True))
    alone_wall, alone_cpu = (statistics.median(column) for column in zip(*alone, strict=True))
    return {
        "rows": name,
        "examples": f"{manifest.num_examples:,}",
        "tokens an example": f"{tokens / manifest.num_examples:,.0f}",
        "alone, tokens/s": f"{tokens / alone_wall / 1e6:.2f} M",
        "export, tokens/s": f"{tokens / wall / 1e6:.2f} M",
        "ratio, clock": f"{alone_wall / wall:.0%}",
        "ratio, processor": f"{alone_cpu / cpu:.0%}",
        "overhead, us/example": f"{(cpu - alone_cpu) / manifest.num_examples * 1e6:.1f}",
    }


SCALED = """
import json, os, sys, time
os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: int(sys.argv[1])]))
from flan_jax.data.manifest import Request, read_task
from flan_jax.tasks import export
request = Request(name="all", module=sys.argv[2], vocabulary=sys.argv[4], lengths=json.loads(sys.argv[5]))
export.define(request)
started = time.perf_counter()
(manifest,) = export.export_requests([request], export_dir=sys.argv[3])
seconds = time.perf_counter() - started
tokens = sum(sum(read_task(f"{sys.argv[3]}/{member.path}").tokens.values()) for member in manifest.members)
print(json.dumps([seconds, tokens]))
"""


def scaled(cores: int, *, examples: int, vocabulary: str, directory: Path) -> tuple[float, float]:
    """Exports eight tasks with so many cores, in a process of its own; returns seconds and tokens."""
    import yaml

    templates = [{"inputs": inputs, "targets": targets} for inputs, targets in TEMPLATES]
    tasks = {}
    for number in range(8):
        path = directory / f"rows{number}.jsonl"
        if not path.exists():
            write_rows(path, examples=examples, medians=SETS["short"], seed=number)
        tasks[f"task{number}"] = {
            "cluster": "bench", "source": "jsonl", "splits": {"train": path.name}, "templates": templates,
        }  # fmt: skip
    module = directory / "tasks.yaml"
    module.write_text(yaml.safe_dump({"tasks": tasks, "mixtures": {"all": {"members": list(tasks)}}}))
    settings = (str(cores), str(module), str(directory / f"export{cores}"), vocabulary, json.dumps(LENGTHS))
    answer = subprocess.run(
        [sys.executable, "-c", SCALED, *settings], check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    seconds, tokens = json.loads(answer.stdout.splitlines()[-1])
    return seconds, tokens


def table(title: str, lines: list[dict[str, object]]) -> Table:
    made = Table(title=title, title_justify="left")
    for head in lines[0]:
        made.add_column(head, justify="right")
    for line in lines:
        made.add_row(*map(str, line.values()))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", default="embedded", help="embedded, or a SentencePiece model")
    parser.add_argument("--rows", type=Path, help="JSON lines to measure in addition to the synthetic rows")
    parser.add_argument("--inputs", default="{question}", help="pattern for --rows")
    parser.add_argument("--targets", default="{answer}", help="pattern for --rows")
    parser.add_argument(
        "--tokens", type=int, default=4_000_000, help="approximate number of words in each synthetic set"
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--cores", type=int, nargs="*", default=[1, 2], help="to scale over; none to leave it out")
    parser.add_argument("--scale-examples", type=int, default=150_000, help="of each of the eight tasks")
    given = parser.parse_args()
    vocabulary = str(Path(given.vocabulary).resolve()) if given.vocabulary.endswith(".model") else given.vocabulary
    all_cores = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as folder:
        os.sched_setaffinity(0, {min(all_cores)})
        lines = []
        for name, medians in SETS.items():
            path = Path(folder, f"{name}.jsonl")
            write_rows(path, examples=int(given.tokens / 1.65 / sum(medians)), medians=medians)
            lines.append(one_core(name, path, templates=TEMPLATES, vocabulary=vocabulary, repeats=given.repeats))
        if given.rows is not None:
            templates = ((given.inputs, given.targets),)
            lines.append(
                one_core(given.rows.stem, given.rows, templates=templates, vocabulary=vocabulary, repeats=given.repeats)
            )
        os.sched_setaffinity(0, all_cores)
        Console(width=160).print(table(f"One core, vocabulary {given.vocabulary}", lines))
        lines, first = [], None
        for cores in given.cores:
            seconds, tokens = scaled(
                cores, examples=given.scale_examples, vocabulary=vocabulary, directory=Path(folder)
            )
            first = first or seconds
            rate = f"{tokens / seconds / 1e6:.2f} M"
            lines.append(
                {"cores": cores, "seconds": f"{seconds:.1f}", "tokens/s": rate, "times one": f"{first / seconds:.2f}"}
            )
        if lines:
            Console(width=160).print(table("Eight tasks", lines))


if __name__ == "__main__":
    main()
