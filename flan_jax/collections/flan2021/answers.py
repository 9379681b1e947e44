"""FLAN 2021's questions with free-text answers: from a text, in a conversation, from memory; and equations.

All correct answers of a dataset count, including those of DROP and QuAC that the released code ignores. The target of
an unanswerable question is one word that its templates announce, also for QuAC.
"""

from flan_jax.collections.flan2021 import repairs
from flan_jax.collections.flan2021.fields import Fields, From
from flan_jax.collections.flan2021.records import FlanDataset

BIG = {"train": "train[:30000]", "validation": "train[-200:]", "test": "validation"}


def _squad(name: str, *, version: str, answer: From, answers: From, size: int) -> FlanDataset:
    return FlanDataset(
        name=name,
        cluster="reading_comprehension",
        tfds=f"squad/{version}:3.0.0",
        splits=BIG,
        corpora=("squad",),
        normalizer=Fields(
            fields={
                "title": From(path="title", then=repairs.spaced),
                "context": "context",
                "question": "question",
                "answer": answer,
                "answers": answers,
            }
        ),
        template_set=name,
        metrics=("squad",),
        references="answers",
        license="CC BY-SA 4.0",
        size=size,
    )


_READING = (
    _squad(
        "squad_v1",
        version="v1.1",
        answer=From(path="answers/text", then=repairs.first),
        answers=From(path="answers/text", then=repairs.distinct),
        size=87_390,
    ),
    _squad(
        "squad_v2",
        version="v2.0",
        answer=From(path=("is_impossible", "answers/text"), then=repairs.answer_if_any),
        answers=From(path=("is_impossible", "answers/text"), then=repairs.answers_if_any),
        size=130_110,
    ),
    FlanDataset(
        name="drop",
        cluster="reading_comprehension",
        tfds="drop:2.0.0",
        splits={"train": "train[:30000]", "validation": "train[-200:]", "test": "dev"},
        corpora=("drop",),
        normalizer=Fields(
            fields={
                "passage": "passage",
                "question": "question",
                "answer": "answer",
                "answers": From(path=("answer", "validated_answers"), then=repairs.distinct),
            }
        ),
        template_set="drop",
        metrics=("squad",),
        references="answers",
        license="CC BY-SA 4.0",
        size=77_200,
    ),
)

_FROM_MEMORY = (
    FlanDataset(
        name="trivia_qa",
        cluster="open_domain_qa",
        tfds="trivia_qa/rc:1.1.0",
        splits=BIG,
        corpora=("trivia_qa",),
        normalizer=Fields(
            fields={
                "question": "question",
                "answer": "answer/normalized_value",
                "answers": From(path=("answer/normalized_value", "answer/normalized_aliases"), then=repairs.distinct),
            }
        ),
        template_set="trivia_qa",
        metrics=("trivia_qa",),
        references="answers",
        size=87_420,
    ),
    FlanDataset(
        name="natural_questions",
        cluster="open_domain_qa",
        tfds="natural_questions_open:1.0.0",
        splits=BIG,
        corpora=("natural_questions",),
        normalizer=Fields(
            fields={
                "question": From(path="question", then=repairs.as_question),
                "answer": From(path="answer", then=repairs.first),
                "answers": From(path="answer", then=repairs.distinct),
            }
        ),
        template_set="natural_questions",
        metrics=("trivia_qa",),
        references="answers",
        license="CC BY-SA 3.0",
        size=87_720,
    ),
)

_IN_CONVERSATION = (
    FlanDataset(
        name="coqa",
        cluster="conversational_qa",
        tfds="coqa:1.0.0",
        splits={"train": "train[:-100]", "validation": "train[-100:]", "test": "test"},
        corpora=("coqa",),
        # As in the released code, a conversation is one example: all its questions, and all its answers.
        normalizer=Fields(
            fields={
                "story": "story",
                "questions": From(path="questions", then=repairs.numbered),
                "answers": From(path="answers/input_text", then=repairs.numbered),
            }
        ),
        template_set="coqa",
        metrics=("squad",),
        size=7_090,
    ),
    FlanDataset(
        name="quac",
        cluster="conversational_qa",
        tfds="quac:1.0.0",
        splits=BIG,
        corpora=("quac",),
        # As in the released code, a row is one turn of a conversation, without the turns before it.
        normalizer=Fields(
            fields={
                "title": "title",
                "section": "section_title",
                "background": "background",
                "context": From(path="context", then=repairs.without_end_mark),
                "question": "question",
                "answer": From(path="orig_answer/text", then=repairs.answer_in_words),
                "answers": From(path=("orig_answer/text", "answers/text"), then=repairs.answers_in_words),
            }
        ),
        template_set="quac",
        metrics=("trivia_qa",),
        references="answers",
        license="CC BY-SA 4.0",
        size=83_360,
    ),
)

_EQUATIONS = (
    FlanDataset(
        name="math_dataset",
        cluster="math",
        tfds="math_dataset/algebra__linear_1d:1.0.0",
        splits={"train": "train[:30000]", "validation": "train[-200:]", "test": "test"},
        corpora=("math_dataset",),
        normalizer=Fields(fields={"question": "question", "answer": "answer"}),
        template_set="math_dataset",
        metrics=("accuracy",),
        license="Apache-2.0",
        size=1_999_780,
    ),
)

ANSWERS: tuple[FlanDataset, ...] = (*_READING, *_FROM_MEMORY, *_IN_CONVERSATION, *_EQUATIONS)
