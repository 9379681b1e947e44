"""Names that are registered on first use."""

import pytest

pytestmark = pytest.mark.tensorflow


def declare(registry, *, words=("one", "two")):
    from flan_jax.tasks.declare import TemplatedTask
    from flan_jax.tasks.sources.file_sources import InMemorySource
    from flan_jax.templates.render import Template

    made = []

    def define(name):
        if name == "both":
            registry.register_mixture("both", [(f"lazy_{word}", 1.0) for word in words])
        elif name.removeprefix("lazy_") in words:
            ask = Template(inputs="{q}", targets=f"{name} {{q}}")
            source = InMemorySource(data={"train": [{"q": "?"}]})
            registry.register(TemplatedTask(name=name, source=source, cluster="c", templates=(ask,)))
        else:
            return False
        made.append(name)
        return True

    registry.declare_collection("lazy", names=lambda: [*(f"lazy_{word}" for word in words), "both"], define=define)
    return made


def test_a_name_is_registered_on_first_use_and_only_once(registries):
    made = declare(registries)
    assert registries.names() == ("both", "lazy_one", "lazy_two") and registries.defined_names() == set()
    assert registries.task("lazy_one").name == "lazy_one"
    assert registries.task("lazy_one").name == "lazy_one"
    assert made == ["lazy_one"] and registries.collections() == {"lazy": 3}


def test_a_mixture_brings_its_members(registries):
    made = declare(registries)
    assert {task.name for task in registries.mixture_or_task("both").tasks} == {"lazy_one", "lazy_two"}
    assert made == ["lazy_one", "lazy_two", "both"]


def test_an_unknown_name_is_refused_with_the_nearest_declared_one(registries):
    declare(registries)
    with pytest.raises(KeyError, match=r"Unknown task 'lazy_on'\. Did you mean 'lazy_one'"):
        registries.task("lazy_on")
    with pytest.raises(KeyError, match=r"Unknown task 'both'"):
        registries.task("both")


def test_declaring_a_collection_again_removes_what_it_had_registered(registries):
    declare(registries)
    registries.mixture_or_task("both")
    declare(registries, words=("one", "three"))
    assert registries.defined_names() == set()
    assert {task.name for task in registries.mixture_or_task("both").tasks} == {"lazy_one", "lazy_three"}


def test_another_vocabulary_registers_collections_anew(registries):
    declare(registries)
    first = registries.task("lazy_one").output_features["inputs"].vocabulary
    registries.register_all()
    registries.use_vocabulary("embedded")
    registries.register_all()
    declare(registries)
    assert registries.task("lazy_one").output_features["inputs"].vocabulary != first
