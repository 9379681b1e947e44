from pathlib import Path

import pytest

from flan_jax.templates import load as load_lib
from flan_jax.templates.load import template_sets
from flan_jax.templates.render import Template

PACKAGE_FILES = [p for p in sorted(Path(load_lib.__file__).parent.rglob("*.yaml")) if p.parent.name != "styles"]


def write(tmp_path, text):
    path = tmp_path / "words.yaml"
    path.write_text(text)
    return path


def test_sets_are_read_in_order(tmp_path):
    path = write(
        tmp_path,
        """
license: CC0
template_sets:
  ask:
    - {inputs: "{q}", targets: "{a}", name: plain}
    - {inputs: "{a}", targets: "{q}", direction: inverted}
  say: [{inputs: "{a}", targets: "{a}"}]
""",
    )
    sets = template_sets(path)
    assert list(sets) == ["ask", "say"]
    assert sets["ask"] == (
        Template(inputs="{q}", targets="{a}", name="plain"),
        Template(inputs="{a}", targets="{q}", direction="inverted"),
    )


def test_the_packages_own_files_are_read(subtests):
    for path in PACKAGE_FILES:
        with subtests.test(path.name):
            assert template_sets(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "template_set: {}",
            r"words.yaml, line 1: unknown key 'template_set'. Did you mean 'template_sets'\? Allowed: license",
        ),
        (
            "template_sets: {s: [{input: x, targets: y}]}",
            r"template_sets.s\[0\]: unknown key 'input'. Did you mean 'inputs'",
        ),
        ("template_sets: {s: [{inputs: x}]}", r"template_sets.s\[0\]: the key 'targets' is missing; got inputs"),
        ("template_sets: {s: [{inputs: '{a', targets: y}]}", r"template_sets.s\[0\]: .*brace without its partner"),
        (
            "template_sets: {s: text}",
            r"template_sets.s: expected a list, each item a mapping \(inputs, targets, direction, name\), got 'text'",
        ),
        ("template_sets: {s: [text]}", r"template_sets.s\[0\]: expected a mapping \(inputs.*\), got 'text'"),
        ("- a list", r"words.yaml: expected a mapping, got \['a list'\]"),
        ("a: 1\nb: 2\na: 3", r"words.yaml: not YAML: the key 'a' is given twice \(line 3\)"),
        ("a: {b", "words.yaml, line 2: not YAML: .*opens in line 1 has no partner"),
    ],
)
def test_mistakes_name_the_file_the_place_and_the_fix(tmp_path, text, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        template_sets(write(tmp_path, text))
