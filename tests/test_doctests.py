"""The examples in docstrings are true."""

import doctest
import importlib
import importlib.util

from tests.test_imports import MODULES, module_name, part_of


def test_examples_in_docstrings_are_true(subtests):
    has_seqio = importlib.util.find_spec("seqio") is not None
    for path in MODULES:
        if ">>>" not in path.read_text() or (part_of(module_name(path)) == "tasks" and not has_seqio):
            continue
        with subtests.test(module_name(path)):
            results = doctest.testmod(importlib.import_module(module_name(path)))
            assert results.attempted and not results.failed
