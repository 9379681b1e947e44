"""Pages and docstrings name only what exists: files, modules, attributes, options, macros, variables, collections."""

import ast
import contextlib
import functools
import io
import re
from pathlib import Path

import pytest

from flan_jax import cli, t5x_names
from tests.test_imports import MODULES, PACKAGE, ROOT, module_name

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# Where a path in a page or a docstring may begin.
FOLDERS = (ROOT, PACKAGE, ROOT / "gin_configs", ROOT / "tests")
FILE_ENDINGS = {
    "bin", "csv", "gin", "json", "jsonl", "md", "model", "npz", "proto", "py", "safetensors", "sh", "toml", "tsv",
    "txt", "yaml", "zip",
}  # fmt: skip
# Options that every verb takes, besides its own parameters.
COMMON_OPTIONS = {
    "gin_file",
    "gin_search_paths",
    "gin_bindings",
    "gin_allow",
    "check",
    "traceback",
    "help",
    "tfds_data_dir",
}
# Packages whose names pages and docstrings mention; what follows them is not checked.
EXTERNAL = {
    "absl", "adafactor", "cp", "dataclasses", "datasets", "epath", "flax", "functools", "gin", "jax", "jnp", "json",
    "lax", "math", "ml_dtypes", "model", "nn", "np", "numpy", "optax", "orbax", "os", "pathlib", "pltriton", "pyarrow",
    "pytest", "safetensors", "seqio", "sentencepiece", "signal", "sys", "t5x", "tensorflow", "tf", "tfds", "torch",
    "transformers", "typing", "utils", "ModelProto",
}  # fmt: skip


@functools.cache
def definitions(path: Path) -> dict[str, set[str]]:
    """Top-level names of a module, each with its fields and methods (of a class) or parameters (of a function)."""
    names: dict[str, set[str]] = {}
    body = ast.parse(path.read_text()).body
    body += [node for block in body if isinstance(block, ast.If) for node in block.body]  # Imports for type checkers.
    for node in body:
        if isinstance(node, ast.ClassDef):
            below = {base.id for base in node.bases if isinstance(base, ast.Name)}
            for part in ast.walk(node):
                if isinstance(part, ast.FunctionDef):
                    below |= {part.name}
                elif isinstance(part, ast.AnnAssign):
                    below |= {ast.unparse(part.target).removeprefix("self.")}
                elif isinstance(part, ast.Assign):
                    below |= {ast.unparse(target).removeprefix("self.") for target in part.targets}
            names[node.name] = below
        elif isinstance(node, ast.FunctionDef):
            names[node.name] = {a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                names[ast.unparse(target)] = set()
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name: set() for alias in node.names}
    return names


@functools.cache
def modules_by_first_name() -> dict[str, list[str]]:
    """The modules that the first part of a name may mean: those of this name, and those that define this class."""
    by_name: dict[str, list[str]] = {"flan_jax": ["flan_jax"]}
    for path in MODULES:
        by_name.setdefault(module_name(path).rsplit(".", 1)[-1], []).append(module_name(path))
        for name in definitions(path):
            if name[:1].isupper():
                by_name.setdefault(name, []).append(f"{module_name(path)}.{name}")
    return by_name


def path_of(module: str) -> Path:
    stem = ROOT / module.replace(".", "/")
    return stem / "__init__.py" if stem.is_dir() else stem.with_suffix(".py")


def exists(name: str) -> bool:
    """Whether a module, as far as the name goes, then a name in it, then a name below that one exist."""
    module, *rest = name.split(".")
    while rest and path_of(f"{module}.{rest[0]}").is_file():
        module, rest = f"{module}.{rest[0]}", rest[1:]
    if not rest:
        return True
    names = definitions(path_of(module))
    if rest[0] not in names:
        return False
    inherited = any(base[:1].isupper() for base in names[rest[0]])  # A field of a base class is not looked up.
    return len(rest) == 1 or rest[1] in names[rest[0]] or inherited or not names[rest[0]]


