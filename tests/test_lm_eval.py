"""lm-evaluation-harness: the model "flan_jax" gives what the harness's `hf` model gives on the same exported weights."""

import gzip
import json
import logging

import numpy as np
import pytest

from flan_jax import vocab
from flan_jax.checkpoint.huggingface import folder as huggingface
from flan_jax.errors import UserError
from tests.checkpoint import synthetic_huggingface as synthetic

pytestmark = [
    pytest.mark.lm_eval,
    pytest.mark.shared_data,
    pytest.mark.filterwarnings("ignore"),  # The harness, datasets and torch warn of what they do themselves.
]

ROWS = 10
CHOICE = {"output_type": "multiple_choice", "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}]}
TASKS = {
    "boolq": {
        **CHOICE,
        "doc_to_text": "{{passage}}\nQuestion: {{question}}?\nAnswer:",
        "doc_to_target": "{{label|int}}",
        "doc_to_choice": ["no", "yes"],
    },
    "rte": {
        **CHOICE,
        "doc_to_text": "{{premise}}\nQuestion: {{hypothesis}} True or False?\nAnswer:",
        "doc_to_target": "{{['entailment', 'not_entailment'].index(label)}}",
        "doc_to_choice": ["True", "False"],
    },
    "copa": {
        **CHOICE,
        "doc_to_text": "{{premise[:-1]}} {{'because' if question == 'cause' else 'therefore'}}",
        "doc_to_target": "{{label}}",
        "doc_to_choice": "{{[' ' + choice1, ' ' + choice2]}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_mutual_info"}],
    },
    "piqa": {
        **CHOICE,
        "doc_to_text": "Question: {{goal}}\nAnswer:",
        "doc_to_target": "{{label}}",
        "doc_to_choice": "{{[sol1, sol2]}}",
    },
    "gsm8k": {
        "output_type": "generate_until",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "exact_match"}],
        "generation_kwargs": {"until": ["Question:", "</s>"], "do_sample": False, "temperature": 0.0, "max_length": 17},
        "filter_list": [
            {
                "name": "flexible",
                "filter": [
                    {"function": "regex", "regex_pattern": "(-?[0-9]+)", "group_select": -1},
                    {"function": "take_first"},
                ],
            }
        ],
    },
}
FILES = {
    "boolq": "superglue_boolq/val.jsonl.gz",
    "rte": "superglue_rte/val.jsonl.gz",
    "copa": "superglue_copa/val.jsonl",
    "piqa": "piqa/valid.jsonl.gz",
    "gsm8k": "gsm8k/test.jsonl.gz",
}


def rows_of(data, task):
    path = data / FILES[task]
    with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as file:
        rows = [json.loads(next(file)) for _ in range(ROWS)]
    if task == "piqa":
        with open(data / "piqa/valid-labels.lst") as labels:
            rows = [{**row, "label": int(next(labels))} for row in rows]
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny T5 1.1 with T5's vocabulary, as a Hugging Face folder."""
    from tests.conftest import SHARED_DATA

    if not SHARED_DATA.is_dir():
        pytest.skip("there is no folder shared/data next to the checkout")
    path = tmp_path_factory.mktemp("hf") / "tiny"
    path.mkdir()
    vocabulary = vocab.SentencePieceVocabulary(str(SHARED_DATA / "vocab_t5/cc_all.32000.sentencepiece.model"))
    config = synthetic.config("t5_1_1", vocab_size=32128, num_decoder_layers=1)
    huggingface.write(synthetic.weights(config), path, vocabulary=vocabulary)
    return path


@pytest.fixture(scope="module")
def ours(folder):
    from flan_jax.lm_eval import FlanJaxLM

    return FlanJaxLM(model_dir=str(folder), batch_size=8)


