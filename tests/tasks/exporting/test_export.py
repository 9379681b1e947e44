import dataclasses
import json
import threading

import pytest
import sentencepiece

from flan_jax.data import exports
from flan_jax.data.manifest import Request, read_task
from flan_jax.data.source import ExportedTask, open_members
from flan_jax.errors import UserError
from flan_jax.run.export_process import ensure_exports
from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.exporting import export, shards, worker_pool
from flan_jax.tasks.sources.file_sources import InMemorySource, JsonlSource
from flan_jax.templates.render import Template
from tests.tasks.exporting.exported import export_task

pytestmark = pytest.mark.tensorflow
LENGTHS = {"inputs": 16, "targets": 8}
TEMPLATES = (Template(inputs="{q}?", targets="{a}"), Template(inputs="say {a}", targets="{q}", direction="inverted"))


def rows(number):
    return [{"q": f"q{i}", "a": f"a{i}"} for i in range(number)]


@pytest.fixture
def register(registries):
    def register(name="toy", *, train=6, validation=4, **more):
        data = {"train": rows(train), "validation": rows(validation)}
        source = more.pop("source", InMemorySource(data={k: v for k, v in data.items() if v}))
        task = {"name": name, "source": source, "cluster": "toys", "templates": TEMPLATES, **more}
        return registries.register(TemplatedTask(**task))

    return register


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "CHUNK_EXAMPLES", 2)
    monkeypatch.setattr(shards, "SHARD_EXAMPLES", 4)


def request(**changes):
    return Request(**{"name": "toy", "lengths": LENGTHS, **changes})


def texts(task):
    from flan_jax.vocab import ByteVocabulary

    decode = ByteVocabulary().decode
    return [(decode(i), decode(t)) for i, t in task.read(range(len(task)))]


def all_files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_training_split_has_its_rows_under_its_templates_in_turn(tmp_path, register):
    register(train=3)
    manifest = export.export_mixture(request(), export_dir=tmp_path)
    (task,) = open_members(manifest, export_dir=tmp_path)
    assert texts(task) == [("q0?", "a0"), ("say a1", "q1"), ("q2?", "a2")]
    assert task.read_meta([0]) == [{}]
    assert [(m.task, m.rate, m.examples) for m in manifest.members] == [("toy", 1.0, 3)]


def test_an_evaluation_split_saves_texts_under_forward_templates(tmp_path, register):
    register(validation=2)
    manifest = export.export_mixture(request(split="validation"), export_dir=tmp_path)
    (task,) = open_members(manifest, export_dir=tmp_path)
    assert texts(task) == [("q0?", "a0"), ("q1?", "a1")]
    assert [(m["inputs"], m["row"], m["template"]) for m in task.read_meta([0, 1])] == [("q0?", 0, 0), ("q1?", 1, 0)]


def test_the_manifest_counts_and_names_its_sources(tmp_path, register):
    data = [{"q": "q", "a": "a"}, {"q": "", "a": "a"}, {"q": "x" * 40, "a": "a"}, {"q": "drop", "a": "a"}]
    register(
        source=InMemorySource(data={"train": data}),
        templates=TEMPLATES[:1],
        templates_per_row=1,
        normalizer=lambda row: None if row["q"] == "drop" else {**row, "q": row["q"] and row["q"] + "!"},
        metrics=("f1",),
        postprocessor="lower",
        license="CC0",
    )
    manifest = export.export_mixture(request(), export_dir=tmp_path)
    task = read_task(tmp_path / manifest.members[0].path)
    assert (task.num_examples, task.rows_read, task.num_shards) == (3, 4, 1)
    assert task.dropped == {"dropped by the normalizer": 1}
    assert task.truncated == {"inputs": 1, "targets": 0}
    assert task.tokens == {"inputs": 4 + 2 + 16, "targets": 6}
    assert (task.metadata.cluster, task.metadata.metrics, task.metadata.postprocessor, task.metadata.license) == (
        "toys",
        ("f1",),
        "lower",
        "CC0",
    )
    assert (task.vocabulary.kind, task.vocabulary.size, task.metadata.evaluation) == ("bytes", 259, "generate")
    assert task.fingerprint[:12] in manifest.members[0].path


