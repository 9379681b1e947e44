"""A mixture that leaks what it holds out is refused when it is defined; allowed leaks are in its manifest."""

import pytest

from flan_jax.data.holdout import Facts, HoldOut
from flan_jax.data.manifest import Request, read_mixture, read_task
from flan_jax.tasks.declare import FewShot, TemplatedTask
from flan_jax.tasks.exporting.export import export_mixture
from flan_jax.tasks.sources.file_sources import InMemorySource, JsonlSource
from flan_jax.templates.fewshot import FewShotFormat
from flan_jax.templates.render import Template

pytestmark = pytest.mark.tensorflow

PLAIN = FewShotFormat(name="plain")


def task(name, cluster, corpora=(), *, source=None, **settings):
    rows = [{"q": f"{name} {i}", "a": str(i)} for i in range(4)]
    return TemplatedTask(
        name=name,
        source=source or InMemorySource(data={"train": rows, "validation": rows[:1]}),
        cluster=cluster,
        templates=(Template(inputs="{q}", targets="{a}"),),
        corpora=corpora,
        **settings,
    )


@pytest.fixture
def registry(registries):
    """An entailment task, one of another cluster with its corpus, one that shows its rows, and an unrelated one."""
    anli = registries.register(task("anli", "entailment", ("anli", "snli")))
    registries.register(task("premises", "writing", ("snli",)))
    pool = registries.templated(anli.name)
    shows = FewShot(num_exemplars=1, formats=(PLAIN,), pool=pool)
    registries.register(task("shows", "talking", ("chat",), few_shot=shows))
    registries.register(task("sums", "numbers", ("gsm8k",)))
    return registries


def facts(registry, name):
    return registry.resolve(name).metadata.facts(name)


def test_the_facts_of_hold_out_come_from_the_declarations(registry):
    assert facts(registry, "shows") == Facts(
        task="shows", cluster="talking", corpora=("chat",), exemplar_corpora=("anli", "snli")
    )
    own = task("own", "c", ("x",), few_shot=FewShot(num_exemplars=1, formats=(PLAIN,)))
    assert own.exemplar_corpora == ("x",) and registry.templated("sums").exemplar_corpora == ()


@pytest.mark.parametrize(
    ("members", "hold_out", "message"),
    [
        (["anli", "sums"], HoldOut(clusters=("entailment",)),
         r"Mixture 'm' trains on what it holds out: 'anli' is of the held-out cluster 'entailment'\. Leave these tasks "
         r"out, or accept the leak by name: allow_leak=\['entailment'\]\."),
        (["premises"], HoldOut(tasks=("anli",)), "'premises' is made from the held-out corpus 'snli' .of 'anli'.*'snli'"),
        (["shows"], HoldOut(tasks=("anli",)), "'shows' shows exemplars from the held-out corpus 'anli'"),
        (["shows"], HoldOut(corpora=("snli",)), "'shows' shows exemplars from the held-out corpus 'snli'"),
        (["sums", "anli"], HoldOut(tasks=("anli",)), "'anli' is itself held out"),
        (["sums", "premises"], HoldOut(tasks=("held",)), "'premises' is made from the held-out corpus 'snli'"),
        ([("inner", 1.0)], HoldOut(corpora=("snli",)), "'premises' is made from"),
    ],
)  # fmt: skip
def test_a_leaking_mixture_is_refused_by_name(registry, members, hold_out, message):
    registry.register_mixture("held", ["anli"])
    registry.register_mixture("inner", ["premises", "sums"])
    with pytest.raises(ValueError, match=message):
        registry.register_mixture("m", members, hold_out=hold_out)
    assert "m" not in registry.names() and registry.hold_out_of("m") == {}


def test_new_tasks_of_a_seen_cluster_are_held_out_by_name_and_their_corpora_with_them(registry):
    registry.register(task("seen", "entailment", ("cb",)))
    registry.register_mixture("m", ["seen", "sums"], hold_out=HoldOut(tasks=("anli",)))
    with pytest.raises(ValueError, match="'seen' is of the held-out cluster 'entailment'"):
        registry.register_mixture("n", ["seen"], hold_out=HoldOut(tasks=("anli",), clusters=("entailment",)))


