"""Chain-of-thought sets: rows forward and inverted, missing files by name, malformed rows."""

import gzip
from collections import Counter

import pytest

from flan_jax.collections.catalog import FolderSettings
from flan_jax.collections.flan2022 import cot
from flan_jax.evaluation.postprocess import chain_of_thought

GSM8K = "Ann has 2 pens and buys 3.\\nHow many?\t5\tAnn has 2 + 3 = 5 pens.\n"
AQUA = "1+1?\\nOptions:\\n(A) 2\\n(B) 3\t(A)\t1+1 = 2\\nSo A\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "gsm8k_train.tsv").write_text(GSM8K * 3)
    (tmp_path / "aqua_train.tsv.gz").write_bytes(gzip.compress(AQUA.encode() * 20))
    return tmp_path


def of(name):
    return next(one for one in cot.SETS if one.name == name)


def every_rendering(task):
    row = next(iter(task.source.rows("train")))
    return [template.render(row) for template in task.templates]


def test_the_nine_sets_have_the_published_sizes_and_names():
    assert len(cot.SETS) == 9
    assert sum(one.num_rows for one in cot.SETS) == 74_771  # 74,730 once each is rounded down to tens.
    assert [one.task() for one in cot.SETS if not one.task().startswith("cot_")] == ["stream_aqua", "stream_qed"]
    assert of("gsm8k").task(inverted=True) == "cot_input_inversion_gsm8k"
    assert of("qed").task(inverted=True) == "stream_input_inversion_qed"


def test_there_are_ten_templates_or_fifteen_forward_and_eighteen_of_four_kinds_inverted(folder):
    numbers = {one.name: len(cot.record(one, folder).templates) for one in cot.SETS}
    assert numbers == {**dict.fromkeys(numbers, 10), "aqua": 15, "qed": 15}
    inverted = cot.record(of("gsm8k"), folder, inverted=True).templates
    assert len(inverted) == 18 and {template.direction for template in inverted} == {"inverted"}
    kinds = Counter(template.name for template in inverted)
    assert kinds == {"question": 5, "rationale": 5, "question_and_answer": 4, "question_and_rationale": 4}
    assert {template.name for template in inverted[:10]} == set(kinds)


def test_each_kind_reads_what_it_does_not_write(folder):
    wanted = {
        "question": ({"rationale", "answer"}, {"question"}),
        "rationale": ({"question", "answer"}, {"rationale"}),
        "question_and_answer": ({"rationale"}, {"question", "answer"}),
        "question_and_rationale": ({"answer"}, {"question", "rationale"}),
    }
    from flan_jax.templates.render import Template

    for template in cot.record(of("gsm8k"), folder, inverted=True).templates:
        reads = set(Template(inputs=template.pattern.inputs, targets="-").fields)
        writes = set(Template(inputs="-", targets=template.pattern.targets).fields)
        assert (reads, writes) == wanted[template.name], template


def test_forward_answers_come_after_the_reasons_and_are_read_back(folder):
    for name, answer, metric in (("gsm8k", "5", "number_match"), ("aqua", "(A)", "exact_match")):
        task = cot.record(of(name), folder)
        for rendered in every_rendering(task):
            assert rendered.targets.index("=") < rendered.targets.rindex(answer)
            assert chain_of_thought(rendered.targets) == answer, rendered.targets
        assert (task.metrics, task.postprocessor) == ((metric,), "chain_of_thought")


def test_an_inverted_row_whose_target_occurs_in_its_input_is_dropped_and_counted(folder):
    from flan_jax.tasks.rendering import iter_rendered

    copied = "Why is it so?\tIt is.\tThey asked: why is it so? That is why.\n"
    (folder / "gsm8k_train.tsv").write_text(copied + GSM8K)
    dropped = Counter()
    assert len(list(iter_rendered(cot.record(of("gsm8k"), folder, inverted=True), "train", dropped=dropped))) == 1
    assert dropped == {"target is part of the input": 1}


def test_line_ends_that_are_written_out_become_line_ends(folder):
    row = next(iter(cot.record(of("aqua"), folder).source.rows("train")))
    assert row == {"question": "1+1?\nOptions:\n(A) 2\n(B) 3", "answer": "(A)", "rationale": "1+1 = 2\nSo A"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("What?\tthis\n", r"gsm8k_train.tsv:3: 2 fields between tabs, expected 3 \(question, answer, rationale\)"),
        ("What?\tthis\t\n", r"gsm8k_train.tsv:3: no text in rationale"),
        ("\tthis\t\\n\n", r"gsm8k_train.tsv:3: no text in question, rationale"),
    ],
)
def test_a_broken_row_is_named_with_its_line(folder, line, message):
    from flan_jax.tasks.rendering import iter_rendered

    (folder / "gsm8k_train.tsv").write_text(GSM8K * 2 + line + GSM8K)
    with pytest.raises(ValueError, match=message):
        list(iter_rendered(cot.record(of("gsm8k"), folder), "train"))


