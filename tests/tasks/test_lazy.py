import os
import sys

import pytest

from flan_jax.tasks import lazy


@pytest.mark.parametrize(
    ("find", "module", "package"),
    [
        (lazy.import_seqio, "seqio", "seqio"),
        (lazy.import_tfds, "tensorflow_datasets", "tensorflow_datasets"),
        (lazy.import_parquet, "pyarrow.parquet", "pyarrow"),
    ],
)
def test_without_the_extra_the_message_names_what_to_install(monkeypatch, find, module, package):
    monkeypatch.setitem(sys.modules, module, None)  # As if it were not installed.
    with pytest.raises(ValueError, match=rf"needs {package} .*pip install 'flan_jax\[tasks\]'"):
        find()


def test_output_of_libraries_while_they_load_is_shown_only_if_they_fail(capfd):
    with lazy._quiet_stderr():
        os.write(2, b"a screen of notes")
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"
    with pytest.raises(ImportError), lazy._quiet_stderr():
        os.write(2, b"why it failed")
        raise ImportError
    assert capfd.readouterr().err == "why it failed"
