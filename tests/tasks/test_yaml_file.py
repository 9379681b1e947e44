import json
from collections import Counter
from pathlib import Path

import pytest

from flan_jax.data.holdout import HoldOut
from flan_jax.data.rates import ProportionalRate
from flan_jax.errors import UserError
from flan_jax.tasks import yaml_file
from flan_jax.tasks.filters.duplicates import Duplicates
from flan_jax.tasks.filters.row_rules import Length
from flan_jax.tasks.formats.chat import Chat
from flan_jax.tasks.formats.declare import format_task, jsonl_task
from flan_jax.tasks.label_names import LabelNames
from flan_jax.tasks.pretraining.task import PretrainingTask
from flan_jax.tasks.rendering import iter_rendered
from flan_jax.tasks.sources.file_sources import (
    CsvSource,
    JsonlSource,
    JsonSource,
    ParquetSource,
    TfdsSource,
    TsvSource,
    WikiSource,
)
from flan_jax.tasks.sources.mapped import MappedSource
from flan_jax.tasks.yaml_file import Mixture, Share, read_yaml

FIXTURES = Path(__file__).parents[1] / "fixtures"
TASK = """
tasks:
  t:
    cluster: c
    source: jsonl
    splits: {train: t.jsonl}
    templates: [{inputs: "{q}", targets: "{a}"}]
"""
PRETRAIN = "pretraining: {w: {source: wiki, splits: {train: w.gz}"
SHARE = "mixtures: {m: {members: [t], share: {member: w, share: 0.1"


def write(tmp_path, text):
    path = tmp_path / "my.yaml"
    path.write_text(text)
    return path


def test_the_example_file_is_read_completely():
    declared = read_yaml(FIXTURES / "user_tasks.yaml")
    assert declared.vocabulary == "bytes"
    capitals, reviews = declared.tasks
    assert (capitals.name, capitals.cluster, capitals.license) == ("user_capitals", "geography", "CC0")
    assert [template.name for template in capitals.templates] == ["question", "sentence", "backwards"]
    assert capitals.metrics == ("exact_match", "f1")
    assert [r.inputs for _, r, *_ in iter_rendered(capitals, "train")][:3] == [
        "What is the capital of Peru?", "Kenya's capital is", "Which country's capital is Oslo?",
    ]  # fmt: skip
    assert (reviews.options, reviews.evaluation, reviews.metrics) == (("good", "bad"), "rank", ("rank_accuracy",))
    assert reviews.source == TsvSource(
        files=dict.fromkeys(("train", "validation"), FIXTURES / "user_data/reviews.tsv"), on_bad_row="skip"
    )
    assert declared.mixtures == {
        "user_all": Mixture(members=("user_capitals", "user_reviews"), cap=3, temperature=2),
        "user_weighted": Mixture(members={"user_all": 3, "user_capitals": 1}),
    }
    every, weighted = declared.mixtures.values()
    assert every.weights == (("user_capitals", None), ("user_reviews", None))
    assert every.default_rate == ProportionalRate(maximum=3, temperature=2)
    assert weighted.weights == (("user_all", 3), ("user_capitals", 1))


def test_the_schema_in_the_docstring_is_one(tmp_path):
    text = yaml_file.__doc__.partition("relative to the file:\n")[2]
    declared = read_yaml(write(tmp_path, "\n".join(line[4:] for line in text.splitlines())))
    capitals, reviews, squad, instructions, talk = declared.tasks
    assert instructions == format_task(
        "instructions",
        {"train": [tmp_path / "data/alpaca.json"]},
        format="alpaca",
        filters=(Length(field="instruction", min_words=4), Duplicates(fields=("instruction", "input"))),
    )
    assert talk == format_task(
        "talk", {"train": [tmp_path / "data/chats.jsonl"]}, format=Chat(max_tokens=512, turns="last")
    )
    assert capitals.source == MappedSource(
        source=JsonlSource(
            files={
                "train": tmp_path / "data/train.jsonl",
                "validation": [tmp_path / "data/a.jsonl", tmp_path / "data/b.jsonl.gz"],
            },
            on_bad_row="skip",
        ),
        fields={"question": "query.text"},
        on_bad_row="skip",
    )
    assert reviews.source == TfdsSource(
        name="my_reviews:1.0.0", splits={"train": "train[:90%]", "validation": "train[90%:]"}
    )
    assert squad.cluster == "squad" and squad.references == "answers.text"
    assert reviews.normalizer == LabelNames(names={"label": ("negative", "positive")})
    assert reviews.templates[0].inputs == "Good or bad?\n{text}\n{options_}"
    assert list(declared.mixtures) == ["all_mine", "careful", "weighted", "with_text"]
    (wiki,) = declared.pretraining
    assert wiki == PretrainingTask(name="wiki", source=WikiSource(files={"train": tmp_path / "data/wiki_*.gz"}))
    assert declared.mixtures["with_text"].share == Share(member="wiki", share=0.05, of="tokens")
    assert declared.mixtures["careful"].hold_out == HoldOut(
        clusters=("translation",), corpora=("my_atlas",), tasks=("capitals",)
    )
    assert declared.collections["natural_instructions"].values == {
        "data_dir": "data/superni",
        "max_source_tokens": "1024",
    }
    assert declared.inverted == ("reviews",)


