"""The collection T0: which names there are, what each task is, its mixtures, and how files declare it."""

import hashlib
import json
import zipfile
from collections import Counter

import pytest

from flan_jax.collections.t0 import collection as t0
from flan_jax.collections.t0 import prompted as t0_prompted
from flan_jax.collections.t0.prompted import EVAL_MIXTURES, TRAIN_MIXTURES, Contents, T0Settings
from flan_jax.collections.t0.table import DATASETS
from flan_jax.data.source import ExportedTask
from flan_jax.tasks.exporting.plans import plan
from flan_jax.tasks.rendering import iter_rendered
from flan_jax.templates import promptsource_files
from flan_jax.templates.promptsource_files import open_archive
from tests.tasks.exporting.exported import export_task

pytestmark = pytest.mark.tensorflow

# Made by the released code over promptsource's last version: tasks, SHA-256 of their sorted names, sum of the rates.
MIXTURES = {
    "t0_train": (313, "d81f1733b4bf5abc993a1f07c6acfdffe26ffff46a12e1fbef2f0b6c4d08a26d", 17_277_798),
    "t0+_train": (392, "5f4a4020b000c5eaee2fe318b0955d40e803b71c1afc97e709ef7eec1c48dbc3", 20_672_671),
    "t0++_train": (464, "f53a0b1b752ee854ae4f25db08c23b45feee4b4a673d19485c9aade53004265b", 23_118_591),
    "t0_train_one_og_prompt": (35, "b277f16fb587a14fa86299940097316517d7ffb930370dc397b8ceeccf12e0fd", 1_993_444),
    "t0_train_all_og_prompts": (222, "e780bb629f0b294debe1f16f30ff4157be8c613c69dd6882910a9f2ac37bfb0c", 12_527_831),
    "t0_eval_score_eval": (116, "947908cb5c6bc66579d10b346d525c8cf488f8a0fbd2480ddbdf898988642541", None),
    "t0_train_score_eval": (89, "c6be5eb2ced37a8f34b56d2473586e36ac928570c122ca04c8fab5e49aeec8ca", None),
    "bias_fairness_eval_score_eval": (16, "3f9b37f50469dd071e5f6348ec6a73340013562fdc3985b09152945618d9b9f3", None),
}
TASKS = (975, "57f507a70d732e194a7723e211e42ce2cc37699160e664079abacad32ca88d5b")
# Templates that each held-out dataset is evaluated under.
EVALUATED = {
    "super_glue/rte": 10, "super_glue/cb": 15, "anli": 45, "super_glue/wsc.fixed": 10, "winogrande/winogrande_xl": 5,
    "story_cloze/2016": 5, "super_glue/wic": 10, "hellaswag": 4, "super_glue/copa": 12,
}  # fmt: skip

MADE_UP = """\
dataset: toys
subset: size
templates:
  a: !Template
    name: is it big?
    answer_choices: small ||| big
    jinja: 'Is a {{thing}} big? ||| {% if label >= 0 %}{{ answer_choices[label] }}{% endif %}'
    metadata: !TemplateMetadata {original_task: true, choices_in_prompt: false, metrics: [Accuracy], languages: [en]}
  b: !Template
    name: which one
    answer_choices: '{{thing}} ||| {{other}}'
    jinja: '{{thing}} or {{other}}: which is bigger? ||| {{ [thing, other][label] }}'
    metadata: !TemplateMetadata {original_task: false, metrics: [ROUGE, BLEU, ROUGE]}
  c: !Template
    name: broken
    jinja: '{{thing.weight.unit}} ||| {{label}}'
"""
ROWS = [
    {"thing": "whale", "other": "mouse", "label": 0},
    {"thing": "ant", "other": "cow", "label": 1},
    {"thing": "pea", "other": "", "label": -1},
]


def digest(names):
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


@pytest.fixture
def empty(registries):
    """Registries without the collection."""
    return registries


@pytest.fixture
def published(empty, shared_data, monkeypatch):
    """The collection over promptsource's own archive."""
    monkeypatch.setenv(t0.ARCHIVE_VARIABLE, str(shared_data / "promptsource" / "templates.zip"))
    t0.register()
    return empty