def test_two_exports_are_equal_bytes_whatever_the_number_of_cores(
    tmp_path, register, registries, small_shards, monkeypatch
):
    register(train=23)
    register("other", train=5)
    registries.register_mixture("both", ["toy", "other"])
    for name, cores in (("one", 1), ("two", 7)):
        monkeypatch.setattr(worker_pool, "available_cores", lambda cores=cores: cores)
        export.export_mixture(request(name="both"), export_dir=tmp_path / name)
    one, two = all_files(tmp_path / "one"), all_files(tmp_path / "two")
    assert len([name for name in one if name.endswith(".array_record")]) == 6 + 2
    assert one == two


def test_a_killed_export_resumes_to_the_same_bytes(tmp_path, register, small_shards, monkeypatch):
    register(train=23)
    export.export_mixture(request(), export_dir=tmp_path / "whole")
    real, written = shards._write_shard, []

    def write_shard(partial, shard, encoded):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(shard)
        return real(partial, shard, encoded)

    monkeypatch.setattr(shards, "_write_shard", write_shard)
    with pytest.raises(KeyboardInterrupt):
        export.export_mixture(request(), export_dir=tmp_path / "killed")
    assert isinstance(exports.find(request(), tmp_path / "killed"), exports.Unusable)
    assert not list((tmp_path / "killed").rglob("manifest.json"))
    (lost,) = (tmp_path / "killed").rglob("examples-00001.array_record")
    lost.unlink()
    written.clear()
    monkeypatch.setattr(shards, "_write_shard", lambda p, s, e: written.append(s) or real(p, s, e))
    export.export_mixture(request(), export_dir=tmp_path / "killed")
    assert written == [1, 3, 4, 5]
    assert all_files(tmp_path / "killed") == all_files(tmp_path / "whole")


def test_a_task_is_exported_once_for_all_its_mixtures(tmp_path, register, registries, monkeypatch):
    register("a")
    register("b")
    registries.register_mixture("both", ["a", "b"])
    export.export_mixture(request(name="a"), export_dir=tmp_path)
    exported, real = [], worker_pool.export_split
    monkeypatch.setattr(worker_pool, "export_split", lambda p, *a, **k: exported.append(p.name) or real(p, *a, **k))
    manifest = export.export_mixture(request(name="both"), export_dir=tmp_path)
    assert exported == ["b"]
    assert [(m.task, m.rate) for m in manifest.members] == [("a", 6.0), ("b", 6.0)]


@pytest.mark.parametrize(
    "change",
    [
        {"templates": TEMPLATES[:1]},
        {"source": InMemorySource(data={"train": rows(7)})},
        {"metrics": ("f1",)},
        {"max_rows": 2},
    ],
)
def test_what_changes_an_export_changes_its_fingerprint(tmp_path, register, change):
    register("a")
    register("a_changed", **change)

    def identity(name):
        path = export.export_mixture(request(name=name), export_dir=tmp_path).members[0].path
        return {**read_task(tmp_path / path).identity, "task": None}

    assert identity("a") != identity("a_changed")


def test_other_lengths_are_another_export(tmp_path, register):
    register()
    paths = {
        export.export_mixture(request(lengths={"inputs": n, "targets": 8}), export_dir=tmp_path).members[0].path
        for n in (8, 16)
    }
    assert len(paths) == 2


def test_a_damaged_export_is_made_again(tmp_path, register):
    register()
    manifest = export.export_mixture(request(), export_dir=tmp_path)
    before = all_files(tmp_path)
    (shard,) = (tmp_path / manifest.members[0].path).glob("*.array_record")
    shard.write_bytes(b"")
    export.export_mixture(request(), export_dir=tmp_path)
    assert all_files(tmp_path) == before