def test_paths_lead_into_rows_and_bad_rows_are_a_key_of_the_task(tmp_path):
    rows = [
        {"q": "Where?", "answers": {"text": ["Paris", "in Paris"]}, "meta": {"id": "1"}},
        {"q": "Why?", "answers": {"text": []}, "meta": {"id": "2"}},
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = """
tasks:
  t:
    source: jsonl
    splits: {train: t.jsonl, validation: t.jsonl}
    on_bad_row: skip
    fields: {id: meta.id}
    templates: [{inputs: "{id} {q}", targets: "{answers.text[0]}"}]
    references: answers.text
"""
    (task,) = read_yaml(write(tmp_path, text)).tasks
    assert task.cluster == "t"
    for split in ("train", "validation"):
        dropped = Counter()
        ((_, rendered, *_),) = iter_rendered(task, split, dropped=dropped)
        assert (rendered.inputs, rendered.targets) == ("1 Where?", "Paris")
        assert rendered.references == ("Paris", "in Paris") and dropped == {"lacks a field": 1}
    chat = "tasks: {t: {format: chat, splits: {train: t.jsonl}, on_bad_row: skip}}"
    assert read_yaml(write(tmp_path, chat)).tasks[0].source.on_bad_row == "skip"
    wiki = PRETRAIN + ", on_bad_row: skip}}"
    assert read_yaml(write(tmp_path, wiki)).pretraining[0].source.on_bad_row == "skip"


def test_rows_may_belong_to_groups(tmp_path):
    grouped = "cluster: c\n    group: idx\n    options: ['no', 'yes']\n    metrics: [multirc]"
    (task,) = read_yaml(write(tmp_path, TASK.replace("cluster: c", grouped))).tasks
    assert (task.group, task.metrics) == ("idx", ("multirc",))


def test_omitted_settings_have_the_records_defaults(tmp_path):
    (task,) = read_yaml(write(tmp_path, TASK)).tasks
    assert (task.metrics, task.evaluation, task.templates_per_row, task.max_rows) == (
        ("exact_match",),
        "generate",
        1,
        None,
    )


def test_numbers_may_be_options_and_paths_are_relative_to_the_file(tmp_path):
    text = TASK.replace("source: jsonl", "source: parquet\n    options: [1, 2.5]\n    max_rows: 5")
    declared = read_yaml(write(tmp_path, f"vocabulary: words/my.model\n{text}"))
    assert declared.vocabulary == str(tmp_path / "words/my.model")
    (task,) = declared.tasks
    assert task.options == ("1", "2.5") and task.max_rows == 5
    assert task.source == ParquetSource(files={"train": tmp_path / "t.jsonl"})


def test_options_are_a_list_or_the_field_that_has_one(tmp_path):
    for written, options in (("choices", "choices"), ("[choices]", ("choices",))):
        (task,) = read_yaml(
            write(tmp_path, TASK.replace("source: jsonl", f"source: jsonl\n    options: {written}"))
        ).tasks
        assert task.options == options


def test_lists_and_tables_are_sources_too(tmp_path):
    (tmp_path / "t.jsonl").write_text('q,a\n"one,\ntwo",3\n')
    (task,) = read_yaml(write(tmp_path, TASK.replace("source: jsonl", "source: {kind: csv, on_bad_row: skip}"))).tasks
    assert task.source == CsvSource(files={"train": tmp_path / "t.jsonl"}, on_bad_row="skip")
    assert [r.inputs for _, r, *_ in iter_rendered(task, "train")] == ["one,\ntwo"]
    (task,) = read_yaml(write(tmp_path, TASK.replace("source: jsonl", "source: json"))).tasks
    assert task.source == JsonSource(files={"train": tmp_path / "t.jsonl"})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tasks:", "task:", "my.yaml, line 2: unknown key 'task'. Did you mean 'tasks'"),
        (TASK, "{}", "my.yaml: it declares neither tasks nor mixtures"),
        ("tasks:", "vocabulary: [5]\ntasks:", "my.yaml, line 2: vocabulary: expected a text, got \\[5\\]"),
        ("cluster: c", "clusters: c", "my.yaml, line 4: tasks.t: unknown key 'clusters'. Did you mean 'cluster'"),
        ("source: jsonl", "license: c", "my.yaml, line 3: tasks.t: the key 'source' is missing"),
        ("cluster: c", "on_bad_row: skp", "line 4: tasks.t.on_bad_row: expected one of error, skip.*mean 'skip'"),
        (
            "source: jsonl",
            "source: {kind: jsonl, on_bad_row: skip}\n    on_bad_row: skip",
            "line 6: tasks.t.on_bad_row: on_bad_row is given twice",
        ),
        ("source: jsonl", "source: {kind: csv, delimiter: ab}", "delimiter must be one character"),
        ("  t:", "  a b:", "my.yaml, line 3: tasks.a b: The name 'a b' cannot be"),
        (
            "source: jsonl",
            "source: jsonll",
            "tasks.t.source: unknown kind 'jsonll'. Did you mean 'jsonl'. Allowed: jsonl, json, csv, tsv",
        ),
        ("source: jsonl", "source: {kind: tfds}", "tasks.t.source: the key 'name' is missing"),
        ("source: jsonl", "source: {kind: jsonl, columns: [a]}", "tasks.t.source: unknown key 'columns'"),
        (
            "source: jsonl",
            "source: {kind: jsonl, on_bad_row: skp}",
            "tasks.t.source.on_bad_row: expected one of error, skip, .* Did you mean 'skip'",
        ),
        ("{train: t.jsonl}", "t.jsonl", "tasks.t.splits: expected a mapping, got 't.jsonl'"),
        ("{train: t.jsonl}", "{train: [{}]}", r"tasks.t.splits.train\[0\]: expected a path, got {}"),
        (
            '[{inputs: "{q}", targets: "{a}"}]',
            "ask",
            "tasks.t.templates: a template set must be one of none; got 'ask'",
        ),
        ('"{q}"', '"{q"', r"tasks.t.templates\[0\]: .*brace without its partner"),
        (
            "cluster: c",
            "cluster: c\n    metrics: f2",
            "line 5: tasks.t.metrics: Task 't': a metric must be one of .*; got 'f2'. Did you mean 'f1'",
        ),
        ("cluster: c", "cluster: c\n    options: [x, y, x]", "line 5: tasks.t.options: .*'x' is listed twice"),
        ("cluster: c", "cluster: c\n    metrics: [f1, f1]", "line 5: tasks.t.metrics: .*'f1' is listed twice"),
        ("cluster: c", "cluster: c\n    labels: {a: {1: x, 1.0: y}}", "line 5: tasks.t.labels.a.1.0: the key 1.0 has"),
        (
            "templates: [",
            "templates: [{name: x, inputs: a, targets: b}, {name: x, inputs: b, targets: a}, ",
            "tasks.t.templates: two templates have the name 'x'",
        ),
        (
            "cluster: c",
            "cluster: c\n    max_rows: many",
            "tasks.t.max_rows: expected a whole number of at least 1, got 'many'",
        ),
        ("cluster: c", "cluster: c\n    labels: [a]", "tasks.t.labels: expected a mapping, got"),
        ("cluster: c", "cluster: c\n    format: alpaca", "tasks.t: unknown key 'source'"),
        ("source: jsonl", "format: alpacas", "tasks.t.format: unknown kind 'alpacas'. Did you mean 'alpaca'. Allowed"),
        (
            "source: jsonl",
            "format: {kind: chat, turn: last}",
            "tasks.t.format: unknown key 'turn'. Did you mean 'turns'. Allowed: kind, on_bad_row, max_tokens",
        ),
        (
            "source: jsonl",
            "format: {kind: chat, max_tokens: 1}",
            "tasks.t.format.max_tokens: expected a whole number of at least 2, got 1",
        ),
        ("source: jsonl", "format: alpaca\n    evaluation: rank", "tasks.t: Alpaca rows have no options to rank"),
        (
            "source: jsonl",
            "format: alpaca\n    evaluation: rnk",
            "tasks.t.evaluation: expected one of generate, rank, got 'rnk'. Did you mean 'rank'",
        ),
        ("cluster: c", "cluster: c\n    filters: [{kind: long}]", r"tasks.t.filters\[0\]: unknown kind 'long'"),
        ("tasks:", "mixtures: {m: [t]}\ntasks:", "mixtures.m: expected a mapping .*got"),
        ("tasks:", "mixtures: {m: {member: [t]}}\ntasks:", "mixtures.m: unknown key 'member'. Did you mean 'members'"),
        ("tasks:", "mixtures: {m: {cap: 3}}\ntasks:", "mixtures.m: the key 'members' is missing"),
        (
            "tasks:",
            "mixtures: {m: {members: {t: all}}}\ntasks:",
            "mixtures.m.members.t: expected a number above 0, got 'all'",
        ),
        ("tasks:", "mixtures: {m: {members: [t], cap: 0}}\ntasks:", "mixtures.m.cap: expected a number above 0, got 0"),
        (
            "tasks:",
            "mixtures: {m: {members: [t], temperature: hot}}\ntasks:",
            "mixtures.m.temperature: expected a number of at least 0.05, got 'hot'",
        ),
        (
            "tasks:",
            f"{PRETRAIN}, objektive: prefix_lm}}}}\ntasks:",
            "pretraining.w: unknown key 'objektive'. Did you mean",
        ),
        (
            "tasks:",
            f"{PRETRAIN}, objective: lm}}}}\ntasks:",
            "pretraining.w.objective: expected one of span_corruption, prefix_lm, got 'lm'",
        ),
        (
            "tasks:",
            f"{PRETRAIN}, noise: {{density: 2}}}}}}\ntasks:",
            "pretraining.w.noise.density: expected a number of at least 0 and below 1, got 2",
        ),
        (
            "tasks:",
            f"{PRETRAIN}, noise: {{mean_span: long}}}}}}\ntasks:",
            "pretraining.w.noise.mean_span: expected a number of at least 1, got 'long'",
        ),
        ("tasks:", "pretraining: {w: {source: wiki}}\ntasks:", "pretraining.w: the key 'splits' is missing"),
        (
            "tasks:",
            f"{SHARE}, of: token}}}}}}\ntasks:",
            "mixtures.m.share.of: expected one of examples, tokens, got 'token'. Did you mean",
        ),
        ("tasks:", f"{SHARE}}}}}}}\ntasks:", "mixtures.m.share: the key 'of' is missing; got member, share"),
        (
            "tasks:",
            f"{SHARE.replace('0.1', 'some')}, of: tokens}}}}}}\ntasks:",
            "mixtures.m.share.share: expected a number above 0 and below 1, got 'some'",
        ),
        ("tasks:", "mixtures: {m: {members: [t], allow_leak: [t]}}\ntasks:", "mixtures.m: unknown key 'allow_leak'"),
        ("tasks:", "mixtures: {m: {members: [t], hold_out: {cluster: x}}}\ntasks:", "hold_out: unknown key 'cluster'"),
        ("tasks:", "mixtures: {m: {members: [n]}, n: {members: [m]}}\ntasks:", "the mixtures m, n contain one another"),
    ],
)
def test_mistakes_name_the_file_the_line_the_keys_and_the_fix(tmp_path, old, new, message):
    assert old in TASK
    with pytest.raises(ValueError, match=message):
        read_yaml(write(tmp_path, TASK.replace(old, new)))


