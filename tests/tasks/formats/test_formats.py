"""Tasks from files of a format: declared in one call, and the real files in the shared folder exported."""

import json
from collections import Counter

import pytest

from flan_jax.evaluation.metrics import METRICS
from flan_jax.settings import Place, Section
from flan_jax.tasks.filters.row_rules import Length
from flan_jax.tasks.formats.chat import Chat
from flan_jax.tasks.formats.declare import FORMATS, format_task, parse_format
from flan_jax.tasks.formats.instructions import Alpaca
from flan_jax.tasks.rendering import iter_rendered

LENGTHS = {"inputs": 1024, "targets": 512}


@pytest.fixture
def alpaca(tmp_path):
    path = tmp_path / "alpaca.json"
    rows = [{"instruction": f"Add {i}.", "input": "", "output": str(i)} for i in range(3)]
    path.write_text(json.dumps(rows))
    return path


def test_a_task_has_the_formats_templates_cluster_and_metrics_by_default(alpaca):
    plain = format_task("t", alpaca, format="alpaca")
    assert (plain.cluster, plain.metrics, plain.evaluation) == ("instructions", ("rouge_l", "exact_match"), "generate")
    assert plain.templates == Alpaca().templates() and plain.normalizer == Alpaca() and plain.options is None
    own = format_task(
        "t", {"test": [alpaca]}, format=Alpaca(seed=3), cluster="mine", metrics=["f1"], filters=[Length(field="output")]
    )
    assert (own.cluster, own.metrics, own.filters) == ("mine", ("f1",), (Length(field="output"),))
    assert own.templates == Alpaca(seed=3).templates() and list(own.source.splits) == ["test"]
    ranked = format_task("t", {"test": alpaca}, format="preference", evaluation="rank")
    assert (ranked.options, ranked.metrics) == ("options", ("rank_accuracy",))


def test_mistakes_are_reported():
    with pytest.raises(KeyError, match="format must be one of alpaca, dolly, .*; got 'alpacca'. Did you mean 'alpaca'"):
        format_task("t", "x", format="alpacca")
    with pytest.raises(ValueError, match="Chat rows have no options to rank; evaluate by 'generate'"):
        format_task("t", "x", format="chat", evaluation="rank")
    with pytest.raises(ValueError, match="f: unknown key 'vocabulary'"):
        parse_format(Section(values={"kind": "chat", "vocabulary": "bytes"}, place=Place(file="f")))
    with pytest.raises(ValueError, match="f: max_tokens: expected a whole number of at least 2, got 'many'"):
        parse_format(Section(values={"kind": "chat", "max_tokens": "many"}, place=Place(file="f")))
    assert parse_format(
        Section(values={"kind": "chat", "turns": "last", "on_bad_row": "skip"}, place=Place(file="f"))
    ) == (
        Chat(turns="last"),
        "skip",
    )


def test_every_format_documents_its_settings():
    for format in FORMATS.values():
        documented = " ".join(kind.__doc__ or "" for kind in format.__mro__)
        assert format.shapes and format.cluster and format.metrics
        for name in format.__dataclass_fields__:
            assert f"\n      {name}: " in documented, (format, name)


@pytest.mark.tensorflow
def test_files_are_registered_in_one_call(registries, alpaca):
    registries.register_files("mine", alpaca, format="alpaca")
    assert [e.rendered.targets for e in iter_rendered(registries.templated("mine"), "train")] == [
        "0",
        "1",
        "2",
    ]
    registries.register_files("talk", {"train": alpaca}, format="chat")
    assert registries.templated("talk").normalizer.vocabulary == registries.vocabulary()


# Task, format, evaluation, split, files in the shared folder, examples, dropped rows.
EXPORTED = [
    ("seeds", "self_instruct", "generate", "train", ["self_instruct/seed_tasks.jsonl.gz"], 175, {}),
    ("user", "self_instruct", "generate", "test", ["self_instruct/user_oriented_instructions.jsonl.gz"], 252, {}),
    ("alpaca", "alpaca", "generate", "train", ["llamafactory_demo/alpaca_en_demo.json.gz"], 999, {}),
    ("glaive", "chat", "generate", "train", ["llamafactory_demo/glaive_toolcall_en_demo.json.gz"], 957, {}),
    ("sgd", "chat", "generate", "train", ["sgd_dialogue/train_dialogues_*.json.gz"], 2967, {}),
    ("sgd", "chat", "generate", "validation", ["sgd_dialogue/dev_dialogues_001.json.gz"], 825, {}),
    ("kto_talk", "chat", "generate", "train", ["llamafactory_demo/kto_en_demo.json.gz"], 487, {}),
    ("dpo", "preference", "generate", "train", ["llamafactory_demo/dpo_en_demo.json.gz"], 300, {}),
    ("dpo", "preference", "rank", "test", ["llamafactory_demo/dpo_en_demo.json.gz"], 300, {}),
    ("kto", "preference", "generate", "train", ["llamafactory_demo/kto_en_demo.json.gz"], 150, {"answer is undesirable": 150}),
    ("llmbar", "preference", "rank", "test", ["llmbar/*.json.gz"], 419, {}),
]  # fmt: skip