def test_a_found_export_is_that_of_the_manifest(tmp_path, register):
    register()
    assert exports.find(request(), tmp_path / "new") != exports.find(request(), tmp_path)
    manifest = export.export_mixture(request(), export_dir=tmp_path)
    assert exports.find(request(), tmp_path) == manifest


def test_rates_come_from_measured_counts_under_their_cap(tmp_path, register, registries):
    from flan_jax.data.rates import ProportionalRate

    register("a", train=4)
    register("b", train=9)
    registries.register_mixture("m", ["a", "b"], default_rate=ProportionalRate(maximum=5))
    manifest = export.export_mixture(request(name="m"), export_dir=tmp_path)
    assert [(m.task, m.rate, m.cap, m.examples) for m in manifest.members] == [("a", 4, 5, 4), ("b", 5, 5, 9)]


def test_members_without_the_split_are_named_on_the_way_and_in_the_manifest(tmp_path, register, registries, capsys):
    register("a")
    register("b", validation=0)
    registries.register_mixture("m", ["a", "b"])
    manifest = export.export_mixture(request(name="m", split="validation"), export_dir=tmp_path)
    assert [m.task for m in manifest.members] == ["a"]
    assert manifest.skipped == {"b": "has no split 'validation', only train"}
    assert "  1 task (b): has no split 'validation', only train\n" in capsys.readouterr().err


def test_a_mixture_without_the_split_may_be_an_answer(tmp_path, register):
    register(validation=0)
    asked = request(split="validation", on_missing_split="empty")
    manifest = export.export_mixture(asked, export_dir=tmp_path)
    assert manifest.members == ()
    assert manifest.vocabulary.kind == "bytes"
    assert exports.find(asked, tmp_path) == manifest


def test_a_mixture_stops_when_the_rows_of_a_member_are_not_there(tmp_path, register, registries, lost):
    register("a")
    registries.register_mixture("m", ["a", ("lost", 2)])
    with pytest.raises(
        FileNotFoundError, match=r"'m', split 'train': the rows of 1 of its 2 tasks are not.*on_missing"
    ):
        export.export_mixture(request(name="m"), export_dir=tmp_path / "out")
    assert not (tmp_path / "out" / "tasks").exists()


def test_tasks_whose_rows_lack_for_one_reason_are_one_line(tmp_path, register, registries):
    for number in range(5):
        register(f"lost_{number}", source=JsonlSource(files={"train": str(tmp_path / f"lost_{number}.jsonl")}))
    registries.register_mixture("m", [f"lost_{number}" for number in range(5)])
    with pytest.raises(FileNotFoundError, match="the rows of 5 of its 5 tasks") as refused:
        export.export_mixture(request(name="m"), export_dir=tmp_path / "out")
    (line,) = str(refused.value).splitlines()[1:]
    assert line.startswith("  5 tasks (lost_0, lost_1, lost_2, ...): No file ") and "lost_0.jsonl" in line


def test_a_mixture_without_its_missing_sources_says_what_it_has_become(tmp_path, register, registries, lost, capsys):
    register("a")
    register("b")
    registries.register_mixture("inner", [("a", 1), ("lost", 1)])
    registries.register_mixture("m", [("inner", 3.0), ("b", 1)])
    out, skip = tmp_path / "out", request(name="m", on_missing_source="skip")
    manifest = export.export_mixture(skip, export_dir=out)
    # "a" has all of what it was to share with the member that is missing.
    assert [(m.task, m.rate) for m in manifest.members] == [("a", 3.0), ("b", 1.0)]
    assert manifest.skipped["lost"].startswith("is not available: No file ")
    assert "  1 task (lost): is not available: No file" in capsys.readouterr().err
    assert exports.find(skip, out) == manifest
    refused = exports.find(request(name="m"), out)
    assert "was made without lost" in refused.reason
    (tmp_path / "lost.jsonl").write_text('{"q": "q", "a": "a"}\n')
    assert "was made before" in exports.find(skip, out).reason
    again = export.export_mixture(skip, export_dir=out)
    assert [(m.task, m.rate) for m in again.members] == [("a", 1.5), ("b", 1.0), ("lost", 1.5)]


