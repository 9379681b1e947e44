"""Prompts of rows for inference: the words of a template or of a task's exports, and bad rows with their place."""

import gzip
import io
import json
import os
import sys
import threading
from collections import Counter

import pytest

from flan_jax.errors import UserError
from flan_jax.tasks.declare import FewShot, TemplatedTask
from flan_jax.tasks.formats.chat import Chat
from flan_jax.tasks.formats.declare import format_task
from flan_jax.tasks.prompting import PromptedInput, TaskPrompts, TemplatePrompts, unescaped
from flan_jax.tasks.rendering import iter_rendered
from flan_jax.tasks.sources.file_sources import InMemorySource
from flan_jax.tasks.yaml_file import read_yaml
from flan_jax.templates.fewshot import FewShotFormat
from flan_jax.templates.render import Template

ASK = TemplatePrompts(template="Q: {q}")
ROWS = [{"q": "2+2"}, {"q": "é"}]


def prompted(path, *, prompts=ASK, **settings):
    dropped = Counter()
    rows = list(PromptedInput(input=str(path), prompts=prompts, **settings).rows(dropped))
    return [row.prompt for row in rows], dropped


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("a.jsonl", "\ufeff" + LINES.replace("\n", "\r\n")),
        ("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("a.jsonl", json.dumps(ROWS)),
        ("a.json", json.dumps(ROWS, indent=1)),
        ("a.csv", "q\n2+2\né\n"),
        ("a.tsv", "q\r2+2\ré\r"),
        ("a.txt", LINES),
    ],
)
def test_every_file_that_training_reads_is_read(tmp_path, name, content):
    assert prompted(write(tmp_path / name, content)) == (["Q: 2+2", "Q: é"], {})


@pytest.mark.tensorflow
def test_parquet_and_another_delimiter_are_read(tmp_path):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert prompted(tmp_path / "a.parquet")[0] == ["Q: 2+2", "Q: é"]
    path = write(tmp_path / "a.csv", "q;a\n2+2;4\n")
    assert prompted(path, delimiter=";")[0] == ["Q: 2+2"]
    with pytest.raises(UserError, match="semicolons"):
        prompted(path)


@pytest.mark.parametrize(
    ("content", "message", "reason"),
    [
        ('{"q": null}', r"a\.jsonl:2: template '--template': its inputs name the field 'q', which the row lacks",
         "a template failed"),
        ('{"q": NaN}', r"a\.jsonl:2: the field 'q' holds nan, which is not a finite number", "not a finite number"),
        ("é".encode("latin-1"), r"a\.jsonl:2: not UTF-8 .*'é'", "not Unicode"),
        ("{", r"a\.jsonl:2: not JSON", "not JSON"),
        ('{"q": [1]}', r"a\.jsonl:2: .*the field 'q' of its inputs holds \[1\]", "a template failed"),
        ('{"q": "a", "prediction": "b"}', r"a\.jsonl:2: the row has a field 'prediction'", "field is taken"),
    ],
)  # fmt: skip
def test_a_bad_row_is_an_error_with_file_and_line_or_counted(tmp_path, content, message, reason):
    content = content if isinstance(content, bytes) else content.encode()
    path = write(tmp_path / "a.jsonl", b'{"q": 1}\n' + content + b'\n{"q": 3}\n')
    with pytest.raises(UserError, match=message + r".*--on_bad_row=skip"):
        prompted(path)
    assert prompted(path, on_bad_row="skip") == (["Q: 1", "Q: 3"], {reason: 1})


def test_an_input_without_rows_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"--input=.*a\.jsonl has no row"):
        prompted(write(tmp_path / "a.jsonl", "\n"))
    with pytest.raises(UserError, match=r"has no usable row \(not JSON: 1\)"):
        prompted(write(tmp_path / "a.jsonl", "{\n"), on_bad_row="skip")


@pytest.mark.parametrize("zipped", [False, True])
def test_standard_input_is_text_or_json(monkeypatch, zipped):
    for content, prompts in ((b"one\ntwo\n", ["one", "two"]), (b'{"inputs": "one"}\n', ["one"])):
        stream = io.BytesIO(gzip.compress(content) if zipped else content)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(stream)))
        assert prompted("-", prompts=TemplatePrompts(template="{inputs}"))[0] == prompts


def test_standard_input_is_recognized_by_its_first_line_however_slowly_it_comes(monkeypatch):
    read, write = os.pipe()

    def produce():
        for block in (b"\n", b'{"inputs"', b': "one"}\n', b'{"inputs": "two"}\n'):
            os.write(write, block)
            received.wait(0.05)  # Each block is read before the next one comes, or nearly always.
        os.close(write)

    received = threading.Event()
    thread = threading.Thread(target=produce)
    thread.start()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(open(read, "rb")))
    assert prompted("-", prompts=TemplatePrompts(template="{inputs}"))[0] == ["one", "two"]
    thread.join()