def test_a_folder_without_any_set_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No folder .*nowhere to read chain-of-thought sets from"):
        cot.contents(FolderSettings(data_dir=tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"empty contains no chain-of-thought set: expected some of gsm8k_train.tsv"
    ):
        cot.contents(FolderSettings(data_dir=tmp_path / "empty"))


def test_hold_out_goes_by_the_corpora_that_a_set_was_made_from(folder):
    corpora = {one.name: cot.record(one, folder).corpora for one in cot.SETS}
    assert corpora["esnli"] == ("esnli", "snli") and corpora["ecqa"] == ("ecqa", "commonsense_qa")
    assert corpora["qed"] == ("qed", "natural_questions") and corpora["gsm8k"] == ("gsm8k",)


@pytest.fixture
def collection(registries, monkeypatch):
    monkeypatch.delenv(cot.DATA.variable, raising=False)
    return registries


@pytest.mark.tensorflow
def test_without_a_folder_nothing_is_declared(collection, folder, monkeypatch):
    cot.register()
    assert collection.names() == () and cot.COLLECTION.settings() is None
    monkeypatch.setenv(cot.DATA.variable, str(folder))
    cot.register()
    assert len(collection.names()) == 20 and collection.defined_names() == set()


@pytest.mark.tensorflow
def test_mixtures_have_all_nine_and_a_missing_set_names_its_expected_path(collection, folder):
    cot.COLLECTION.use(FolderSettings(data_dir=folder))
    for mixture, inverted in (("cot", False), ("cot_input_inversion", True)):
        members = collection.mixture_or_task(mixture).rate_per_task_name
        assert set(members) == {one.task(inverted=inverted) for one in cot.SETS}
        assert {rate.maximum for rate in members.values()} == {100_000}
    assert collection.templated("cot_gsm8k").source.unavailable("train") is None
    assert "esnli_train.tsv" in collection.templated("cot_esnli").source.unavailable("train")
    with pytest.raises(KeyError, match="Unknown task 'cot_gsm8'. Did you mean 'cot_gsm8k'"):
        collection.task("cot_gsm8")


@pytest.mark.tensorflow
def test_a_yaml_file_names_the_folder(collection, folder, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"collections:\n  cot: {{data_dir: {folder}}}\nmixtures:\n  mine: {{members: [cot_gsm8k]}}\n")
    assert collection.register_yaml(path) == ("mine",)
    assert collection.task("cot_gsm8k").num_input_examples("train") == 3
    path.write_text("collections:\n  cot: {}\n")
    with pytest.raises(
        ValueError, match="collections.cot: give data_dir, or set the environment variable FLAN_JAX_COT"
    ):
        collection.register_yaml(path)


@pytest.mark.shared_data
@pytest.mark.tensorflow
def test_all_seven_files_register_render_all_patterns_and_export(collection, shared_data, tmp_path):
    from tests.tasks.exporting.exported import export_task

    collection.use_vocabulary(shared_data / "vocab_t5" / "cc_all.32000.sentencepiece.model")
    cot.COLLECTION.use(FolderSettings(data_dir=shared_data / "flan_cot"))
    readable = [one for one in cot.SETS if collection.templated(one.task()).source.unavailable("train") is None]
    assert {one.name for one in cot.SETS} - {one.name for one in readable} == {"esnli", "qed"}
    lengths = {"inputs": 512, "targets": 512}
    for one in readable:
        for inverted in (False, True):
            task = collection.templated(one.task(inverted=inverted))
            rows = [row for _, row in zip(range(50), task.source.rows("train"), strict=False)]
            for template in task.templates:
                texts = [template.render(row) for row in rows]
                if not inverted:
                    read_back = [chain_of_thought(text.targets) for text in texts]
                    assert read_back == [row["answer"] for row in rows], (one.name, template)
            manifest = export_task(collection.task(task.name), "train", lengths=lengths, export_dir=tmp_path)
            copies = manifest.dropped.pop("target is part of the input", 0)
            assert manifest.num_examples + copies == manifest.rows_read == one.num_rows and manifest.dropped == {}
            assert copies <= inverted * 5, task.name
