"""docs/new_task.md is right: its files are written, its commands run, its claims checked."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "new_task.md").read_text()
FILES = dict(re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", PAGE, flags=re.DOTALL))
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"<!-- run -->\n```bash\n(.*?)```", PAGE, flags=re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tutorial")
    for name, content in FILES.items():
        (path / name).write_text(content)
    return path


def run(command, folder):
    program, *words = command
    assert program == "flan-jax"
    # A separate process, as for a user; the checkout is found even if it is not installed.
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from flan_jax import cli; sys.exit(cli.run(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *words], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_task_takes_ten_lines_of_python_or_twenty_of_yaml_with_ten_templates():
    assert len(FILES["my_tasks.yaml"].strip().splitlines()) <= 20
    assert len(yaml.safe_load(FILES["my_tasks.yaml"])["tasks"]["capitals"]["templates"]) == 10
    assert len([line for line in FILES["my_tasks.py"].splitlines() if line.strip()]) <= 10
    assert all(len(line) <= 120 for text in FILES.values() for line in text.splitlines())


@pytest.mark.tensorflow
def test_the_commands_run_in_order(folder):
    shown, exported, task, more, known = (run(command, folder) for command in COMMANDS)
    assert "What is the capital of Peru?" in shown and "Which country has the capital Lima?" in shown
    assert cells(exported, "capitals") == [["capitals", "4"], ["capitals", "4"]]  # Train and validation.
    assert "Name the capital city of Kenya." in task and "capitals.jsonl:2" in task
    assert "more_capitals, split validation" in more and "template 9" in more and "template 10" not in more
    assert "Good morning." in known and "I walked home." in known
    # Filtered: an answer of one word, and a request that differs from another one only in white space.
    assert "Say yes." not in known and "I walk  home." not in known


def cells(printed, task):
    """Returns the first two cells of the rows of printed tables that start with the name of a task."""
    rows = [line.split()[:2] for line in printed.splitlines() if "/" in line]
    return [row for row in rows if row[:1] == [task] and row[1].isdecimal()]


def test_the_readme_links_to_the_page():
    assert "docs/new_task.md" in (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\((\.\./[^)]+)\)", PAGE):
        assert (ROOT / "docs" / target).is_file(), target
