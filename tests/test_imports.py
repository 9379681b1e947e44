"""Who may import whom: the table of docs/design.md, held over every module, imports inside functions included."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from flan_jax import cli

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "flan_jax"
LEAVES = {"names", "files", "draws", "prefetch", "shapes", "errors"}
TENSORFLOW = {"tensorflow", "seqio", "tensorflow_datasets", "tensorflow_text", "t5", "clu"}
JAX = {"jax", "flax", "optax"}
NEVER = {"torch", "transformers", "t5x", "tokenizers"}

# part of the package -> (our parts it may import, third-party packages it must not)
TABLE = {
    "names": (set(), TENSORFLOW | JAX),
    "files": (set(), TENSORFLOW | JAX),
    "draws": (set(), TENSORFLOW | JAX | {"gin"}),
    "prefetch": (set(), TENSORFLOW | JAX | {"gin"}),
    "shapes": (set(), TENSORFLOW | JAX | {"gin"}),
    "errors": (set(), TENSORFLOW | JAX | {"gin"}),
    "vocab": (set(), TENSORFLOW | JAX | {"gin"}),
    "templates": (set(), TENSORFLOW | JAX | {"gin"}),
    "evaluation.metrics": (set(), TENSORFLOW | JAX | {"gin"}),
    "evaluation.postprocess": (set(), TENSORFLOW | JAX | {"gin"}),
    "data": ({"vocab"}, TENSORFLOW | JAX | {"gin", "orbax"}),
    "tasks": (
        {"templates", "vocab", "data", "evaluation.metrics", "evaluation.postprocess"},
        JAX | {"gin", "orbax"},
    ),
    "collections": (
        {"tasks", "templates", "vocab", "data", "evaluation.metrics", "evaluation.postprocess"},
        JAX | {"gin", "orbax"},
    ),
    "backend": (set(), TENSORFLOW | {"gin", "orbax"}),
    "launch": ({"processes"}, TENSORFLOW | {"gin", "orbax"}),
    "processes": (set(), TENSORFLOW | {"gin", "orbax"}),
    "sharding": (set(), TENSORFLOW | {"gin", "orbax"}),
    "placement": ({"sharding"}, TENSORFLOW | {"gin", "orbax"}),
    "models": (set(), TENSORFLOW | {"gin", "orbax"}),
    "objectives": (set(), TENSORFLOW | {"gin", "orbax"}),
    "optim": (set(), TENSORFLOW | {"gin", "orbax"}),
    "planning": (
        {"sharding", "models", "placement", "train", "run", "data", "optim", "objectives"},
        TENSORFLOW | {"gin", "orbax"},
    ),
    "decoding": ({"models"}, TENSORFLOW | {"gin", "orbax"}),
    "train": ({"sharding", "optim"}, TENSORFLOW | {"gin", "orbax"}),
    "checkpoint": ({"models", "vocab"}, TENSORFLOW | {"gin", "torch"}),
    "evaluation": (
        {"decoding", "vocab", "data", "evaluation.metrics", "evaluation.postprocess"},
        TENSORFLOW | {"gin", "orbax"},
    ),
    "gin_config": (set(), TENSORFLOW | JAX),
    "cli": ({"gin_config", "commands", "launch", "backend"}, TENSORFLOW | JAX),
}


def part_of(module: str) -> str:
    """`flan_jax.data.loader` -> `data`; the two pure evaluation modules are parts of their own."""
    names = module.split(".")[1:]
    for special in ("evaluation.metrics", "evaluation.rank_metrics", "evaluation.postprocess"):
        if ".".join(names[:2]) == special:
            return "evaluation.metrics" if "metrics" in special else special
    return names[0] if names else ""


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:  # `from package import module` names a module, `from module import x` does not.
                whole = f"{node.module}.{alias.name}"
                found.add(whole if (ROOT / whole.replace(".", "/")).with_suffix(".py").is_file() else node.module)
    return found


MODULES = sorted(p for p in PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_every_module_is_looked_at():
    assert len(MODULES) >= 40


@pytest.mark.parametrize("path", MODULES, ids=lambda p: module_name(p))
def test_arrows_point_one_way(path):
    module = module_name(path)
    part = part_of(module)
    third_party = {name.split(".")[0] for name in imports_of(path) if not name.startswith("flan_jax")}
    assert not third_party & NEVER, f"{module} imports {third_party & NEVER}"
    assert "gin" not in third_party or part in ("gin_config",), f"{module} imports gin"
    ours = {part_of(name) for name in imports_of(path) if name.startswith("flan_jax.")} - {""}
    if part in ("commands", "run"):
        verbs = {f"flan_jax.commands.{verb}" for verb in cli.VERBS}
        assert part == "commands" or "commands" not in ours, f"{module} imports a verb"
        assert not imports_of(path) & verbs - {module}, f"{module} imports another verb"
        assert not third_party & TENSORFLOW, f"{module} reaches TensorFlow other than through tasks"
    elif part in TABLE:
        allowed, forbidden = TABLE[part]
        assert not third_party & forbidden, f"{module} imports {third_party & forbidden}"
        unexpected = {o for o in ours if o not in allowed | LEAVES | {part}}
        assert not unexpected, f"{module} imports {unexpected}; {part} may import {allowed | LEAVES}"
    else:
        assert part in ("", "__main__"), f"{module}: a part that the table does not know"


def test_no_module_is_a_heap():
    for path in MODULES:
        lines = path.read_text().count("\n")
        assert lines <= 400, f"{path} has {lines} lines"
        assert path.stem not in ("utils", "common", "helpers", "core", "misc"), f"{path}: a helper without a home"


def test_training_modules_load_with_tensorflow_refused():
    """In a process in which TensorFlow is installed but refused, everything but `tasks` imports."""
    names = [module_name(p) for p in MODULES]
    names = [n for n in names if ".tasks" not in n and ".collections" not in n and not n.endswith("__main__")]
    code = f"""
import importlib, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {sorted(TENSORFLOW | NEVER)!r}:
            raise AssertionError("imports " + name)
sys.meta_path.insert(0, Refuse())
for name in {names!r}:
    importlib.import_module(name)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_the_command_line_answers_help_without_jax():
    code = "import sys; from flan_jax import cli; assert cli.run(['--help']) == 0; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