@pytest.fixture(scope="module")
def theirs(folder):
    pytest.importorskip("accelerate")
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    # The harness calls this after loading. For T5 1.1, transformers 5 then replaces the output layer by the table.
    model.tie_weights = lambda: None
    return HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(folder), batch_size=4, max_length=512)


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory):
    """Evaluates a model on tasks whose rows are local files."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from tests.conftest import SHARED_DATA

    directory = tmp_path_factory.mktemp("tasks")

    def run(model, names, **arguments):
        configs = []
        for name in names:
            data = directory / f"{name}.jsonl"
            data.write_text("".join(json.dumps(row) + "\n" for row in rows_of(SHARED_DATA, name)))
            source = {
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(directory / "cache")},
                "test_split": "test",
            }
            configs.append({"task": name, **source, **TASKS[name]})
        return simple_evaluate(
            model, tasks=configs, task_manager=TaskManager(include_defaults=False), bootstrap_iters=0, **arguments
        )

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return run


def requests(kind, *arguments):
    from lm_eval.api.instance import Instance

    return [Instance(request_type=kind, doc={}, arguments=one, idx=i) for i, one in enumerate(arguments)]


@pytest.mark.reference
@pytest.mark.parametrize("task", ["boolq", "rte", "copa", "piqa"])
def test_log_probabilities_and_scores_equal_those_of_the_hf_model(evaluate, ours, theirs, task):
    mine, other = (evaluate(model, [task]) for model in (ours, theirs))
    assert len(mine["samples"][task]) == ROWS
    for one, reference in zip(mine["samples"][task], other["samples"][task], strict=True):
        for response, expected in zip(one["resps"], reference["resps"], strict=True):
            np.testing.assert_allclose(response[0][0], expected[0][0], atol=1e-4)
            assert response[0][1] == expected[0][1]
    assert mine["results"] == other["results"]


@pytest.mark.reference
@pytest.mark.parametrize("beams", [{}, {"num_beams": 3}])
def test_generated_texts_and_scores_equal_those_of_the_hf_model(evaluate, ours, theirs, beams):
    mine, other = (evaluate(model, ["gsm8k"], gen_kwargs=beams) for model in (ours, theirs))
    samples = [[sample["resps"] for sample in result["samples"]["gsm8k"]] for result in (mine, other)]
    assert samples[0] == samples[1]
    assert mine["results"] == other["results"]


PAIRS = [
    ("The cat  ", "sat"),  # Spaces move to the continuation.
    ("", " an empty context"),
    ("word " * 700, "the end"),  # Only the last 512 tokens are read.
    ("The cat", " sat on the mat"),
    ("A", "b"),
    ("The cat", " slept"),
    ("The cat", " sat on the mat"),  # A request that comes twice.
]


@pytest.mark.reference
def test_the_rules_for_contexts_are_those_of_the_hf_model(ours, theirs):
    mine, other = (model.loglikelihood(requests("loglikelihood", *PAIRS)) for model in (ours, theirs))
    np.testing.assert_allclose([score for score, _ in mine], [score for score, _ in other], atol=1e-4)
    assert [greedy for _, greedy in mine] == [greedy for _, greedy in other]


@pytest.mark.reference
def test_rolling_log_likelihoods_equal_those_of_the_hf_model(ours, theirs):
    texts = [("One text.",), ("Another one, a little longer",), ("many words " * 600,), ("",)]
    mine, other = (model.loglikelihood_rolling(requests("loglikelihood_rolling", *texts)) for model in (ours, theirs))
    np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-4)


def test_a_context_is_encoded_once_for_all_its_continuations(ours, monkeypatch):
    calls = []
    score = ours._score
    monkeypatch.setattr(ours, "_score", lambda rows: score(calls.append(rows := list(rows)) or rows))
    results = ours.loglikelihood(requests("loglikelihood", *PAIRS))
    assert results[3] == results[6] and len(results) == len(PAIRS)
    assert sorted(len(options) for _, _, options in calls[0]) == [
        1,
        1,
        1,
        3,
    ]  # Without its spaces, the first context is one of the others.


def test_texts_end_at_the_first_stop_string_and_keep_the_order_of_requests(ours):
    free = [("The cat", {"max_gen_toks": 8}), ("A dog and a house", {"max_gen_toks": 5}), ("B", {"max_gen_toks": 8})]
    texts = ours.generate_until(requests("generate_until", *free))
    backwards = ours.generate_until(requests("generate_until", *free[::-1]))
    assert texts == backwards[::-1]
    stop = texts[0][len(texts[0]) // 2]
    (stopped,) = ours.generate_until(requests("generate_until", ("The cat", {"max_gen_toks": 8, "until": [stop]})))
    assert stopped == texts[0].partition(stop)[0]


def test_repeated_samples_differ_and_are_reproducible(ours):
    sampled = [("The cat", {"do_sample": True, "temperature": 1.0, "max_gen_toks": 8})] * 4
    first, again = (ours.generate_until(requests("generate_until", *sampled)) for _ in range(2))
    assert first == again and len(set(first)) > 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beam": 4}, "'num_beam' is not an option of decoding.*num_beams"),
        ({"do_sample": True, "num_beams": 4}, "num_beams is an option of beam search, and temperature one of sampling"),
        ({"num_return_sequences": 2}, "give num_beams above 1"),
    ],
)
def test_generation_settings_that_mean_nothing_here_are_refused(ours, settings, message):
    with pytest.raises(UserError, match=message):
        ours.generate_until(requests("generate_until", ("The cat", {"max_gen_toks": 4, **settings})))


def test_a_continuation_without_tokens_is_refused(ours):
    with pytest.raises(UserError, match=r"continuation of the request \('The cat', ''\) has no tokens"):
        ours.loglikelihood(requests("loglikelihood", ("The cat", "")))


def test_conversations_become_prompts_of_the_chosen_style(ours):
    turns = [
        {"role": "user", "content": "2+2?"},
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "3+3?"},
    ]
    assert ours.chat_template(True) == "named" and ours.chat_template(False) == ""
    assert ours.apply_chat_template(turns) == "Be brief.\nUser: 2+2?\nAssistant: 4\nUser: 3+3?\nAssistant:"
    begun = [*turns[:1], {"role": "assistant", "content": "The sum is"}]
    assert ours.apply_chat_template(begun, add_generation_prompt=False) == "User: 2+2?\nAssistant: The sum is"
    with pytest.raises(UserError, match="role"):
        ours.apply_chat_template([{"role": "narrator", "content": "x"}])
    with pytest.raises(UserError, match="user's"):
        ours.apply_chat_template([{"role": "system", "content": "x"}])


def test_tasks_can_apply_the_chat_style(evaluate, ours):
    result = evaluate(ours, ["copa"], apply_chat_template=True, limit=2)
    assert all(
        sample["arguments"][0][0].startswith("User: ") and sample["arguments"][0][0].endswith("\nAssistant:")
        for sample in result["samples"]["copa"]
    )


def test_arguments_that_do_not_exist_are_refused(folder):
    from flan_jax.lm_eval import FlanJaxLM

    with pytest.raises(UserError, match="'pretrained'"):
        FlanJaxLM(model_dir=str(folder), pretrained="google/t5")
    with pytest.raises(UserError, match="'many'"):
        FlanJaxLM(model_dir=str(folder), batch_size="many")
    with pytest.raises(UserError, match="'all'"):
        FlanJaxLM(model_dir=str(folder), step="all")


def test_the_command_line_knows_the_model(folder):
    from lm_eval.api.registry import get_model

    from flan_jax.lm_eval import FlanJaxLM

    assert get_model("flan_jax") is FlanJaxLM
    model = FlanJaxLM.create_from_arg_string(f"model_dir={folder},max_length=64", {"batch_size": 2, "device": "cuda:0"})
    assert model.max_length == 64
