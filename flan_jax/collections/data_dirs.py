"""Where the data of a collection are: a folder that a YAML file or an environment variable names.

The variable takes precedence, so that one YAML file serves machines that store the data at different paths.
"""

import os
from pathlib import Path

from flan_jax.errors import MissingFileError
from flan_jax.paths import user_path
from flan_jax.settings import Place


def data_dir(declared: Path | None, *, variable: str, content: str, place: Place) -> Path:
    """Returns the folder of a collection's data.

    Args:
      declared: the value of `data_dir` in the YAML file.
      variable: the environment variable that names another folder.
      content: what the folder holds, for messages.
      place: of the collection's settings.

    Raises:
      UserError: neither names a folder.
      MissingFileError: there is no such folder.
    """
    named = os.environ.get(variable)
    folder = user_path(named) if named else declared
    if folder is None:
        raise place.error(f"give data_dir, or set the environment variable {variable}.")
    if not folder.is_dir():
        raise MissingFileError(
            f"{place}: no folder {folder} to read {content} from. "
            f"Give another data_dir, or set the environment variable {variable}."
        )
    return folder
