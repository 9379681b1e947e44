import pytest


@pytest.fixture
def registries(monkeypatch):
    """SeqIO's registries and ours, empty for one test; returns `flan_jax.tasks.registry`."""
    seqio = pytest.importorskip("seqio")
    from flan_jax.tasks import entries, registry

    monkeypatch.setattr(seqio.TaskRegistry, "_REGISTRY", {})
    monkeypatch.setattr(seqio.MixtureRegistry, "_REGISTRY", {})
    monkeypatch.setattr(entries, "_state", entries._State(default_vocabulary="bytes"))
    monkeypatch.setattr(registry, "_state", registry._State())
    return registry
