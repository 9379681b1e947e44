"""Filters in YAML files, strictly read, and Self-Instruct's rules."""

import json
from pathlib import Path

import pytest

from flan_jax.settings import Place
from flan_jax.tasks.filters.contamination import Contamination
from flan_jax.tasks.filters.duplicates import Conflicts, NearDuplicates
from flan_jax.tasks.filters.novelty import Novelty
from flan_jax.tasks.filters.row_rules import Length, Truncated
from flan_jax.tasks.filters.settings import FILTERS, parse_filters, self_instruct_filters
from flan_jax.tasks.filters.texts import FileTexts
from flan_jax.tasks.sources.file_sources import JsonlSource, JsonSource


def parsed(*entries):
    return parse_filters(list(entries), Place(file="/data/my.yaml", keys="filters"))


def test_rules_are_written_by_kind_with_their_attributes():
    assert parsed(
        {"kind": "length", "field": "q", "max_words": 9},
        {"kind": "near_duplicates", "fields": ["q", "a"], "threshold": 1},
        {"kind": "conflicts", "inputs": "q", "outputs": ["a"], "unless_blank": "q"},
        {"kind": "truncated", "fields": ["a"], "stop_field": "why"},
        {"kind": "novelty", "field": "q", "once": True},
    ) == (
        Length(field="q", max_words=9),
        NearDuplicates(fields=("q", "a"), threshold=1),
        Conflicts(inputs=("q",), outputs=("a",), unless_blank="q"),
        Truncated(fields=("a",), stop_field="why"),
        Novelty(field="q", once=True),
    )


def test_texts_to_compare_with_are_in_files_relative_to_the_file():
    contamination, novelty = parsed(
        {
            "kind": "contamination",
            "fields": ["q"],
            "evaluation": {"files": ["a.jsonl", "/b.jsonl"], "fields": ["t"]},
            "ngram": 5,
        },
        {"kind": "novelty", "field": "q", "against": {"files": "seeds.json.gz"}},
    )
    lines = FileTexts(files=(Path("/data/a.jsonl"), Path("/b.jsonl")), fields=("t",))
    assert contamination == Contamination(fields=("q",), evaluation=lines, ngram=5)
    assert novelty.against == FileTexts(files=(Path("/data/seeds.json.gz"),))
    assert (type(lines.source), type(novelty.against.source)) == (JsonlSource, JsonSource)
    assert parsed({"kind": "novelty", "field": "q", "against": ["x", "y"]}) == (Novelty(field="q", against=("x", "y")),)


def test_a_preset_expands_to_several_rules_and_may_be_the_only_entry():
    assert parsed("self_instruct", {"kind": "length", "field": "q"})[:-1] == self_instruct_filters()
    assert parse_filters("self_instruct", Place(file="f")) == self_instruct_filters()
    (novelty,) = (
        r for r in parsed({"preset": "self_instruct", "seeds": {"files": "s.jsonl"}}) if isinstance(r, Novelty)
    )
    assert novelty.against == FileTexts(files=(Path("/data/s.jsonl"),))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("self_instructed", r"my.yaml: filters\[0\]: a preset .* must be one of self_instruct; got 'self_instructed'. Did you mean 'self_instruct'"),
        ({"preset": "self_instruct", "seed": 1}, "unknown key 'seed'. Did you mean 'seeds'.* Allowed: preset, seeds"),
        ([1], r"my.yaml: filters\[0\]: expected a mapping, got \[1\]"),
        ({"kind": "lenght"}, r"filters\[0\]: unknown kind 'lenght'. Did you mean 'length'. Allowed: length, keywords"),
        ({"field": "q"}, r"filters\[0\]: the key 'kind' is missing. Allowed: length, keywords"),
        ({"kind": "length", "field": "q", "words": 3}, "unknown key 'words'.* Allowed: kind, field, min_words, max_words"),
        ({"kind": "length"}, "the key 'field' is missing"),
        ({"kind": "length", "field": "q", "min_words": "3"}, r"\[0\].min_words: expected a whole number of at least 0, got '3'"),
        ({"kind": "length", "field": "q", "max_words": True}, "max_words: expected a whole number of at least 0, got True"),
        ({"kind": "novelty", "field": "q", "threshold": "x"}, "threshold: expected a number above 0 and below 1, got 'x'"),
        ({"kind": "novelty", "field": "q", "once": 1}, "once: expected true or false, got 1"),
        ({"kind": "novelty", "field": ["q"]}, r"field: expected a text, got \['q'\]"),
        ({"kind": "novelty", "field": "q", "against": {"file": "a"}}, r"\[0\].against: unknown key 'file'. Did you mean 'files'"),
        ({"kind": "duplicates", "fields": [1]}, r"fields\[0\]: expected a text, got 1"),
        ({"kind": "contamination", "fields": ["q"]}, "the key 'evaluation' is missing"),
        ({"kind": "at_most", "field": "q", "rows": 0}, r"\[0\].rows: expected a whole number of at least 1, got 0"),
    ],
)  # fmt: skip
def test_mistakes_name_the_place_and_what_is_allowed(entry, message):
    with pytest.raises(ValueError, match=message):
        parsed(entry)


