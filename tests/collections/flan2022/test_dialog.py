"""Dialogue sets: the predicted turn, its style, the rows that count, forward and inverted."""

import json
from collections import Counter

import pytest

from flan_jax.collections.catalog import FolderSettings
from flan_jax.collections.flan2022 import dialog
from flan_jax.collections.flan2022.dialog_rows import Conversations, NumberedRows, PredictTurn
from flan_jax.tasks.rendering import iter_rendered
from flan_jax.tasks.sources.file_sources import InMemorySource
from flan_jax.tasks.sources.rows import BadRow
from flan_jax.templates import dialogue

WIKI, QRECC = dialog.SETS


def conversation(number, *, turns=8):
    return {"utterances": ["I am here to help.", *(f"turn {number}.{i}" for i in range(turns))]}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "wiki_dialog_train.jsonl", [conversation(i) for i in range(200)])
    write(tmp_path / "wiki_dialog_validation.jsonl", [conversation(i) for i in range(3)])
    rows = [{"context": [f"said {i}.{t}" for t in range(2 * i)], "turn_id": i} for i in range(1, 12)]
    write(tmp_path / "qrecc_train.jsonl", rows)
    return tmp_path


def texts(task, split="train", dropped=None):
    return [r.rendered for r in iter_rendered(task, split, dropped=dropped)]


def asked_turns(num_turns, *, rows=3000):
    ask = PredictTurn(task="t", turns="said")
    said = [str(i) for i in range(num_turns)]
    return Counter(int(ask({"said": said, "split_": "train", "number_": n})["answer"]) for n in range(rows))


@pytest.mark.parametrize(("num_turns", "pairs"), [(2, 1), (3, 1), (4, 2), (9, 4), (40, 20), (41, 20), (90, 20)])
def test_the_turn_is_the_second_of_a_pair_drawn_evenly_below_half_the_turns_and_20(num_turns, pairs):
    found = asked_turns(num_turns)
    assert set(found) == {2 * i + 1 for i in range(pairs)}
    assert max(found.values()) < 1.6 * min(found.values())


def test_a_draw_depends_only_on_seed_task_split_and_index():
    row = {"said": [str(i) for i in range(40)], "split_": "train", "number_": 5}

    def asked(**changes):
        settings = {key: changes.pop(key) for key in ("task", "seed") if key in changes}
        ask = PredictTurn(**{"task": "t", "turns": "said", "styles": dialogue.pools(), **settings})
        return ask({**row, **changes})

    assert asked() == asked() == asked(passage="another field")
    for change in ({"task": "u"}, {"seed": 1}, {"number_": 6}):
        assert asked(**change) != asked(), change
    evaluated = {
        split: [asked(split_=split, number_=n)["answer"] for n in range(9)] for split in ("validation", "test")
    }
    assert evaluated["validation"] != evaluated["test"]


def test_training_varies_the_style_and_evaluation_never_does(folder):
    task = dialog.record(WIKI, folder)
    train = [ask["dialogue"] for ask in map(task.normalizer, task.source.rows("train"))]
    assert len({text.partition("turn")[0] for text in train}) > 100
    evaluated = [ask["dialogue"] for ask in map(task.normalizer, task.source.rows("validation"))]
    assert all(text.startswith("DIALOGUE:\n- turn") for text in evaluated)
    plain = dialog.record(WIKI, folder, varied=False)
    shown = [ask["dialogue"] for ask in map(plain.normalizer, plain.source.rows("train"))]
    assert all(text.startswith("DIALOGUE:\n- turn") for text in shown)


def test_the_greeting_is_no_turn_and_every_turn_before_the_answer_is_shown(folder):
    for rendered in texts(dialog.record(WIKI, folder)):
        assert "I am here" not in rendered.inputs
        number, asked = rendered.targets.removeprefix("turn ").split(".")
        assert [f"turn {number}.{i}" in rendered.inputs for i in range(int(asked) + 1)] == [True] * int(asked) + [False]


def test_qrecc_retains_rows_with_turn_id_above_6(folder):
    dropped = Counter()
    retained = texts(dialog.record(QRECC, folder), dropped=dropped)
    assert len(retained) == 5 and dropped == {"too early in its conversation": 6}
    assert {text.targets.removeprefix("said ").split(".")[0] for text in retained} == {"7", "8", "9", "10", "11"}


def test_rows_without_a_turn_to_ask_for_are_counted_and_broken_ones_are_named(folder):
    rows = [conversation(0), conversation(1, turns=1), {"utterances": ["greeting", "Q?", " "]}]
    write(folder / "wiki_dialog_train.jsonl", rows)
    dropped = Counter()
    assert len(texts(dialog.record(WIKI, folder), dropped=dropped)) == 1
    assert dropped == {"fewer than two turns": 1, "the predicted turn is empty": 1}
    write(folder / "wiki_dialog_train.jsonl", [conversation(0), {"utterances": "one text"}])
    with pytest.raises(ValueError, match=r"wiki_dialog_train.jsonl:2: .*dialogue"):
        texts(dialog.record(WIKI, folder))
    dropped = Counter()
    write(folder / "qrecc_train.jsonl", [{"context": ["a", "b"], "turn_id": 9}, {"context": ["a", "b"]}])
    assert len(texts(dialog.record(QRECC, folder), dropped=dropped)) == 1 and dropped == {"no turn_id": 1}


