"""Preferences: shapes, pairs, ties, and which answers are trained on."""

import contextlib
import json
from collections import Counter

import pytest

from flan_jax.tasks.filters.row_rules import Values
from flan_jax.tasks.formats.declare import format_task
from flan_jax.tasks.formats.preferences import Preference
from flan_jax.tasks.formats.shape import Unusable
from flan_jax.tasks.rendering import iter_rendered

NAMED = {"chat_templates": ("named",), "max_tokens": None}
ASKED = "User: How?\nAssistant:"
TALK = [{"from": "human", "value": "How?"}]
SHAPES = {
    "text": {"prompt": "How?", "chosen": "Well.", "rejected": "No."},
    "turns": {"prompt": "How?", "chosen": [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "Well."}],
              "rejected": [{"role": "assistant", "content": "No."}]},
    "messages": {"prompt": [{"role": "user", "content": "How?"}], "chosen": "Well.", "rejected": "No."},
    "complete conversation, too": {"prompt": "How?", "messages": [{"role": "user", "content": "x"}], "chosen": "Well.", "rejected": "No."},
    "sharegpt": {"conversations": TALK, "chosen": {"from": "gpt", "value": "Well."}, "rejected": {"from": "gpt", "value": "No."}},
    "instruction": {"instruction": "How?", "input": "", "chosen": "Well.", "rejected": "No."},
    "llmbar": {"input": "How?", "output_1": "No.", "output_2": "Well.", "label": 2},
    "hh-rlhf": {"chosen": "\n\nHuman: How?\n\nAssistant: Well.", "rejected": "\n\nHuman: How?\n\nAssistant: No."},
    "two lists": {"chosen": [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "Well."}],
                  "rejected": [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "No."}]},
    "ranked": {"prompt": "How?", "answers": ["No.", "Well."], "ranks": [2, 1.5], "labeler": "ann"},
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_has_a_prompt_a_better_and_a_worse_answer(shape):
    row = SHAPES[shape]
    (best,) = Preference(**NAMED)(row)
    (pair,) = Preference(rows="pairs", **NAMED)(row)
    assert (best["prompt"], best["target"], best["verdict"]) == (ASKED, "Well.", "")
    assert (pair["prompt"], pair["target"], pair["rejected"], pair["verdict"]) == (ASKED, "Well.", "No.", "")
    assert sorted(pair["options"]) == ["No.", "Well."]
    assert best["labeler"] == row.get("labeler", "")


def test_transcripts_of_several_turns_share_all_but_the_last():
    shared = "\n\nHuman: Hi.\n\nAssistant: Hello.\n\nIs it: fine?\n\nHuman: Yes."
    row = {"chosen": f"{shared}\n\nAssistant: Good.", "rejected": f"{shared}\n\nAssistant: Bad."}
    (best,) = Preference(**NAMED)(row)
    assert best["prompt"] == "User: Hi.\nAssistant: Hello.\n\nIs it: fine?\nUser: Yes.\nAssistant:"
    assert best["target"] == "Good."


ODD = [
    None,
    5,
    1.5,
    True,
    "",
    "x",
    [],
    {},
    [1],
    [None],
    [[]],
    [{}],
    {"a": 1},
    [{"role": 5}],
    [{"from": "human"}],
    ["x"],
]


def test_no_value_of_another_type_is_more_than_a_bad_row(subtests):
    for shape, row in SHAPES.items():
        for field in (*row, "extra"):
            for odd in ODD:
                with subtests.test(shape=shape, field=field, odd=odd), contextlib.suppress(Unusable):
                    list(Preference(**NAMED)({**row, field: odd}))
                    list(Preference(**NAMED, rows="pairs")({**row, field: odd}))
            with contextlib.suppress(Unusable):
                list(Preference(**NAMED)({name: value for name, value in row.items() if name != field}))


def test_an_input_is_below_its_instruction_and_the_system_message_above():
    row = {"instruction": "Add.", "input": "2, 3", "system": "Be exact.", "chosen": "5", "rejected": "6"}
    assert next(iter(Preference(**NAMED)(row)))["prompt"] == "Be exact.\nUser: Add.\n\n2, 3\nAssistant:"


@pytest.mark.parametrize(("answers", "pairs"), [(2, 1), (4, 6), (9, 36)])
def test_k_answers_are_k_times_k_minus_1_over_2_pairs(answers, pairs):
    row = {"prompt": "How?", "answers": [f"a{i}" for i in range(answers)], "ranks": list(range(answers))}
    found = list(Preference(rows="pairs")(row))
    assert len(found) == pairs == len({(pair["target"], pair["rejected"]) for pair in found})
    assert all(pair["target"] < pair["rejected"] and not pair["verdict"] for pair in found)
    assert [best["target"] for best in Preference()(row)] == ["a0"]


def test_options_are_in_an_order_drawn_per_pair():
    rows = [{"prompt": f"p{i}", "chosen": "yes", "rejected": "no"} for i in range(400)]
    firsts = Counter(pair["options"][0] for row in rows for pair in Preference(rows="pairs")(row))
    assert 160 < firsts["yes"] < 240 and sum(firsts.values()) == 400
    assert list(Preference(rows="pairs")(rows[0])) == list(Preference(rows="pairs")(rows[0]))


