import sys

import pytest

from flan_jax.errors import UserError, as_user_error
from flan_jax.tasks import modules


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory; modules that a test imports are removed after it."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_dotted_name_is_searched_in_the_working_directory(here):
    (here / "some_tasks.py").write_text("COUNT = [0]\nCOUNT[0] += 1\n")
    assert modules.load("some_tasks") == modules.load("some_tasks") == (str(here / "some_tasks.py"),)
    assert sys.modules["some_tasks"].COUNT == [1]
    assert sys.path[0] != str(here) and sys.path[-1] == str(here)


def test_a_file_is_run_once_and_sees_its_neighbors(here):
    place = here / "elsewhere"
    place.mkdir()
    (place / "neighbor.py").write_text("RUNS = []\n")
    (place / "by_path.py").write_text("import neighbor\nneighbor.RUNS.append(__name__)\n")
    assert (
        modules.load("elsewhere/by_path.py") == modules.load(str(place / "by_path.py")) == (str(place / "by_path.py"),)
    )
    assert sys.modules["neighbor"].RUNS == ["by_path"]


def test_a_file_may_be_called_like_an_installed_module(here):
    (here / "json.py").write_text("MINE = True\n")
    modules.load("./json.py")
    assert not hasattr(sys.modules["json"], "MINE")


def test_a_package_counts_with_all_its_files(here):
    (here / "family" / "more").mkdir(parents=True)
    for name in ("__init__.py", "b.py", "more/c.py", "notes.txt"):
        (here / "family" / name).write_text("")
    names = ("__init__.py", "b.py", "more/c.py")
    assert modules.load("family") == tuple(str(here / "family" / name) for name in names)
    assert modules.load("family.b") == (str(here / "family" / "b.py"),)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("my_taks", r"No module 'my_taks' to import tasks from: 'my_taks' is neither in .* Did you mean 'my_tasks'\?"),
        (
            "family.taks",
            r"No module 'family.taks' .* Did you mean 'family.tasks'\? Or give a path that ends in .py, .yaml",
        ),
        ("nowhere.tasks", "No module 'nowhere.tasks' to import tasks from: 'nowhere' is neither in"),
        ("my_tasks.inner", "No module 'my_tasks.inner' to import tasks from"),
        (
            "my_taks.py",
            r"No file .*my_taks\.py to import tasks from\. Did you mean 'my_tasks\.py'\? Give a dotted module",
        ),
        ("family/tasks", r"No file .*family/tasks to import tasks from\. Did you mean 'tasks\.py'\?"),
        (".tasks", r"No module '\.tasks' to import tasks from: a dotted name looks like package\.module"),
        ("my-tasks", r"No module 'my-tasks' to import tasks from: a dotted name looks like"),
    ],
)
def test_a_missing_module_is_refused_with_the_nearest(here, word, message):
    (here / "my_tasks.py").write_text("")
    (here / "family").mkdir()
    (here / "family" / "__init__.py").write_text("")
    (here / "family" / "tasks.py").write_text("")
    with pytest.raises(FileNotFoundError, match=message):
        modules.load(word)


def test_what_a_users_module_raises_names_its_file_and_line(here):
    (here / "needs_more.py").write_text("\nimport not_installed_anywhere\n")
    (here / "refuses.py").write_text("def check():\n    raise ValueError('its text')\n\ncheck()\n")
    (here / "misspelt.py").write_text("x = 1\ndef f(:\n")
    (here / "leaves.py").write_text("import sys\nsys.exit(3)\n")
    for module, message in {
        "needs_more": "needs_more.py, line 2: ModuleNotFoundError: No module named 'not_installed_anywhere'",
        "refuses": "refuses.py, line 2: ValueError: its text",
        "misspelt": "misspelt.py, line 2: SyntaxError: invalid syntax",
        "leaves": "leaves.py, line 2: SystemExit: 3",
    }.items():
        for ending in ("", ".py"):
            with pytest.raises(UserError) as raised:
                modules.load(f"{module}{ending}")
            assert str(raised.value) == message
        assert module not in sys.modules


def test_an_error_of_this_package_in_a_users_module_names_the_users_line(here):
    (here / "short.py").write_text("from flan_jax import vocab\n\nvocab.load('nowhere.model')\n")
    with pytest.raises(UserError, match=r"^short\.py, line 3: No SentencePiece model at .*nowhere\.model"):
        modules.load("short")


def test_a_defect_of_this_package_below_a_users_module_stays_a_defect(here, monkeypatch):
    monkeypatch.delattr("flan_jax.vocab.accessing")
    (here / "short.py").write_text("from flan_jax import vocab\n\nvocab.load('nowhere.model')\n")
    with pytest.raises(NameError) as raised:
        modules.load("short")
    assert as_user_error(raised.value) is None
