from pathlib import Path

import pytest

from flan_jax.templates import load as load_lib
from flan_jax.templates.load import parse_templates, read_mapping, template_sets
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
licence: CC0
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
            r"words.yaml: unknown key 'template_set'. Did you mean 'template_sets'\? Allowed: licence",
        ),
        (
            "template_sets: {s: [{input: x, targets: y}]}",
            r"template_sets.s\[0\]: unknown key 'input'. Did you mean 'inputs'",
        ),
        ("template_sets: {s: [{inputs: x}]}", r"template_sets.s\[0\]: the key 'targets' is missing; got inputs"),
        ("template_sets: {s: [{inputs: '{a', targets: y}]}", r"template_sets.s\[0\]: .*brace without its partner"),
        ("template_sets: {s: text}", "template_sets.s: expected a list of templates, .*got 'text'"),
        ("template_sets: {s: [text]}", r"template_sets.s\[0\]: expected names with values; got 'text'"),
        ("- a list", r"words.yaml: expected names with values; got \['a list'\]"),
        ("a: 1\nb: 2\na: 3", r"words.yaml: not YAML: the key 'a' is there twice \(line 3\)"),
        ("a: {b", "words.yaml: not YAML: .*line 1.* need quotes"),
    ],
)
def test_mistakes_name_the_file_the_place_and_the_mend(tmp_path, text, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        template_sets(write(tmp_path, text))


def test_a_file_that_is_not_there_is_refused_with_the_nearest(tmp_path):
    write(tmp_path, "{}")
    with pytest.raises(FileNotFoundError, match=r"word.yaml. Did you mean 'words.yaml'\?"):
        read_mapping(tmp_path / "word.yaml")


def test_merge_keys_may_override(tmp_path):
    path = write(tmp_path, "a: &a {x: 1, y: 2}\nb: &b {z: 4}\nc: {<<: *a, <<: *b, x: 3}")
    assert read_mapping(path)["c"] == {"x": 3, "y": 2, "z": 4}


def test_templates_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="here: expected a list of templates"):
        parse_templates(None, where="here")
