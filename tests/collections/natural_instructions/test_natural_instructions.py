"""Super-NaturalInstructions as SeqIO tasks: splits that hold out, seeded choices, budgets, what is missing by name."""

import pytest

from flan_jax.collections.natural_instructions.selection import LabelRule
from flan_jax.tasks.rendering import iter_rendered
from tests.collections.natural_instructions.superni_test_tasks import TEST_TASKS
from tests.tasks.superni_synthetic import synthetic_folder, task, write_lists, write_official, write_shard

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def collection(registries, monkeypatch):
    from flan_jax.collections.natural_instructions import collection as natural_instructions

    monkeypatch.delenv(natural_instructions.DATA.variable, raising=False)
    return natural_instructions


@pytest.fixture
def folder(tmp_path):
    return synthetic_folder(tmp_path / "superni")


def rendered(registries, name, split):
    return [r.rendered for r in iter_rendered(registries.templated(name), split)]


def test_train_tasks_have_train_only_and_test_tasks_test_only(collection, registries, folder):
    collection.register(folder)
    splits = {name: sorted(registries.task(name).splits) for name in registries.names() if "_task" in name}
    assert splits == {
        "superni_task001_sorting": ["train"],
        "superni_task002_naming_things": ["train"],
        "superni_task003_entailment": ["test"],
        "superni_task004_title": ["test"],
        "superni_task005_entailment_again": ["test"],
    }


def test_the_mixtures_are_the_lists_and_a_sample_without_development_tasks(collection, registries, folder):
    collection.register(folder)
    members = {n: [t.name for t in registries.mixture_or_task(n).tasks] for n in registries.names() if "_task" not in n}
    assert members == {
        "superni_train": ["superni_task001_sorting", "superni_task002_naming_things"],
        "superni_train_disjoint": ["superni_task001_sorting", "superni_task002_naming_things"],
        "superni_test": ["superni_task003_entailment", "superni_task004_title", "superni_task005_entailment_again"],
        # task003 is a development task, so the sample takes the next of its category.
        "superni_test_sample": ["superni_task004_title", "superni_task005_entailment_again"],
    }
    rates = registries.mixture_or_task("superni_train").rate_per_task_name
    assert {rate.of(5000) for rate in rates.values()} == {100}


def test_a_record_carries_category_license_metrics_and_all_outputs(collection, registries, folder):
    collection.register(folder)
    record = registries.templated("superni_task003_entailment")
    assert (record.cluster, record.license) == ("textual_entailment", "CC0, MIT")
    first = rendered(registries, "superni_task003_entailment", "test")[0]
    assert first.references == ("0c", "x") and first.targets in first.references
    assert first.inputs.endswith("Now complete the following example -\nInput: c0.\nOutput: ")


@pytest.mark.parametrize(
    ("category", "metrics"),
    [
        ("Textual Entailment", ("superni_exact_match", "rouge_l")),
        ("Title Generation", ("rouge_l", "superni_exact_match")),
        ("Sentiment Analysis", ("rouge_l", "superni_exact_match")),
    ],
)
def test_a_categorys_headline_metric_comes_first(collection, registries, tmp_path, category, metrics):
    write_shard(tmp_path / "all.jsonl", task("task001_a", category=category))
    collection.register(tmp_path, collection.Settings(split="test"))
    assert registries.templated("superni_task001_a").metrics == metrics


def test_the_cross_lingual_track_has_mixtures_and_a_metric_of_its_own(collection, registries, folder):
    write_shard(
        folder / "more.jsonl", task("task006_xcopa", category="Cause Effect Classification"), task("task007_de")
    )
    write_lists(
        folder / "splits" / "xlingual", train=["task001_sorting", "task007_de"], test=["task006_xcopa", "task008"]
    )
    found = collection.register(folder)
    assert found["xlingual_test"].missing == ("task008",)
    members = {
        which: [t.name for t in registries.mixture_or_task(f"superni_xlingual_{which}").tasks]
        for which in ("train", "test")
    }
    assert members == {
        "train": ["superni_task001_sorting", "superni_task007_de"],
        "test": ["superni_task006_xcopa"],
    }
    assert registries.templated("superni_task006_xcopa").metrics == ("superni_exact_match", "rouge_l_xlingual")
    assert registries.templated("superni_task003_entailment").metrics == ("superni_exact_match", "rouge_l")
    assert "superni_task007_de" not in registries.mixture_or_task("superni_train").rate_per_task_name


