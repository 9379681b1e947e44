import pytest


@pytest.fixture
def registries(monkeypatch):
    """Empty registries for one test, with the catalog of collections; returns `flan_jax.tasks.registry`."""
    seqio = pytest.importorskip("seqio")
    from flan_jax.collections import catalog
    from flan_jax.tasks import registration, registry

    monkeypatch.setattr(seqio.TaskRegistry, "_REGISTRY", {})
    monkeypatch.setattr(seqio.MixtureRegistry, "_REGISTRY", {})
    monkeypatch.setattr(registration, "state", registration.State(default_vocabulary="bytes"))
    catalog.install()
    return registry


SUMS = [{"q": "2+2", "a": "4"}, {"q": "3+3", "a": "6"}, {"q": "a question too long", "a": "x"}]


@pytest.fixture
def sums(registries):
    from flan_jax.tasks.sources.file_sources import InMemorySource
    from flan_jax.templates.render import Template

    return registries.register(
        registries.TemplatedTask(
            name="sums",
            source=InMemorySource(data={"train": SUMS, "validation": SUMS[:1]}),
            cluster="numbers",
            templates=(
                Template(inputs="{q}?", targets="{a}", name="ask"),
                Template(inputs="so {a}", targets="{q}", direction="inverted"),
            ),
            metrics=("exact_match", "rouge_l"),
            license="CC0",
        )
    )


@pytest.fixture
def plain(registries):
    """A task registered with plain SeqIO."""
    import seqio
    import tensorflow as tf

    def dataset(split, shuffle_files=False, seed=None):
        del split, shuffle_files, seed
        return tf.data.Dataset.from_tensor_slices({"inputs": ["abc", "de"], "targets": ["x", "yz"]})

    feature = seqio.Feature(vocabulary=seqio.ByteVocabulary(extra_ids=0))
    return seqio.TaskRegistry.add(
        "plain",
        source=seqio.FunctionDataSource(dataset, splits=["train"], num_input_examples={"train": 2}),
        preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos_after_trim],
        output_features={"inputs": feature, "targets": feature},
        metric_fns=[same],
    )


def same(targets, predictions):
    return {"same": float(targets == predictions)}


@pytest.fixture
def lost(registries, tmp_path):
    """A task whose rows are missing."""
    return registries.register_jsonl("lost", str(tmp_path / "lost.jsonl"), inputs="{q}?", targets="{a}")
