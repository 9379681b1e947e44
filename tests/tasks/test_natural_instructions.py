"""Super-NaturalInstructions as SeqIO tasks: splits that hold out, seeded choices, budgets, what is missing by name."""

import pytest

from flan_jax.tasks.superni_files import task_files
from tests.tasks.superni_made_up import made_up_folder, task, write_lists, write_shard

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def family(registries, monkeypatch):
    from flan_jax.tasks import natural_instructions

    monkeypatch.delenv(natural_instructions.DATA_DIR_VARIABLE, raising=False)
    monkeypatch.setattr(natural_instructions, "_registered", {})
    return natural_instructions


@pytest.fixture
def folder(tmp_path):
    return made_up_folder(tmp_path / "superni")


def rendered(registries, name, split):
    return [r.rendered for r in registries.iter_rendered(registries.templated(name), split)]


def test_train_tasks_have_train_only_and_test_tasks_test_only(family, registries, folder):
    family.register(folder)
    splits = {name: sorted(registries.task(name).splits) for name in registries.names() if "_task" in name}
    assert splits == {
        "superni_task001_sorting": ["train"],
        "superni_task002_naming_things": ["train"],
        "superni_task003_entailment": ["test"],
        "superni_task004_title": ["test"],
        "superni_task005_entailment_again": ["test"],
    }


def test_the_mixtures_are_the_lists_and_a_sample_without_development_tasks(family, registries, folder):
    family.register(folder)
    members = {n: [t.name for t in registries.mixture_or_task(n).tasks] for n in registries.names() if "_task" not in n}
    assert members == {
        "superni_train": ["superni_task001_sorting", "superni_task002_naming_things"],
        "superni_test": ["superni_task003_entailment", "superni_task004_title", "superni_task005_entailment_again"],
        # task003 is a development task, so the sample takes the next of its category.
        "superni_test_sample": ["superni_task004_title", "superni_task005_entailment_again"],
    }
    rates = registries.mixture_or_task("superni_train").rate_per_task_name
    assert {rate.of(5000) for rate in rates.values()} == {100}


def test_a_record_carries_category_licence_metrics_and_all_outputs(family, registries, folder):
    family.register(folder)
    record = registries.templated("superni_task003_entailment")
    assert (record.cluster, record.licence) == ("textual_entailment", "CC0, MIT")
    assert record.metrics == ("rouge_l", "exact_match")
    first = rendered(registries, "superni_task003_entailment", "test")[0]
    assert first.references == ("0c", "x") and first.targets in first.references
    assert first.inputs.endswith("Now complete the following example -\nInput: c0.\nOutput: ")


def test_seqio_yields_what_the_pure_path_yields(family, registries, folder):
    family.register(folder)
    task_ = registries.task("superni_task001_sorting")
    dataset = task_.get_dataset({"inputs": 1024, "targets": 64}, "train", shuffle=False)
    texts = [(e["inputs_pretokenized"], e["targets_pretokenized"]) for e in dataset.as_numpy_iterator()]
    found = [(inputs.decode(), targets.decode()) for inputs, targets in texts]
    assert found == [(r.inputs, r.targets) for r in rendered(registries, "superni_task001_sorting", "train")]


def test_test_takes_the_first_instances_and_training_a_seeded_sample_in_file_order(family, registries, tmp_path):
    many = [task("task001_a", instances=40), task("task002_b", instances=40)]
    write_shard(tmp_path / "all.jsonl", *many)
    write_lists(tmp_path / "splits", train=["task001_a"], test=["task002_b"])

    def ids(seed):
        family.register(tmp_path, max_instances=5, seed=seed)
        of = {"train": "superni_task001_a", "test": "superni_task002_b"}
        rows = {split: registries.templated(name).source.rows(split) for split, name in of.items()}
        return {split: [int(row["id"].rsplit("-")[-1]) for row in found] for split, found in rows.items()}

    first, again, other = ids(0), ids(0), ids(1)
    assert first == again
    assert first["test"] == other["test"] == [0, 1, 2, 3, 4]
    assert first["train"] != other["train"] and len(set(first["train"])) == 5
    assert first["train"] == sorted(first["train"]) != [0, 1, 2, 3, 4]
    assert registries.num_examples(registries.templated("superni_task001_a"), "train") == 5


def test_the_target_is_drawn_by_the_seed_and_is_never_blank(family, registries, tmp_path):
    several = [{"id": str(i), "input": "?", "output": ["a", "b", " "]} for i in range(30)]
    write_shard(tmp_path / "all.jsonl", task("task001_a", Instances=several))
    write_lists(tmp_path / "splits", train=["task001_a"])

    def targets(seed):
        family.register(tmp_path, seed=seed)
        return [r.targets for r in rendered(registries, "superni_task001_a", "train")]

    assert set(targets(0)) == {"a", "b"}
    assert targets(0) == targets(0) != targets(1)


