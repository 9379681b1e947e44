"""Conversations of three shapes to rows, and malformed ones by name."""

import contextlib
import json
from collections import Counter

import pytest

from flan_jax.tasks.declare import FewShot, TemplatedTask, with_vocabulary
from flan_jax.tasks.formats.chat import Chat, turns_of
from flan_jax.tasks.formats.declare import format_task
from flan_jax.tasks.formats.shape import Unusable
from flan_jax.tasks.identity import identity
from flan_jax.tasks.rendering import iter_rendered
from flan_jax.templates.chat import Turn
from flan_jax.templates.fewshot import FewShotFormat
from flan_jax.vocab import load

NAMED = {"chat_templates": ("named",), "max_tokens": None}


def sharegpt(*turns, **others):
    return {"conversations": [{"from": who, "value": said} for who, said in turns], **others}


TOOLS = sharegpt(
    ("human", "What is 2 + 2?"),
    ("function_call", '{"name": "add"}'),
    ("observation", "4"),
    ("gpt", "It is 4."),
    ("human", "Thanks."),
    ("gpt", "Welcome."),
    tools='[{"name": "add"}]',
)
OPENAI = {
    "messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Hi."}, {"type": "text", "text": "Well?"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "mood"}}]},
        {"role": "tool", "content": "fine"},
        {"role": "assistant", "content": "I am fine."},
    ]
}
SCHEMA_GUIDED = {
    "dialogue_id": "1",
    "turns": [
        {"speaker": "USER", "utterance": "A table.", "frames": []},
        {"speaker": "SYSTEM", "utterance": "For how many?", "frames": []},
    ],
}


def texts(row, **settings):
    return [(e["prompt"], e["target"]) for e in Chat(**{**NAMED, **settings})(row)]


def test_each_assistant_turn_is_predicted_from_all_earlier_turns():
    context = 'Tools: [{"name": "add"}]\nUser: What is 2 + 2?\nAssistant:'
    called = f'{context} Tool call: {{"name": "add"}}\nTool result: 4\nAssistant:'
    answered = f"{called} It is 4.\nUser: Thanks.\nAssistant:"
    assert texts(TOOLS) == [
        (context, 'Tool call: {"name": "add"}'),
        (called, "It is 4."),
        (answered, "Welcome."),
    ]


def test_the_last_turn_or_one_kind_of_turn_may_be_predicted():
    assert [target for _, target in texts(TOOLS, turns="last")] == ["Welcome."]
    assert [target for _, target in texts(TOOLS, predict=["assistant"])] == ["It is 4.", "Welcome."]
    assert [target for _, target in texts(TOOLS, predict=["call"])] == ['Tool call: {"name": "add"}']


def test_messages_have_roles_parts_and_calls():
    assert turns_of(OPENAI) == [
        Turn("system", "Be kind."), Turn("user", "Hi.\nWell?"), Turn("call", '[{"name": "mood"}]'),
        Turn("result", "fine"), Turn("assistant", "I am fine."),
    ]  # fmt: skip
    assert texts(OPENAI)[0][0] == "Be kind.\nUser: Hi.\nWell?\nAssistant:"


def test_schema_guided_dialogues_have_a_system_that_assists():
    assert texts(SCHEMA_GUIDED) == [("User: A table.\nAssistant:", "For how many?")]


def test_assistant_turns_before_the_first_user_turn_are_context():
    row = sharegpt(("gpt", "Hello!"), ("human", "Hi."), ("gpt", "Well?"))
    assert texts(row) == [("Assistant: Hello!\nUser: Hi.\nAssistant:", "Well?")]


def test_tools_that_are_no_tools_are_no_context():
    for tools in ("[]", "", None, [], " {} "):
        assert texts(sharegpt(("human", "a"), ("gpt", "b"), tools=tools))[0][0].startswith("User")
    assert texts(sharegpt(("human", "a"), ("gpt", "b"), tools=[{"x": 1}]))[0][0].startswith('Tools: [{"x": 1}]\n')
    assert texts(sharegpt(("human", "a"), ("gpt", "b"), system="Be."))[0][0] == "Be.\nUser: a\nAssistant:"


MALFORMED = [
    (sharegpt(("gpt", "Hello!")), "no user turn", "conversations has no user turn, only assistant"),
    (sharegpt(("human", "Hi.")), "no assistant turn after a user turn", "no assistant turn .*follows a user turn"),
    (
        sharegpt(("human", "a"), ("gpt", "b"), ("function_call", "c")),
        "two assistant turns in a row",
        r"conversations\[1\] and conversations\[2\] are both assistant turns",
    ),
    (
        sharegpt(("human", "a"), ("gtp", "b")),
        "unknown role",
        r"conversations\[1\].from must be one of system, human.*got 'gtp'. Did you mean '(chat)?gpt'",
    ),
    (
        sharegpt(("human", " "), ("gpt", "b")),
        "turn without text",
        r"conversations\[0\].value must be a text, got ' '",
    ),
    (sharegpt(("human", ["x"]), ("gpt", "b")), "turn without text", r"\[0\].value must be a text or parts of text"),
    ({"conversations": "hello"}, "not of the format", "the field 'conversations' must list objects, got 'hello'"),
    ({"conversations": ["hello"]}, "not of the format", r"conversations\[0\] must be an object, got 'hello'"),
]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(("row", "reason", "message"), MALFORMED, ids=[reason for _, reason, _ in MALFORMED])
def test_malformed_conversations_are_named_or_counted(tmp_path, row, reason, message):
    good = sharegpt(("human", "a"), ("gpt", "b"))
    path = write_jsonl(tmp_path / "a.jsonl", [good, row])
    with pytest.raises(ValueError, match=rf"a\.jsonl:2: .*{message}"):
        list(iter_rendered(format_task("t", path, format="chat"), "train"))
    dropped = Counter()
    lenient = format_task("t", path, format="chat", on_bad_row="skip")
    assert len(list(iter_rendered(lenient, "train", dropped=dropped))) == 1
    assert dropped == {reason: 1}