def name_problem(name: str) -> str | None:
    """What is wrong with a dotted name such as `flan_jax.data.loader` or `loop.Cadence.log_every_steps`."""
    first, *rest = name.split(".")
    if rest[-1] in FILE_ENDINGS or rest[-1] in ("weight", "bias") or first in EXTERNAL:  # Tensors of Hugging Face's.
        return None
    candidates = modules_by_first_name().get(first, [])
    if not candidates:
        return f"`{name}`: there is no module {first}"
    return None if any(exists(".".join([module, *rest])) for module in candidates) else f"`{name}` does not exist"


def path_problem(text: str, *, near: Path) -> str | None:
    """What is wrong with a path that begins with one of this project's folders."""
    if text.startswith(("http", "/", "~", "gs:")) or "://" in text:
        return None
    pattern = re.sub(r"<[^>]*>|\b[A-Z]{2,}\b", "*", text)
    alternatives = [pattern]
    while any("{" in a for a in alternatives):  # a/{b,c}.gin
        alternatives = [
            re.sub(r"{([^{}]*)}", choice, a, count=1)
            for a in alternatives
            for choice in (re.search(r"{([^{}]*)}", a) or re.match("", "")).group(1).split(",")
        ]
    for alternative in alternatives:
        first = alternative.split("/")[0]
        roots = [folder for folder in (*FOLDERS, near) if (folder / first).is_dir() and first not in (".", "..")]
        if roots and not any(any(folder.glob(alternative.rstrip("/"))) for folder in roots):
            return f"`{alternative}` does not exist"
    return None


PATH = re.compile(r"(?<![\w/.$%=-])((?:[\w.*<>{},-]+/)+(?:[\w.*<>{},-]+\.(?:py|gin|md|yaml|toml|sh)\b)?)(?![\w/])")
DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.\w+)+")


def problems_of_docstring(text: str, *, local: set[str], near: Path) -> list[str]:
    prose = "\n".join(line for line in text.splitlines() if not line.strip().startswith((">>>", "...")))
    problems = [path_problem(path, near=near) for path in PATH.findall(prose)]
    for span in re.findall(r"`([^`\n]+)`", prose):
        if DOTTED.fullmatch(span) and span.split(".")[0] not in local:
            problems.append(name_problem(span))
    problems += [name_problem(name.rstrip(".")) for name in re.findall(r"\bflan_jax\.[\w.]+", prose)]
    return [problem for problem in problems if problem]