def test_a_mixture_of_which_nothing_is_there_cannot_be_skipped_whole(tmp_path, lost):
    with pytest.raises(FileNotFoundError, match=r"No file .*lost.jsonl"):
        export.export_mixture(request(name="lost", on_missing_source="skip"), export_dir=tmp_path)


def test_tasks_at_rate_zero_are_not_exported(tmp_path, register, registries):
    import seqio

    register("a")
    register("b")
    seqio.MixtureRegistry.add("m", [("a", 1), ("b", 0)])
    manifest = export.export_mixture(request(name="m"), export_dir=tmp_path)
    assert [m.task for m in manifest.members] == ["a"]
    assert manifest.skipped == {"b": "has rate 0"}
    assert not list((tmp_path / "tasks").glob("b-*"))


def test_too_many_long_targets_are_refused_with_task_share_and_mend(tmp_path, register):
    register(train=4, templates=(Template(inputs="{q}", targets="{a} and more"),))
    with pytest.raises(ValueError) as caught:
        export.export_mixture(request(), export_dir=tmp_path)
    assert str(caught.value) == (
        "'toy', split 'train': too many targets are longer than 8 tokens and would be truncated: 'toy' 4 of 4 (100.0%). At "
        "most 5.0% of a task's targets may be (max_truncated_targets). Raise TASK_FEATURE_LENGTHS['targets'], leave "
        "these tasks out, or allow it: max_truncated_targets = 1.0."
    )
    assert not (tmp_path / "mixtures").exists()
    manifest = export.export_mixture(request(max_truncated_targets=1.0), export_dir=tmp_path)
    assert read_task(tmp_path / manifest.members[0].path).truncated["targets"] == 4


def test_too_many_long_targets_are_refused_after_a_sample(tmp_path, register):
    def rows():
        for i in range(10_000):
            yield {"q": "q", "a": "a" * 40 if i % 10 == 0 else "a"}

    register(source=InMemorySource(data={"train": rows}), templates=TEMPLATES[:1])
    with pytest.raises(UserError, match=r"'toy' 205 of the first 2,048 \(10\.0%\).*max_truncated_targets = 0\.11\.$"):
        export.export_mixture(request(), export_dir=tmp_path)
    with pytest.raises(UserError, match=r"first 2,048"):
        export.export_mixture(request(max_truncated_targets=0.06), export_dir=tmp_path)
    assert not list(tmp_path.glob("tasks/*/train")) and not (tmp_path / "mixtures").exists()
    # A share just above the limit may still fall below it: the whole split decides.
    with pytest.raises(UserError, match=r"'toy' 1,000 of 10,000 \(10\.0%\)"):
        export.export_mixture(request(max_truncated_targets=0.09), export_dir=tmp_path)
    export.export_mixture(request(max_truncated_targets=0.1), export_dir=tmp_path)


def test_a_share_within_the_limit_is_counted_and_allowed(tmp_path, register):
    data = [{"q": "q", "a": "a" * 40 if i == 0 else "a"} for i in range(20)]
    register(source=InMemorySource(data={"train": data}), templates=TEMPLATES[:1])
    manifest = export.export_mixture(request(), export_dir=tmp_path)
    assert read_task(tmp_path / manifest.members[0].path).truncated == {"inputs": 0, "targets": 1}


