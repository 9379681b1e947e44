"""The import table of docs/design.md, checked on every module, imports inside functions included."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

from flan_jax import cli

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "flan_jax"
PAGE = ROOT / "docs" / "design.md"
LEAVES = {
    "names", "files", "encodings", "locks", "partial_file", "paths", "draws", "annotations", "settings", "yaml_loader",
    "shapes", "errors",
}  # fmt: skip
# The table's names of third-party packages, and what each allows.
THIRD_PARTY = {
    "tensorflow": {"tensorflow", "seqio", "tensorflow_datasets", "tensorflow_text", "t5", "clu"},
    "jax": {"jax", "flax", "optax"},
    "orbax": {"orbax"},
    "gin": {"gin"},
}
EVALUATION_PARTS = {
    "evaluation.metrics": {
        "metrics",
        "text_metrics",
        "class_metrics",
        "translation_metrics",
        "instruction_metrics",
        "instruction_verifiers",
        "languages",
        "rank_metrics",
        "measured",
        "normalization",
        "words",
    },
    "evaluation.postprocess": {"postprocess"},
    "evaluation.numerals": {"numerals"},
}
NEVER = {"torch", "transformers", "t5x", "tokenizers"}


def import_table() -> dict[str, tuple[set[str], set[str]]]:
    """Returns the page's table: part -> (parts it may import, groups of third-party packages it may import)."""
    rows = re.findall(r"^\| `([\w.]+)` \|[^|]*\|([^|]*)\|([^|]*)\|$", PAGE.read_text(), flags=re.MULTILINE)
    return {
        part: (set(re.findall(r"`([\w.]+)`", ours)), set(re.findall(r"`(\w+)`", rest))) for part, ours, rest in rows
    }


TABLE = import_table()
MODULES = sorted(PACKAGE.rglob("*.py"))


def part_of(module: str) -> str:
    """`flan_jax.data.loader` -> `data`; the pure modules of `evaluation` are parts of their own."""
    names = module.split(".")[1:]
    if names[:1] == ["evaluation"]:
        for part, modules in EVALUATION_PARTS.items():
            if names[1:2] and names[1] in modules:
                return part
    return names[0] if names else ""


def imports_of(path: Path) -> set[str]:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:  # `from package import module` names a module, `from module import x` does not.
                full = f"{node.module}.{alias.name}"
                imported.add(full if (ROOT / full.replace(".", "/")).with_suffix(".py").is_file() else node.module)
    return imported


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_the_table_lists_every_part_of_the_package_and_no_other():
    parts = {part_of(module_name(path)) for path in MODULES} - {"", "__main__"}
    assert parts == set(TABLE)
    for part, (ours, third_party) in TABLE.items():
        assert ours <= set(TABLE) - LEAVES and third_party <= set(THIRD_PARTY), part
        assert part not in LEAVES or not ours


def test_imports_point_one_way(subtests):
    verbs = {f"flan_jax.commands.{verb}" for verb in cli.VERBS}
    for path in MODULES:
        module, imported = module_name(path), imports_of(path)
        part = part_of(module)
        if part in ("", "__main__"):
            continue
        with subtests.test(module):
            allowed, groups = TABLE[part]
            packages = set().union(*(THIRD_PARTY[group] for group in groups))
            third_party = {name.split(".")[0] for name in imported if not name.startswith("flan_jax")}
            refused = third_party & (set().union(*THIRD_PARTY.values(), NEVER) - packages)
            assert not refused, f"{module} imports {refused}; docs/design.md allows {part} {groups or 'none'}"
            ours = {part_of(name) for name in imported if name.startswith("flan_jax.")} - {"", part}
            assert not ours - allowed - LEAVES, f"{module} imports {ours - allowed - LEAVES}; see docs/design.md"
            assert not imported & verbs - {module}, f"{module} imports another verb"


def test_parts_use_what_the_table_allows(subtests):
    used: dict[str, set[str]] = {part: set() for part in TABLE}
    for path in MODULES:
        if (part := part_of(module_name(path))) in TABLE:
            used[part] |= {part_of(name) for name in imports_of(path)}
    used["verbs"] |= {"commands", "run"}  # Imported by name: `importlib.import_module`.
    for part, (allowed, _) in TABLE.items():
        with subtests.test(part):
            assert not allowed - used[part], f"{part} imports none of {allowed - used[part]}; see docs/design.md"


def import_graph() -> dict[str, set[str]]:
    """Returns the modules that each module of the package imports, inside functions too.

    Without the package itself: its public names are imported on first use, and every module imports the package.
    """
    graph = {module_name(path): imports_of(path) for path in MODULES if module_name(path) != "flan_jax"}
    return {module: imported & graph.keys() - {module} for module, imported in graph.items()}


def test_no_modules_import_each_other_in_a_circle():
    unvisited = import_graph()
    while unvisited:
        without_imports = {module for module, imported in unvisited.items() if not imported & unvisited.keys()}
        assert without_imports, f"import circle among {sorted(unvisited)}"
        unvisited = {module: imported for module, imported in unvisited.items() if module not in without_imports}


def test_tasks_import_each_other_at_most_10_levels_deep():
    graph = import_graph()
    tasks = {module for module in graph if part_of(module) == "tasks" and module != "flan_jax.tasks"}

    @functools.cache
    def chain(module: str) -> tuple[str, ...]:
        return (module, *max(map(chain, sorted(graph[module] & tasks)), key=len, default=()))

    deepest = max(map(chain, sorted(tasks)), key=len)
    assert len(deepest) <= 10, " -> ".join(deepest)


def test_modules_are_small_and_named_for_a_concept(subtests):
    for path in MODULES:
        with subtests.test(module_name(path)):
            assert path.read_text().count("\n") <= 400
            assert path.stem not in ("utils", "common", "helpers", "core", "misc")


def test_training_modules_load_with_tensorflow_refused():
    """In a process in which TensorFlow is installed but refused, all parts load but those that need an extra."""
    names = [module_name(p) for p in MODULES]
    names = [n for n in names if part_of(n) not in ("tasks", "collections", "lm_eval", "__main__")]
    code = f"""
import importlib, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {sorted(THIRD_PARTY["tensorflow"] | NEVER)!r}:
            raise AssertionError("imports " + name)
sys.meta_path.insert(0, Refuse())
for name in {names!r}:
    importlib.import_module(name)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_the_command_line_prints_help_without_jax():
    code = "import sys; from flan_jax import cli; assert cli.run(['--help']) == 0; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