def test_half_of_the_inverted_templates_predict_the_previous_turn_and_half_all_earlier_ones(folder):
    task = dialog.record(WIKI, folder, inverted=True)
    assert Counter(template.name for template in task.templates) == {"earlier": 5, "previous": 5}
    row = task.normalizer(next(iter(task.source.rows("train"))))
    for template in task.templates:
        rendered = template.render(row)
        assert row["answer"] in rendered.inputs and template.direction == "inverted"
        wanted = row["earlier"] if template.name == "earlier" else row["previous"]
        assert rendered.targets == wanted and row["previous"] in wanted and row["answer"] not in wanted
    assert row["earlier"].startswith("DIALOGUE:\n- turn 0.0")


def test_ten_templates_each_way_all_different(folder):
    for inverted in (False, True):
        templates = dialog.record(WIKI, folder, inverted=inverted).templates
        assert len({repr(template.identity) for template in templates}) == 10


def test_numbered_rows_contain_their_index_and_pass_bad_rows_through():
    source = NumberedRows(source=InMemorySource(data={"train": [{"a": 1}, "no row", {"a": 2}]}))
    first, broken, last = source.read("train")
    assert first.row == {"a": 1, "split_": "train", "number_": 0} and last.row["number_"] == 2
    assert isinstance(broken, BadRow)
    assert source.revision("train") == source.source.revision("train") and source.num_rows("train") == 3


def test_conversations_without_turn_ids_are_judged_by_their_turns():
    judge = Conversations().start("train", tuple)
    assert judge({"num_turns": 1}) == "fewer than two turns"
    assert judge({"num_turns": 2, "previous": "a", "answer": "b"}) is None


@pytest.fixture
def collection(registries, monkeypatch):
    monkeypatch.delenv(dialog.DATA.variable, raising=False)
    return registries


@pytest.mark.tensorflow
def test_rows_come_from_tfds_or_from_a_folder(collection, folder, monkeypatch, tmp_path):
    dialog.register()
    assert collection.templated("wiki_dialog").source.source.name == "wiki_dialog:1.0.0"
    assert sorted(collection.task("qrecc").splits) == ["test", "train"]
    monkeypatch.setenv(dialog.DATA.variable, str(folder))
    dialog.register()
    assert collection.templated("wiki_dialog").source.files("train") == (str(folder / "wiki_dialog_train.jsonl"),)
    assert sorted(collection.task("qrecc").splits) == ["train"]
    with pytest.raises(FileNotFoundError, match="No folder .*nowhere to read dialogue sets from"):
        dialog.COLLECTION.use(FolderSettings(data_dir=tmp_path / "nowhere"))


@pytest.mark.tensorflow
def test_the_collection_has_two_tasks_per_direction_and_a_mixture_of_each(collection, folder):
    dialog.COLLECTION.use(FolderSettings(data_dir=folder))
    assert collection.names() == (
        "dialog", "dialog_input_inversion", "qrecc", "qrecc_input_inversion", "wiki_dialog",
        "wiki_dialog_input_inversion",
    )  # fmt: skip
    rates = collection.mixture_or_task("dialog_input_inversion").rate_per_task_name
    assert set(rates) == {"qrecc_input_inversion", "wiki_dialog_input_inversion"}
    assert {rate.maximum for rate in rates.values()} == {200_000}


@pytest.mark.tensorflow
def test_a_yaml_file_names_the_folder(collection, folder, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("collections:\n  dialog: {data_dir: nowhere}\n")
    with pytest.raises(FileNotFoundError, match="collections.dialog: no folder .*nowhere to read dialogues from"):
        collection.register_yaml(path)
    path.write_text(f"collections:\n  dialog: {{data_dir: {folder}}}\n")
    collection.register_yaml(path)
    assert collection.task("wiki_dialog").num_input_examples("train") == 200


@pytest.mark.tensorflow
@pytest.mark.parametrize("one", dialog.SETS, ids=lambda one: one.name)
def test_rows_of_the_declared_shape_render_every_template(one, tmp_path):
    from tests.tasks.mocked_rows import declared_features, mocked_rows

    features, _ = declared_features(one.tfds, data_dir=tmp_path)
    given = {"turn_id": range(7, 17)} if one.min_turn_id else {}
    rows = mocked_rows(features, count=10, given=given)
    for inverted in (False, True):
        task = dialog.record(one, inverted=inverted)
        numbered = NumberedRows(source=InMemorySource(data={"train": rows}))
        for row in map(task.normalizer, numbered.rows("train")):
            assert Conversations(min_turn_id=one.min_turn_id).start("train", tuple)(row) is None
            assert all(template.render(row).targets for template in task.templates)
