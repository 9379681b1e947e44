"""The examples that docstrings draw are true."""

import doctest
import importlib

import pytest

from tests.test_imports import MODULES, module_name

WITH_EXAMPLES = [path for path in MODULES if ">>>" in path.read_text()]


def test_enough_modules_draw_examples():
    assert len(WITH_EXAMPLES) >= 20


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=module_name)
def test_examples_hold(path):
    if path.parent.name == "tasks":
        pytest.importorskip("seqio")
    found = doctest.testmod(importlib.import_module(module_name(path)))
    assert found.attempted and not found.failed
