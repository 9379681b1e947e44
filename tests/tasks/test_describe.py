"""Descriptions of tasks and mixtures show what an export would contain."""

import pytest

pytestmark = pytest.mark.tensorflow

LENGTHS = {"inputs": 16, "targets": 6}


@pytest.fixture
def describe(registries):
    from flan_jax.tasks import describe

    return describe


def example(describe, name, **changes):
    return describe.task_example(name, **{"split": None, "index": 0, "lengths": LENGTHS, "num_packed": 3, **changes})


def test_a_row_is_shown_from_the_source_to_the_tokens_under_every_template(describe, sums):
    found = example(describe, "sums", index=1)
    assert (found["split"], found["place"], found["raw"]) == (
        "train",
        "train rows in memory: row 1",
        {"q": "3+3", "a": "6"},
    )
    ask, inverted = found["renderings"]
    assert (ask["name"], ask["direction"], ask["inputs"], ask["targets"]) == ("ask", "forward", "3+3?", "6")
    assert (inverted["direction"], inverted["inputs"], inverted["targets"]) == ("inverted", "so 6", "3+3")
    assert ask["tokens"]["inputs"] == {"ids": [54, 46, 54, 66, 1], "pieces": ["3", "+", "3", "?", "</s>"]}
    assert ask["tokens"]["targets"] == {"ids": [57, 1], "pieces": ["6", "</s>"]} and ask["notes"] == []


def test_the_packed_row_has_the_examples_of_an_export_from_this_row_on(describe, sums):
    packed = example(describe, "sums", num_packed=2)["packed"]
    # Row 0 under template 0: "2+2?" -> "4"; row 1 under template 1: "so 6" -> "3+3".
    assert packed["examples"] == 2
    assert packed["features"]["encoder_segment_ids"] == [1] * 5 + [2] * 5 + [0] * 6
    assert packed["features"]["decoder_target_tokens"] == [55, 1, 54, 46, 54, 1]
    assert packed["features"]["decoder_input_tokens"] == [0, 55, 0, 54, 46, 54]
    from_the_second = example(describe, "sums", index=1, num_packed=1)["packed"]
    assert from_the_second["features"]["decoder_target_tokens"] == [54, 46, 54, 1, 0, 0]


def test_what_an_export_truncates_is_truncated_and_noted(describe, sums):
    found = example(describe, "sums", index=2)
    assert found["renderings"][0]["notes"] == ["inputs truncated to 16 tokens"]
    assert len(found["renderings"][0]["tokens"]["inputs"]["ids"]) == 16
    assert found["renderings"][1]["notes"] == ["targets truncated to 6 tokens"]


def test_an_external_task_is_shown_with_seqios_examples(describe, plain):
    found = example(describe, "plain", index=1)
    assert found["raw"] == {"inputs": "de", "targets": "yz"}
    (rendering,) = found["renderings"]
    assert (rendering["inputs"], rendering["targets"]) == ("de", "yz")
    assert rendering["tokens"]["inputs"] == {"ids": [103, 104, 1], "pieces": ["d", "e", "</s>"]}
    assert found["packed"]["examples"] == 1
    cut = example(describe, "plain", lengths={"inputs": 3, "targets": 6})["renderings"][0]
    assert cut["notes"] == ["inputs truncated to 3 tokens"] and len(cut["tokens"]["inputs"]["ids"]) == 3


@pytest.mark.parametrize("name", ["sums", "plain"])
def test_a_missing_row_or_split_is_reported_by_name(describe, sums, plain, name):
    with pytest.raises(ValueError, match=f"'{name}': the split 'train' has (fewer than 10 rows|no example 9)"):
        example(describe, name, index=9)
    with pytest.raises(
        KeyError, match="(the split must be one of train.*; got 'dev')|(no split 'dev'.* Splits: train)"
    ):
        example(describe, name, split="dev")


def test_an_unknown_task_is_named_with_the_nearest(describe, sums):
    with pytest.raises(KeyError, match="Unknown task 'sum'. Did you mean 'sums'"):
        example(describe, "sum")


def test_lists_include_external_tasks_and_mixtures(describe, registries, sums, plain):
    registries.register_mixture("both", ["sums", ("plain", 2)])
    registries.register_mixture("nested", [("both", 1), "sums"])
    tasks = {task["name"]: task for task in describe.all_tasks()[0]}
    assert tasks["sums"] == {
        "name": "sums", "cluster": "numbers", "splits": ["train", "validation"], "templates": 2,
        "evaluation": "generate", "metrics": ["exact_match", "rouge_l"], "license": "CC0",
    }  # fmt: skip
    shown = ("evaluation", "templates", "metrics")
    assert [tasks["plain"][key] for key in shown] == ["external", 0, ["exact_match", "rouge_l"]]
    mixtures = {m["name"]: (m["members"], m["tasks"]) for m in describe.all_mixtures()[0]}
    assert mixtures == {"both": (2, 2), "nested": (2, 2)}


def test_a_users_file_is_rendered_without_registering_anything(describe, registries, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"q": "2+2", "a": 4}\n{"q": "3+3", "a": 6}\n')
    task = "tasks:\n  sums:\n    {cluster: c, source: jsonl, splits: {train: rows.jsonl}, templates: [%s]}\n"
    path = tmp_path / "mine.yaml"
    path.write_text(task % '{inputs: "{q}?", targets: "{a}"}')
    (found,) = describe.user_file(path, num_rows=5)["tasks"]
    assert [row["place"].rpartition("/")[2] for row in found["rows"]] == ["rows.jsonl:1", "rows.jsonl:2"]
    assert [row["renderings"][0]["inputs"] for row in found["rows"]] == ["2+2?", "3+3?"]
    assert registries.names() == ()
    path.write_text(task % '{inputs: "{qq}?", targets: "{a}"}')
    with pytest.raises(KeyError, match="'qq', which the rows of the split 'train' lack. Did you mean 'q'"):
        describe.user_file(path, num_rows=5)


def test_what_is_not_available_on_this_machine_is_a_note_and_hides_nothing(describe, registries, tmp_path, monkeypatch):
    monkeypatch.setenv("FLAN_JAX_SUPERNI_DIR", str(tmp_path / "nowhere"))
    registries.register_all()
    tasks, notes = describe.all_tasks("*capital*")
    assert "embedded_capital_city" in {task["name"] for task in tasks}
    assert notes[:1] == [
        f"natural_instructions not available: No folder {tmp_path}/nowhere to read Super-NaturalInstructions from."
    ]
    # Flan 2022 reads its names from the same folder.
    _, notes = describe.all_mixtures("flan*")
    assert [note.split(":")[0] for note in notes] == ["natural_instructions not available", "flan2022 not available"]
    with pytest.raises(
        ValueError, match="Unknown task 'superni_x'.*natural_instructions could not be registered: No fold"
    ):
        registries.task("superni_x")