@pytest.fixture
def toys(empty, tmp_path):
    """A file that declares rows and templates of a dataset that T0 does not have; call it with more settings."""
    with zipfile.ZipFile(tmp_path / "templates.zip", "w") as archive:
        archive.writestr("toys/size/templates.yaml", MADE_UP)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def declare(source=None, **settings):
        of_toys = {"kind": "jsonl", "splits": {"train": "rows.jsonl", "validation": "rows.jsonl"}, **(source or {})}
        entry = {"promptsource": "templates.zip", "rows": {"toys/size": of_toys}, **settings}
        path = tmp_path / "mine.yaml"
        path.write_text(json.dumps({"collections": {"t0": entry}}))  # JSON is YAML.
        empty.register_yaml(path)
        return empty

    return declare


@pytest.mark.shared_data
@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures_are_those_of_the_released_code(published, name):
    tasks, names, total = MIXTURES[name]
    mixture = published.mixture_or_task(name)
    found = [task.name for task in mixture.tasks]
    assert (len(found), digest(found)) == (tasks, names)
    rates = list(mixture.rate_per_task_name.values())
    if total is None:
        assert {(rate.maximum, rate.temperature) for rate in rates} == {(500_000, 1.0)}
    else:
        assert sum(rates) == total


@pytest.mark.shared_data
def test_names_are_those_of_the_released_code(published):
    names = set(published.names()) - set(MIXTURES)
    assert (len(names), digest(names)) == TASKS
    assert set(MIXTURES) == {*TRAIN_MIXTURES, *EVAL_MIXTURES} <= set(published.names())
    assert published.collections() == {"t0": len(names) + len(MIXTURES)}


@pytest.mark.shared_data
def test_held_out_datasets_are_evaluated_under_the_published_numbers_of_templates(published):
    collection = Contents(T0Settings(archive=open_archive(t0.os.environ[t0.ARCHIVE_VARIABLE])))
    members = collection.members("t0_eval_score_eval")
    assert {
        name: sum(prompt.task + "_score_eval" in members for prompt in collection.prompts(name)) for name in EVALUATED
    } == EVALUATED
    assert sum(EVALUATED.values()) == len(members)


@pytest.mark.shared_data
def test_plain_t0_holds_out_and_the_larger_ones_say_what_they_train_on(published):
    leaks = {}
    for name in TRAIN_MIXTURES:
        published.mixture_or_task(name)
        allowed = published.hold_out_of(name)["allowed"]
        leaks[name] = {
            d.name
            for d in DATASETS.values()
            for leak in allowed
            if leak[1:].startswith(t0_prompted.task_name(d.name, ""))
        }
    hellaswag, super_glue = {"hellaswag"}, {"super_glue/wsc.fixed", "super_glue/copa", "super_glue/wic"}
    assert leaks == {
        **dict.fromkeys(TRAIN_MIXTURES, set()), "t0+_train": hellaswag, "t0++_train": hellaswag | super_glue
    }  # fmt: skip


@pytest.mark.shared_data
def test_declaring_reads_no_template_and_asking_reads_those_of_one_dataset(published, monkeypatch):
    read = []
    original = promptsource_files._read
    monkeypatch.setattr(promptsource_files, "_read", lambda *args: read.append(args[2]) or original(*args))
    t0.register()
    assert published.defined_names() == set()
    assert read == []
    published.task("super_glue_rte_GPT_3_style")
    assert set(read) == {"super_glue/rte"}
    assert published.defined_names() == {"super_glue_rte_GPT_3_style"}


@pytest.mark.shared_data
def test_a_task_is_what_the_released_code_made_it(published):
    cb = published.templated("super_glue_cb_can_we_infer")
    assert (cb.evaluation, cb.metrics, cb.cluster, cb.corpora) == ("generate", ("macro_f1",), "NLI", ("cb",))
    ranked = published.templated("super_glue_cb_can_we_infer_score_eval")
    assert (ranked.evaluation, ranked.metrics, ranked.templates) == ("rank", ("rank_classes",), cb.templates)
    assert published.templated("hellaswag_complete_first_then_score_eval").metrics == ("rank_accuracy",)
    assert (
        published.templated("trec_which_category_best_describes")
        .source.unavailable("train")
        .startswith("TensorFlow Datasets has no rows of trec")
    )
    third = published.templated("anli_GPT_3_style_r3_score_eval")
    assert third.source.source.name == "anli/r3"
    features = published.task("super_glue_cb_can_we_infer").output_features
    assert [features[name].add_eos for name in ("inputs", "targets")] == [False, True]
    with pytest.raises(KeyError, match="Unknown task 'cnn_dailymail_3.0.0_news_summary_score_eval'"):
        published.task("cnn_dailymail_3.0.0_news_summary_score_eval")