def test_no_rows_are_read_for_it(registry, tmp_path):
    nowhere = JsonlSource(files={"train": tmp_path / "nowhere.jsonl"})
    registry.register(task("lost", "entailment", source=nowhere))
    with pytest.raises(ValueError, match="'lost' is of the held-out cluster"):
        registry.register_mixture("m", ["lost"], hold_out=HoldOut(clusters=("entailment",)))
    registry.register_mixture("m", ["lost"], hold_out=HoldOut(clusters=("numbers",)))


def test_an_unknown_held_out_name_is_refused(registry):
    with pytest.raises(KeyError, match="Unknown task or mixture 'anil'. Did you mean 'anli'"):
        registry.register_mixture("m", ["sums"], hold_out=HoldOut(tasks=("anil",)))


def test_an_allowed_leak_is_in_the_manifest_and_corpora_are_in_the_tasks(registry, tmp_path):
    hold_out = HoldOut(tasks=("anli",), allow_leak=("snli", "shows"))
    registry.register_mixture("m", ["premises", "shows", "sums"], hold_out=hold_out)
    manifest = export_mixture(Request(name="m", lengths={"inputs": 64, "targets": 8}), export_dir=tmp_path)
    assert read_mixture(manifest.request.manifest_path(tmp_path)) == manifest
    assert manifest.hold_out == {
        "clusters": [], "corpora": [], "tasks": ["anli"], "allow_leak": ["snli", "shows"],
        "allowed": ["'premises' is made from the held-out corpus 'snli' (of 'anli')",
                    "'shows' shows exemplars from the held-out corpus 'anli' (of 'anli')",
                    "'shows' shows exemplars from the held-out corpus 'snli' (of 'anli')"],
    }  # fmt: skip
    manifests = [read_task(tmp_path / member.path) for member in manifest.members]
    found = {manifest.task: manifest.metadata.facts(manifest.task) for manifest in manifests}
    assert found == {name: facts(registry, name) for name in ("premises", "shows", "sums")}


def test_an_unregistered_mixture_holds_nothing_out(registry):
    registry.register_mixture("m", ["sums"], hold_out=HoldOut(clusters=("entailment",)))
    assert registry.hold_out_of("m")["clusters"] == ["entailment"]
    registry.unregister(["m"])
    assert registry.hold_out_of("m") == {}


YAML = """
tasks:
  capitals:
    cluster: geography
    corpora: [atlas]
    source: jsonl
    splits: {{train: rows.jsonl}}
    templates: [{{inputs: "{{q}}", targets: "{{a}}"}}]
  rivers:
    cluster: water
    corpora: [atlas]
    source: jsonl
    splits: {{train: rows.jsonl}}
    templates: [{{inputs: "{{q}}", targets: "{{a}}"}}]
mixtures:
  a_careful: {{members: [rivers], {hold_out}}}
  tested: {{members: [capitals]}}
"""


@pytest.mark.parametrize(
    ("hold_out", "message"),
    [
        ("hold_out: {clusters: [water]}", "'rivers' is of the held-out cluster 'water'.*allow_leak=.'water'"),
        ("hold_out: {tasks: [tested]}", "'rivers' is made from the held-out corpus 'atlas' .of 'capitals'"),
        ("hold_out: {corpora: atlas}", "'rivers' is made from the held-out corpus 'atlas'"),
        ("hold_out: {cluster: [water]}", "mixtures.a_careful.hold_out: unknown key 'cluster'. Did you mean 'clusters'"),
        ("hold_out: [water]", "mixtures.a_careful.hold_out: expected a mapping .*, got .'water'"),
        ("hold_out: {clusters: [[yes]]}", "hold_out.clusters.0.: expected a text, got .yes"),
        ("allow_leak: [water]", "mixtures.a_careful: unknown key 'allow_leak'"),
    ],
)  # fmt: skip
def test_a_yaml_files_mixtures_hold_out(registries, tmp_path, hold_out, message):
    path = tmp_path / "mine.yaml"
    path.write_text(YAML.format(hold_out=hold_out))
    with pytest.raises(ValueError, match=f"mine.yaml(, line 16)?: .*{message}"):
        registries.register_yaml(path)
    assert registries.names() == ()


def test_a_yaml_file_may_allow_a_leak(registries, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(YAML.format(hold_out="hold_out: {tasks: [tested], allow_leak: [rivers]}"))
    registries.register_yaml(path)
    assert registries.hold_out_of("a_careful")["allowed"] == [
        "'rivers' is made from the held-out corpus 'atlas' (of 'capitals')"
    ]
