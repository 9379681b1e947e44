import functools

import pytest

from flan_jax.data.record import decode_record
from flan_jax.tasks import external
from flan_jax.tasks.exporting.plans import reference
from flan_jax.tasks.external import ExternalTask
from flan_jax.tasks.vocabularies import ExternalVocabulary

pytestmark = pytest.mark.tensorflow
LENGTHS = {"inputs": 8, "targets": 6}


@pytest.fixture
def seqio(registries):
    import seqio

    return seqio


def bytes_features(seqio, **more):
    feature = seqio.Feature(vocabulary=seqio.ByteVocabulary(), add_eos=True, **more)
    return {"inputs": feature, "targets": feature}


def pairs(*texts):
    """A source of pairs in the order given."""

    def dataset(split, shuffle_files):
        import tensorflow as tf

        del split, shuffle_files
        return tf.data.Dataset.from_tensor_slices({"inputs": [i for i, _ in texts], "targets": [t for _, t in texts]})

    return dataset


def add(seqio, name="theirs", texts=(("ab", "c"),), *, preprocessors=None, features=None, **more):
    return seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(pairs(*texts), splits=["train", "validation"]),
        preprocessors=preprocessors or [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos_after_trim],
        output_features=features or bytes_features(seqio),
        **more,
    )


def encoded(task, tmp_path, *, split="train", lengths=LENGTHS):
    theirs = ExternalTask(seqio_task=task)
    return theirs.encoder(split, lengths=lengths)(list(theirs.examples(split, lengths=lengths)))


def ids(result):
    return [[f.tolist() for f in decode_record(record)[0]] for record in result.records]


def test_ids_are_those_that_seqio_gives(seqio, tmp_path):
    task = add(seqio, texts=[("ab", "c"), ("b", "abc")])
    theirs = task.get_dataset(LENGTHS, "train", shuffle=False).as_numpy_iterator()
    assert ids(encoded(task, tmp_path)) == [[e["inputs"].tolist(), e["targets"].tolist()] for e in theirs]


@pytest.mark.parametrize("appending", ["append_eos", "append_eos_after_trim"])
def test_what_seqio_truncates_silently_is_truncated_alike_and_counted(seqio, tmp_path, appending):
    step = getattr(seqio.preprocessors, appending)
    task = add(seqio, texts=[("abcdefghij", "abcdefg"), ("a", "b")], preprocessors=[seqio.preprocessors.tokenize, step])
    result = encoded(task, tmp_path)
    assert result.truncated == {"inputs": 1, "targets": 1}
    assert ids(result)[0] == [[100, 101, 102, 103, 104, 105, 106, 1], [100, 101, 102, 103, 104, 1]]
    assert result.lengths.tolist() == [[8, 6], [2, 2]]


def test_a_feature_without_end_of_sequence_gets_none(seqio, tmp_path):
    feature = seqio.Feature(vocabulary=seqio.ByteVocabulary(), add_eos=False)
    task = add(seqio, texts=[("abcdefghij", "b")], features={"inputs": feature, "targets": feature})
    assert ids(encoded(task, tmp_path)) == [[[100, 101, 102, 103, 104, 105, 106, 107], [101]]]


def test_empty_examples_are_left_out_with_the_reason(seqio, tmp_path):
    result = encoded(add(seqio, texts=[("", "a"), ("a", ""), ("a", "b")]), tmp_path)
    assert ids(result) == [[[100, 1], [101, 1]]]
    assert result.dropped == {"empty inputs": 1, "empty targets": 1}


def test_an_empty_target_is_an_answer_in_evaluation(seqio, tmp_path):
    result = encoded(add(seqio, texts=[("", "a"), ("a", ""), ("a", "b")]), tmp_path, split="validation")
    assert ids(result) == [[[100, 1], [1]], [[100, 1], [101, 1]]]
    assert result.dropped == {"empty inputs": 1}


def test_evaluation_saves_the_texts_of_the_task(seqio, tmp_path):
    result = encoded(add(seqio, texts=[("a long question", "b")]), tmp_path, split="validation")
    (meta,) = (decode_record(record)[1] for record in result.records)
    assert (meta["inputs"], meta["targets"], meta["references"]) == ("a long question", "b", ["b"])
    assert (meta["options"], meta["gold"], meta["row"]) == ([], -1, 0)


def test_texts_that_the_task_did_not_retain_are_decoded(seqio, tmp_path):
    keep = functools.partial(seqio.preprocessors.tokenize, copy_pretokenized=False)
    task = add(seqio, texts=[("ab", "c")], preprocessors=[keep, seqio.preprocessors.append_eos])
    (record,) = encoded(task, tmp_path, split="validation").records
    assert decode_record(record)[1]["inputs"] == "ab"


def test_random_preprocessors_repeat_their_draws(seqio, tmp_path):
    @functools.partial(seqio.map_over_dataset, num_seeds=1)
    def number(example, seed):
        import tensorflow as tf

        drawn = tf.strings.as_string(tf.random.stateless_uniform((), seed, maxval=10**6, dtype=tf.int32))
        return {**example, "inputs": drawn}

    steps = [number, seqio.preprocessors.tokenize, seqio.preprocessors.append_eos]
    task = add(seqio, texts=[("a", "b")] * 20, preprocessors=steps)
    first, again = encoded(task, tmp_path), encoded(task, tmp_path)
    assert first.records == again.records
    assert len({str(pair[0]) for pair in ids(first)}) > 10


