"""What all published collections share: settings of files, contents on first use, names that are replaced."""

import dataclasses

import pytest

from flan_jax.collections.catalog import Collection, Mixture, Table, replace
from flan_jax.tasks import registration
from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.sources.file_sources import InMemorySource
from flan_jax.templates.render import Template
from flan_jax.vocab import ByteVocabulary

pytestmark = pytest.mark.tensorflow


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    word: str = "none"


def task(name, *, word):
    source = InMemorySource(data={"train": [{"q": "?"}]})
    return TemplatedTask(name=name, source=source, cluster=word, templates=(Template(inputs="{q}", targets="a {q}"),))


def contents(settings):
    return Table(tasks={"one": lambda: task("one", word=settings.word)}, mixtures={"all": Mixture(members=["one"])})


@pytest.fixture
def own(registries):
    """A collection of one task, the only one of the catalog; returns the registry."""
    collection = Collection(name="own", read=lambda s: s.parse(Settings), default=Settings, contents=contents)
    registration.state.catalog.clear()
    registries.add_catalog({"own": lambda: collection}, files=())
    return registries


def test_names_are_those_of_the_settings_and_registered_on_first_use(own):
    own.register_all()
    assert own.names() == ("all", "one") and own.defined_names() == set()
    assert own.templated("one").cluster == "none"
    assert [member.name for member in own.mixture_or_task("all").tasks] == ["one"]


def test_a_files_settings_stay_under_another_vocabulary(own, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("collections: {own: {word: file}}\n")
    own.register_all()
    own.register_yaml(path)
    assert own.templated("one").cluster == "file"
    own.use_vocabulary(ByteVocabulary(extra_ids=7))
    own.register_all()
    assert own.templated("one").cluster == "file" and own.resolve("one").vocabulary.extra_ids == 7
    # A vocabulary that the file names stays, too.
    path.write_text("vocabulary: embedded\ncollections: {own: {word: file}}\n")
    own.register_yaml(path)
    named = own.resolve("one").vocabulary
    own.use_vocabulary(ByteVocabulary(extra_ids=9))
    own.register_all()
    assert own.resolve("one").vocabulary == named == own.vocabulary("embedded")


def test_replaced_names_are_gone_and_the_same_again_is_kept(registries):
    vocabulary = registries.vocabulary()
    replace("own", [task("a", word="x")], {"m": Mixture(members=["a"])}, vocabulary=vocabulary)
    made = registries.task("a")
    replace("own", [task("b", word="x")], {}, vocabulary=vocabulary)
    assert registries.names() == ("b",)
    kept = registries.task("b")
    same = registries.templated("b")
    replace("own", [same], {}, vocabulary=vocabulary)
    assert registries.task("b") is kept is not made
