"""Two layouts of Super-NaturalInstructions, read alike; what is wrong with a file is said with its place."""

import json

import pytest

from flan_jax.collections.natural_instructions import task_files as superni_files
from flan_jax.collections.natural_instructions.task_files import task_files, task_lists
from tests.tasks.superni_synthetic import task, write_lists, write_official, write_shard


@pytest.fixture(params=["shards", "gz", "official", "flat", "folders"])
def folder(request, tmp_path):
    one, two = task("task001_a"), task("task002_b", category="Toy Naming")
    if request.param == "official":
        write_official(tmp_path / "tasks" / "task001_a.json", one)
        write_official(tmp_path / "tasks" / "task002_b.json", two)
    elif request.param == "folders":
        write_official(tmp_path / "sorting" / "task001_a.json.gz", one)
        write_official(tmp_path / "naming" / "task002_b.json.gz", two)
    elif request.param == "flat":
        write_official(tmp_path / "task001_a.json", one)
        write_official(tmp_path / "task002_b.json", two)
    else:
        suffix = ".jsonl" if request.param == "shards" else ".jsonl.gz"
        write_shard(tmp_path / f"train-00000{suffix}", two)
        write_shard(tmp_path / f"test-00000{suffix}", one)
    return tmp_path


def test_every_layout_gives_the_same_tasks(folder):
    found = task_files(folder)
    assert sorted(found) == ["task001_a", "task002_b"]
    assert (found["task002_b"].category, found["task002_b"].license) == ("Toy Naming", "CC0, MIT")
    for name, file in found.items():
        assert file.record() == task(name, category=file.category)


def test_a_shard_is_listed_and_loaded_once_for_all_its_tasks(tmp_path, monkeypatch):
    write_shard(tmp_path / "a.jsonl", *(task(f"task{i}_x") for i in range(9)))
    read = []
    real = superni_files._content
    monkeypatch.setattr(superni_files, "_content", lambda path: read.append(path) or real(path))
    for file in [*task_files(tmp_path).values(), *task_files(tmp_path).values()]:
        file.record()
    assert read == [tmp_path / "a.jsonl"] * 2


def test_a_rewritten_file_is_read_again(tmp_path):
    write_shard(tmp_path / "a.jsonl", task("task1_x"))
    assert len(task_files(tmp_path)["task1_x"].record()["Instances"]) == 2
    write_shard(tmp_path / "a.jsonl", task("task1_x", instances=3))
    assert len(task_files(tmp_path)["task1_x"].record()["Instances"]) == 3


@pytest.mark.parametrize("write", [write_official, write_shard])
def test_listing_parses_no_instances(tmp_path, monkeypatch, write):
    path = tmp_path / ("task1_x.json" if write is write_official else "a.jsonl")
    write(path, task("task1_x", instances=50, Source=["snli"]))
    monkeypatch.setattr(superni_files, "_parsed", lambda *_: pytest.fail("read whole"))
    file = task_files(tmp_path)["task1_x"]
    assert (file.license, file.sources, file.category) == ("CC0, MIT", ("snli",), "Toy Sorting")


def test_a_task_that_a_rewritten_shard_lost_is_named(tmp_path):
    write_shard(tmp_path / "a.jsonl", task("task1_x"))
    file = task_files(tmp_path)["task1_x"]
    write_shard(tmp_path / "a.jsonl", task("task2_yy"))
    with pytest.raises(KeyError, match=r"a\.jsonl no longer contains the task task1_x: register the folder again"):
        file.record()


@pytest.mark.parametrize(
    "record",
    [
        dict(reversed(task("task1_x").items())),  # Instances before the fields that are needed.
        task("task1_x", Definition=['List the "Instances": in order']),  # The word inside a text.
        task("task1_x", **{"Instance License": None}),
        {**task("task1_x"), "URL": ["x"]},  # A field after the license.
        {**task("task1_x", **{"Instance License": None}), "Source": ["snli"], "Instance License": ["CC0", "MIT"]},
    ],
)
def test_an_unusual_file_is_listed_all_the_same(tmp_path, record):
    write_official(tmp_path / "task1_x.json", record)
    file = task_files(tmp_path)["task1_x"]
    assert file.category == "Toy Sorting" and file.record() == record
    assert file.license == ("CC0, MIT" if "Instance License" in record else "Unknown")
    assert file.sources == tuple(record.get("Source", ()))


@pytest.mark.parametrize("place", ["splits", "splits/default"])
def test_lists_are_found_and_an_absent_one_is_empty(tmp_path, place):
    write_lists(tmp_path / place, train=["task1_x", "task2_y"], test=["task3_z"])
    lists = task_lists(tmp_path)
    assert lists == {"train": ("task1_x", "task2_y"), "test": ("task3_z",), "dev": (), "excluded": ()}