CLASSES = {"cb": ["entailment", "contradiction", "neutral"], "rte": ["entailment", "not_entailment"]}


@pytest.fixture
def super_glue(empty, shared_data, tmp_path):
    """The collection over promptsource's own archive, with SuperGLUE's own files for rows."""
    rows = {
        f"super_glue/{name}": {
            "kind": "jsonl",
            "splits": {"train": f"superglue_{name}/fewglue_train.jsonl", "validation": f"superglue_{name}/val.jsonl*"},
            "classes": {"label": classes},
        }
        for name, classes in CLASSES.items()
    }
    rows["super_glue/wsc.fixed"] = {
        "kind": "jsonl",
        "splits": {"validation": "superglue_wsc/val.jsonl.gz"},
        "fields": {name: f"target.{name}" for name in ("span1_text", "span2_text", "span1_index", "span2_index")},
        "classes": {"label": [False, True]},
    }
    rows["super_glue/copa"] = {"kind": "jsonl", "splits": {"validation": "superglue_copa/val.jsonl"}}
    for entry in rows.values():
        entry["splits"] = {split: str(shared_data / path) for split, path in entry["splits"].items()}
    entry = {"promptsource": str(shared_data / "promptsource" / "templates.zip"), "rows": rows}
    path = tmp_path / "t0.yaml"
    path.write_text(json.dumps({"collections": {"t0": entry}}))
    empty.register_yaml(path)
    return empty


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "split", "examples", "options"),
    [
        ("super_glue_cb_always_sometimes_never_score_eval", "validation", 56, {3}),
        ("super_glue_rte_does_this_imply_score_eval", "validation", 277, {2}),
        ("super_glue_wsc.fixed_p_is_are_r_score_eval", "validation", 104, {2}),
        ("super_glue_copa_plausible_alternatives_score_eval", "validation", 100, {2}),
        ("super_glue_cb_always_sometimes_never", "train", 32, None),
    ],
)
def test_tasks_export_on_real_rows(super_glue, tmp_path, name, split, examples, options):
    lengths = {"inputs": 2048, "targets": 64}
    manifest = export_task(super_glue.task(name), split, lengths=lengths, export_dir=tmp_path / "export")
    assert (manifest.num_examples, manifest.rows_read, dict(manifest.dropped)) == (examples, examples, {})
    (directory,) = (tmp_path / "export" / "tasks").glob(f"*/{split}")
    exported, eos = ExportedTask(directory), super_glue.vocabulary().eos_id
    assert all(inputs[-1] != eos and targets[-1] == eos for inputs, targets in exported.read(range(examples)))
    if options is not None:
        meta = exported.read_meta(range(examples))
        assert {(len(row["options"]), len(row["option_tokens"])) for row in meta} == {(n, n) for n in options}
        assert {row["gold"] for row in meta} == set(range(max(options)))


@pytest.mark.shared_data
def test_an_export_notices_when_its_templates_change(super_glue, shared_data, tmp_path):
    task = super_glue.resolve("super_glue_copa_more_likely")
    planned = plan(task, "validation", lengths={"inputs": 99, "targets": 9}, export_dir=tmp_path)
    archive, rows = ("promptsource/templates.zip", "superglue_copa/val.jsonl")
    assert set(planned.files) == {str(shared_data / archive), str(shared_data / rows)}


def test_rows_are_dropped_and_counted_under_the_templates_reason(toys):
    dropped = Counter()
    task = toys().templated("toys_size_is_it_big_")
    rendered = [(e.rendered.inputs, e.rendered.targets) for e in iter_rendered(task, "train", dropped=dropped)]
    assert rendered == [("Is a whale big?", "small"), ("Is a ant big?", "big")]
    assert dropped == {"template 'is it big?' of toys/size gives an empty target": 1}


