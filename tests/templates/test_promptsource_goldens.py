"""Our renderings against those of promptsource itself; `tools/make_promptsource_goldens.py` wrote the digests down."""

import hashlib
import json
from pathlib import Path

import pytest

from flan_jax.templates.promptsource_files import open_archive
from flan_jax.templates.render import NotApplicable
from tests.templates import promptsource_rows

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "promptsource.json"
pytestmark = pytest.mark.shared_data


def outcome(template, row):
    try:
        rendered = template.render(row)
    except NotApplicable:
        return "left out"
    except ValueError:
        return "fails"
    choices = list(rendered.options) if template.gives_options else None
    return hashlib.sha256(json.dumps([[rendered.inputs, rendered.targets], choices]).encode()).hexdigest()[:32]


@pytest.fixture(scope="module")
def found(shared_data):
    """(template, row, what promptsource made of it, what we make of it)."""
    archive = open_archive(shared_data / "promptsource" / "templates.zip")
    rows = promptsource_rows.rows(shared_data)
    golden = json.loads(GOLDEN.read_text())
    assert rows.keys() == golden.keys()
    cases = []
    for dataset, expected in golden.items():
        templates = archive.templates(dataset)
        assert {template.id for template in templates} == expected.keys()
        for template in templates:
            for row, theirs in zip(rows[dataset], expected[template.id], strict=True):
                cases.append((template, row, theirs, outcome(template, row)))
    return cases


def test_every_rendering_is_what_promptsource_makes_of_it(found):
    wrong = [
        f"{template}, row {list(row.values())[0]!r:.40}" for template, row, theirs, ours in found if ours not in theirs
    ]
    assert not wrong


def test_the_goldens_cover_rows_that_are_left_out_fail_draw_and_hold_a_separator(found):
    theirs = [outcomes for _, _, outcomes, _ in found]
    assert len(found) >= 550
    assert sum(len(outcomes) > 1 for outcomes in theirs) >= 10
    assert theirs.count(["left out"]) >= 5
    assert sum("|||" in row["premise"] for template, row, *_ in found if template.dataset == "super_glue/rte") == 10