def test_what_docstrings_name_exists(subtests):
    for path in MODULES:
        with subtests.test(module_name(path)):
            tree, problems = ast.parse(path.read_text()), []
            # Parameters and variables may be written with their attributes: `config.vocab_size`.
            local = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
            local |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
            for node in ast.walk(tree):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (doc := ast.get_docstring(node)):
                    problems += problems_of_docstring(doc, local=local, near=path.parent)
            assert not problems


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_files_and_names_of_a_page_exist(page):
    text = page.read_text()
    # Links, relative to the page.
    problems = [
        f"link to {target}"
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
        if "://" not in target and not (page.parent / target).exists()
    ]
    problems += [path_problem(path, near=page.parent) for path in PATH.findall(text)]
    # What the page's own examples write, a run's folders and other projects' names are not ours to have.
    of_t5x = {name.theirs for name in t5x_names.NAMES}
    for span in {*re.findall(r"`([^`\n]+)`", text)} - of_t5x:
        names = [span] if DOTTED.fullmatch(span) else re.findall(r"^([a-z_]\w*\.[A-Z]\w*(?:\.\w+)*) =", span)
        problems += [name_problem(name) for name in names]
    problems += [name_problem(name.rstrip(".")) for name in re.findall(r"\bflan_jax\.[\w.]+", text)]
    problems += [name_problem(name) for name in re.findall(r"--gin\.([a-z_]\w*(?:\.\w+)+)=", text)]
    for block in re.findall(r"^```\w*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        problems += [name_problem(name) for name in re.findall(r"^(\w+(?:\.\w+)+) = ", block, flags=re.MULTILINE)]
    assert not [problem for problem in problems if problem]


@functools.cache
def options_of(verb: str) -> set[str]:
    """The options that `flan-jax VERB --help` lists, and those that every verb takes."""
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        assert cli.run([verb, "--help"]) == 0
    common = COMMON_OPTIONS | ({"json"} if cli.VERBS[verb].has_json else set())
    return common | set(re.findall(r"^ *--(\w+)", shown.getvalue(), flags=re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_verbs_options_macros_and_variables_of_a_page_exist(page):
    text = page.read_text().replace("\\\n", " ")
    problems = []
    for verb, rest in re.findall(r"(?:^|[`/ ])flan-jax ([a-z]+)\b([^\n`|]*)", text, flags=re.MULTILINE):
        if verb not in cli.VERBS:
            problems.append(f"verb {verb}")
            continue
        written = {option.removeprefix("no-").replace("-", "_") for option in re.findall(r" --([a-z][\w-]*)", rest)}
        problems += [f"{verb} --{option}" for option in written - options_of(verb) - {"gin"}]
    for tool, rest in re.findall(r"python (tools/\S+\.py)([^\n`]*)", text):
        source = (ROOT / tool).read_text()
        problems += [
            f"{tool} --{option}"
            for option in re.findall(r" --([a-z][\w-]*)", rest)
            if option not in ("gin", "gin_file")
            and f'"--{option}"' not in source
            and f"{option.replace('-', '_')}:" not in source
        ]
    every_option = set().union(*map(options_of, cli.VERBS))
    sources = "".join(path.read_text() for path in (ROOT / "tools").rglob("*.py"))
    for option in re.findall(r"`--([a-z][\w-]*)", text):
        if (
            option != "gin"
            and option.replace("-", "_") not in every_option
            and f'"--{option}"' not in sources
            and option not in EXTERNAL_OPTIONS
        ):
            problems.append(f"--{option}")
    macros = set(re.findall(r"^([A-Z_]+) =", gin_files() + text, flags=re.MULTILINE))
    problems += [
        f"macro {macro}"
        for macro in re.findall(r"--gin\.([A-Z_]+)=", text)
        if macro not in macros | {"NAME"} and f'"{macro}"' not in sources
    ]
    package = "".join(path.read_text() for path in [*MODULES, ROOT / "tests" / "conftest.py"])
    problems += [name for name in set(re.findall(r"\bFLAN_JAX_[A-Z0-9_]+", text)) if name not in package]
    assert not problems


# Options of pip and of T5X that pages write alone.
EXTERNAL_OPTIONS = {"no-deps"}


@functools.cache
def gin_files() -> str:
    return "".join(path.read_text() for path in (ROOT / "gin_configs").rglob("*.gin"))


def test_lines_of_pages_wrap_at_120(subtests):
    for page in PAGES:
        with subtests.test(page.name):
            lines = enumerate(page.read_text().splitlines(), start=1)
            assert not [number for number, line in lines if len(line) > 120 and not line.startswith("|")]


def test_readmes_table_of_verbs_is_the_command_lines():
    rows = re.findall(r"^\| `(\w+)` \| [a-z`]", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert rows == list(cli.VERBS)


@pytest.mark.tensorflow
def test_the_pages_tables_of_collections_and_formats_are_the_packages():
    from flan_jax.collections import catalog
    from flan_jax.tasks.formats.declare import FORMATS

    page = (ROOT / "docs" / "collections.md").read_text()

    def first_cells(title):
        section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", page, flags=re.DOTALL | re.MULTILINE).group(1)
        return set(re.findall(r"^\| `([\w.]+)` \|", section, flags=re.MULTILINE))

    assert first_cells("Collections") == set(catalog.MODULES) - {"embedded"}
    assert first_cells("Formats") == set(FORMATS)