def test_a_template_that_raises_stops_with_its_name_and_the_rows_place_or_is_counted(toys):
    with pytest.raises(
        ValueError,
        match=r"rows.jsonl:1: Task 'toys_size_broken', template 0: template 'broken' of toys/size fails on .* UndefinedError",
    ):
        list(iter_rendered(toys().templated("toys_size_broken"), "train"))
    dropped = Counter()
    with pytest.raises(ValueError, match="the split 'train' .* has no usable row"):
        list(iter_rendered(toys(source={"on_bad_row": "skip"}).templated("toys_size_broken"), "train", dropped=dropped))
    assert dropped == {"a template failed": 3}


def test_a_dataset_of_ones_own_gets_tasks_under_its_templates_names(toys):
    registry = toys()
    collection = set(registry.names()) - registry.defined_names()
    assert collection == {
        "toys_size_is_it_big_", "toys_size_is_it_big__score_eval", "toys_size_which_one", "toys_size_which_one_score_eval",
        "toys_size_broken",
    }  # fmt: skip
    which = registry.templated("toys_size_which_one")
    assert (which.cluster, which.corpora, which.metrics) == ("unlisted", ("toys",), ("rouge", "bleu(tokenizer=intl)"))
    big = registry.templated("toys_size_is_it_big__score_eval")
    options = [e.rendered.options for e in iter_rendered(big, "validation", dropped=Counter())]
    assert options == [("small", "big")] * 2
    assert registry.templated("toys_size_broken").metrics == ("accuracy",)


def test_a_mixture_without_all_its_templates_in_the_archive_is_an_error(toys):
    registry = toys()
    assert not set(registry.names()) & set(MIXTURES)
    with pytest.raises(
        ValueError,
        match=r"Mixture 't0_eval_score_eval' contains super_glue/wsc.fixed, winogrande/winogrande_xl, .*templates.zip has no templates",
    ):
        registry.mixture_or_task("t0_eval_score_eval")


@pytest.mark.shared_data
def test_the_other_rule_of_rates_can_be_selected(shared_data):
    collection = Contents(
        T0Settings(archive=open_archive(shared_data / "promptsource" / "templates.zip"), rate_rule="divided")
    )
    rates = collection.members("t0_train")
    assert rates["gigaword_TLDR"] == pytest.approx(500_000 / 9)
    assert rates["glue_mrpc_same_thing"] == pytest.approx(3_668 / 7)


def test_the_environments_archive_goes_before_the_files(toys, tmp_path, monkeypatch):
    (tmp_path / "templates.zip").rename(tmp_path / "elsewhere.zip")
    with pytest.raises(
        FileNotFoundError, match=r"line 1: collections.t0: No folder or archive .*templates.zip .*git clone"
    ):
        toys()
    monkeypatch.setenv(t0.ARCHIVE_VARIABLE, str(tmp_path / "elsewhere.zip"))
    assert "toys_size_broken" in toys().names()


def test_without_an_archive_the_collection_is_not_declared(empty):
    t0.register()
    assert empty.collections() == {}


def test_declared_settings_survive_a_new_declaration_of_the_collection(toys):
    toys(on_bad_row="skip")
    t0.register()
    assert t0.COLLECTION.settings().on_bad_row == "skip"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"promptsorce": "x"}, r"collections.t0: unknown key 'promptsorce'\. Did you mean 'promptsource'"),
        ({"promptsource": None}, "collections.t0: give promptsource, its folder of templates or an archive of it, or set .*FLAN_JAX_PROMPTSOURCE_DIR"),
        ({"promptsource": 1}, "collections.t0.promptsource: expected a path, got 1"),
        ({"rate_rule": "publised"}, r"collections.t0.rate_rule: expected one of published, divided, got 'publised'\. Did you mean 'published'"),
        ({"on_bad_row": "stop"}, "collections.t0.on_bad_row: expected one of error, skip, got 'stop'"),
        ({"rows": {"toys/sise": {"kind": "jsonl", "splits": {"train": "x.jsonl"}}}}, r"collections.t0.rows: .*templates.zip has no templates for 'toys/sise'\. Did you mean 'toys/size'"),
        ({"rows": {"toys/size": {"kind": "jsonl"}}}, "collections.t0.rows.toys/size: the key 'splits' is missing"),
    ],
)  # fmt: skip
def test_invalid_settings_are_errors(toys, settings, message):
    with pytest.raises(ValueError, match=message):
        toys(**settings)