def test_a_jsonl_task_takes_a_path_or_splits():
    one = jsonl_task("t", "a.jsonl", inputs="{q}", targets="{a}", options=["x", "y"], on_bad_row="skip")
    assert one.source == JsonlSource(files={"train": "a.jsonl"}, on_bad_row="skip")
    assert (one.cluster, one.options, one.metrics) == ("user", ("x", "y"), ("exact_match",))
    words = jsonl_task("t", "a.jsonl", inputs=["{q}", "Q: {q}"], targets="{a}").templates
    assert [template.inputs for template in words] == ["{q}", "Q: {q}"]
    several = jsonl_task("t", {"train": ["a", "b"], "test": "c"}, inputs="{q}", targets="{a}", options="choices")
    assert several.source.splits == ("train", "test") and several.options == "choices"


def test_names_and_rates_are_refused_with_file_line_and_keys(tmp_path, subtests):
    mixtures = {
        "m: {members: []}": "my.yaml, line 9: mixtures.m: it has no members",
        "m: {members: [a, a]}": "my.yaml, line 9: mixtures.m: the member 'a' is named twice",
        "m: {members: [t], temperature: 0.001}": (
            "line 9: mixtures.m.temperature: expected a number of at least 0.05, got 0.001"
        ),
        "m: {members: [t], cap: .nan}": "mixtures.m.cap: expected a number above 0, got .nan",
        "m: {members: [t], cap: -5}": "mixtures.m.cap: expected a number above 0, got -5",
        "m: {members: {t: 0}}": "mixtures.m.members.t: expected a number above 0, got 0",
        "m: {members: {t: 1e999}}": "mixtures.m.members.t: expected a number above 0, got 1e999",
        "m: {members: [t], share: {member: w, share: 1.5, of: tokens}}": "mixtures.m.share.share: expected a number above 0",
        "t: {members: [t]}": "my.yaml, line 9: mixtures.t: the name 't' is taken: .*my.yaml, line 3: tasks.t",
    }
    for text, message in mixtures.items():
        with subtests.test(text), pytest.raises(UserError, match=message):
            read_yaml(write(tmp_path, f"{TASK}mixtures:\n  {text}\n"))
