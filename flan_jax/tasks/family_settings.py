"""What the entry of a family in a YAML file says: settings of known types, and the folder its data lie in.

The folder gives way to an environment variable, so that one file serves machines that keep the data elsewhere.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flan_jax.errors import MissingFileError, UserError
from flan_jax.templates.load import require_keys


def checked(
    settings: Mapping[str, Any], allowed: Mapping[str, type], *, variable: str, what: str, base: Path, where: str
) -> tuple[Path, dict[str, Any]]:
    """Returns the folder, and the other settings.

    Args:
      settings: as the file has them.
      allowed: the type of each; `data_dir` among them.
      variable: the environment variable that names another folder.
      what: lies in the folder.
      base: the folder that a relative `data_dir` starts from.
      where: the entry's place, for messages.

    Raises:
      UserError: a key that is not allowed, a value of another type, or no folder.
      MissingFileError: the folder is not there.
    """
    require_keys(settings, tuple(allowed), where=where)
    for key, value in settings.items():
        if type(value) is not allowed[key]:
            raise UserError(f"{where}.{key}: expected {allowed[key].__name__}, got {value!r}.")
    given = dict(settings)
    declared, overriding = given.pop("data_dir", None), os.environ.get(variable)
    if not declared and not overriding:
        raise UserError(f"{where}: give data_dir, or set the environment variable {variable}.")
    folder = Path(overriding) if overriding else base / Path(declared or "").expanduser()
    if not folder.is_dir():
        raise MissingFileError(
            f"{where}: no folder {folder} to read {what} from. "
            f"Give another data_dir, or set the environment variable {variable}."
        )
    return folder, given