def test_the_limit_that_is_proposed_is_enough(tmp_path, register):
    data = [{"q": "q", "a": "a" * 40 if i < 2 else "a"} for i in range(7)]
    register(source=InMemorySource(data={"train": data}), templates=TEMPLATES[:1])
    with pytest.raises(ValueError, match=r"max_truncated_targets = 0.29\.$"):
        export.export_mixture(request(), export_dir=tmp_path)
    export.export_mixture(request(max_truncated_targets=0.29), export_dir=tmp_path)


def test_texts_of_white_space_are_empty_to_a_vocabulary_that_drops_it(tmp_path, register, registries):
    registries.use_vocabulary("embedded")
    register(source=InMemorySource(data={"train": [{"q": "q", "a": " "}]}), templates=TEMPLATES[:1])
    with pytest.raises(ValueError, match=r"is empty, .* \(empty targets: 1\)"):
        export.export_mixture(request(), export_dir=tmp_path)


def test_an_empty_split_is_refused_with_reasons(tmp_path, register):
    template = Template(inputs="{q}", targets="{a}")
    register(source=InMemorySource(data={"train": [{"q": "", "a": "a"}, {"q": "q", "a": ""}]}), templates=(template,))
    with pytest.raises(
        ValueError,
        match=r"Task 'toy': split 'train' is empty, .* \(empty inputs: 1, empty targets: 1\)\. Fix its rows",
    ):
        export.export_mixture(request(), export_dir=tmp_path)
    assert not list(tmp_path.rglob("manifest.json"))


def test_a_bad_row_is_named_by_file_and_line_and_nothing_is_published(tmp_path, register):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"q": "q", "a": "a"}\nnot json\n')
    register(source=JsonlSource(files={"train": str(path)}))
    with pytest.raises(ValueError, match=rf"{path}:2: not JSON"):
        export.export_mixture(request(), export_dir=tmp_path / "export")
    assert not list((tmp_path / "export").rglob("manifest.json"))


def test_bad_rows_that_may_be_skipped_are_counted(tmp_path, register):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"q": "q", "a": "a"}\nnot json\n')
    register(source=JsonlSource(files={"train": str(path)}, on_bad_row="skip"))
    manifest = export.export_mixture(request(), export_dir=tmp_path / "export")
    task = read_task(tmp_path / "export" / manifest.members[0].path)
    assert (task.num_examples, task.rows_read, task.dropped) == (1, 2, {"not JSON": 1})


def test_data_files_and_patterns_are_definitions(tmp_path, register):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"q": "q", "a": "a"}\n')
    register(source=JsonlSource(files={"train": str(tmp_path / "*.jsonl")}))
    manifest = export.export_mixture(request(), export_dir=tmp_path / "export")
    files = {p: f.kind for p, f in manifest.definition_files.items() if f.kind != "package"}
    assert files == {str(path): "data", str(tmp_path / "*.jsonl"): "data"}
    (tmp_path / "more.jsonl").write_text('{"q": "q", "a": "a"}\n')
    assert "*.jsonl has changed" in exports.find(request(), tmp_path / "export").reason


def test_two_vocabularies_in_a_mixture_are_refused_by_name(tmp_path, register, registries):
    import seqio

    register("a")
    registries.use_vocabulary("embedded")
    register("b")
    seqio.MixtureRegistry.add("m", [("a", 1), ("b", 1)])
    with pytest.raises(
        ValueError, match=r"'m' mixes vocabularies: 'a' has bytes with 259 ids, .* 'b' has sentencepiece"
    ):
        export.export_mixture(request(name="m"), export_dir=tmp_path)


def test_a_sentencepiece_model_travels_with_the_export(tmp_path, register, registries):
    from flan_jax.vocab import load

    registries.use_vocabulary("embedded")
    register(templates=TEMPLATES[:1])
    manifest = export.export_mixture(request(), export_dir=tmp_path)
    ref = manifest.vocabulary
    assert load(str(tmp_path / ref.file), extra_ids=ref.extra_ids).digest == ref.digest
    assert ref.size == load("embedded").size