def left(tmp_path, rows, *, evaluation="generate", **settings):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    split = "test" if evaluation == "rank" else "train"
    task = format_task("t", {split: path}, format="preference", evaluation=evaluation, **settings)
    dropped = Counter()
    return [r.rendered for r in iter_rendered(task, split, dropped=dropped)], dropped


def test_ties_are_dropped_and_counted_per_pair(tmp_path):
    rows = [
        {"prompt": "p", "answers": ["a", "b", "c"], "ranks": [1, 1, 2]},
        {"prompt": "q", "answers": ["a", "b"], "ranks": [1, 1]},
        {"prompt": "r", "answers": ["a", "a "], "ranks": [1, 2]},
    ]
    pairs, dropped = left(tmp_path, rows, evaluation="rank")
    assert [(r.targets, sorted(r.options)) for r in pairs] == [("a", ["a", "c"]), ("b", ["b", "c"])]
    assert dropped == {"tie": 2, "both answers are the same": 1}
    best, dropped = left(tmp_path, rows)
    assert [r.targets for r in best] == ["a", "b", "a"]
    assert dropped == {"tie": 1}


def test_two_outputs_may_be_tied(tmp_path):
    rows = [{"input": "i", "output_1": "a", "output_2": "b", "label": label} for label in (0, 1, "2")]
    assert [r.targets for r in left(tmp_path, rows)[0]] == ["a", "b"]
    assert left(tmp_path, rows, evaluation="rank")[1] == {"tie": 1}


@pytest.mark.parametrize("field", ["messages", "conversations"])
def test_one_answer_is_an_example_if_it_is_desirable_and_is_no_pair(tmp_path, field):
    who, what, user, assistant = (
        ("role", "content", "user", "assistant") if field == "messages" else ("from", "value", "human", "gpt")
    )
    rows = [
        {field: [{who: user, what: "How?"}, {who: assistant, what: said}], "label": wanted}
        for said, wanted in (("Well.", True), ("No.", False))
    ]  # fmt: skip
    found, dropped = left(tmp_path, rows)
    assert [r.targets for r in found] == ["Well."] and dropped == {"answer is undesirable": 1}
    assert found[0].inputs.count("How?") == 1 and "Well." not in found[0].inputs
    with pytest.raises(ValueError, match="has no usable row .one answer is no pair: 2"):
        left(tmp_path, rows, evaluation="rank")


def test_completions_that_are_desirable_or_not(tmp_path):
    rows = [{"prompt": "How?", "completion": said, "label": said == "Well."} for said in ("Well.", "No.")]
    assert [r.targets for r in left(tmp_path, rows)[0]] == ["Well."]


def test_labelers_can_be_held_out(tmp_path):
    rows = [{**SHAPES["text"], "prompt": f"p{i}", "labeler": who} for i, who in enumerate(("ann", "bob", "eve"))]
    assert len(left(tmp_path, rows, filters=[Values(field="labeler", without=["eve"])])[0]) == 2
    assert len(left(tmp_path, rows, filters=[Values(field="labeler", only=["eve"])])[0]) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"input": "i", "output_1": "a", "output_2": "b", "label": 3}, "label must be 1 or 2 .* 0 for a tie; got 3"),
        ({"input": "i", "output_1": "a", "output_2": "b", "label": True}, "label must be 1 or 2.*got True"),
        (
            {"prompt": "p", "answers": ["a"], "ranks": [1]},
            r"answers must list two texts or more.*got \['a'\] and \[1\]",
        ),
        ({"prompt": "p", "answers": ["a", "b"], "ranks": [1]}, "answers must list two texts or more"),
        ({"prompt": "p", "answers": ["a", " "], "ranks": [1, 2]}, "answers must list two texts or more"),
        ({"prompt": "p", "answers": ["a", "b"], "ranks": [1, "2"]}, "a number for each, the lower the better"),
        ({"prompt": "p", "chosen": "", "rejected": "b"}, "the field 'chosen' must be a text, got ''"),
        ({"prompt": "p", "chosen": [], "rejected": "b"}, r"the field 'chosen' must be a text, got \[\]"),
        ({"prompt": "p", "completion": "c", "label": "yes"}, r"label must be true \(desirable\) or false, got 'yes'"),
        ({"conversations": TALK, "label": True}, "the last turn must be the assistant's"),
    ],
)
def test_rows_without_prompt_or_answers_are_refused(row, message):
    with pytest.raises(Unusable, match=message):
        Preference().check(row)


def test_rows_are_the_best_answers_or_pairs():
    with pytest.raises(ValueError, match="rows: expected one of best, pairs, got 'pair'. Did you mean 'pairs'"):
        Preference(rows="pair")
    assert Preference().evaluated("rank") == Preference(rows="pairs")
    assert Preference(rows="pairs").evaluated("generate") == Preference()
