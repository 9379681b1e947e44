"""Conversations as training rows: one example per assistant turn, with all earlier turns as its prompt.

Three shapes of files are read: ShareGPT (`conversations` of from and value, also with tools), OpenAI (`messages` of
role and content) and Schema-Guided Dialogue (`turns` of speaker and utterance). `templates.chat` turns them into
prompts.
"""

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from flan_jax.annotations import NOT_IN_YAML, Within, check_fields
from flan_jax.draws import Draws
from flan_jax.errors import UserError
from flan_jax.names import one_of, require_choice, shortened
from flan_jax.tasks.declare import CountsTokens
from flan_jax.tasks.formats.shape import NOT_THE_FORMAT, Format, Shape, items, parsed_json, text
from flan_jax.tasks.sources.rows import Row, Unusable
from flan_jax.templates.chat import (
    ANSWERS,
    DEFAULT_STYLE,
    ChatStyle,
    CountTokens,
    Prompt,
    Role,
    Turn,
    style_named,
    styles,
)
from flan_jax.templates.render import Pattern, Template
from flan_jax.vocab import Vocabulary

UNKNOWN_ROLE = "unknown role"
NO_USER = "no user turn"
NO_ASSISTANT = "no assistant turn after a user turn"
TWO_IN_A_ROW = "two assistant turns in a row"
NO_TEXT = "turn without text"

SHAREGPT: Mapping[str, Role] = {
    "system": "system", "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant",
    "assistant": "assistant", "function_call": "call", "observation": "result", "tool": "result",
}  # fmt: skip
OPENAI: Mapping[str, Role] = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "result",
    "function": "result",
}  # fmt: skip
SCHEMA_GUIDED: Mapping[str, Role] = {"USER": "user", "SYSTEM": "assistant"}  # Its "system" answers.
# Field of the conversation -> field of the speaker, field of the content, role of each speaker.
CONVERSATIONS: Mapping[str, tuple[str, str, Mapping[str, Role]]] = {
    "conversations": ("from", "value", SHAREGPT),
    "messages": ("role", "content", OPENAI),
    "turns": ("speaker", "utterance", SCHEMA_GUIDED),
}
TEMPLATE = Template(inputs="{prompt}", targets="{target}", name="conversation")

Which = Literal["all", "last"]


@dataclass(frozen=True, kw_only=True)
class Conversational(Format, CountsTokens):
    """A format whose prompts are conversations.

    Attributes:
      max_tokens: Of a prompt, with end of sequence; longer ones lose their oldest turns. It should equal the inputs in
        TASK_FEATURE_LENGTHS. None for no limit.
      chat_templates: Names in `templates/styles/chat.yaml`. A conversation draws one of several; the same conversation
        draws the same one at inference.
      seed: Of a row's random choices.
      vocabulary: Counts the tokens; set when the task is registered. Without it no turn is dropped.
    """

    max_tokens: Annotated[int, Within(least=2)] | None = 1024
    chat_templates: tuple[str, ...] = (DEFAULT_STYLE,)
    seed: int = 0
    vocabulary: Vocabulary | None = dataclasses.field(default=None, metadata=NOT_IN_YAML)

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.chat_templates:
            raise UserError(f"chat_templates names none. There are: {', '.join(styles())}.")
        for name in self.chat_templates:
            style_named(name)

    def with_vocabulary(self, vocabulary: Vocabulary) -> "Conversational":
        """Returns the format with a vocabulary to count tokens with."""
        return dataclasses.replace(self, vocabulary=vocabulary)

    def templates(self) -> tuple[Pattern, ...]:
        """Returns the template that copies prompt and target."""
        return (TEMPLATE,)

    def style_of(self, turns: Iterable[Turn]) -> ChatStyle:
        """Returns the chat template of a conversation; one of several is drawn by the conversation's text."""
        return style_named(Draws(self.seed, "chat style", *map(tuple, turns)).choice(self.chat_templates))

    def prompt_of(self, turns: Sequence[Turn], *, style: ChatStyle) -> Prompt:
        """Returns the prompt for the turn after `turns`."""
        return style.prompt(turns, count_tokens=self._count_tokens, max_tokens=self.max_tokens)

    @functools.cached_property
    def _count_tokens(self) -> CountTokens | None:
        """Caches the last few texts: those of a conversation are counted for each of its examples."""
        return functools.lru_cache(maxsize=512)(self.vocabulary.count) if self.vocabulary is not None else None