@pytest.mark.tensorflow
@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "format", "evaluation", "split", "files", "examples", "dropped"),
    EXPORTED,
    ids=[f"{entry[0]}-{entry[2]}-{entry[3]}" for entry in EXPORTED],
)
def test_the_shared_files_export(
    registries, shared_data, tmp_path, name, format, evaluation, split, files, examples, dropped
):
    from tests.tasks.exporting.exported import export_task

    given = {split: [shared_data / file for file in files]}
    registries.use_vocabulary("embedded")
    task = registries.register_files(name, given, format=format, evaluation=evaluation)
    manifest = export_task(task, split, lengths=LENGTHS, export_dir=tmp_path)
    assert (manifest.num_examples, manifest.dropped, manifest.metadata.evaluation) == (examples, dropped, evaluation)
    assert manifest.rows_read == examples + sum(dropped.values())


@pytest.mark.shared_data
def test_the_seeds_are_those_of_the_paper(shared_data):
    """175 tasks with an instance each, 26 of them classification (Wang et al. 2022, arXiv:2212.10560, 3.1)."""
    task = format_task("seeds", shared_data / "self_instruct/seed_tasks.jsonl.gz", format="self_instruct")
    rows = list(task.source.rows("train"))
    assert (len(rows), sum(row["is_classification"] for row in rows)) == (175, 26)
    examples = [example for row in rows for example in task.normalizer(row)]
    assert (len(examples), sum(not example["input"] for example in examples)) == (175, 50)


@pytest.mark.tensorflow
@pytest.mark.shared_data
def test_rules_drop_rows_of_a_shared_file_by_reason(registries, shared_data, tmp_path):
    from tests.tasks.exporting.exported import export_task

    path = tmp_path / "mine.yaml"
    evaluation, seeds = (
        shared_data / "self_instruct" / f"{n}.jsonl.gz" for n in ("user_oriented_instructions", "seed_tasks")
    )
    path.write_text(
        "vocabulary: embedded\ntasks:\n  mine:\n    format: alpaca\n    filters:\n"
        f"      - {{preset: self_instruct, seeds: {{files: {seeds}, fields: instruction}}}}\n"
        f"      - {{kind: contamination, fields: [instruction, input, output], evaluation: {{files: {evaluation}}}}}\n"
        f"    splits: {{train: {shared_data / 'llamafactory_demo' / 'alpaca_en_demo.json.gz'}}}\n"
    )
    registries.register_yaml(path)
    manifest = export_task(registries.task("mine"), "train", lengths=LENGTHS, export_dir=tmp_path)
    # Of its 999 rows 985 differ in instruction and input, as a count of them says; none repeats the evaluation set.
    assert manifest.dropped == {"input: ends with ':'": 1, "input equals output": 2, "duplicate": 14}
    assert manifest.num_examples == 999 - 17
    from flan_jax.tasks.exporting.plans import plan

    planned = plan(registries.resolve("mine"), "train", lengths=LENGTHS, export_dir=tmp_path)
    assert planned.fingerprint == manifest.fingerprint
    assert {str(evaluation), str(seeds)} <= set(planned.files)


IFEVAL = {
    "key": 1000,
    "prompt": "Sing 3 words without a comma.",
    "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
    "kwargs": [{}, {"relation": "at least", "num_words": 3, "keyword": None}],
}


def test_ifevals_rows_become_prompts_with_their_instructions_as_references(tmp_path):
    path = tmp_path / "input_data.jsonl"
    path.write_text(json.dumps(IFEVAL) + "\n")
    task = format_task("ifeval", {"test": path}, format="ifeval")
    assert (task.metrics, task.cluster) == (("ifeval",), "instruction_following")
    (rendered,) = [row.rendered for row in iter_rendered(task, "test", dropped=Counter())]
    assert rendered.inputs == IFEVAL["prompt"]
    scores = METRICS["ifeval"].fn([[rendered.targets]], ["la la, la"])
    assert scores["inst_level_strict_acc"] == 50.0 and scores["prompt_level_strict_acc"] == 0.0


def test_a_row_whose_instruction_has_no_verifier_is_refused_with_its_line(tmp_path):
    path = tmp_path / "input_data.jsonl"
    path.write_text(json.dumps(IFEVAL) + "\n" + json.dumps(IFEVAL | {"instruction_id_list": ["a:b", "c:d"]}) + "\n")
    task = format_task("ifeval", {"test": path}, format="ifeval")
    with pytest.raises(ValueError, match="input_data.jsonl:2: .*no verifier of the instruction 'a:b'"):
        list(iter_rendered(task, "test", dropped=Counter()))
