"""Which tasks of the lists are used: what is missing and what a license or a source leaves out is named and counted."""

from pathlib import Path

import pytest

from flan_jax.collections.natural_instructions.selection import Coverage, LabelRule, lists_of, select
from flan_jax.collections.natural_instructions.task_files import TaskFile
from flan_jax.settings import Place, parse
from tests.tasks.superni_synthetic import write_lists


def files(**licenses):
    return {
        name: TaskFile(name=name, path=Path("x"), category="Toy", licenses=tuple(given), sources=("synthetic",))
        for name, given in licenses.items()
    }


@pytest.mark.parametrize(
    ("rule", "labels", "refused"),
    [
        (LabelRule(), ["anything"], None),
        (LabelRule(allow=("CC*",)), ["CC0", "cc by 4.0"], None),
        (LabelRule(allow=("CC*",)), ["CC0", "MIT"], "MIT"),  # Every one has to be allowed.
        (LabelRule(deny=("*nc*",)), ["MIT", "CC BY-NC 4.0"], "CC BY-NC 4.0"),
        (LabelRule(allow=("CC*",), deny=("*NC*",)), ["CC BY-NC 4.0"], "CC BY-NC 4.0"),
        (LabelRule(allow=("MIT",)), ["MIT or so"], "MIT or so"),  # The whole label, not a part of it.
        (LabelRule(allow=("CC*",)), [], None),
    ],
)
def test_every_label_must_be_allowed_and_none_denied(rule, labels, refused):
    assert rule.refused(labels) == refused


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"alow": []}, r"licenses: unknown key 'alow'. Did you mean 'allow'"),
        ({"deny": [3]}, r"licenses.deny\[0\]: expected a text, got 3"),
        (["CC*"], r"licenses: expected a mapping, got \['CC\*'\]"),
    ],
)
def test_a_wrong_rule_is_named_with_its_place(given, message):
    with pytest.raises(ValueError, match=message):
        parse(given, LabelRule, Place(file="my.yaml", keys="licenses"))


def test_without_patterns_everything_is_allowed():
    assert LabelRule().refused(["CC BY-NC 4.0", "unknown"]) is None


def test_missing_and_excluded_tasks_are_separate_and_in_the_lists_order():
    there = files(a=["MIT"], b=["CC BY-NC 4.0"], d=["MIT"])
    found = select(there, {"train": ("d", "c", "b", "a")}, licenses=LabelRule(deny=("*NC*",)))
    assert found["train"] == Coverage(
        listed=("d", "c", "b", "a"), readable=("d", "a"), missing=("c",), left_out={"b": "license 'CC BY-NC 4.0'"}
    )
    found = select(there, {"train": ("a", "b")}, sources=LabelRule(deny=("synthetic",)))
    assert found["train"].left_out == {"a": "source 'synthetic'", "b": "source 'synthetic'"}


def test_the_notes_count_all_and_name_the_first():
    listed = tuple(f"t{i}" for i in range(9))
    found = Coverage(listed=listed, readable=("t8",), missing=listed[:7], left_out={"t7": "license 'GPL'"})
    assert found.notes("train", folder="data") == (
        "7 of 9 tasks of the list 'train' are not in data: t0, t1, t2, t3, t4 and 2 more.",
        "1 of 9 tasks of the list 'train' are left out: t7 (license 'GPL').",
    )
    assert Coverage(listed=("a",), readable=("a",), missing=()).notes("train", folder="data") == ()


def test_the_cross_lingual_lists_are_added_to_the_english_ones_if_they_exist(tmp_path):
    write_lists(tmp_path / "splits" / "default", train=["a"], test=["b"])
    assert set(lists_of(tmp_path, split=None, names=())) == {"train", "test", "dev", "excluded"}
    write_lists(tmp_path / "splits" / "xlingual", train=["a", "c"], test=["d"], excluded=["b"])
    lists = lists_of(tmp_path, split=None, names=())
    assert (lists["xlingual_train"], lists["xlingual_test"], lists["test"]) == (("a", "c"), ("d",), ("b",))


def test_what_one_track_tests_the_other_cannot_train_on(tmp_path):
    write_lists(tmp_path / "splits" / "default", train=["a"], test=["b"])
    write_lists(tmp_path / "splits" / "xlingual", train=["b"], test=["d"])
    with pytest.raises(ValueError, match="b is in a train list and in a test list: remove it from one of them"):
        lists_of(tmp_path, split=None, names=())


def test_one_split_for_all_needs_no_lists(tmp_path):
    lists = lists_of(tmp_path, split="test", names=["a", "b"])
    assert lists == {"train": (), "test": ("a", "b"), "dev": (), "excluded": ()}