def long_talk(turns):
    return sharegpt(*(("human" if i % 2 == 0 else "gpt", f"this is turn number {i}") for i in range(turns)))


def test_a_registered_tasks_prompts_fit_the_budget_in_its_vocabularys_tokens(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [long_talk(20)])
    declared = format_task("t", path, format=Chat(max_tokens=120, chat_templates=("named",)))
    for spec in ("bytes", "embedded"):
        vocabulary = load(spec)
        task = with_vocabulary(declared, vocabulary)
        prompts = [r.rendered.inputs for r in iter_rendered(task, "train")]
        assert len(prompts) == 10
        assert all(vocabulary.count(prompt) + 1 <= 120 for prompt in prompts)
        assert prompts[-1].endswith("this is turn number 18\nAssistant:") and "number 0\n" not in prompts[-1]
        assert identity(task, "train") != identity(declared, "train")
    assert "number 0\n" in [r.rendered.inputs for r in iter_rendered(declared, "train")][-1]


def test_a_pool_of_exemplars_gets_the_vocabulary_too(tmp_path):
    pool = format_task("p", write_jsonl(tmp_path / "a.jsonl", [long_talk(4)]), format="chat")
    few = FewShot(num_exemplars=1, formats=(FewShotFormat(name="plain"),), pool=pool)
    task = TemplatedTask(name="t", source=pool.source, cluster="c", templates=pool.templates, few_shot=few)
    vocabulary = load("bytes")
    assert with_vocabulary(task, vocabulary).few_shot.pool.normalizer.vocabulary == vocabulary
    plain = TemplatedTask(name="t", source=pool.source, cluster="c", templates=pool.templates)
    assert with_vocabulary(plain, vocabulary) is plain


def test_conversations_have_one_chat_template_unless_several_are_named():
    rows = [
        {"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": "yes"}]} for i in range(40)
    ]
    assert {next(iter(Chat()(row)))["prompt"][:6] for row in rows} == {"User: "}
    several = Chat(chat_templates=("named", "letters"))
    assert {next(iter(several(row)))["prompt"][:3] for row in rows} == {"Use", "A: "}
    with pytest.raises(ValueError, match="chat_templates names none. There are: named, people"):
        Chat(chat_templates=())


def test_a_conversation_draws_its_style_once(tmp_path):
    rows = [sharegpt(("human", f"a{i}"), ("gpt", "b"), ("human", "c"), ("gpt", "d")) for i in range(60)]
    firsts = Counter()
    for row in rows:
        first, second = Chat(chat_templates=("named", "people", "letters"))(row)
        assert second["prompt"].startswith(first["prompt"])
        firsts[first["prompt"].split("a")[0]] += 1
    assert set(firsts) == {"User: ", "Person: ", "A: "}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"turns": "lst"}, "turns: expected one of all, last, got 'lst'. Did you mean 'last'"),
        (
            {"predict": ["asistant"]},
            "predict .* must be one of assistant, call; got 'asistant'. Did you mean 'assistant'",
        ),
        ({"chat_templates": ["nam"]}, "a chat template must be one of .*; got 'nam'. Did you mean 'named'"),
        ({"max_tokens": 1}, "max_tokens: expected a whole number of at least 2, got 1"),
    ],
)
def test_invalid_settings_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        Chat(**settings)


CALL = {"id": "1", "function": {"name": "mood"}}


@pytest.mark.parametrize(
    "calls", [[CALL], CALL, json.dumps([CALL]), json.dumps(CALL), [json.dumps(CALL)], [CALL["function"]]]
)
def test_tool_calls_are_read_as_objects_and_as_json_text(calls):
    turns = [*OPENAI["messages"][:2], {"role": "assistant", "content": None, "tool_calls": calls}]
    assert turns_of({"messages": turns})[-1] == Turn("call", '[{"name": "mood"}]')
    assert turns_of({"messages": json.dumps(turns)})[-1] == Turn("call", '[{"name": "mood"}]')


@pytest.mark.parametrize("calls", ["{", "text", 5, [5], ["x"], [None], [[]], True, "[1]", "[NaN]", "[" * 100_000])
def test_other_tool_calls_are_a_bad_row(calls):
    turns = [*OPENAI["messages"][:2], {"role": "assistant", "content": "Well.", "tool_calls": calls}]
    with pytest.raises(ValueError, match=r"messages\[2\]\.tool_calls"):
        turns_of({"messages": turns})


ODD = [None, 5, 1.5, True, "", "x", [], {}, [1], [None], [[]], [{}], {"a": 1}, [{"text": None}], ["a", "b"], [["x"]]]


def test_no_value_of_another_type_is_more_than_a_bad_row(subtests):
    for row in (TOOLS, OPENAI, SCHEMA_GUIDED):
        field = next(name for name in ("conversations", "messages", "turns") if name in row)
        for odd in ODD:
            changed = [{**row, name: odd} for name in (*row, "system", "tools", "id")]
            for i, turn in enumerate(row[field]):
                for name in (*turn, "tool_calls", "name"):
                    changed.append({**row, field: [*row[field][:i], {**turn, name: odd}, *row[field][i + 1 :]]})
                changed.append({**row, field: [*row[field][:i], odd, *row[field][i + 1 :]]})
            for number, wrong in enumerate(changed):
                with subtests.test(odd=odd, number=number), contextlib.suppress(Unusable):
                    list(Chat(**NAMED)(wrong))