def test_tk_instruct_draws_for_training_and_tests_under_the_headline_encoding(collection, registries, folder):
    write_shard(folder / "train-00000.jsonl.gz", task("task001_sorting", instances=60), task("task002_naming-things"))
    collection.register(folder, collection.Settings(encoding="tk_instruct", passes=2))
    prompts = [r.inputs for r in rendered(registries, "superni_task001_sorting", "train")]
    assert len(prompts) == 120
    assert 20 < sum("Definition" not in prompt for prompt in prompts) < 30
    tested = [r.inputs for r in rendered(registries, "superni_task003_entailment", "test")]
    assert all("Definition" in prompt and prompt.count(" Positive Example ") == 2 for prompt in tested)
    collection.register(folder)
    assert tested == [r.inputs for r in rendered(registries, "superni_task003_entailment", "test")]


def test_licenses_and_sources_exclude_tasks_by_name(collection, registries, folder):
    write_shard(
        folder / "train-00000.jsonl.gz",
        task("task001_sorting", **{"Instance License": ["CC BY-NC 4.0"]}),
        task("task002_naming-things", Source=["synthetic"]),
    )
    found = collection.register(folder, collection.Settings(licenses=LabelRule(deny=("*NC*",))))["train"]
    assert found.left_out == {"task001_sorting": "license 'CC BY-NC 4.0'"}
    assert [t.name for t in registries.mixture_or_task("superni_train").tasks] == ["superni_task002_naming_things"]
    found = collection.register(folder, collection.Settings(sources=LabelRule(deny=("synthetic",))))["train"]
    assert found.readable == ("task001_sorting",) and "superni_task002_naming_things" not in registries.names()


def test_the_disjoint_mixture_lacks_what_shares_a_corpus_with_a_test_task(collection, registries, folder):
    write_shard(
        folder / "train-00000.jsonl.gz",
        task("task001_sorting", Source=["e_snli"]),
        task("task002_naming-things", Source=["paws"]),
    )
    write_shard(
        folder / "test-00000.jsonl.gz", task("task003_entailment", category="Textual Entailment", Source=["snli"])
    )
    collection.register(folder)
    assert registries.templated("superni_task001_sorting").corpora == ("esnli", "snli")
    names = [t.name for t in registries.mixture_or_task("superni_train_disjoint").tasks]
    assert names == ["superni_task002_naming_things"]
    assert len(registries.mixture_or_task("superni_train").tasks) == 2


def test_a_folder_without_lists_registers_for_one_split(collection, registries, tmp_path):
    write_official(tmp_path / "sorting" / "task001_a.json.gz", task("task001_a"))
    with pytest.raises(FileNotFoundError, match="Without lists, set the split of all tasks"):
        collection.register(tmp_path)
    collection.register(tmp_path, collection.Settings(split="train"))
    assert registries.names() == ("superni_task001_a", "superni_train")
    with pytest.raises(ValueError, match="Settings.split: expected one of train, test, got 'dev'"):
        collection.register(tmp_path, collection.Settings(split="dev"))


@pytest.mark.parametrize("name", ["max_source_tokens", "max_instances", "passes"])
def test_a_number_below_one_is_refused(collection, folder, name):
    with pytest.raises(ValueError, match=f"Settings.{name}: expected a whole number of at least 1, got 0"):
        collection.register(folder, collection.Settings(**{name: 0}))


def test_seqio_yields_what_the_pure_path_yields(collection, registries, folder):
    collection.register(folder)
    task_ = registries.task("superni_task001_sorting")
    dataset = task_.get_dataset({"inputs": 1024, "targets": 64}, "train", shuffle=False)
    texts = [(e["inputs_pretokenized"], e["targets_pretokenized"]) for e in dataset.as_numpy_iterator()]
    found = [(inputs.decode(), targets.decode()) for inputs, targets in texts]
    assert found == [(r.inputs, r.targets) for r in rendered(registries, "superni_task001_sorting", "train")]


