"""FLAN 2021's datasets about two texts: whether one entails the other, or whether they are paraphrases.

The names of classes are in the order of TFDS's class numbers, which for CB differs from the related datasets.
"""

from flan_jax.collections.flan2021.normalizers import ClassOfTexts, line_breaks, typed_quotes
from flan_jax.collections.flan2021.records import FlanDataset
from flan_jax.tasks.sources.rows import Row

LAST_200 = {"train": "train[:-200]", "validation": "train[-200:]", "test": "validation"}
FIRST_30000 = {"train": "train[:30000]", "validation": "train[-200:]", "test": "validation"}
OWN_SPLITS = {"train": "train[:30000]", "validation": "validation[:200]", "test": "test"}

YES_NO = ("yes", "no")
NO_YES = ("no", "yes")
ANLI_ANSWERS = ("Yes", "Not enough information", "No")
CB_ANSWERS = ("Yes", "No", "Uncertain")
MNLI_ANSWERS = ("yes", "cannot tell", "no")
SNLI_ANSWERS = ("yes", "maybe", "no")
SCORES = ("0", "1", "2", "3", "4", "5")

PREMISE_AND_HYPOTHESIS = {"premise": "premise", "hypothesis": "hypothesis"}
TWO_SENTENCES = {"sentence1": "sentence1", "sentence2": "sentence2"}
TWO_QUESTIONS = {"question1": "question1", "question2": "question2"}

_ANLI = ClassOfTexts(
    texts={"premise": "context", "hypothesis": "hypothesis"},
    answers=ANLI_ANSWERS,
    tidy=line_breaks,
    words={
        "relation": (
            "must be true if the text above is",
            "may or may not be true if the text above is",
            "cannot be true if the text above is",
        )
    },
)
_MNLI = ClassOfTexts(texts=PREMISE_AND_HYPOTHESIS, answers=MNLI_ANSWERS)


def doubled_quotes(text: str) -> str:
    """Removes the doubled quotation marks in GLUE's copy of Quora's questions.

    >>> doubled_quotes('What does ""so long"" mean?')
    'What does "so long" mean?'
    """
    return text.replace('""', '"').strip()


def stsb(row: Row) -> Row | None:
    """Rounds the score to an integer, half to even as in the released code; a row without a score has -1.

    >>> stsb({"sentence1": "It rained.", "sentence2": "Rain fell.", "label": 4.6, "idx": 3})
    {'sentence1': 'It rained.', 'sentence2': 'Rain fell.', 'answer': '5'}
    """
    if row["label"] < 0:
        return None
    texts = {name: row[place].strip() for name, place in TWO_SENTENCES.items()}
    return {**texts, "answer": f"{row['label']:.0f}"}


def _anli(number: int, *, train: str, size: int) -> FlanDataset:
    return FlanDataset(
        name=f"anli_r{number}",
        cluster="entailment",
        tfds=f"anli/r{number}:0.1.0",
        splits={**OWN_SPLITS, "train": train},
        corpora=("anli",),
        normalizer=_ANLI,
        template_set="anli",
        options=ANLI_ANSWERS,
        license="CC BY-NC 4.0",
        size=size,
    )


def _mnli(which: str) -> FlanDataset:
    return FlanDataset(
        name=f"mnli_{which}",
        cluster="entailment",
        tfds="glue/mnli:2.0.0",
        splits={**FIRST_30000, "test": f"validation_{which}"},
        corpora=("mnli",),
        normalizer=_MNLI,
        template_set="mnli",
        options=MNLI_ANSWERS,
        size=392_500,
    )