def test_every_kind_is_a_rule_with_a_docstring_for_each_attribute():
    import dataclasses

    for kind, rule in FILTERS.items():
        for field in dataclasses.fields(rule):
            assert f"\n      {field.name}: " in rule.__doc__, (kind, field.name)


# What Self-Instruct drops (its bootstrapping and its preparation of instances), one row a rule.
LONG = "Count " + " ".join(["on"] * 150)
DROPPED = [
    ({"instruction": "Add two numbers"}, "instruction: fewer than 4 words"),
    ({"instruction": LONG}, "instruction: more than 150 words"),
    *[
        ({"instruction": f"Please look at the {word} and describe."}, f"instruction: has the word {word!r}")
        for word in ("image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps")
    ],
    ({"instruction": "Please draw a red house."}, "instruction: has the word 'draw'"),
    ({"instruction": "Please plot a sine curve."}, "instruction: has the word 'plot'"),
    ({"instruction": "Please go to the next."}, "instruction: has the word 'go to'"),
    ({"instruction": "Write a program that sorts numbers."}, "instruction: begins with 'Write a program'"),
    ({"instruction": "- Sort these four numbers."}, "instruction: begins with punctuation"),
    ({"instruction": "Über was wird hier gesprochen?"}, "instruction: begins with a character outside ASCII"),
    ({"instruction": "Name the capital of a country you know"}, "instruction: not novel (ROUGE-L above 0.7)"),
    ({"instruction": "Repeat what I am saying.", "input": "yes", "output": "Yes"}, "input equals output"),
    ({"instruction": "Translate this into French, please.", "output": " "}, "output: fewer than 1 words"),
    ({"instruction": "List the parts of a car.", "output": "These are:"}, "output: ends with ':'"),
    ({"instruction": "Continue the line below this.", "input": "He said:"}, "input: ends with ':'"),
    ({"instruction": "Sum up the given article.", "input": "A", "output": "1"}, "conflicting answers"),
    ({"instruction": "Sum up the given article.", "input": "A", "output": "2"}, "conflicting answers"),
    ({"instruction": "Sum up the given article.", "input": "B", "output": "3"}, "conflicting answers"),
]


def test_self_instructs_rules_drop_what_it_dropped_and_count_it_by_reason(tmp_path):
    good = [
        {"instruction": "Explain why the sky looks blue."},
        {"instruction": "Rewrite the sentence politely.", "input": "Move."},
        {"instruction": "Rewrite the sentence politely.", "input": "Go."},
        {"instruction": "Mapping and filenames are fine here."},
        {"instruction": "Is a picturesque view worth it?"},
    ]
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text(json.dumps({"instruction": "Name the capital of a country."}) + "\n")
    rows = [{"input": "", "output": "an answer", **row} for row in [*(row for row, _ in DROPPED), *good, good[0]]]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    from collections import Counter

    from flan_jax.tasks.formats.declare import format_task
    from flan_jax.tasks.rendering import iter_rendered

    filters = parse_filters(
        {"preset": "self_instruct", "seeds": {"files": "seeds.jsonl", "fields": ["instruction"]}},
        Place(file=str(tmp_path / "my.yaml")),
    )
    task = format_task("t", tmp_path / "rows.jsonl", format="self_instruct", filters=filters)
    dropped = Counter()
    retained = list(iter_rendered(task, "train", dropped=dropped))
    assert len(retained) == len(good)
    assert dropped == Counter([*(reason for _, reason in DROPPED), "duplicate"])


def test_of_an_instruction_five_instances_stay():
    from tests.tasks.judging import judged

    row = {"instruction": "Name a number above this.", "output": "many"}
    rows = [{**row, "input": str(i)} for i in range(7)]
    verdicts = zip(*(judged(rule, rows) for rule in self_instruct_filters()), strict=True)
    assert [next(filter(None, reasons), None) for reasons in verdicts] == [None] * 5 + [
        "instruction: more than 5 rows"
    ] * 2