def test_the_revision_is_of_the_task_and_not_of_its_shard(collection, registries, folder):
    def revisions():
        collection.register(folder)
        names = ("superni_task001_sorting", "superni_task002_naming_things")
        return [registries.templated(name).source.revision("train") for name in names]

    before = revisions()
    shard = folder / "train-00000.jsonl.gz"
    write_shard(shard, task("task001_sorting"), task("task002_naming-things", instances=9))
    after = revisions()
    assert before[0] == after[0] and before[1] != after[1]


def test_caches_of_encoding_do_not_change_the_identity(collection, registries, folder):
    collection.register(folder)
    record = registries.templated("superni_task001_sorting")
    before = registries.resolve(record.name).identity("train")
    rendered(registries, record.name, "train")
    assert registries.resolve(record.name).identity("train") == before
    collection.register(folder, collection.Settings(encoding="definition"))
    assert registries.resolve(record.name).identity("train") != before


def test_the_budget_is_counted_with_the_tasks_vocabulary(collection, registries, folder):
    shown = []
    for max_source_tokens in (1024, 170, 100):  # The bytes vocabulary: a token a character.
        collection.register(folder, collection.Settings(max_source_tokens=max_source_tokens))
        shown.append(rendered(registries, "superni_task001_sorting", "train")[0].inputs.count(" Positive Example "))
    assert shown == [2, 1, 0]


def test_registering_the_same_again_does_nothing_and_other_settings_replace(collection, registries, folder):
    collection.register(folder)
    first = registries.task("superni_task001_sorting")
    collection.register(folder)
    assert registries.task("superni_task001_sorting") is first
    collection.register(folder, collection.Settings(encoding="positive"))
    assert registries.task("superni_task001_sorting") is not first
    assert "Definition" not in rendered(registries, "superni_task001_sorting", "train")[0].inputs


def test_several_encodings_coexist_under_prefixes(collection, registries, folder):
    collection.register(folder)
    collection.register(folder, collection.Settings(encoding="definition", prefix="plain"))
    assert {"superni_train", "plain_train"} <= set(registries.names())
    assert "Positive" not in rendered(registries, "plain_task001_sorting", "train")[0].inputs


def test_coverage_names_what_is_missing(collection, folder):
    found = collection.register(folder)
    assert found["train"].missing == ("task009_gone",) and len(found["train"].readable) == 2
    assert found["test"].missing == () and found["dev"].readable == ("task003_entailment",)
    assert found["excluded"].missing == ("task010_excluded",)
    assert collection.register(folder) == found


def test_the_mixtures_note_what_their_lists_lack(collection, registries, folder):
    collection.register(folder, collection.Settings(sources=LabelRule(deny=("x",))))
    assert registries.notes_of("superni_train") == (
        f"1 of 3 tasks of the list 'train' are not in {folder}: task009_gone.",
    )
    assert registries.notes_of("superni_test") == () == registries.notes_of("superni_task001_sorting")
    registries.register_mixture("both", [("superni_train", 1.0), ("superni_test", 1.0)])
    assert registries.notes_of("both") == registries.notes_of("superni_train")


def test_an_exports_manifest_and_the_description_of_a_mixture_have_the_notes(collection, registries, folder, tmp_path):
    from flan_jax.data.manifest import Request
    from flan_jax.tasks import mixture_description
    from flan_jax.tasks.exporting.export import export_mixture

    collection.register(folder)
    lengths = {"inputs": 1024, "targets": 64}
    made = export_mixture(Request(name="superni_train", lengths=lengths), export_dir=tmp_path / "exports")
    assert made.notes == registries.notes_of("superni_train") != ()
    shown = mixture_description.mixture(
        "superni_train", split="train", steps=1, batch_size=1, lengths=lengths, export_dir=None
    )
    assert tuple(shown["notes"]) == made.notes


