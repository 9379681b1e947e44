"""Instances become rows: which of them, under which encoding, with which target; all drawn by seed and name alone."""

from collections import Counter

import pytest

from flan_jax import vocab
from flan_jax.collections.natural_instructions.instances import BREAKS_SCHEMA, Encode, SuperNISource
from flan_jax.collections.natural_instructions.task_files import task_files
from flan_jax.draws import Draws, hash64
from flan_jax.templates.superni import HEADLINE, TK_INSTRUCT, Encoding, Prompter
from tests.tasks.superni_synthetic import task, write_shard


def source(tmp_path, record, *, split="train", max_instances=100, seed=0, on_bad_row="error"):
    write_shard(tmp_path / "all.jsonl", record)
    file = task_files(tmp_path)[record["Task"]]
    return SuperNISource(task=file, split=split, max_instances=max_instances, seed=seed, on_bad_row=on_bad_row)


def encode(encodings=(HEADLINE,), *, seed=0, passes=1):
    return Encode(
        encodings=encodings, vocabulary=vocab.load("bytes"), max_source_tokens=10_000, seed=seed, passes=passes
    )


def row(id="i1", **changes):
    shown = {k: v for k, v in task("task001_a").items() if k in ("Task", "Definition")}
    example = {"input": "ba", "output": "ab", "explanation": "sorted"}
    shown |= {"Positive Examples": [example] * 3, "Negative Examples": [example] * 3}
    return {**shown, "id": id, "input": "x", "output": ["a", "b", " "], **changes}


def ids(rows):
    return [int(row["id"].rsplit("-")[-1]) for row in rows]


def test_test_takes_the_first_instances_and_training_a_seeded_sample_in_file_order(tmp_path):
    record = task("task001_a", instances=40)

    def found(split, seed):
        return ids(source(tmp_path, record, split=split, max_instances=5, seed=seed).rows(split))

    assert found("test", 0) == found("test", 1) == [0, 1, 2, 3, 4]
    assert found("train", 0) == found("train", 0) == sorted(found("train", 0)) != [0, 1, 2, 3, 4]
    assert found("train", 0) != found("train", 1) and len(set(found("train", 0))) == 5
    assert source(tmp_path, record, max_instances=5).num_rows("train") == 5


def test_an_instance_without_a_name_gets_its_position(tmp_path):
    instances = [{"input": "x", "output": ["y"]}, {"input": "z", "output": ["y"]}]
    assert ids(source(tmp_path, task("task001_a", Instances=instances)).rows("train")) == [0, 1]


def test_an_instance_that_breaks_the_schema_is_named_or_counted(tmp_path):
    instances = [{"id": "i7", "inputs": "x", "output": ["y"]}, {"id": "i8", "input": "x", "output": ["y"]}]
    record = task("task001_a", Instances=instances)
    message = (
        r"all.jsonl: task001_a, instance 'i7': the instance has no 'input'. Did you mean 'inputs'\? "
        r"Fields: id, inputs, output. Fix the row, or set on_bad_row='skip'"
    )
    with pytest.raises(ValueError, match=message):
        list(source(tmp_path, record).rows("train"))
    dropped = Counter()
    retained = list(source(tmp_path, record, on_bad_row="skip").rows("train", dropped=dropped))
    assert [row["id"] for row in retained] == ["i8"] and dropped == {BREAKS_SCHEMA: 1}


def test_a_removed_file_is_named(tmp_path):
    rows = source(tmp_path, task("task001_a"))
    assert rows.unavailable("train") is None
    assert rows.files("train") == rows.looked_for("train") == (str(tmp_path / "all.jsonl"),)
    (tmp_path / "all.jsonl").unlink()
    assert "all.jsonl of the task task001_a was removed" in rows.unavailable("train")
    assert rows.looked_for("train") == (str(tmp_path / "all.jsonl"),)


def test_violations_of_the_repositorys_rules_are_reported(tmp_path):
    assert source(tmp_path, task("task001_a")).problems("train") == (
        "2 instances, 26 to 6,500 are allowed",
        "no negative example, at least 1 is required",
    )


@pytest.mark.shared_data
def test_complete_published_files_violate_no_rule(shared_data):
    """They passed the repository's own validation."""
    files = task_files(shared_data / "superni_flan_tasks").values()
    found = {
        file.name: SuperNISource(task=file, split="train", max_instances=1, seed=0).problems("train") for file in files
    }
    assert len(found) == 43 and not any(found.values()), found