def test_a_folder_without_lists_is_refused(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"No train_tasks.txt .*splits/default or .* Without lists, .*split='tr"
    ):
        task_lists(tmp_path)


def test_the_lists_of_the_cross_lingual_track_are_next_to_those_of_the_english_one(tmp_path):
    write_lists(tmp_path / "splits" / "default", train=["task1_x"], test=["task3_z"])
    assert not any(task_lists(tmp_path, track="xlingual").values())
    write_lists(tmp_path / "splits" / "xlingual", train=["task1_x", "task2_y"], test=["task4_z"])
    lists = task_lists(tmp_path, track="xlingual")
    assert (lists["train"], lists["test"]) == (("task1_x", "task2_y"), ("task4_z",))
    assert task_lists(tmp_path)["train"] == ("task1_x",)


def test_a_missing_folder_and_a_folder_without_tasks_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="No folder .*nowhere to read"):
        task_files(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"contains no Super-NaturalInstructions task: expected task\*\.json"):
        task_files(tmp_path)


def test_a_task_in_two_files_is_an_error(tmp_path):
    write_shard(tmp_path / "a.jsonl", task("task1_x"))
    write_shard(tmp_path / "b.jsonl", task("task1_x"))
    with pytest.raises(ValueError, match=r"task1_x is in both .*a\.jsonl and in .*b\.jsonl"):
        task_files(tmp_path)
    (tmp_path / "b.jsonl").unlink()
    write_shard(tmp_path / "a.jsonl", task("task1_x"), task("task1_x"))
    with pytest.raises(ValueError, match=r"a\.jsonl:2: the task task1_x is twice in this file"):
        task_files(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", r"a\.jsonl:2: not JSON \(.*Fix the file, download it again or remove it"),
        (json.dumps(task("t"))[:-9], r"a\.jsonl:2: not JSON \("),  # Cut short.
        ("[1]", r"a\.jsonl:2: expected a JSON object, got"),
        (json.dumps(task(3)), r":2: the task has no 'Task', its name"),
        (json.dumps(task("t", Categories="x")), r":2: 'Categories' must be a list of texts, got 'x'"),
        (json.dumps(task("t", Instances=["x"], Categories=None)), r":2: the task has no 'Categories'"),
        (json.dumps({"Task": "t", "Definitions": "x"}), r":2: the task has no 'Definition'. Did you mean 'Defini"),
        (json.dumps(task("t", Instances=[])), r":2: the task has no 'Instances'"),
        (json.dumps(task("t", **{"Negative Examples": None})), r":2: the task has no 'Negative Examples'"),
    ],
)
def test_a_bad_line_is_named_with_its_place(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_text(json.dumps(task("task1_x")) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=message):
        task_files(tmp_path)


def test_a_bad_file_of_the_official_layout_is_named(tmp_path):
    write_official(tmp_path / "task1_x.json", task("task1_x", Categories=None))
    with pytest.raises(ValueError, match=r"task1_x\.json: the task has no 'Categories'"):
        task_files(tmp_path)
    (tmp_path / "task1_x.json").write_bytes(b'{"Definition": "\xff"}')
    with pytest.raises(ValueError, match=r"task1_x\.json: not JSON .*Fix the file, download it again"):
        task_files(tmp_path)
    (tmp_path / "task1_x.json").write_text("[]")
    with pytest.raises(ValueError, match=r"task1_x\.json: expected a JSON object, got a list"):
        task_files(tmp_path)


def test_bad_instances_are_found_when_the_task_is_read(tmp_path):
    """Listing does not parse them."""
    write_official(tmp_path / "task1_x.json", task("task1_x", Instances=[{"input": "x"}, "y"]))
    file = task_files(tmp_path)["task1_x"]
    with pytest.raises(ValueError, match=r"task1_x\.json: 'Instances'\[1\] must be an object .*, got 'y'\. Fix"):
        file.record()


def test_a_damaged_archive_is_named(tmp_path):
    (tmp_path / "task1_x.json.gz").write_bytes(b"not gzip")
    with pytest.raises(ValueError, match=r"task1_x\.json\.gz: cannot be decompressed .*damaged or not gzip"):
        task_files(tmp_path)


def test_a_task_of_version_1_is_refused_with_the_name_of_its_reader(tmp_path):
    first = {"Title": "t", "Prompt": "p", "Definition": "d", "Examples": {}, "Instances": []}
    (tmp_path / "task001_x.json").write_text(json.dumps(first))
    with pytest.raises(
        ValueError, match=r"task001_x\.json: this is a task of Natural Instructions v1.*`natural_instruc"
    ):
        task_files(tmp_path)
