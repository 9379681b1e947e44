"""Damaged data and YAML files end in a message for the user or in counted bad rows, never in a traceback."""

import contextlib
import gzip
import io
import itertools
import json
import random
import traceback
from collections import Counter

import pytest

from flan_jax.errors import UserError
from flan_jax.tasks.exporting.tokens import Tokenizer
from flan_jax.tasks.prompting import PromptedInput, TaskPrompts, TemplatePrompts
from flan_jax.tasks.rendering import iter_rendered, num_examples, preview
from flan_jax.tasks.yaml_file import read_yaml
from flan_jax.vocab import load
from tests.tasks.formats.test_chat import OPENAI, SCHEMA_GUIDED, TOOLS
from tests.tasks.formats.test_preferences import SHAPES

PLAIN = [{"q": f"What is {i} + 1? é", "a": str(i + 1), "label": i % 2, "x": {"y": [f"t{i}", "u"]}} for i in range(6)]
INSTRUCTIONS = {
    "alpaca": {"instruction": "Add.", "input": "2, 3", "output": "5"},
    "dolly": {"instruction": "Add.", "context": "2, 3", "response": "5", "category": "sums"},
    "self_instruct": {"instruction": "Add.", "instances": [{"input": "2, 3", "output": "5"}], "id": "1"},
    "unnatural": {
        "instruction": "Add.",
        "instances": [{"input": "2, 3", "output": "5", "constraints": "None."}],
        "reformulations": [{"instruction": "Sum up {INPUT}.", "input": "2, 3", "output": "5"}],
    },
    "prompted": {"prompt": "2 + 3 =", "completion": " 5</s>"},
}
RAW = {
    "instruction": "Add.",
    "raw_instances": "Input: 2\nOutput: 3",
    "instance_metadata": {"response": {"choices": [{}]}},
}
ROWS = [
    *((name, [row] * 3) for name, row in INSTRUCTIONS.items()),
    ("self_instruct", [RAW] * 2),
    *(("chat", [row] * 2) for row in (TOOLS, OPENAI, SCHEMA_GUIDED)),
    *(("preference", [row] * 2) for row in SHAPES.values()),
]
ODD = (
    None,
    True,
    0,
    -1,
    1.0,
    1e300,
    10**400,
    "",
    " ",
    "x" * 300,
    "é",
    [],
    {},
    [None],
    [[]],
    {"a": {}},
    [{"text": 5}],
    ["a"],
)
TOKENS = (b"NaN", b"1e999", b"[" * 300, b"{", b"}", b'"', b"\\ud800", b"\xff", b"\x00", b"\n", b"\r", b"\xef\xbb\xbf",
          b"\xff\xfe", b"\x1f\x8b", b",", b";", b"\t", b"{{", b"9" * 5000, b'"a": 1, "a": 2', b"- ", b": ", b"&a ", b"*a ",
          b"!!python/object:os.system ", b"12:30", b"007", b"~", b"null", b".inf", b"{{ x }}", b"[0]", b".")  # fmt: skip
YAML = """
template_sets:
  ask: [{inputs: "{q}", targets: "{a}"}, {inputs: "{x.y[0]} {q}\\n{options_}", targets: "{label}"}]
tasks:
  plain:
    cluster: c
    source: KIND
    splits: {train: FILE, validation: FILE}
    on_bad_row: skip
    fields: {first: "x.y[0]"}
    labels: {label: ["no", "yes"]}
    options: ["no", "yes"]
    references: x.y
    metrics: [exact_match, f1]
    filters: [{kind: length, field: q, min_words: 1}, {kind: duplicates, fields: [q]}]
    templates: ask
    max_rows: 5
mixtures:
  all: {members: {plain: 1}, cap: 3000, temperature: 2, hold_out: {clusters: [d]}}
"""
FORMAT = """
tasks:
  known: {format: FORMAT, splits: {train: FILE, validation: FILE}, on_bad_row: POLICY}
"""


