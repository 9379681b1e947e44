"""The default rows of T0's datasets: those of TFDS, where it has them in the same shape.

Promptsource's templates expect the rows of Hugging Face's datasets. TFDS has some datasets with the same names, fields
and classes; for a few, a normalizer converts the differences; the others have no rows unless a YAML file declares them
(`declared_rows`). Splits without labels are omitted.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from flan_jax.collections.t0.table import ANLI, ANLI_ROUNDS
from flan_jax.errors import MissingFileError
from flan_jax.tasks.declare import Normalizer
from flan_jax.tasks.sources.file_sources import TfdsSource
from flan_jax.tasks.sources.mapped import MappedSource
from flan_jax.tasks.sources.rows import BadRow, OnBadRow, Record, Row, Source

LETTERS = "ABCDE"


@dataclass(frozen=True, kw_only=True)
class TfdsRows:
    """A dataset of TFDS whose rows fit the templates.

    Attributes:
      name: In TFDS's spelling.
      splits: Expressions of TFDS, by our names.
      fields: From new names of fields to TFDS's.
      normalizer: Converts the remaining differences.
    """

    name: str
    splits: Mapping[str, str]
    fields: Mapping[str, str] = field(default_factory=dict)
    normalizer: Normalizer | None = None

    def source(self, *, on_bad_row: OnBadRow) -> Source:
        """Returns the source; nothing is opened."""
        rows = TfdsSource(name=self.name, splits=self.splits, on_bad_row=on_bad_row)
        return MappedSource(source=rows, fields=self.fields, on_bad_row=on_bad_row) if self.fields else rows


def winogrande(row: Row) -> Row:
    """Adds the number of the correct option as a text.

    >>> winogrande({"option1": "Ann", "option2": "Eve", "label": 1})
    {'option1': 'Ann', 'option2': 'Eve', 'label': 1, 'answer': '2'}
    """
    return {**row, "answer": str(row["label"] + 1)}


def arc(row: Row) -> Row:
    """Replaces class numbers with letters.

    >>> arc({"choices": {"label": [0, 1], "text": ["air", "ice"]}, "answerKey": 1})
    {'choices': {'label': ['A', 'B'], 'text': ['air', 'ice']}, 'answerKey': 'B'}
    """
    choices = row["choices"]
    letters = [LETTERS[label] for label in choices["label"]]
    return {**row, "choices": {**choices, "label": letters}, "answerKey": LETTERS[row["answerKey"]]}


def openbookqa(row: Row) -> Row:
    """Turns the parts of the question into fields of the row.

    >>> question = {"stem": "What melts?", "choice_A": "ice", "choice_B": "air", "choice_C": "fire", "choice_D": "soot"}
    >>> openbookqa({"question": question, "answerKey": 0})["choices"]
    {'label': ['A', 'B', 'C', 'D'], 'text': ['ice', 'air', 'fire', 'soot']}
    """
    letters = list(LETTERS[:4])
    return {
        "question_stem": row["question"]["stem"],
        "choices": {"label": letters, "text": [row["question"][f"choice_{letter}"] for letter in letters]},
        "answerKey": LETTERS[row["answerKey"]],
    }


def race(row: Row) -> Iterator[Row]:
    """Returns one row per question about an article.

    >>> exam = {"article": "...", "questions": ["a?", "b?"], "options": [["1", "2"], ["3", "4"]], "answers": ["A", "B"]}
    >>> [(row["question"], row["options"], row["answer"]) for row in race(exam)]
    [('a?', ['1', '2'], 'A'), ('b?', ['3', '4'], 'B')]
    """
    for question, options, answer in zip(row["questions"], row["options"], row["answers"], strict=True):
        yield {"article": row["article"], "question": question, "options": options, "answer": answer}


def ag_news(row: Row) -> Row:
    """Joins title and description.

    >>> ag_news({"title": "Rain", "description": "It rained.", "label": 0})
    {'text': 'Rain It rained.', 'label': 0}
    """
    return {"text": f"{row['title']} {row['description']}", "label": row["label"]}


def _same(*splits: str) -> dict[str, str]:
    return {split: split for split in splits}


_BOTH = _same("train", "validation")
_ALL = _same("train", "validation", "test")

TFDS: Mapping[str, TfdsRows] = {
    "super_glue/axg": TfdsRows(name="super_glue/axg", splits=_same("test")),
    **{
        name: TfdsRows(name=name, splits=_BOTH)
        for name in (
            "super_glue/wsc.fixed", "super_glue/cb", "super_glue/rte", "super_glue/record", "super_glue/boolq",
            "super_glue/copa", "super_glue/multirc", "super_glue/wic", "glue/qqp", "trivia_qa/unfiltered", "cosmos_qa",
            "qasc", "piqa",
        )
    },
    **{name: TfdsRows(name=name, splits=_ALL) for name in ("wiki_bio", "gigaword", "multi_news", "samsum", "xsum")},
    **{
        f"{ANLI}/{which}": TfdsRows(name=f"anli/{which}", splits=_ALL, fields={"premise": "context"})
        for which in ANLI_ROUNDS
    },
    "glue/mrpc": TfdsRows(name="glue/mrpc", splits=_ALL),
    "winogrande/winogrande_xl": TfdsRows(
        name="winogrande", splits={"train": "train_xl", "validation": "validation"}, normalizer=winogrande
    ),
    "paws/labeled_final": TfdsRows(name="paws_wiki/labeled_final_tokenized", splits=_ALL),
    "ai2_arc/ARC-Challenge": TfdsRows(name="ai2_arc/ARC-Challenge", splits=_ALL, normalizer=arc),
    "ai2_arc/ARC-Easy": TfdsRows(name="ai2_arc/ARC-Easy", splits=_ALL, normalizer=arc),
    "web_questions": TfdsRows(name="web_questions", splits=_same("train", "test")),
    "squad_v2": TfdsRows(name="squad/v2.0", splits=_BOTH),
    "cos_e/v1.11": TfdsRows(name="cos_e", splits=_BOTH),
    "openbookqa/main": TfdsRows(name="openbookqa", splits=_ALL, normalizer=openbookqa),
    **{
        name: TfdsRows(name=name, splits={"train": "train", "validation": "dev", "test": "test"}, normalizer=race)
        for name in ("race/high", "race/middle")
    },
    "imdb": TfdsRows(name="imdb_reviews/plain_text", splits=_same("train", "test")),
    "cnn_dailymail/3.0.0": TfdsRows(name="cnn_dailymail", splits=_ALL),
    "ag_news": TfdsRows(name="ag_news_subset", splits=_same("train", "test"), normalizer=ag_news),
}  # fmt: skip
"""By our name; ANLI by round. trec, hellaswag and story_cloze are in TFDS, too, with other classes or fields."""

_OTHER_SPLITS = {
    "crows_pairs": ("test",),
    "wino_bias": ("validation", "test"),
    "amazon_polarity": ("train", "test"),
    "app_reviews": ("train",),
    "yelp_review_full": ("train", "test"),
    "story_cloze/2016": ("validation", "test"),
    "dbpedia_14": ("train", "test"),
    "trec": ("train", "test"),
}


@dataclass(frozen=True, kw_only=True)
class AbsentSource(Source):
    """A dataset without declared rows: its tasks can be listed and shown, but not read.

    Attributes:
      why: The missing part, and how to declare it.
      split_names: The splits that the published dataset has.
    """

    why: str
    split_names: tuple[str, ...]

    @property
    def splits(self) -> Collection[str]:
        """Names of the splits."""
        return self.split_names

    def read(self, split: str) -> Iterator[Record | BadRow]:
        """Raises MissingFileError."""
        self._refuse(split)

    def revision(self, split: str) -> str:
        """Raises MissingFileError."""
        self._refuse(split)

    def files(self, split: str) -> tuple[str, ...]:
        """Raises MissingFileError."""
        self._refuse(split)

    def describe(self, split: str) -> str:
        """Returns what is missing."""
        return self.why

    def _refuse(self, split: str) -> NoReturn:
        self.require_split(split)
        raise MissingFileError(self.why)


def usual_rows(
    dataset: str, *, round_: str | None = None, on_bad_row: OnBadRow = "error"
) -> tuple[Source, Normalizer | None]:
    """Returns the source of a dataset's rows and their normalizer; an `AbsentSource` if TFDS has no rows.

    Args:
      dataset: With its subset.
      round_: Of ANLI.
      on_bad_row: For rows that cannot be used.
    """
    rows = TFDS.get(dataset if round_ is None else f"{dataset}/{round_}")
    if rows is not None:
        return rows.source(on_bad_row=on_bad_row), rows.normalizer
    # Names of the published splits, so that mixtures can be listed and shown without the rows.
    splits = _OTHER_SPLITS.get(dataset) or _OTHER_SPLITS.get(dataset.partition("/")[0], ("train", "validation"))
    why = (
        f"TensorFlow Datasets has no rows of {dataset} in the shape of promptsource's templates. Declare them "
        f"in a YAML file: collections: {{t0: {{rows: {{{dataset}: {{kind: ..., splits: ...}}}}}}}}."
    )
    return AbsentSource(why=why, split_names=splits), None


def declared_rows(dataset: str, rows: Source, *, round_: str | None = None) -> Source:
    """Returns the declared source of a dataset; for a round of ANLI, with the splits of that round.

    Args:
      dataset: With its subset.
      rows: As declared.
      round_: Of ANLI, whose splits are named "train_r1", "dev_r1", "test_r1", ...
    """
    if round_ is None:
        return rows
    theirs = {"train": f"train_{round_}", "validation": f"dev_{round_}", "test": f"test_{round_}"}
    names = {ours: split for ours, split in theirs.items() if split in rows.splits}
    if names:
        return MappedSource(source=rows, split_names=names, on_bad_row=rows.on_bad_row)
    why = (
        f"The rows declared for {dataset} have no split {' or '.join(theirs.values())}, only {', '.join(rows.splits)}."
    )
    return AbsentSource(why=why, split_names=tuple(theirs))