def test_lint_reports_violations_of_the_repositorys_rules(collection, registries, folder):
    collection.register(folder)
    found = registries.resolve("superni_task001_sorting").lint(lengths={"inputs": 1024, "targets": 64})
    reported = [finding.detail for finding in found if finding.rule == "source's rules"]
    assert reported == ["2 instances, 26 to 6,500 are allowed", "no negative example, at least 1 is required"]


def test_rules_that_exclude_everything_are_errors_that_name_the_excluded(collection, registries, folder):
    message = (
        r"No task .* is left. 1 of 3 .* not in .*: task009_gone. 2 of 3 .* left out: task001_sorting \(license 'MIT'\)"
    )
    with pytest.raises(ValueError, match=message):
        collection.register(folder, collection.Settings(licenses=LabelRule(deny=("MIT",))))
    assert registries.names() == ()


def test_without_a_folder_nothing_is_registered(collection, registries, folder, monkeypatch):
    assert collection.register() == {} and registries.names() == ()
    monkeypatch.setenv(collection.DATA.variable, str(folder))
    collection.register()
    assert "superni_train" in registries.names()


def test_an_unknown_encoding_is_named_with_the_nearest(collection, folder):
    with pytest.raises(KeyError, match="encoding must be one of .*; got 'definitions'. Did you mean 'definition'"):
        collection.register(folder, collection.Settings(encoding="definitions"))


def test_a_task_in_both_lists_is_refused(collection, tmp_path):
    write_shard(tmp_path / "all.jsonl", task("task001_a"))
    write_lists(tmp_path / "splits", train=["task001_a"], test=["task001_a"])
    with pytest.raises(ValueError, match="task001_a is in a train list and in a test list"):
        collection.register(tmp_path)


def test_a_yaml_file_registers_the_collection_with_its_settings(collection, registries, folder, tmp_path, monkeypatch):
    entry = "collections:\n  natural_instructions: {data_dir: superni, encoding: definition}\n"
    (tmp_path / "mine.yaml").write_text(entry + "mixtures:\n  half: {members: [superni_task001_sorting]}\n")
    files = registries.import_module(str(tmp_path / "mine.yaml"))
    assert files == (str(tmp_path / "mine.yaml"),) and "half" in registries.names()
    assert "Positive" not in rendered(registries, "superni_task001_sorting", "train")[0].inputs
    elsewhere = synthetic_folder(tmp_path / "elsewhere")
    monkeypatch.setenv(collection.DATA.variable, str(elsewhere))
    registries.register_yaml(write(tmp_path / "other.yaml", entry))
    assert str(elsewhere) in registries.templated("superni_task001_sorting").source.files("train")[0]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ("{data_dir: 3}", ValueError, r"collections.natural_instructions.data_dir: expected a path, got 3"),
        (
            "{data_dir: superni, licenses: [CC0]}",
            ValueError,
            r"licenses: expected a mapping \(allow, deny\), got \['CC0'\]",
        ),
        ("{data_dirr: x}", ValueError, r"unknown key 'data_dirr'. Did you mean 'data_dir'"),
        ("{seed: 1}", ValueError, r"give data_dir, or set the environment variable FLAN_JAX_SUPERNI_DIR"),
        (
            "{data_dir: nowhere}",
            FileNotFoundError,
            r"no folder .*nowhere .*set the environment variable FLAN_JAX_.*git clone",
        ),
    ],
)
def test_wrong_settings_are_named_with_their_place(collection, registries, tmp_path, settings, error, message):
    path = write(tmp_path / "mine.yaml", f"collections:\n  natural_instructions: {settings}\n")
    with pytest.raises(error, match=message):
        registries.register_yaml(path)


def test_an_unknown_collection_is_named_with_the_nearest(collection, registries, tmp_path):
    path = write(tmp_path / "mine.yaml", "collections:\n  natural_instruction: {}\n")
    with pytest.raises(
        ValueError, match="unknown collection 'natural_instruction'. Did you mean 'natural_instructions'"
    ):
        registries.register_yaml(path)


def write(path, text):
    path.write_text(text)
    return path