def changed(value, rng):
    """A row with a key dropped, renamed or given another value, at any depth."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(sorted(value))
        action = rng.randrange(4)
        rest = {name: inner for name, inner in value.items() if name != key}
        if action == 0:
            return rest
        if action == 1:
            return {**rest, rng.choice(["q", "label", "from", "chosen", "é", ""]): value[key]}
        return {**value, key: changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        index = rng.randrange(len(value))
        return [*value[:index], changed(value[index], rng), *value[index + rng.randrange(2) :]]
    return rng.choice(ODD)


def damaged(content, rng):
    """Bytes of which some are flipped, lost, repeated or replaced."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(data) + 1)
        action = rng.randrange(6)
        if action == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif action == 1:
            del data[at:]
        elif action == 2:
            del data[at : at + rng.randrange(1, 20)]
        elif action == 3:
            data[at:at] = data[at : at + rng.randrange(1, 60)]
        else:
            data[at : at + rng.randrange(2)] = rng.choice(TOKENS)
    return bytes(data)


def content_of(kind, rows):
    if kind == "json":
        return json.dumps(rows).encode()
    if kind in ("csv", "tsv"):
        separator = "," if kind == "csv" else "\t"
        names = list(rows[0]) if isinstance(rows[0], dict) else ["q"]
        lines = [names, *([row.get(name) for name in names] for row in rows if isinstance(row, dict))]
        cells = ([json.dumps(c) if isinstance(c, dict | list) else str(c) for c in line] for line in lines)
        quoted = (['"' + c.replace('"', '""') + '"' for c in line] if kind == "csv" else line for line in cells)
        return "\n".join(separator.join(line) for line in quoted).encode()
    if kind == "parquet":
        import pyarrow
        from pyarrow import parquet

        stream = io.BytesIO()
        try:
            parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
        except (pyarrow.ArrowException, AttributeError, TypeError, OverflowError):  # Rows of several types.
            return b"PAR1"
        return stream.getvalue()
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "surrogatepass")
    return gzip.compress(lines) if kind == "jsonl.gz" else lines


def use(folder, rng, vocabulary):
    """Writes a data file and a YAML file, one of them damaged, and reads them as export, show and infer do."""
    kind = rng.choice(["jsonl", "jsonl", "json", "csv", "tsv", "parquet", "jsonl.gz"])
    format, rows = rng.choice(ROWS) if rng.random() < 0.6 else (None, PLAIN)
    text = YAML.replace("KIND", kind.removesuffix(".gz")) if format is None else FORMAT.replace("FORMAT", format)
    yaml = text.replace("FILE", f"rows.{kind}").replace("POLICY", rng.choice(["error", "skip"])).encode()
    target = rng.choice(["row", "row", "data", "data", "yaml"])
    if target == "row":
        at = rng.randrange(len(rows))
        rows = [*rows[:at], changed(rows[at], rng), *rows[at + 1 :]]
    content = content_of(kind, rows)
    (folder / f"rows.{kind}").write_bytes(damaged(content, rng) if target == "data" else content)
    (folder / "my.yaml").write_bytes(damaged(yaml, rng) if target == "yaml" else yaml)
    prompts = [TemplatePrompts(template=rng.choice(["{q}", "{x.y[0]}", "{inputs}"]))]
    with contextlib.suppress(UserError):
        tasks = read_yaml(folder / "my.yaml").tasks
        prompts += [TaskPrompts(task=task) for task in tasks]
        for task, split in itertools.product(tasks, ("train", "validation")):
            with contextlib.suppress(UserError):
                tokenizer = Tokenizer(vocabulary=vocabulary, lengths={"inputs": 64, "targets": 16}, with_meta=True)
                tokenizer.encode(list(iter_rendered(task, split, dropped=Counter())))
            with contextlib.suppress(UserError):
                preview(task, split)
                num_examples(task, split)
    for each in prompts:
        policy = rng.choice(["error", "skip"])
        with contextlib.suppress(UserError):
            for _, row, _ in PromptedInput(input=str(folder / f"rows.{kind}"), prompts=each, on_bad_row=policy).rows(
                Counter()
            ):
                json.dumps(row, ensure_ascii=False).encode()


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "seeds", [range(200), pytest.param(range(200, 5200), marks=pytest.mark.slow)], ids=["few", "all"]
)
def test_damaged_files_end_in_a_message_or_in_counted_rows(tmp_path, seeds):
    vocabulary, failed = load("bytes"), {}
    for seed in seeds:
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            use(folder, random.Random(seed), vocabulary)
        except Exception as error:
            failed[seed] = "".join(traceback.format_exception(error)[-3:])
    assert not failed, f"{len(failed)} of {len(seeds)}:\n" + "\n".join(
        f"{s}: {t}" for s, t in list(failed.items())[:20]
    )