def test_no_room_is_said_before_anything_is_written(tmp_path, register, monkeypatch):
    import shutil

    register()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(ValueError, match=r"No room on disk for the export in .*: it needs 0 MiB"):
        export.export_mixture(request(), export_dir=tmp_path)
    assert not (tmp_path / "tasks").exists()


def test_one_split_can_be_exported_by_itself(tmp_path, register):
    manifest = export_task(register(train=3), "train", lengths=LENGTHS, export_dir=tmp_path)
    assert manifest.num_examples == 3
    assert len(ExportedTask(tmp_path / "tasks" / f"toy-{manifest.fingerprint[:12]}" / "train")) == 3


def test_writers_of_one_export_wait_for_each_other(tmp_path, capsys):
    order = []

    def other():
        with export._locked(tmp_path):
            order.append("other")

    with export._locked(tmp_path):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]
    assert "Another process exports to" in capsys.readouterr().err


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    """A folder with a stranger's vocabulary, lines, and export, made in a process of its own."""
    folder = tmp_path_factory.mktemp("strangers")
    (folder / "lines.txt").write_text("the cat sat\na dog ran home\nit is late\n")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat", "a dog ran home", "it is late", "reverse: yes"] * 20),
        model_prefix=str(folder / "own"),
        vocab_size=60,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return folder


def test_external_tasks_are_exported_without_change(tmp_path, strangers, monkeypatch, request, registries):
    """Ids equal to those that SeqIO itself gives, written by a child as in a run."""
    fixture = request.path.parents[2] / "fixtures" / "plain_seqio_tasks.py"
    monkeypatch.setenv("PLAIN_MODEL", str(strangers / "own.model"))
    monkeypatch.setenv("PLAIN_LINES", str(strangers / "lines.txt"))
    asked = Request(name="strangers_mixture", lengths={"inputs": 32, "targets": 32}, module=str(fixture))
    (manifest,) = ensure_exports([asked], export_dir=tmp_path)
    assert [(m.task, m.rate, m.examples) for m in manifest.members] == [
        ("strangers_lines", 3.0, 3),
        ("strangers_numbers", 1.0, 5),
    ]
    assert manifest.vocabulary.kind == "sentencepiece"
    kinds = {f.kind: p for p, f in manifest.definition_files.items()}
    assert kinds["module"] == str(fixture)
    assert kinds["vocabulary"] == str(strangers / "own.model")
    assert kinds["data"] == str(strangers / "lines.txt")
    lines, numbers = open_members(manifest, export_dir=tmp_path)
    task = lines.manifest
    assert (task.metadata.evaluation, task.metadata.metrics, task.metadata.cluster) == (
        "external",
        ("exact_match", "rouge_l"),
        "external",
    )
    registries.import_module(str(fixture))
    theirs = []
    for name, seed in (("strangers_lines", 0), ("strangers_numbers", None)):
        examples = registries.task(name).get_dataset(asked.lengths, "train", shuffle=False, seed=seed)
        theirs.append([[e["inputs"].tolist(), e["targets"].tolist()] for e in examples.as_numpy_iterator()])
    ours = [[[i.tolist(), t.tolist()] for i, t in t.read(range(len(t)))] for t in (lines, numbers)]
    assert ours == theirs
    assert "seqio" in json.dumps(dataclasses.asdict(task)["identity"])


def test_a_name_that_does_not_exist_is_refused_before_anything_is_exported(registries, tmp_path):
    from flan_jax.tasks.exporting.export import export_requests

    known = Request(name="embedded_train", lengths={"inputs": 64, "targets": 16})
    for wrong in ({"name": "embedded_trian"}, {"split": "tset", "on_missing_split": "error"}):
        with pytest.raises(UserError, match="embedded_train|'tset'"):
            export_requests([known, dataclasses.replace(known, **wrong)], export_dir=tmp_path)
        assert not list(tmp_path.rglob("*.array_record*"))