def test_a_text_file_is_one_prompt_per_line(tmp_path):
    path = write(tmp_path / "a.txt", "one\r\n\n{two}\n")
    assert prompted(path, prompts=TemplatePrompts(template="{inputs}"))[0] == ["one", "{two}"]


def test_a_missing_field_under_the_default_template_explains_the_choice(tmp_path):
    path = write(tmp_path / "a.jsonl", LINES)
    with pytest.raises(
        UserError, match=r"Without a template the prompt is the field `inputs`; give --template=.*--task"
    ):
        prompted(path, prompts=TemplatePrompts(template="{inputs}"))


def test_a_template_typed_in_a_shell_has_newlines_and_paths_into_rows(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"q": "a\\\\nb", "answers": {"text": ["x"]}}\n')
    prompts = TemplatePrompts(template=r"{q}\nAnswer:\t{answers.text[0]}")
    assert prompted(path, prompts=prompts)[0] == ["a\\nb\nAnswer:\tx"]  # The row's own backslash stays.
    assert unescaped(r"a\\n \\\n \s \ ".strip()) == "a\\n \\\n \\s \\"
    assert prompts.identity != TemplatePrompts(template=r"{q}\\nAnswer:").identity


YAML = """
tasks:
  t:
    source: jsonl
    splits: {train: t.jsonl, validation: t.jsonl}
    fields: {text: body.text}
    labels: {label: [bad, good]}
    options: [bad, good]
    templates:
      - {inputs: "{text}\\nGood or bad?\\n{options_}", targets: "{label}"}
      - {inputs: "Rate: {text}", targets: "{label}"}
      - {inputs: "Write something {label}.", targets: "{text}", direction: inverted}
"""


def test_prompts_of_a_task_are_those_of_its_exports_and_need_no_target(tmp_path):
    rows = [{"body": {"text": f"Row {i}."}, "label": i % 2} for i in range(4)]
    path = write(tmp_path / "t.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    (task,) = read_yaml(write(tmp_path / "t.yaml", YAML)).tasks
    exported = [row.rendered.inputs for row in iter_rendered(task, "validation")]  # Templates 0 and 1 in turn.
    by_template = [prompted(path, prompts=TaskPrompts(task=task, template=i))[0] for i in (0, 1)]
    assert exported == [by_template[i % 2][i] for i in range(4)]
    assert prompted(path, prompts=TaskPrompts(task=task))[0] == by_template[0]
    asked = write(
        tmp_path / "asked.jsonl", '{"body": {"text": "Row 0."}}\n{"body": {}}\n{"body": {"text": "Row 2."}}\n'
    )
    found, dropped = prompted(asked, prompts=TaskPrompts(task=task), on_bad_row="skip")
    assert found == [by_template[0][0], by_template[0][2]] and dropped == {"a template failed": 1}
    with pytest.raises(UserError, match=r"asked\.jsonl:1: task 't', template 2: .*'label', which the row lacks"):
        prompted(asked, prompts=TaskPrompts(task=task, template=2))
    with pytest.raises(UserError, match="template_index must be 0 to 2 for task 't'; got 3"):
        TaskPrompts(task=task, template=3)
    identities = [TaskPrompts(task=task, template=i).identity for i in range(3)]
    assert identities[0] != identities[1] != identities[2]


def test_a_conversation_asks_for_its_next_turn(tmp_path):
    turns = [("human", "Hi."), ("gpt", "Hello."), ("human", "How?"), ("gpt", "Well.")]
    rows = [{"conversations": [{"from": who, "value": said} for who, said in turns[:n]]} for n in (4, 3, 0)]
    path = write(tmp_path / "t.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    task = format_task("talk", {"train": path}, format=Chat(max_tokens=None, turns="last"))
    found, dropped = prompted(path, prompts=TaskPrompts(task=task), on_bad_row="skip")
    assert found == ["User: Hi.\nAssistant: Hello.\nUser: How?\nAssistant:"] * 2 and dropped.total() == 1
    assert next(iter(Chat(max_tokens=None, turns="last")(rows[0])))["prompt"] == found[0]


def test_tasks_that_show_solved_examples_are_refused():
    source = InMemorySource(data={"train": ROWS})
    shots = FewShot(num_exemplars=1, formats=(FewShotFormat(name="plain"),))
    task = TemplatedTask(
        name="t", source=source, cluster="c", templates=(Template(inputs="{q}", targets="{q}"),), few_shot=shots
    )
    with pytest.raises(UserError, match="Task 't' shows solved examples"):
        TaskPrompts(task=task)