def test_the_revision_is_of_the_task_and_not_of_its_shard(family, registries, folder):
    def revisions():
        family.register(folder)
        names = ("superni_task001_sorting", "superni_task002_naming_things")
        return [registries.templated(name).source.revision("train") for name in names]

    before = revisions()
    shard = folder / "train-00000.jsonl.gz"
    write_shard(shard, task("task001_sorting"), task("task002_naming-things", instances=9))
    after = revisions()
    assert before[0] == after[0] and before[1] != after[1]


def test_what_was_kept_while_encoding_does_not_change_the_identity(family, registries, folder):
    family.register(folder)
    record = registries.templated("superni_task001_sorting")
    before = registries.identity(record, "train")
    rendered(registries, record.name, "train")
    assert registries.identity(record, "train") == before
    family.register(folder, encoding="definition")
    assert registries.identity(registries.templated(record.name), "train") != before


def test_the_budget_is_counted_with_the_tasks_vocabulary(family, registries, folder):
    shown = []
    for max_source_tokens in (1024, 170, 100):  # The bytes vocabulary: a token a character.
        family.register(folder, max_source_tokens=max_source_tokens)
        shown.append(rendered(registries, "superni_task001_sorting", "train")[0].inputs.count(" Positive Example "))
    assert shown == [2, 1, 0]


def test_registering_the_same_again_does_nothing_and_other_settings_replace(family, registries, folder):
    family.register(folder)
    first = registries.task("superni_task001_sorting")
    family.register(folder)
    assert registries.task("superni_task001_sorting") is first
    family.register(folder, encoding="positive")
    assert registries.task("superni_task001_sorting") is not first
    assert "Definition" not in rendered(registries, "superni_task001_sorting", "train")[0].inputs


def test_several_encodings_stand_side_by_side_under_prefixes(family, registries, folder):
    family.register(folder)
    family.register(folder, encoding="definition", prefix="plain")
    assert {"superni_train", "plain_train"} <= set(registries.names())
    assert "Positive" not in rendered(registries, "plain_task001_sorting", "train")[0].inputs


def test_coverage_names_what_is_missing(family, folder):
    found = family.coverage(folder)
    assert found["train"].missing == ("task009_gone",) and len(found["train"].readable) == 2
    assert found["test"].missing == () and found["dev"].readable == ("task003_entailment",)
    assert found["excluded"].missing == ("task010_excluded",)
    assert family.register(folder) == found


def test_without_a_folder_nothing_is_registered(family, registries, folder, monkeypatch):
    assert family.register() == {} and registries.names() == ()
    monkeypatch.setenv(family.DATA_DIR_VARIABLE, str(folder))
    family.register()
    assert "superni_train" in registries.names()


def test_an_unknown_encoding_is_named_with_the_nearest(family, folder):
    with pytest.raises(KeyError, match="No encoding 'definitions'. Did you mean 'definition'"):
        family.register(folder, encoding="definitions")


def test_a_task_in_both_lists_is_refused(family, tmp_path):
    write_shard(tmp_path / "all.jsonl", task("task001_a"))
    write_lists(tmp_path / "splits", train=["task001_a"], test=["task001_a"])
    with pytest.raises(ValueError, match="task001_a is in the train list and in the test list"):
        family.register(tmp_path)


def test_a_yaml_file_registers_the_family_with_its_settings(family, registries, folder, tmp_path, monkeypatch):
    entry = "families:\n  natural_instructions: {data_dir: superni, encoding: definition}\n"
    (tmp_path / "mine.yaml").write_text(entry + "mixtures:\n  half: {members: [superni_task001_sorting]}\n")
    files = registries.import_module(str(tmp_path / "mine.yaml"))
    assert files == (str(tmp_path / "mine.yaml"),) and "half" in registries.names()
    assert "Positive" not in rendered(registries, "superni_task001_sorting", "train")[0].inputs
    elsewhere = made_up_folder(tmp_path / "elsewhere")
    monkeypatch.setenv(family.DATA_DIR_VARIABLE, str(elsewhere))
    registries.register_yaml(write(tmp_path / "other.yaml", entry))
    assert str(elsewhere) in registries.templated("superni_task001_sorting").source.files("train")[0]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ("{data_dir: 3}", ValueError, r"families.natural_instructions.data_dir: expected str, got 3"),
        ("{data_dirr: x}", ValueError, r"unknown key 'data_dirr'. Did you mean 'data_dir'"),
        ("{seed: 1}", ValueError, r"give data_dir, or set the environment variable FLAN_JAX_SUPERNI_DIR"),
        ("{data_dir: nowhere}", FileNotFoundError, r"no folder .*nowhere .*set the environment variable FLAN_JAX_"),
    ],
)
def test_wrong_settings_are_named_with_their_place(family, registries, tmp_path, settings, error, message):
    path = write(tmp_path / "mine.yaml", f"families:\n  natural_instructions: {settings}\n")
    with pytest.raises(error, match=message):
        registries.register_yaml(path)


