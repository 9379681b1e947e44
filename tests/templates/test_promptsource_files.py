import zipfile

import pytest

from flan_jax.templates import sandbox
from flan_jax.templates.promptsource import PromptMetadata
from flan_jax.templates.promptsource_files import open_archive

FILE = """\
dataset: colours
subset: warm
templates:
  id-2: !Template
    answer_choices: 'Yes ||| No'
    id: id-2
    jinja: 'Is {{thing}} red? ||| {{ answer_choices[label] }}'
    metadata: !TemplateMetadata
      choices_in_prompt: false
      languages: [en]
      metrics: [Accuracy, Other]
      original_task: true
    name: is it red
    reference: synthetic
  id-1: !Template
    answer_choices: null
    id: id-1
    jinja: 'Name a thing. ||| {{thing}}'
    metadata: !TemplateMetadata
      choices_in_prompt: null
      languages: []
      metrics: []
      original_task: false
    name: a thing
    reference: ''
"""


def folder(tmp_path, text=FILE, at="colours/warm"):
    place = tmp_path / at / "templates.yaml"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(text if isinstance(text, bytes) else text.encode())
    return tmp_path


def test_templates_come_by_name_with_all_that_their_file_says(tmp_path):
    archive = open_archive(folder(tmp_path))
    thing, red = archive.templates("colours/warm")
    assert (thing.name, thing.id, thing.answer_choices, thing.reference) == ("a thing", "id-1", None, "")
    assert thing.metadata == PromptMetadata()
    assert (red.name, red.answer_choices, red.dataset) == ("is it red", "Yes ||| No", "colours/warm")
    assert red.metadata == PromptMetadata(
        original_task=True, choices_in_prompt=False, metrics=("Accuracy", "Other"), languages=("en",)
    )
    assert red.render({"thing": "rust", "label": 0}).targets == "Yes"
    assert red.file == str(tmp_path / "colours/warm/templates.yaml")


def test_an_archive_and_a_checkout_are_read_like_a_folder(tmp_path):
    plain = open_archive(folder(tmp_path / "a")).templates("colours/warm")
    checkout = open_archive(folder(tmp_path / "b", at="promptsource/templates/colours/warm")).templates("colours/warm")
    for prefix in ("", "promptsource-main/promptsource/templates/"):
        with zipfile.ZipFile(tmp_path / "t.zip", "w") as made:
            made.writestr(f"{prefix}colours/warm/templates.yaml", FILE)
        zipped = open_archive(tmp_path / "t.zip")
        assert list(zipped.members) == ["colours/warm"]
        assert [t.identity for t in zipped.templates("colours/warm")] == [t.identity for t in plain]
        assert zipped.templates("colours/warm")[0].file == str(tmp_path / "t.zip")
    assert [t.identity for t in checkout] == [t.identity for t in plain]


def test_a_file_that_changes_is_read_again(tmp_path):
    archive = open_archive(folder(tmp_path))
    before = archive.templates("colours/warm")
    folder(tmp_path, FILE.replace("Is {{thing}} red?", "Would you call {{thing}} red?"))
    assert archive.templates("colours/warm")[1].jinja.startswith("Would you call")
    assert archive.templates("colours/warm")[0] == before[0]


def test_a_file_without_tags_and_with_keys_alone_will_do(tmp_path):
    text = "dataset: mine\ntemplates: {a1: {name: x, jinja: 'A ||| B'}}\n"
    (only,) = open_archive(folder(tmp_path, text, at="mine")).templates("mine")
    assert (only.id, only.name, only.metadata) == ("a1", "x", PromptMetadata())


def test_reading_executes_nothing(tmp_path):
    text = f"dataset: mine\ntemplates: !!python/object/apply:os.system ['touch {tmp_path}/ran']\n"
    with pytest.raises(ValueError, match="not YAML: could not determine a constructor for the tag"):
        open_archive(folder(tmp_path, text, at="mine")).templates("mine")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dataset: colours", "dataset: colors", "it declares the dataset colors/warm, and its path is that of colours/warm"),
        ("dataset: colours\n", "", "the key 'dataset' is missing; got subset, templates"),
        ("subset: warm", "subsets: warm", r"unknown key 'subsets'\. Did you mean 'subset'"),
        ("templates:\n", "templates: []\nx:\n", "unknown key 'x'"),
        ("    id: id-2", "    id: id-3", "templates.id-2: its id is 'id-3'; it must be its key"),
        ("    jinja: 'Name", "    jinja_: 'Name", r"templates.id-1: unknown key 'jinja_'\. Did you mean 'jinja'"),
        ("    name: a thing\n", "", "templates.id-1: the key 'name' is missing"),
        ("    name: a thing", "    name: [7]", r"templates.id-1.name: expected a text, got \[7\]"),
        ("    name: a thing", "    name: ' '", "templates.id-1: name is blank"),
        ("    name: a thing", "    name: is it red", "two templates have the name 'is it red'"),
        ("answer_choices: null", "answer_choices: {}", "templates.id-1.answer_choices: expected a text, got {}"),
        ("metrics: [Accuracy, Other]", "metrics: {a: b}", r"templates.id-2.metadata.metrics: expected a list, each item a text, got \{'a': 'b'\}"),
        ("original_task: true", "original_task: 1", "templates.id-2.metadata.original_task: expected true or false, got 1"),
        ("original_task: true", "orginal_task: true", r"metadata: unknown key 'orginal_task'\. Did you mean 'original_task'"),
        ("    reference: synthetic", "    name: again", "the key 'name' is given twice"),
        ("dataset: colours", "dataset: [", "not YAML: did not find"),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_is_refused_with_its_place(tmp_path, old, new, message):
    assert old in FILE
    archive = open_archive(folder(tmp_path, FILE.replace(old, new)))
    with pytest.raises(ValueError, match=message) as refused:
        archive.templates("colours/warm")
    assert "colours/warm/templates.yaml" in str(refused.value)


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not UTF-8 .*invalid start byte 0xff"):
        open_archive(folder(tmp_path, b"dataset: \xff", at="mine")).templates("mine")


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("words")
    with pytest.raises(ValueError, match="notes.txt: neither a folder nor a zip archive of templates"):
        open_archive(tmp_path / "notes.txt")
    with pytest.raises(ValueError, match="no <dataset>/templates.yaml in it"):
        open_archive(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"No folder or archive .*note.txt.* Did you mean 'notes.txt'"):
        open_archive(tmp_path / "note.txt")
    with pytest.raises(KeyError, match=r"no templates for 'colours/warn'. Did you mean 'colours/warm'"):
        open_archive(folder(tmp_path)).templates("colours/warn")


@pytest.mark.shared_data
def test_promptsources_own_archive_is_what_it_was_counted_to_be(shared_data):
    archive = open_archive(shared_data / "promptsource" / "templates.zip")
    templates = [template for dataset in archive.members for template in archive.templates(dataset)]
    shown = [template.metadata.choices_in_prompt for template in templates]
    users = ("Zaid", "craffel")  # Whose folders hold datasets, not subsets.
    datasets = {name if (first := name.partition("/")[0]) in users else first for name in archive.members}
    assert (len(archive.members), len(datasets)) == (279, 180)
    assert len(templates) == len({template.id for template in templates}) == 2085
    assert sum(template.gives_options for template in templates) == 1145
    assert sum(template.metadata.original_task for template in templates) == 1535
    assert (shown.count(True), shown.count(False)) == (841, 1209)
    assert all(template.variables is not None for template in templates)  # It is Jinja,
    for template in templates:
        sandbox.compiled(template.jinja)  # and the sandbox takes it.