def test_a_source_that_accepts_a_seed_gets_one(seqio):
    seeds = []

    def dataset(split, shuffle_files, seed=None):
        seeds.append(seed)
        return pairs(("a", "b"))(split, shuffle_files)

    source = seqio.FunctionDataSource(dataset, splits=["train"])
    task = seqio.TaskRegistry.add("seeded", source=source, output_features=bytes_features(seqio))
    next(external._raw_dataset(task.source, "train").as_numpy_iterator())
    assert seeds == [external.SEED]


def test_another_error_of_a_source_is_not_hidden(seqio):
    calls = []

    def dataset(split, shuffle_files, seed=None):
        calls.append(seed)
        raise ValueError("no such planet")

    with pytest.raises(ValueError, match=r"^no such planet$"):
        external._raw_dataset(seqio.FunctionDataSource(dataset, splits=["train"]), "train")
    assert calls == [external.SEED]


def test_a_language_modelling_task_is_refused_by_feature(seqio, tmp_path):
    task = add(seqio, features={"targets": bytes_features(seqio)["targets"]})
    with pytest.raises(ValueError, match=r"Task 'theirs' has no output feature 'inputs' \(it has targets\)"):
        ExternalTask(seqio_task=task).encoder("train", lengths=LENGTHS)


def test_features_that_are_not_ids_are_refused(seqio, tmp_path):
    import tensorflow as tf

    task = add(seqio, features=bytes_features(seqio, dtype=tf.float32))
    with pytest.raises(ValueError, match=r"Task 'theirs': inputs must be one sequence of ids"):
        ExternalTask(seqio_task=task).encoder("train", lengths=LENGTHS)


def test_two_vocabularies_in_one_task_are_refused(seqio, tmp_path):
    features = bytes_features(seqio)
    features["targets"] = seqio.Feature(vocabulary=seqio.ByteVocabulary(extra_ids=5))
    with pytest.raises(
        ValueError, match=r"Task 'theirs' has two vocabularies: .*The encoder and the decoder share one"
    ):
        ExternalTask(seqio_task=add(seqio, features=features)).encoder("train", lengths=LENGTHS)


def test_ids_outside_the_vocabulary_are_refused(seqio, tmp_path):
    @seqio.map_over_dataset
    def shift(example):
        return {**example, "targets": example["targets"] + 300}

    task = add(seqio, preprocessors=[seqio.preprocessors.tokenize, shift])
    with pytest.raises(ValueError, match=r"Task 'theirs', example 0: targets holds ids 402\.\.402, .* has 0\.\.258"):
        encoded(task, tmp_path)


def test_a_task_that_repeats_without_end_is_refused(seqio):
    task = add(seqio, preprocessors=[lambda ds: ds.repeat(), seqio.preprocessors.tokenize])
    with pytest.raises(ValueError, match=r"Task 'theirs', split 'train', repeats without end"):
        next(ExternalTask(seqio_task=task).examples("train", lengths=LENGTHS))


def test_a_feature_lost_in_preprocessing_is_reported_with_the_remaining_ones(seqio):
    task = add(seqio, preprocessors=[seqio.map_over_dataset(lambda e: {"inputs": e["inputs"], "answer": e["targets"]})])
    with pytest.raises(ValueError, match=r"an example has answer, inputs, and no targets"):
        next(ExternalTask(seqio_task=task).examples("train", lengths=LENGTHS))


def test_a_vocabulary_of_another_class_is_external_and_identified_by_class_and_size(seqio, tmp_path):
    ref = reference(ExternalVocabulary(seqio.PassThroughVocabulary(size=50, eos_id=7)), export_dir=tmp_path)
    assert (ref.kind, ref.size, ref.eos_id, ref.file) == ("external", 50, 7, None)
    assert ref.digest != ExternalVocabulary(seqio.PassThroughVocabulary(size=51)).digest
    assert ExternalVocabulary(seqio.PassThroughVocabulary(size=50)).eos_id == -1


def test_the_identity_changes_with_preprocessors_modules_and_files(seqio, tmp_path):
    def identity(task, digests=("1",)):
        return ExternalTask(seqio_task=task).identity("train", module_digests=digests)

    lines = tmp_path / "a.txt"
    lines.write_text("x\n")
    source = seqio.TextLineDataSource({"train": str(tmp_path / "*.txt")})
    task = seqio.TaskRegistry.add("lines", source=source, output_features=bytes_features(seqio))
    first = identity(task)
    assert identity(task) == first
    assert identity(task, ("2",)) != first
    assert identity(task.replace(preprocessors=[seqio.preprocessors.tokenize])) != first
    lines.write_text("y\n")
    assert identity(task) != first
    assert external.source_files(source, "train") == (str(tmp_path / "*.txt"), str(lines))


def test_an_identity_contains_no_address(seqio):
    task = add(seqio, preprocessors=[functools.partial(lambda ds, x: ds, x=object()), seqio.preprocessors.tokenize])
    assert " at 0x" not in str(ExternalTask(seqio_task=task).identity("train"))


def test_external_metrics_are_replaced_by_default_ones(seqio):
    def theirs(targets, predictions):
        return {}

    assert external.evaluation_of(add(seqio, metric_fns=[theirs])) == ("external", ("exact_match", "rouge_l"), None)


def test_metrics_of_this_package_are_recorded_by_name(seqio):
    from flan_jax.evaluation import text_metrics

    def adapted(targets, predictions):
        return text_metrics.f1([[t] for t in targets], predictions).scores()

    functools.update_wrapper(adapted, text_metrics.f1, assigned=("__module__", "__name__"))
    del adapted.__wrapped__  # SeqIO reads the names of the arguments.
    assert external.evaluation_of(add(seqio, metric_fns=[adapted])) == ("generate", ("f1",), None)
