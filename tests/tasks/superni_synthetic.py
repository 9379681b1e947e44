"""Super-NaturalInstructions in small: tasks of our own words in both layouts."""

import gzip
import json


def task(name, *, category="Toy Sorting", instances=2, **changes):
    """One task; a change to None leaves the field out."""
    record = {
        "Task": name,
        "Contributors": ["Someone"],
        "Source": None,
        "Categories": [category],
        "Definition": [f"Sort the letters of {name}"],
        "Positive Examples": [
            {"input": "ba", "output": "ab", "explanation": "a comes first"},
            {"input": "dc", "output": "cd", "explanation": "c comes first"},
        ],
        "Negative Examples": [],
        "Instances": [{"id": f"{name}-{i}", "input": f"c{i}", "output": [f"{i}c", "x"]} for i in range(instances)],
        "Instance License": ["CC0", "MIT"],
    }
    return {key: value for key, value in {**record, **changes}.items() if value is not None}


def write_shard(path, *records):
    text = "".join(json.dumps(record) + "\n" for record in records)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def write_official(path, record):
    path.parent.mkdir(exist_ok=True)
    content = json.dumps({k: v for k, v in record.items() if k != "Task"}, indent=4).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_lists(folder, **lists):
    folder.mkdir(parents=True)
    for which, names in lists.items():
        (folder / f"{which}_tasks.txt").write_text("\n".join(names) + "\n")


def synthetic_folder(folder):
    """Two training and three test tasks, one of them a development task; one listed task is missing."""
    folder.mkdir()
    write_shard(folder / "train-00000.jsonl.gz", task("task001_sorting"), task("task002_naming-things"))
    write_shard(
        folder / "test-00000.jsonl.gz",
        task("task003_entailment", category="Textual Entailment"),
        task("task004_title", category="Title Generation"),
        task("task005_entailment_again", category="Textual Entailment"),
    )
    write_lists(
        folder / "splits",
        train=["task001_sorting", "task009_gone", "task002_naming-things"],
        test=["task003_entailment", "task004_title", "task005_entailment_again"],
        dev=["task003_entailment"],
        excluded=["task010_excluded"],
    )
    return folder
