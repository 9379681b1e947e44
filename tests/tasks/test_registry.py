import inspect
import json
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from flan_jax.data.rates import ProportionalRate
from flan_jax.tasks import registration
from flan_jax.tasks import registry as registry_lib
from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.sources.file_sources import InMemorySource, JsonlSource
from flan_jax.templates.render import Template
from flan_jax.vocab import ByteVocabulary

pytestmark = pytest.mark.tensorflow

FIXTURES = Path(__file__).parents[1] / "fixtures"
CAPITALS = FIXTURES / "user_data" / "capitals.jsonl"
ROWS = [{"q": f"question {i} 😀\n{{}}", "a": str(i)} for i in range(5)]


def task_of(name="t", rows=ROWS, **changes):
    settings = {
        "name": name,
        "source": InMemorySource(data={"train": rows, "validation": rows[:2]}),
        "cluster": "c",
        "templates": (Template(inputs="{q}", targets="{a}"), Template(inputs="{q}?", targets="{a}")),
    }
    return TemplatedTask(**(settings | changes))


def test_a_jsonl_file_takes_at_most_ten_lines_of_python(registries):
    lines = inspect.getsource(registry_lib).split('"""')[1].partition("A task from a JSONL file:")[2]
    code = [line for line in lines.splitlines() if line.startswith("    ")]
    assert 0 < len(code) <= 10
    exec("\n".join(line[4:] for line in code).replace("capitals.jsonl", str(CAPITALS)))
    dataset = registries.task("capitals").get_dataset(sequence_length=None, split="train", shuffle=False)
    texts = [
        (e["inputs_pretokenized"].decode(), e["targets_pretokenized"].decode()) for e in dataset.as_numpy_iterator()
    ]
    assert texts[0] == ("Capital of Peru?", "Lima") and len(texts) == 4


def test_a_mixture_is_an_ordinary_seqio_mixture_and_may_be_nested(registries):
    import seqio

    for name, rows in (("a", 1), ("b", 3), ("c", 5)):
        registries.register(task_of(name, ROWS[:rows]))
    registries.register_mixture("ab", ["a", "b"])
    made = registries.register_mixture("all", [("ab", 1.0), ("c", ProportionalRate(maximum=2))])
    assert seqio.MixtureRegistry.get("all") is made is registries.mixture_or_task("all")
    rates = {task.name: made.get_rate(task) for task in made.tasks}
    assert rates == {"a": 0.25, "b": 0.75, "c": 2.0}
    assert made.num_input_examples("train") == 9
    dataset = made.get_dataset(sequence_length={"inputs": 8, "targets": 4}, split="train", shuffle=False, num_epochs=1)
    assert len(list(dataset)) >= 1


def test_rates_may_be_numbers_or_functions_and_the_default_is_the_number_of_examples(registries):
    for name, rows in (("a", 2), ("b", 4), ("c", 5)):
        registries.register(task_of(name, ROWS[:rows]))
    made = registries.register_mixture("m", ["a", ("b", 0.5), ("c", lambda task: 7.0)])
    assert {task.name: made.get_rate(task) for task in made.tasks} == {"a": 2.0, "b": 0.5, "c": 7.0}
    flat = registries.register_mixture("flat", ["a", "b"], default_rate=1.0)
    assert {task.name: flat.get_rate(task) for task in flat.tasks} == {"a": 1.0, "b": 1.0}