@pytest.mark.shared_data
def test_every_readable_task_of_the_english_track_registers(collection, registries, shared_data):
    registries.use_vocabulary(shared_data / "vocab_t5" / "cc_all.32000.sentencepiece.model")
    found = collection.register(shared_data / "superni_default")
    assert (len(found["train"].readable), len(found["train"].listed)) == (687, 756)
    assert (len(found["test"].readable), len(found["test"].listed)) == (103, 119)
    assert len(found["train"].missing) == 69 and len(found["test"].missing) == 16
    assert "task165_mcscript_question_answering_commonsense" in found["train"].missing
    assert "task1356_xlsum_title_generation" in found["test"].missing
    assert len(registries.names()) == 687 + 103 + 4
    assert len(registries.mixture_or_task("superni_train_disjoint").tasks) == 636


@pytest.mark.shared_data
def test_the_test_tasks_are_of_the_published_categories_each_under_its_headline_metric(
    collection, registries, shared_data
):
    """Sizes and names of the published table; a task that is not here is held to its place in the list only."""
    sizes = {category: len(names) for category, names in TEST_TASKS.items()}
    assert sizes == {
        "Textual Entailment": 24,
        "Title Generation": 18,
        "Coreference Resolution": 14,
        "Answerability Classification": 13,
        "Question Rewriting": 11,
        "Data to Text": 9,
        "Word Analogy": 8,
        "Cause Effect Classification": 7,
        "Dialogue Act Recognition": 7,
        "Keyword Tagging": 5,
        "Overlap Extraction": 2,
        "Grammar Error Correction": 1,
    }
    exact = ("Textual Entailment", "Coreference Resolution", "Answerability Classification", "Word Analogy",
             "Cause Effect Classification", "Dialogue Act Recognition")  # fmt: skip
    found = collection.register(shared_data / "superni_default")
    assert {name for names in TEST_TASKS.values() for name in names} == set(found["test"].listed)
    for category, names in TEST_TASKS.items():
        for name in set(names) - set(found["test"].missing):
            record = registries.templated(collection.seqio_name(name, prefix="superni"))
            assert record.cluster == category.lower().replace(" ", "_")
            assert record.metrics[0] == ("superni_exact_match" if category in exact else "rouge_l")
    sample = [registries.templated(t.name) for t in registries.mixture_or_task("superni_test_sample").tasks]
    assert len({record.cluster for record in sample}) == 5
    trained = {registries.templated(t.name).cluster for t in registries.mixture_or_task("superni_train").tasks}
    assert not trained & {category.lower().replace(" ", "_") for category in TEST_TASKS}


@pytest.mark.shared_data
def test_the_published_training_list_shares_corpora_with_the_test_list_and_the_disjoint_one_does_not(
    collection, registries, shared_data
):

    from flan_jax.data.holdout import leaks

    collection.register(shared_data / "superni_default")

    def of(mixture):
        names = [t.name for t in registries.mixture_or_task(mixture).tasks]
        return [registries.resolve(name).metadata.facts(name) for name in names]

    test = of("superni_test")
    found = leaks(of("superni_train"), tasks=test)
    assert {leak.through for leak in found} == {"corpus"} and len({leak.task for leak in found}) == 687 - 636
    assert leaks(of("superni_train_disjoint"), tasks=test) == []


@pytest.mark.shared_data
def test_complete_task_files_in_folders_register_and_export(collection, registries, shared_data, tmp_path):
    from tests.tasks.exporting.exported import export_task

    collection.register(
        shared_data / "superni_flan_tasks", collection.Settings(split="train", prefix="whole", max_instances=20)
    )
    names = [t.name for t in registries.mixture_or_task("whole_train").tasks]
    assert len(names) == 43
    counted = 0
    for name in names[::6]:
        manifest = export_task(
            registries.task(name), "train", lengths={"inputs": 1024, "targets": 128}, export_dir=tmp_path
        )
        counted += manifest.num_examples
        assert manifest.rows_read == 20 and manifest.metadata.license
    assert counted == 20 * len(names[::6])
