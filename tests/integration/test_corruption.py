"""Stored files are damaged one at a time, in every way: none is used silently, and none ends with a traceback.

An injection flips a byte, truncates, empties or deletes one file of a copy. Afterwards a command must refuse with
status 2 and name what is wrong, or use the intact older checkpoint and report it, or give the same result as before:
then the file does not matter.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flan_jax import cli
from flan_jax.data.exports import Unusable, find
from flan_jax.data.manifest import Request
from flan_jax.data.source import open_members
from flan_jax.errors import UserError
from flan_jax.run.network import open_vocabulary
from tests.integration.conftest import LENGTHS, arguments

pytestmark = pytest.mark.tensorflow

STEPS = (2, 4)
REQUEST = Request(name="embedded_held_out", split="validation", lengths=LENGTHS, vocabulary="embedded")


def flipped(position: float) -> Callable[[Path], None]:
    def flip(file: Path) -> None:
        content = bytearray(file.read_bytes())
        if content:
            content[int(position * len(content))] ^= 1 << random.Random(position).randrange(8)
        file.write_bytes(content)

    return flip


def truncated(share: float) -> Callable[[Path], None]:
    return lambda file: file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])


INJECTIONS = {
    **{f"flip at {position}": flipped(position) for position in (0.0, 0.31, 0.64, 0.97)},
    "truncate": truncated(0.6),
    "empty": truncated(0.0),
    "delete": Path.unlink,
}


def damaged(original: Path, copy: Path, *, sample: int | None) -> Iterator[tuple[str, Path]]:
    """Yields what was done to a fresh copy, and the copy: all injections into all files, or a spread sample."""
    files = sorted(path.relative_to(original) for path in original.rglob("*") if path.is_file())
    cases = list(itertools.product(files, INJECTIONS))
    for name, kind in cases if sample is None else random.Random(0).sample(cases, sample):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(original, copy, copy_function=os.link)  # T5X has a file per chunk of an array.
        (copy / name).unlink()
        shutil.copy(original / name, copy / name)
        INJECTIONS[kind](copy / name)
        yield f"{kind}: {name}", copy


def command(args: list[str], capfd) -> tuple[int, str, str]:
    capfd.readouterr()
    status = cli.run(args)
    out, error = capfd.readouterr()
    return status, out, error


def shown(path: Path, capfd, *, what: str, options: tuple[str, ...] = ()) -> dict | None:
    """What `show` reads of a run or checkpoint; None when it refuses with one message."""
    status, out, error = command(["show", what, str(path), "--json", *options], capfd)
    assert "Traceback" not in error, error
    assert status in (0, 2) and (status == 0 or error.startswith("flan-jax: ")), error
    return json.loads(out) if status == 0 else None


@pytest.fixture(scope="module")
def run(export_dir, tmp_path_factory) -> Path:
    """A run with two checkpoints and an evaluation."""
    path = tmp_path_factory.mktemp("corruption") / "run"
    bindings = (f"TRAIN_STEPS={STEPS[-1]}", f"CHECKPOINT_PERIOD={STEPS[0]}", f"MODEL_DIR={path}",
                f"EXPORT_DIR={export_dir}", "suite.EvaluationPlan.max_examples_per_task=1")  # fmt: skip
    assert cli.run(arguments(*bindings)) == 0
    return path


@pytest.fixture(scope="module")
def digests(run) -> dict[int, str]:
    """The digest of the parameters at each step."""
    from flan_jax.checkpoint import formats
    from flan_jax.checkpoint.digest import leaves_digest

    return {step: leaves_digest(formats.open_weights(run, step=step).params) for step in STEPS}


SAMPLES = [pytest.param(25, id="sample"), pytest.param(None, id="all", marks=pytest.mark.slow)]


@pytest.mark.parametrize("sample", SAMPLES)
def test_no_file_of_a_checkpoint_is_used_damaged(run, digests, tmp_path, capfd, sample):
    count = 0
    for what, copy in damaged(
        run / "checkpoints" / str(STEPS[1]), tmp_path / "run" / "checkpoints" / "4", sample=sample
    ):
        shutil.copytree(run / "checkpoints" / "2", copy.parent / "2", dirs_exist_ok=True)
        data = shown(copy.parent, capfd, what="checkpoint")
        assert data is not None, what
        warned = [note for note in data["notes"] if "4 is damaged (" in note and "2 is used instead" in note]
        assert data["params_digest"] == digests[data["step"]], what
        assert (data["step"] == 2) == bool(warned), what
        strict = shown(copy.parent, capfd, what="checkpoint", options=("--strict",))
        explicit = shown(copy.parent, capfd, what="checkpoint", options=("--step=4",))
        assert (strict is None) == (explicit is None) == bool(warned), what
        shutil.rmtree(copy.parent / "2")
        assert (shown(copy.parent, capfd, what="checkpoint") is None) == bool(warned), what
        count += 1
    assert count == sample or count >= 150


@pytest.mark.parametrize(
    "items",
    [
        pytest.param(("params",), id="sample"),
        pytest.param(("opt_state", "data", "metadata", "step", "digests.json"), id="all", marks=pytest.mark.slow),
    ],
)
def test_training_continues_from_the_newest_intact_checkpoint_and_ends_with_the_same_bits(
    run, export_dir, digests, tmp_path, capfd, items
):
    """One injection into each item; the damaged checkpoint is set aside, and reported."""
    kinds = itertools.cycle(INJECTIONS.items())
    for item in items:
        copy = tmp_path / item
        shutil.copytree(run, copy)
        found = copy / "checkpoints" / "4" / item
        file = found if found.is_file() else max(found.rglob("*"), key=lambda p: p.is_file() and p.stat().st_size)
        kind, inject = next(kinds)
        inject(file)
        args = ["train", f"--gin_file={run}/config.gin", f"--gin.MODEL_DIR={copy}", "--gin.CHECKPOINT_PERIOD=4"]
        status, _, error = command([*args, "--strict"], capfd)
        assert status == 2 and "/4, is damaged: " in error and "Traceback" not in error, (item, kind, error)
        status, out, error = command(args, capfd)
        assert status == 0, (item, kind, error)
        assert "checkpoints/4 is damaged (" in out and "resumed at step 2" in out
        assert digests[4] in out
        assert {path.name for path in (copy / "checkpoints").iterdir()} >= {"2", "4", "damaged-4"}


def test_without_an_intact_checkpoint_the_command_is_refused(run, tmp_path, capfd):
    shutil.copytree(run, tmp_path / "run")
    for step in STEPS:
        (tmp_path / "run" / "checkpoints" / str(step) / "step" / "metadata").write_text("{")
    for args in (["train", f"--gin_file={run}/config.gin", f"--gin.MODEL_DIR={tmp_path}/run"],
                 ["evaluate", f"{tmp_path}/run"], ["infer", f"{tmp_path}/run", f"--input={__file__}"],
                 ["convert", f"--from={tmp_path}/run", f"--to={tmp_path}/out", "--format=hf"],
                 ["show", "run", f"{tmp_path}/run"]):  # fmt: skip
        status, _, error = command(args, capfd)
        assert status == 2 and "is intact (4: step/metadata has 1 bytes" in error, error
        assert "Traceback" not in error and "defect" not in error
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == {"2", "4"}


@pytest.mark.parametrize("sample", SAMPLES)
def test_no_other_file_of_a_run_is_used_damaged(run, digests, tmp_path, capfd, sample):
    """The record of the run, its configuration, metrics and evaluations."""
    small = tmp_path / "small"
    shutil.copytree(run, small, ignore=shutil.ignore_patterns("2", "4", "damaged-*"))
    expected = shown(run, capfd, what="run")
    for what, copy in damaged(small, tmp_path / "copy", sample=sample and 12):
        shutil.copytree(run / "checkpoints" / "4", copy / "checkpoints" / "4")
        data = shown(copy, capfd, what="run")
        if data is not None:
            assert data["record"] == expected["record"] and data["params_digest"] == digests[4], what


@pytest.mark.parametrize("change", ["delete", "truncate", "flip at 0.31"])
def test_another_recipe_is_refused_by_the_checkpoint_when_the_record_of_the_run_is_lost(run, tmp_path, capfd, change):
    shutil.copytree(run, tmp_path / "run")
    INJECTIONS[change](tmp_path / "run" / "run.json")
    before = (tmp_path / "run" / "config.gin").read_text()
    args = ["train", f"--gin_file={run}/config.gin", f"--gin.MODEL_DIR={tmp_path}/run"]
    status, _, error = command([*args, "--gin.LEARNING_RATE=0.002"], capfd)
    assert status == 2 and "belongs to a run with a different recipe:\n  optimizer.learning_rate." in error
    assert (tmp_path / "run" / "config.gin").read_text() == before
    assert command(args, capfd)[0] == 0  # Its own recipe resumes it, and writes the record anew.
    assert shown(tmp_path / "run", capfd, what="run") is not None


@pytest.mark.parametrize("sample", SAMPLES)
def test_no_file_of_an_export_is_used_damaged(export_dir, tmp_path, sample):
    def content(directory: Path) -> list:
        manifest = find(REQUEST, directory)
        if isinstance(manifest, Unusable):
            raise UserError(manifest.reason)
        tasks = open_members(manifest, export_dir=directory)
        examples = [task._records(range(len(task))) for task in tasks]
        vocabulary = open_vocabulary(manifest.vocabulary, directory)
        return [dataclasses.replace(manifest, definition_files={}), [task.lengths.tolist() for task in tasks], examples,
                [vocabulary.decode(vocabulary.encode("What is 2 + 2?"))]]  # fmt: skip

    expected = content(export_dir)
    small = tmp_path / "small"
    members = {member.path for member in expected[0].members}
    for folder in ("vocabularies", "mixtures"):
        shutil.copytree(export_dir / folder, small / folder)
    for path in sorted(members)[:3] if sample else sorted(members):
        shutil.copytree(export_dir / path, small / path)
    others = [path for path in members if not (small / path).exists()]
    for what, copy in damaged(small, tmp_path / "copy", sample=sample):
        for path in others:
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            (copy / path).symlink_to(export_dir / path)
        with contextlib.suppress(UserError):
            assert content(copy) == expected, what


@pytest.fixture(scope="module", params=["hf", "t5x"])
def converted(request, run, tmp_path_factory) -> tuple[str, Path]:
    """A checkpoint in another format, and its format."""
    path = tmp_path_factory.mktemp("converted") / request.param
    assert cli.run(["convert", f"--from={run}", f"--to={path}", f"--format={request.param}"]) == 0
    return request.param, path


@pytest.mark.parametrize("is_ours", [True, False], ids=["with digests", "of another program"])
@pytest.mark.parametrize("sample", SAMPLES)
def test_a_damaged_folder_of_another_format_is_refused_or_does_not_matter(converted, tmp_path, capfd, sample, is_ours):
    """Without our digests a changed byte within the raw numbers of a tensor cannot be noticed by anybody."""
    format, original = converted
    if not is_ours:
        shutil.copytree(original, tmp_path / "theirs")
        original = tmp_path / "theirs"
        for file in original.rglob("digests.json"):
            file.unlink()
    expected = shown(original, capfd, what="checkpoint")
    for what, copy in damaged(original, tmp_path / "copy", sample=sample and 12):
        if what.endswith("digests.json") and what.startswith("delete"):
            continue  # Then it is another program's.
        data = shown(copy, capfd, what="checkpoint")
        is_data = not is_ours and ("safetensors" in what or "/d/" in what or format == "t5x")
        if data is not None and not (is_data and what.startswith("flip")):
            assert data["params_digest"] == expected["params_digest"], what
            assert data["config"] == expected["config"] or not is_ours, what
