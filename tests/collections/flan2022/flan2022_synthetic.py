"""The folders that Flan 2022 is read from, in small and in our own words: chain of thought, Super-NI, promptsource."""

import yaml

from flan_jax.collections.flan2022 import cot, dialog
from flan_jax.collections.flan2022.t0_prompts import DATASETS
from flan_jax.collections.natural_instructions import collection as natural_instructions
from flan_jax.collections.t0 import collection as t0
from tests.tasks.superni_synthetic import task as superni_task
from tests.tasks.superni_synthetic import write_lists, write_shard

# How many prompts of each dataset list their choices, and how many have some that they do not list.
SHOWN = {
    "amazon_polarity": 6, "cos_e/v1.11": 6, "dbpedia_14": 4, "dream": 2, "qasc": 4, "quail": 10, "quarel": 5,
    "quartz": 8, "race/high": 5, "race/middle": 5, "sciq": 3, "social_i_qa": 2, "wiki_hop/original": 5, "wiki_qa": 3,
    "app_reviews": 2,
}  # fmt: skip
SEPARATE = {
    "amazon_polarity": 3, "qasc": 4, "quail": 3, "race/high": 1, "race/middle": 1, "sciq": 2, "social_i_qa": 3,
    "wiki_qa": 2,
}  # fmt: skip
NIV2 = ("task001_sorting", "task002_naming-things", "task700_mmlu_questions", "task664_mmlu_answers")


def write_cot(folder):
    folder.mkdir()
    for one in cot.SETS:
        lines = (f"Q{i} of {one.name}?\\nThink.\tA{i}\tBecause {i}.\n" for i in range(30))
        (folder / f"{one.name}_train.tsv").write_text("".join(lines))
    return folder


def write_superni(folder):
    folder.mkdir()
    write_shard(folder / "train.jsonl", *(superni_task(name, instances=12) for name in NIV2), superni_task("task009_t"))
    write_lists(folder / "splits", train=[*NIV2, "task010_gone"], test=["task009_t"])
    return folder


def write_promptsource(folder, *, datasets=DATASETS):
    """As many prompts as promptsource has for each dataset, of the kinds that it has."""
    for dataset in datasets:
        kinds = ["shown"] * SHOWN.get(dataset, 0) + ["separate"] * SEPARATE.get(dataset, 0)
        kinds += ["free"] * (DATASETS[dataset] - len(kinds))
        path = folder / dataset / "templates.yaml"
        path.parent.mkdir(parents=True)
        name, _, subset = dataset.partition("/")
        entries = {f"{dataset}-{i}": _prompt(f"ask {i}", kind) for i, kind in enumerate(kinds)}
        text = yaml.safe_dump({"dataset": name, "subset": subset or None, "templates": entries})
        path.write_text(text)
    return folder


def _prompt(name, kind):
    return {
        "name": name,
        "jinja": f"{{{{ text }}}} {name}? ||| {{{{ label }}}}",
        "answer_choices": None if kind == "free" else "good ||| bad",
        "metadata": {"original_task": True, "choices_in_prompt": kind == "shown"},
    }


def name_no_folder(monkeypatch):
    """Nothing is read from this machine's environment."""
    for module in (cot, dialog, natural_instructions):
        monkeypatch.delenv(module.DATA.variable, raising=False)
    monkeypatch.delenv(t0.ARCHIVE_VARIABLE, raising=False)


def name_all_folders(monkeypatch, tmp_path):
    monkeypatch.setenv(cot.DATA.variable, str(write_cot(tmp_path / "cot")))
    monkeypatch.setenv(natural_instructions.DATA.variable, str(write_superni(tmp_path / "superni")))
    monkeypatch.setenv(t0.ARCHIVE_VARIABLE, str(write_promptsource(tmp_path / "prompts")))
