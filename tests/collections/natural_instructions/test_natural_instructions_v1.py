"""Natural Instructions v1 as SeqIO tasks: its schema, its evaluation rows, and the other version sent to its reader."""

import json

import pytest

from flan_jax.tasks.rendering import iter_rendered
from tests.tasks.superni_synthetic import task as second_version

EXAMPLE = {"input": "Oslo", "output": "Where is Oslo?", "reason": "It is about Oslo.", "suggestion": "-"}
RECORD = {
    "Title": "Asking about towns",
    "Prompt": "Ask one question.",
    "Definition": "Write a question about the town.",
    "Things to Avoid": "-",
    "Emphasis & Caution": "-",
    "Examples": {"Positive Examples": [EXAMPLE], "Negative Examples": ["-"]},
}
QUESTION, ANSWER = "subtask901_cosmosqa_question_generation", "subtask902_quoref_answer_generation"


@pytest.fixture
def collection(registries, monkeypatch):
    pytest.importorskip("seqio")
    from flan_jax.collections.natural_instructions import version1 as natural_instructions_v1

    monkeypatch.delenv(natural_instructions_v1.DATA.variable, raising=False)
    return natural_instructions_v1


def write(folder, name, *, instances=300, **changes):
    rows = [{"input": f"town {i}", "output": [f"q{i}", f"r{i}"]} for i in range(instances)]
    record = {**RECORD, "Instances": rows, **changes}
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({k: v for k, v in record.items() if v is not None}))


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "Dataset_Jsons", QUESTION)
    write(tmp_path / "Dataset_Jsons", ANSWER, instances=90)
    return tmp_path


pytestmark = pytest.mark.tensorflow


def rendered(registries, name, split):
    return [r.rendered for r in iter_rendered(registries.templated(name), split)]


@pytest.mark.parametrize(
    ("num_instances", "positions"),
    [
        (1060, list(range(60, 1060, 10))),
        (6500, list(range(60, 60 + 64 * 100, 64))),
        (161, list(range(60, 160))),
        (90, list(range(60, 90))),  # Too few for a hundred.
        (3, [0, 1, 2]),
    ],
)
def test_evaluation_takes_100_evenly_spaced_instances_from_position_60_on(num_instances, positions):
    from flan_jax.collections.natural_instructions.version1 import evaluated_positions

    assert list(evaluated_positions(num_instances)) == positions


def test_every_task_has_two_splits_without_a_common_instance(collection, registries, folder):
    assert collection.register(folder) == (QUESTION, ANSWER)
    source = registries.templated(f"ni1_{QUESTION}").source
    inputs = {split: [row["input"] for row in source.rows(split)] for split in ("train", "test")}
    assert inputs["test"] == [f"town {i}" for i in range(60, 260, 2)]
    assert len(inputs["train"]) == 200 and not set(inputs["train"]) & set(inputs["test"])
    assert {split: source.num_rows(split) for split in ("train", "test")} == {"train": 200, "test": 100}
    assert source.revision("train") != source.revision("test")


def test_a_row_becomes_a_prompt_a_drawn_target_and_all_references(collection, registries, folder):
    collection.register(folder)
    record = registries.templated(f"ni1_{QUESTION}")
    assert (record.cluster, record.corpora, record.metrics[0]) == ("question_generation", ("cosmos_qa",), "rouge_l")
    first = rendered(registries, record.name, "test")[0]
    assert first.inputs == (
        "Definition: Write a question about the town.\nPrompt: Ask one question.\nPositive Example1-\ninput: Oslo\n"
        "output: Where is Oslo?\nreason: It is about Oslo.\ninput: town 60\noutput:"
    )
    assert first.references == ("q60", "r60") and first.targets in first.references
    assert {r.targets[0] for r in rendered(registries, record.name, "train")} == {"q", "r"}


def test_held_out_tasks_are_for_evaluation_only(collection, registries, folder):
    collection.register(folder, collection.Settings(held_out=(ANSWER,)))
    members = {n: [t.name for t in registries.mixture_or_task(n).tasks] for n in ("ni1_train", "ni1_test")}
    assert members == {"ni1_train": [f"ni1_{QUESTION}"], "ni1_test": [f"ni1_{ANSWER}"]}
    assert list(registries.task(f"ni1_{ANSWER}").splits) == ["test"]
    collection.register(folder)
    assert len(registries.mixture_or_task("ni1_test").tasks) == len(registries.mixture_or_task("ni1_train").tasks) == 2


def test_training_instances_beyond_the_cap_are_drawn_by_the_seed(collection, registries, folder):
    def drawn(seed):
        collection.register(folder, collection.Settings(max_instances=7, seed=seed))
        return [row["position"] for row in registries.templated(f"ni1_{QUESTION}").source.rows("train")]

    assert drawn(0) == sorted(drawn(0)) != drawn(1) and len(set(drawn(0))) == 7