ENTAILMENT = (
    _anli(1, train="train", size=16_940),
    _anli(2, train="train[:30000]", size=45_460),
    _anli(3, train="train[:30000]", size=100_450),
    FlanDataset(
        name="cb",
        cluster="entailment",
        tfds="super_glue/cb:1.0.2",
        splits={"train": "train[:-50]", "validation": "train[-50:]", "test": "validation"},
        corpora=("cb",),
        normalizer=ClassOfTexts(
            texts=PREMISE_AND_HYPOTHESIS,
            answers=CB_ANSWERS,
            tidy=typed_quotes,
            words={
                "bearing": (
                    "makes clear that this is so",
                    "makes clear that this is not so",
                    "leaves open whether this is so",
                )
            },
        ),
        template_set="cb",
        options=CB_ANSWERS,
        metrics=("macro_f1",),
        size=200,
    ),
    _mnli("matched"),
    _mnli("mismatched"),
    FlanDataset(
        name="qnli",
        cluster="entailment",
        tfds="glue/qnli:2.0.0",
        splits=FIRST_30000,
        corpora=("qnli",),
        normalizer=ClassOfTexts(
            texts={"question": "question", "sentence": "sentence"},
            answers=YES_NO,
            words={"relation": ("answers", "leaves unanswered")},
        ),
        template_set="qnli",
        options=YES_NO,
        license="CC BY-SA 4.0",
        size=104_540,
    ),
    FlanDataset(
        name="rte",
        cluster="entailment",
        tfds="super_glue/rte:1.0.2",
        splits=LAST_200,
        corpora=("rte",),
        normalizer=ClassOfTexts(
            texts=PREMISE_AND_HYPOTHESIS,
            answers=YES_NO,
            words={"relation": ("follows from", "does not follow from")},
        ),
        template_set="rte",
        options=YES_NO,
        size=2_290,
    ),
    FlanDataset(
        name="snli",
        cluster="entailment",
        tfds="snli:1.1.0",
        splits=OWN_SPLITS,
        corpora=("snli",),
        normalizer=ClassOfTexts(
            texts=PREMISE_AND_HYPOTHESIS,
            answers=SNLI_ANSWERS,
            words={"relation": ("is certainly true of", "may or may not be true of", "cannot be true of")},
        ),
        template_set="snli",
        options=SNLI_ANSWERS,
        license="CC BY-SA 4.0",
        size=549_360,
    ),
    FlanDataset(
        name="wnli",
        cluster="entailment",
        tfds="glue/wnli:2.0.0",
        splits={"train": "train[:-30]", "validation": "train[-30:]", "test": "validation"},
        corpora=("wnli",),
        normalizer=ClassOfTexts(texts=TWO_SENTENCES, answers=NO_YES),
        template_set="wnli",
        options=NO_YES,
        license="CC BY 4.0",
        size=600,
    ),
)

PARAPHRASE = (
    FlanDataset(
        name="glue_mrpc",
        cluster="paraphrase",
        tfds="glue/mrpc:2.0.0",
        splits=LAST_200,
        corpora=("mrpc",),
        normalizer=ClassOfTexts(texts=TWO_SENTENCES, answers=NO_YES),
        template_set="glue_mrpc",
        options=NO_YES,
        metrics=("positive_f1",),
        size=3_460,
    ),
    FlanDataset(
        name="glue_qqp",
        cluster="paraphrase",
        tfds="glue/qqp:2.0.0",
        splits=FIRST_30000,
        corpora=("qqp",),
        normalizer=ClassOfTexts(texts=TWO_QUESTIONS, answers=NO_YES, tidy=doubled_quotes),
        template_set="glue_qqp",
        options=NO_YES,
        metrics=("positive_f1",),
        size=363_640,
    ),
    FlanDataset(
        name="paws_wiki",
        cluster="paraphrase",
        tfds="paws_wiki:1.1.0",
        splits=OWN_SPLITS,
        corpora=("paws",),
        normalizer=ClassOfTexts(texts=TWO_SENTENCES, answers=NO_YES, tidy=typed_quotes),
        template_set="paws_wiki",
        options=NO_YES,
        size=49_400,
    ),
    FlanDataset(
        name="stsb",
        cluster="paraphrase",
        tfds="glue/stsb:2.0.0",
        splits={"train": "train[:-100]", "validation": "train[-100:]", "test": "validation"},
        corpora=("stsb",),
        normalizer=stsb,
        template_set="stsb",
        options=SCORES,
        metrics=("correlation",),
        license="CC BY-SA 4.0",
        size=5_640,
    ),
)
