"""Imports the Python modules that a user names, and lists their files."""

import contextlib
import hashlib
import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from flan_jax.errors import MissingFileError, UserError, add_user_files, in_user_code, raised_outside
from flan_jax.files import accessing
from flan_jax.names import nearest
from flan_jax.paths import user_path


def load(name: str) -> tuple[str, ...]:
    """Imports a module once.

    Args:
      name: A dotted name, searched in the working directory first, or the path of a .py file.

    Returns:
      Its files: its own; for a package all .py files in it.

    Raises:
      MissingFileError: There is no such module; the text names the folders that were searched.
      UserError: The module raised an exception; the text names file and line.
    """
    module = _from_file(Path(name)) if name.endswith(".py") or os.sep in name else _from_name(name)
    files = files_of(module)
    add_user_files(files)
    return files


def files_of(module: ModuleType) -> tuple[str, ...]:
    """Returns the files of a module, as absolute paths."""
    own = [Path(module.__file__)] if module.__file__ else []  # A package without __init__.py has none.
    inside = [p for folder in getattr(module, "__path__", ()) for p in sorted(Path(folder).rglob("*.py"))]
    return tuple(dict.fromkeys(str(user_path(path)) for path in [*own, *inside]))


def _from_file(given: Path) -> ModuleType:
    with accessing(given, setting="The module", action="read"):
        path = user_path(given)
        is_module = path.is_file() and path.suffix == ".py"
    if not is_module:
        neighbors = (
            [p.name for p in path.parent.glob("*") if p.suffix in (".py", ".yaml")] if path.parent.is_dir() else []
        )
        raise MissingFileError(
            f"No file {path} to import tasks from.{nearest(path.name, neighbors)} "
            "Give a dotted module, or a path that ends in .py, .yaml or .yml."
        )
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) == str(path):
            return module
    name = path.stem
    if name in sys.modules or _is_another(name, path):
        name = f"{name}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # Last, so that a file next to it cannot hide an installed package.
    try:
        with _naming_its_place():
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def _naming_its_place() -> Iterator[None]:
    """Turns an exception from the user's module into one that names its file and line; our defects pass."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, UserError) or raised_outside(error, caller=__file__):
            raise in_user_code(error) from error
        raise


def _is_another(name: str, path: Path) -> bool:
    found = importlib.util.find_spec(name)
    return found is not None and found.origin != str(path)


def _from_name(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise MissingFileError(f"No module {name!r} to import tasks from: a dotted name looks like package.module.")
    # First while the module is looked for, as under `python -m`; last afterwards, for what it imports when called.
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        with _naming_its_place():
            return importlib.import_module(name)
    except UserError as refusal:
        error = refusal.__cause__
        if not isinstance(error, ModuleNotFoundError) or not f"{name}.".startswith(f"{error.name}."):
            raise  # The module exists; something that it imports does not.
        raise MissingFileError(
            f"No module {name!r} to import tasks from: {error.name!r} is neither in {here} nor installed."
            f"{nearest(name, _candidates(name, here))} Or give a path that ends in .py, .yaml or .yml."
        ) from error
    finally:
        sys.path.remove(here)
        if here not in sys.path:
            sys.path.append(here)


def _candidates(name: str, here: str) -> list[str]:
    """Names of modules that the user may have meant: in the same package when there is one, else in `here`."""
    parent = name.rpartition(".")[0]
    try:
        folders = list(importlib.import_module(parent).__path__) if parent else [here]
    except (ImportError, AttributeError):
        return [found.name for found in pkgutil.iter_modules([here])]
    return [f"{parent}.{found.name}" if parent else found.name for found in pkgutil.iter_modules(folders)]