def test_the_target_is_drawn_by_the_seed_and_is_never_blank():
    def targets(seed):
        return [encode(seed=seed)(row(id=str(i)))[0]["target"] for i in range(30)]

    assert set(targets(0)) == {"a", "b"}
    assert targets(0) == targets(0) != targets(1)
    assert targets(0)[3] == "ab"[hash64(0, "task001_a", "3") % 2]
    assert encode()(row(output=[" "]))[0]["target"] == ""
    assert encode()(row())[0]["references"] == ["a", "b", " "]


def test_one_of_five_encodings_is_drawn_evenly_for_each_instance():
    prompts = [encode(TK_INSTRUCT)(row(id=str(i)))[0]["prompt"] for i in range(1000)]
    of_encoding = {prompt: encoding for encoding in TK_INSTRUCT for prompt in [encode((encoding,))(row())[0]["prompt"]]}
    assert len(of_encoding) == 5
    drawn = [of_encoding[prompt] for prompt in prompts]
    assert drawn[7] == Draws(0, "task001_a", "7", 0, "encoding").choice(TK_INSTRUCT)
    assert all(160 < count < 240 for count in Counter(drawn).values())
    assert prompts != [encode(TK_INSTRUCT, seed=1)(row(id=str(i)))[0]["prompt"] for i in range(1000)]


def test_each_pass_draws_anew_and_the_first_is_what_one_pass_gives():
    once = [encode(TK_INSTRUCT)(row(id=str(i))) for i in range(50)]
    thrice = [encode(TK_INSTRUCT, passes=3)(row(id=str(i))) for i in range(50)]
    assert all(len(rows) == 3 for rows in thrice)
    assert [rows[:1] for rows in thrice] == once
    for field in ("prompt", "target"):
        assert sum(rows[1][field] != rows[2][field] for rows in thrice) > 15


@pytest.mark.shared_data
def test_counting_parts_agrees_with_counting_complete_prompts_on_real_tasks(shared_data):
    """The budget's short cut against the rule spelled out: whole strings, tokenized one by one."""
    t5 = vocab.load(str(shared_data / "vocab_t5" / "cc_all.32000.sentencepiece.model"))
    files = task_files(shared_data / "superni_default")
    checked = cut = 0
    for name in list(files)[::20]:
        record = files[name].record()
        for max_tokens in (128, 512, 1024):
            encoding, count_tokens = Encoding(num_negative=1), lambda text: len(t5.encode(text))
            fast = Prompter(record, encoding=encoding, count_tokens=count_tokens, max_tokens=max_tokens)
            slow = WholePrompter(record, t5=t5, max_tokens=max_tokens)
            for instance in record["Instances"][:5]:
                prompt = fast(instance["input"])
                assert prompt == slow(instance["input"]), (name, max_tokens, instance["id"])
                checked += 1
                cut += prompt.count(" Example ") < 3
    assert checked > 500 and 100 < cut < checked - 100


class WholePrompter:
    """The published rule, as plainly as it can be said: three candidate strings, each tokenized whole."""

    def __init__(self, record, *, t5, max_tokens):
        shows_all = {"count_tokens": lambda text: 0, "max_tokens": 10**9}

        def parts(**encoding):
            whole = Prompter(record, encoding=Encoding(**{"num_positive": 0, **encoding}), **shows_all)("")
            return whole.removesuffix("Now complete the following example -\nInput: .\nOutput: ")

        self.definition = parts()
        one, two = (parts(definition=False, num_positive=n) for n in (1, 2))
        self.positives = [part for part in (one, two.removeprefix(one)) if part]
        negative = parts(definition=False, num_negative=1)
        self.negatives = [negative] if negative else []
        self.query = Prompter(record, encoding=Encoding(definition=False, num_positive=0), **shows_all)
        self.fits = lambda text: len(t5.encode(text)) + 1 <= max_tokens

    def __call__(self, text):
        query, positives, negatives = self.query(text), [], []
        for example in self.positives:
            if not self.fits(self.definition + " ".join(positives) + example + query):
                break
            positives.append(example)
        for example in self.negatives:
            if not self.fits(self.definition + " ".join(positives) + " ".join(negatives) + example + query):
                break
            negatives.append(example)
        return self.definition + "".join(positives) + "".join(negatives) + query