def test_invalid_mixtures_are_refused(registries):
    registries.register(task_of("alpha"))
    registries.register(task_of("beta"), vocabulary=ByteVocabulary(extra_ids=1))
    registries.register_mixture("inner", ["alpha"])
    for name, members, kind, message in [
        ("two words", ["alpha"], ValueError, "The name 'two words' cannot be"),
        ("alpha", ["alpha"], ValueError, "'alpha' is taken by a task that is registered already"),
        ("inner", ["alpha"], ValueError, "'inner' is taken by a mixture"),
        ("m", [], ValueError, "Mixture 'm' has no members"),
        ("m", ["alhpa"], KeyError, "Mixture 'm': Unknown member 'alhpa'. Did you mean 'alpha'"),
        ("m", ["alpha", ("alpha", 2)], ValueError, "'alpha' is a member twice"),
        ("m", [("alpha", 0), ("inner", 0.0)], ValueError, "Mixture 'm': no member has a weight above 0, so there is"),
        ("m", [("alpha", 0), ("inner", 1)], ValueError, "the rate of 'alpha' must be a number above 0, got 0; remove"),
        ("m", [("alpha", -0.5), ("inner", 1)], ValueError, "the rate of 'alpha' must be a number above 0, got -0.5"),
        ("m", [("alpha", float("nan"))], ValueError, "must be a number above 0, got nan"),
        ("m", [("alpha", True)], ValueError, "the rate of 'alpha' must be a number above 0, got True"),
        ("m", [("alpha", float("inf"))], ValueError, "must be a number above 0, got inf"),
        ("m", ["inner"], ValueError, "its member 'inner' is a mixture and needs a number as its rate"),
        ("m", ["alpha", "beta"], ValueError, "'alpha' and 'beta' differ in the vocabulary of 'inputs'"),
    ]:
        with pytest.raises(kind, match=message):
            registries.register_mixture(name, members)
    assert registries.names() == ("alpha", "beta", "inner")


def test_external_tasks_are_found_and_mixed(registries):
    import seqio
    import tensorflow as tf

    feature = seqio.Feature(seqio.ByteVocabulary())
    seqio.TaskRegistry.add(
        "external",
        source=seqio.FunctionDataSource(
            lambda split, shuffle_files: tf.data.Dataset.from_tensors({"inputs": "a", "targets": "b"}),
            splits=("train",), num_input_examples={"train": 1},
        ),
        preprocessors=[seqio.preprocessors.tokenize],
        output_features={"inputs": feature, "targets": feature},
    )  # fmt: skip
    record = task_of("ours")
    registries.register(record)
    assert registries.task("external").name == "external" and registries.templated("external") is None
    assert registries.templated("ours") is record
    assert registries.register_mixture("both", ["external", "ours"]).total_rate == 6.0


def test_unknown_names_are_refused_with_the_nearest(registries):
    registries.register(task_of("capitals"))
    registries.register_mixture("everything", ["capitals"])
    for find, name, message in [
        (
            registries.task,
            "captials",
            "Unknown task 'captials'. Did you mean 'capitals'? 1 are registered. Name the file or module",
        ),
        (registries.templated, "captials", "Unknown task 'captials'"),
        (
            registries.mixture_or_task,
            "evrything",
            "Unknown task or mixture 'evrything'. Did you mean 'everything'? 2 are",
        ),
        (registries.task, "everything", "Unknown task 'everything'."),
    ]:
        with pytest.raises(KeyError) as error:
            find(name)
        assert error.value.args[0].startswith(message)


def test_a_name_is_registered_once(registries):
    registries.register(task_of("t"))
    with pytest.raises(ValueError, match="The name 't' is taken by a task"):
        registries.register(task_of("t"))


def test_registering_reads_nothing_and_is_cheap(registries):
    def fail():
        raise AssertionError("read")

    registries.register(task_of("warm_up"))
    start = time.process_time()
    for i in range(1000):
        source = JsonlSource(files={"train": f"/nowhere/{i}.jsonl"}) if i % 2 else InMemorySource(data={"train": fail})
        registries.register(task_of(f"t{i}", source=source))
    registries.register_mixture("all", [f"t{i}" for i in range(1000)])
    assert time.process_time() - start < 5  # Usually 0.1 s; processor time, since the machine may be busy.


def test_the_vocabulary_in_use_is_that_of_tasks_without_one(registries):
    from flan_jax.tasks.vocabularies import from_seqio

    registries.use_vocabulary("bytes", extra_ids=7)
    first, second = registries.register(task_of("a")), registries.register(task_of("b"), vocabulary="bytes")
    assert (
        from_seqio(first.output_features["targets"].vocabulary)
        == ByteVocabulary(extra_ids=7)
        == registries.vocabulary()
    )
    assert (
        from_seqio(second.output_features["targets"].vocabulary) == ByteVocabulary() == registries.vocabulary("bytes")
    )
    with pytest.raises(FileNotFoundError, match="No SentencePiece model at /nowhere.model"):
        registries.use_vocabulary("/nowhere.model")


