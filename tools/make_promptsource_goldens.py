"""Saves digests of what promptsource renders from a few real rows, for tests/templates/test_promptsource_goldens.py.

    python tools/make_promptsource_goldens.py PATH/TO/promptsource PATH/TO/data [tests/golden/promptsource.json]

The first path is the folder with promptsource's `templates.py`, which runs unchanged and needs pandas, pyyaml, jinja2
and `pkg_resources`; the second contains the datasets. The file stores no text: for each template and row it has the
first 16 bytes of a SHA-256 over prompt, target and choices. A template with random choices gets the digests of all
outcomes over many seeds.
"""

import hashlib
import importlib
import json
import random
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "golden" / "promptsource.json"
DRAWS = re.compile(r"\|\s*(choice|random)\b")
SEEDS = 200


def digest(parts: list[str], choices: list[str] | None) -> str:
    return hashlib.sha256(json.dumps([parts, choices]).encode()).hexdigest()[:32]


def outcome(template: Any, row: dict[str, Any]) -> str:
    """A digest; or "left out" for what T0 leaves out; or "fails"."""
    try:
        parts, choices = template.apply(dict(row)), template.get_answer_choices_list(dict(row))
    except Exception:
        return "fails"
    return digest(parts, choices) if len(parts) == 2 and all(parts) else "left out"


def outcomes(template: Any, row: dict[str, Any]) -> list[str]:
    draws = DRAWS.search(template.jinja + (template.answer_choices or ""))
    found = set()
    for seed in range(SEEDS if draws else 1):
        random.seed(seed)
        found.add(outcome(template, row))
    return sorted(found)


def main(promptsource: str, data: str, out: str = str(OUT)) -> None:
    sys.path[:0] = [str(Path(promptsource).resolve().parent), str(ROOT / "tests" / "templates")]
    reference = importlib.import_module("promptsource.templates")
    rows = importlib.import_module("promptsource_rows").rows(Path(data))
    found = {}
    for name, given in rows.items():
        # Keys with a hyphen are given another name before rendering, as T0 does.
        cleaned = [{key.replace("-", "_"): value for key, value in row.items()} for row in given]
        dataset, _, subset = name.partition("/")
        templates = reference.DatasetTemplates(dataset, subset or None).templates
        found[name] = {id_: [outcomes(template, row) for row in cleaned] for id_, template in templates.items()}
    Path(out).write_text(json.dumps(found, indent=0, sort_keys=True) + "\n")
    results = [o for templates in found.values() for per_row in templates.values() for o in per_row]
    print(f"{len(found)} datasets, {sum(map(len, found.values()))} templates, {len(results)} renderings, of which")
    print(f"{sum(len(o) > 1 for o in results)} draw, {results.count(['left out'])} are left out, ", end="")
    print(f"{results.count(['fails'])} fail")


if __name__ == "__main__":
    main(*sys.argv[1:])