@dataclass(frozen=True, kw_only=True)
class Chat(Conversational):
    """Conversations; each assistant turn after a user turn is an example.

    The system message and the tools precede the first turn. A tool call is an assistant turn, its result is not.

    Attributes:
      turns: Whether "all" assistant turns are examples, or the "last" one.
      predict: The kinds of assistant turns that are examples: messages ("assistant"), tool calls ("call").
    """

    shapes: ClassVar = (
        Shape(("conversations",), ("tools", "system", "id")),
        Shape(("messages",), ("tools", "id")),
        Shape(("turns",), ("dialogue_id", "services")),
    )
    cluster: ClassVar = "chat"
    metrics: ClassVar = ("rouge_l",)
    turns: Which = "all"
    predict: tuple[str, ...] = ANSWERS

    def __post_init__(self) -> None:
        super().__post_init__()
        for kind in self.predict:
            require_choice(kind, ANSWERS, "predict (the kinds of assistant turns)")

    def __call__(self, row: Row) -> Iterable[Row]:
        """Returns one example per predicted turn."""
        turns = turns_of(row)
        style = self.style_of(turns)
        predicted = self._predicted(turns)
        for number in predicted[-1:] if self.turns == "last" else predicted:
            prompt = self.prompt_of(turns[:number], style=style)
            target = style.target(turns[number])
            yield {"prompt": prompt.text, "target": target, "turn": number, "left_out": prompt.left_out}

    def next_turn(self, row: Row) -> Row:
        """Returns the prompt for the assistant's next turn; a last turn of the assistant's is not shown.

        Raises:
          Unusable: The row breaks the format.
        """
        turns = turns_of(row)
        asked = turns[:-1] if turns[-1].role in ANSWERS else turns
        if not any(turn.role == "user" for turn in asked):
            raise Unusable(NO_USER, "no user turn asks for an answer")
        # The style of all turns, the last included, as when the conversation was exported.
        return {"prompt": self.prompt_of(asked, style=self.style_of(turns)).text, "target": ""}

    def check(self, row: Row) -> None:
        """Rejects a malformed conversation, without building prompts."""
        self._predicted(turns_of(row))

    def _predicted(self, turns: list[Turn]) -> list[int]:
        first = next(i for i, turn in enumerate(turns) if turn.role == "user")
        predicted = [i for i, turn in enumerate(turns) if i > first and turn.role in self.predict]
        if not predicted:
            raise Unusable(NO_ASSISTANT, f"no assistant turn ({', '.join(self.predict)}) follows a user turn")
        return predicted


def turns_of(row: Mapping[str, Any]) -> list[Turn]:
    """Returns the turns of a conversation, after the system message and the tools.

    Raises:
      Unusable: It is malformed: not a list, an unknown role, a turn without text, two assistant turns in a row, or no
        user turn.
    """
    field = next((name for name in CONVERSATIONS if row.get(name) is not None), None)
    if field is None:
        raise Unusable(NOT_THE_FORMAT, f"the row has no conversation: none of {', '.join(CONVERSATIONS)}")
    speaker, content, roles = CONVERSATIONS[field]
    turns = [_turn(item, f"{field}[{i}]", speaker, content, roles) for i, item in enumerate(items(row, field))]
    for i, (turn, following) in enumerate(zip(turns, turns[1:], strict=False)):
        if turn.role in ANSWERS and following.role in ANSWERS:
            raise Unusable(TWO_IN_A_ROW, f"{field}[{i}] and {field}[{i + 1}] are both assistant turns")
    if not any(turn.role == "user" for turn in turns):
        raise Unusable(NO_USER, f"{field} has no user turn, only {', '.join(sorted({t.role for t in turns}))}")
    return [*_context(row), *turns]


def _context(row: Mapping[str, Any]) -> Iterable[Turn]:
    system = text(row, "system", required=False)
    if system:
        yield Turn("system", system)
    tools = row.get("tools")
    listed = tools if isinstance(tools, str) else json.dumps(tools, ensure_ascii=False) if tools else ""
    # ShareGPT files write an empty list where a conversation has no tools.
    if listed.strip() not in ("", "[]", "{}"):
        yield Turn("tools", listed.strip())


def _turn(item: Mapping[str, Any], place: str, speaker: str, content: str, roles: Mapping[str, Role]) -> Turn:
    name = item.get(speaker)
    if not isinstance(name, str) or name not in roles:
        raise Unusable(
            UNKNOWN_ROLE,
            one_of(name, roles, f"{place}.{speaker}"),
        )
    written, calls = _content(item.get(content), f"{place}.{content}"), _calls(item, f"{place}.tool_calls")
    if calls and roles[name] == "assistant":
        listed = json.dumps(calls, ensure_ascii=False)
        return Turn("call", f"{written}\n{listed}".strip())
    if not written:
        raise Unusable(NO_TEXT, f"{place}.{content} must be a text, got {shortened(item.get(content))}")
    return Turn(roles[name], written)


def _calls(item: Mapping[str, Any], place: str) -> list[Any]:
    """Returns the functions that a turn calls: objects, one object, or either as JSON text."""
    value = item.get("tool_calls")
    if isinstance(value, str) and value.strip():
        value = parsed_json(value, place)
    calls = [value] if isinstance(value, Mapping) else value or []
    if isinstance(calls, list):
        calls = [parsed_json(call, place) if isinstance(call, str) else call for call in calls]
        if all(isinstance(call, Mapping) for call in calls):
            # OpenAI wraps each call with an id, which differs between otherwise equal conversations.
            return [call.get("function", call) for call in calls]
    raise Unusable(NOT_THE_FORMAT, f"{place} must list objects, got {shortened(value)}")


def _content(value: object, place: str) -> str:
    """Returns the text of a turn: a text, or the texts of a list of parts."""
    if isinstance(value, list) and all(isinstance(p, Mapping) and isinstance(p.get("text"), str) for p in value):
        value = "\n".join(part["text"] for part in value)
    if value is not None and not isinstance(value, str):
        raise Unusable(NO_TEXT, f"{place} must be a text or parts of text, got {shortened(value)}")
    return (value or "").strip()