def test_a_yaml_file_and_no_python(registries):
    done = registries.register_yaml(FIXTURES / "user_tasks.yaml")
    assert done == ("user_capitals", "user_reviews", "user_all", "user_weighted")
    task = registries.task("user_reviews")
    assert task.num_input_examples("train") == 3
    texts = [
        e["inputs_pretokenized"].decode() for e in task.get_dataset(split="train", shuffle=False).as_numpy_iterator()
    ]
    assert texts[2] == 'Is this review good or bad?\nWorth it, "truly".\nOPTIONS:\n- good\n- bad'
    mixture = registries.mixture_or_task("user_weighted")
    rates = {t.name: mixture.get_rate(t) for t in mixture.tasks}
    assert rates == pytest.approx({"user_capitals": 2.5, "user_reviews": 1.5})


def test_a_yaml_file_is_registered_completely_or_not_at_all(registries, tmp_path):
    text = (FIXTURES / "user_tasks.yaml").read_text()
    path = tmp_path / "tasks.yaml"
    path.write_text(text.replace("members: [user_capitals, user_reviews]", "members: [user_capitals, user_review]"))
    with pytest.raises(
        KeyError,
        match=r"tasks\.yaml, line 28: mixtures.user_all: Mixture 'user_all': Unknown member 'user_review'\. Did you mean 'user_rev",
    ):
        registries.register_yaml(path)
    assert registries.names() == ()
    path.write_text(text.replace("cap: 3", "cap: 3").replace("{user_all: 3,", "{user_all: ~,"))
    with pytest.raises(
        ValueError, match=r"tasks\.yaml, line 27: .* Mixture 'user_weighted': its member 'user_all' is a mixture"
    ):
        registries.register_yaml(path)
    assert registries.names() == ()
    registries.register(task_of("user_all"))
    with pytest.raises(ValueError, match="'user_all' is taken by a task"):
        registries.register_yaml(FIXTURES / "user_tasks.yaml")
    assert registries.names() == ("user_all",)


def test_import_module_takes_modules_and_files_and_returns_their_files(registries, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    register = (
        "from flan_jax.tasks import registry\n"
        "registry.register_jsonl({name!r}, {path!r}, inputs='{{country}}', targets='{{capital}}')\n"
    )
    (tmp_path / "one_file.py").write_text(register.format(name="one", path=str(CAPITALS)))
    (tmp_path / "a_package" / "inner").mkdir(parents=True)
    (tmp_path / "a_package" / "__init__.py").write_text(register.format(name="two", path=str(CAPITALS)))
    (tmp_path / "a_package" / "inner" / "words.py").write_text("")
    yaml = FIXTURES / "user_tasks.yaml"
    words = f"one_file.py, a_package ,{yaml}"
    try:
        files = registries.import_module(words)
        assert files == registries.import_module(words)  # What is there already stays.
    finally:
        for name in ("one_file", "a_package"):
            sys.modules.pop(name, None)
    expected = ("one_file.py", "a_package/__init__.py", "a_package/inner/words.py")
    assert files == (*(str((tmp_path / name).resolve()) for name in expected), str(yaml.resolve()))
    assert {"one", "two", "user_all"} <= set(registries.names())


def test_register_all_is_done_once_for_a_vocabulary_and_anew_for_another(registries):
    calls = []
    collection = types.SimpleNamespace(
        register=lambda: (
            calls.append(1),
            registries.register(task_of("own")),
            registries.register_mixture("m", ["own"]),
        )
    )
    registration.state.catalog.clear()
    registries.add_catalog({"own": lambda: collection}, files=())
    registries.register(task_of("users"))
    registries.register_all()
    registries.register_all()
    assert len(calls) == 1
    registries.use_vocabulary("bytes", extra_ids=3)
    registries.register_all()
    assert len(calls) == 2 and registries.names() == ("m", "own", "users")
    assert registries.task("own").output_features["inputs"].vocabulary.extra_ids == 3
    assert registries.task("users").output_features["inputs"].vocabulary.extra_ids == 0


def test_importing_the_registry_imports_no_tensorflow():
    code = "import sys, json, flan_jax.tasks.registry; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert not {"tensorflow", "seqio", "jax", "pyarrow"} & set(json.loads(out))