def test_the_encoding_is_chosen_by_name(collection, registries, folder):
    collection.register(folder, collection.Settings(encoding="definition"))
    assert "Positive" not in rendered(registries, f"ni1_{QUESTION}", "test")[0].inputs
    with pytest.raises(KeyError, match="encoding must be one of .*; got 'definitions'. Did you mean 'definition'"):
        collection.register(folder, collection.Settings(encoding="definitions"))


def test_a_yaml_file_or_the_environment_registers_the_collection(collection, registries, folder, monkeypatch):
    assert collection.register() == () and registries.names() == ()
    (folder / "mine.yaml").write_text("collections:\n  natural_instructions_v1: {data_dir: ., max_instances: 5}\n")
    registries.register_yaml(folder / "mine.yaml")
    assert len(rendered(registries, f"ni1_{QUESTION}", "train")) == 5
    monkeypatch.setenv(collection.DATA.variable, str(folder))
    collection.register()
    assert len(rendered(registries, f"ni1_{QUESTION}", "train")) == 200


def test_a_task_of_version_2_is_refused_with_the_name_of_its_reader(collection, tmp_path):
    (tmp_path / "task001_x.json").write_text(json.dumps(second_version("task001_x")))
    with pytest.raises(ValueError, match=r"task001_x\.json: this is a task of Super-Natural.*reader, `natural_instru"):
        collection.register(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Definition": ["x"]}, r"'Definition' must be a text, got \['x'\]\. Fix the file"),
        ({"Prompt": 3}, r"'Prompt' must be a text, got 3"),
        ({"Examples": []}, r"'Examples' must hold 'Positive Examples' and 'Negative Examples', got \[\]"),
        ({"Examples": {"Positive Examples": [{"input": "x"}]}}, r"\['Positive Examples'\]\[0\] must have the texts"),
        ({"Instances": []}, r"the task has no 'Instances': got \[\]"),
    ],
)
def test_a_file_that_breaks_the_schema_is_named_with_the_field(collection, tmp_path, changes, message):
    write(tmp_path, QUESTION, **changes)
    with pytest.raises(ValueError, match=rf"{QUESTION}\.json: .*{message}"):
        collection.register(tmp_path)


@pytest.mark.parametrize(("content", "message"), [("{", r"not JSON \("), ("[]", "expected a JSON object, got a list")])
def test_a_file_that_is_no_json_object_is_named(collection, tmp_path, content, message):
    (tmp_path / f"{QUESTION}.json").write_text(content)
    with pytest.raises(ValueError, match=rf"{QUESTION}\.json: {message}.*Fix the file, download it again"):
        collection.register(tmp_path)


def test_an_instance_that_breaks_the_schema_is_named(collection, registries, tmp_path):
    write(tmp_path, QUESTION, Instances=[{"input": "x", "output": "y"}])
    collection.register(tmp_path)
    with pytest.raises(ValueError, match=r"instance 0: 'output' must be a list of one or more texts, got 'y'"):
        rendered(registries, f"ni1_{QUESTION}", "test")


def test_a_removed_file_is_named(collection, registries, folder):
    collection.register(folder)
    rows = registries.templated(f"ni1_{QUESTION}").source
    assert rows.unavailable("train") is None and rows.files("train") == rows.looked_for("train")
    (folder / "Dataset_Jsons" / f"{QUESTION}.json").unlink()
    assert f"{QUESTION}.json of the task {QUESTION} was removed" in rows.unavailable("train")


def test_wrong_folders_names_and_numbers_are_refused(collection, folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="No folder .*nowhere to read Natural Instructions v1 from"):
        collection.register(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"contains no task of Natural Instructions v1: expected \*\.json"):
        collection.register(tmp_path / "empty")
    with pytest.raises(KeyError, match=r"held_out: .* has no task 'subtask901_cosmos'. Did you mean 'subtask901_cos"):
        collection.register(folder, collection.Settings(held_out=("subtask901_cosmos",)))
    with pytest.raises(ValueError, match="Settings.max_source_tokens: expected a whole number of at least 1, got 0"):
        collection.register(folder, collection.Settings(max_source_tokens=0))


@pytest.mark.parametrize(
    ("name", "cluster"),
    [
        ("subtask002_quoref_answer_generation", "answer_generation"),
        ("subtask003_mctaco_question_generation_event_duration", "question_generation"),
        ("subtask005_mctaco_wrong_answer_generation_event_duration", "incorrect_answer_generation"),
        ("subtask018_mctaco_temporal_reasoning_presence", "classification"),
        ("subtask045_miscellaneous_sentence_paraphrasing", "minimal_modification"),
        ("subtask061_ropes_answer_generation", "answer_generation"),
        ("mine", "natural_instructions_v1"),
    ],
)
def test_the_cluster_is_read_off_the_name(collection, registries, tmp_path, name, cluster):
    write(tmp_path, name, instances=1)
    collection.register(tmp_path)
    assert registries.templated(f"ni1_{name}").cluster == cluster