def test_an_unknown_family_is_named_with_the_nearest(family, registries, tmp_path):
    path = write(tmp_path / "mine.yaml", "families:\n  natural_instruction: {}\n")
    with pytest.raises(ValueError, match="unknown family 'natural_instruction'. Did you mean 'natural_instructions'"):
        registries.register_yaml(path)


def write(path, text):
    path.write_text(text)
    return path


@pytest.mark.shared_data
def test_every_readable_task_of_the_english_track_registers(family, registries, shared_data):
    registries.use_vocabulary(shared_data / "vocab_t5" / "cc_all.32000.sentencepiece.model")
    found = family.register(shared_data / "superni_default")
    assert (len(found["train"].readable), len(found["train"].listed)) == (687, 756)
    assert (len(found["test"].readable), len(found["test"].listed)) == (103, 119)
    assert len(found["train"].missing) == 69 and len(found["test"].missing) == 16
    assert "task165_mcscript_question_answering_commonsense" in found["train"].missing
    assert "task1356_xlsum_title_generation" in found["test"].missing
    assert len(registries.names()) == 687 + 103 + 3
    sample = [registries.templated(t.name) for t in registries.mixture_or_task("superni_test_sample").tasks]
    assert len({record.cluster for record in sample}) == 5
    clusters = {
        which: {registries.templated(t.name).cluster for t in registries.mixture_or_task(f"superni_{which}").tasks}
        for which in ("train", "test")
    }
    assert len(clusters["test"]) == 12 and not clusters["train"] & clusters["test"]


@pytest.mark.shared_data
def test_counting_parts_agrees_with_counting_whole_prompts_on_real_tasks(shared_data):
    """The budget's short cut against the rule spelled out: whole strings, tokenised one by one."""
    from flan_jax import vocab
    from flan_jax.templates.superni import Encoding, Prompter

    t5 = vocab.load(str(shared_data / "vocab_t5" / "cc_all.32000.sentencepiece.model"))
    files = task_files(shared_data / "superni_default")
    checked = cut = 0
    for name in list(files)[::20]:
        record = files[name].record()
        for max_tokens in (128, 512, 1024):
            encoding, count_tokens = Encoding(num_negative=1), lambda text: len(t5.encode(text))
            fast = Prompter(record, encoding=encoding, count_tokens=count_tokens, max_tokens=max_tokens)
            slow = WholePrompter(record, t5=t5, max_tokens=max_tokens)
            for instance in record["Instances"][:5]:
                prompt = fast(instance["input"])
                assert prompt == slow(instance["input"]), (name, max_tokens, instance["id"])
                checked += 1
                cut += prompt.count(" Example ") < 3
    assert checked > 500 and 100 < cut < checked - 100


class WholePrompter:
    """The published rule, as plainly as it can be said: three candidate strings, each tokenised whole."""

    def __init__(self, record, *, t5, max_tokens):
        shows_all = {"count_tokens": lambda text: 0, "max_tokens": 10**9}
        from flan_jax.templates.superni import Encoding, Prompter

        def parts(**encoding):
            whole = Prompter(record, encoding=Encoding(**{"num_positive": 0, **encoding}), **shows_all)("")
            return whole.removesuffix("Now complete the following example -\nInput: .\nOutput: ")

        self.definition = parts()
        one, two = (parts(definition=False, num_positive=n) for n in (1, 2))
        self.positives = [part for part in (one, two.removeprefix(one)) if part]
        negative = parts(definition=False, num_negative=1)
        self.negatives = [negative] if negative else []
        self.query = Prompter(record, encoding=Encoding(definition=False, num_positive=0), **shows_all)
        self.fits = lambda text: len(t5.encode(text)) + 1 <= max_tokens

    def __call__(self, text):
        query, positives, negatives = self.query(text), [], []
        for example in self.positives:
            if not self.fits(self.definition + " ".join(positives) + example + query):
                break
            positives.append(example)
        for example in self.negatives:
            if not self.fits(self.definition + " ".join(positives) + " ".join(negatives) + example + query):
                break
            negatives.append(example)
        return self.definition + "".join(positives) + "".join(negatives) + query


def test_a_missing_field_of_an_instance_is_named_with_its_place(family, registries, tmp_path):
    write_shard(tmp_path / "all.jsonl", task("task001_a", Instances=[{"id": "i7", "inputs": "x", "output": ["y"]}]))
    write_lists(tmp_path / "splits", train=["task001_a"])
    family.register(tmp_path)
    with pytest.raises(ValueError, match=r"task001_a, instance 'i7': .*found no 'input'. Did you mean 'inputs'"):
        rendered(registries, "superni_task001_a", "train")
