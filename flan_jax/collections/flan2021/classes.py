"""FLAN 2021's datasets that classify a text: by sentiment, grammar, topic or type of question; and WiC."""

from flan_jax.collections.flan2021.normalizers import ClassOfTexts, line_breaks
from flan_jax.collections.flan2021.records import FlanDataset

LAST_200 = {"train": "train[:-200]", "validation": "train[-200:]", "test": "validation"}
LAST_200_TEST = {**LAST_200, "test": "test"}
FIRST_30000_TEST = {"train": "train[:30000]", "validation": "train[-200:]", "test": "test"}

SENTIMENTS = ("negative", "positive")
NEUTRAL = 2  # Of Sentiment140's polarities 0 to 4; only its test split has neutral ones.
POLARITIES = {0: "negative", 1: "negative", 3: "positive", 4: "positive"}
SENSES = ("different senses", "the same sense")
GRAMMAR = ("unacceptable", "acceptable")
ANSWER_TYPES = ("description", "thing", "abbreviation", "person or group", "number or date", "place")
ANSWER_TYPES_IN_WORDS = (
    "a description or an explanation",
    "a thing of some kind",
    "an abbreviation or what one stands for",
    "a person or a group of people",
    "a number, a date or an amount",
    "a place",
)
TOPICS = ("World", "Sports", "Business", "Science and technology")


def unescaped(text: str) -> str:
    r"""Removes the escapes in Yelp's reviews, which are CSV within CSV.

    >>> unescaped('A \\""nice\\"" place.\\nGo!')
    'A "nice" place.\nGo!'
    """
    return text.replace('\\""', '"').replace("\\n", "\n").strip()


SENTIMENT = (
    FlanDataset(
        name="imdb_reviews",
        cluster="sentiment",
        tfds="imdb_reviews/plain_text:1.0.0",
        splits=LAST_200_TEST,
        corpora=("imdb",),
        normalizer=ClassOfTexts(texts={"text": "text"}, answers=SENTIMENTS, tidy=line_breaks),
        template_set="imdb_reviews",
        options=SENTIMENTS,
        size=24_800,
    ),
    FlanDataset(
        name="sentiment140",
        cluster="sentiment",
        tfds="sentiment140:1.0.0",
        splits=FIRST_30000_TEST,
        corpora=("sentiment140",),
        normalizer=ClassOfTexts(
            texts={"text": "text"}, answers=POLARITIES, label="polarity", dropped_labels=(NEUTRAL,)
        ),
        template_set="sentiment140",
        options=SENTIMENTS,
        size=1_599_800,
    ),
    FlanDataset(
        name="sst2",
        cluster="sentiment",
        tfds="glue/sst2:2.0.0",
        splits={**FIRST_30000_TEST, "test": "validation"},
        corpora=("sst2",),
        normalizer=ClassOfTexts(texts={"sentence": "sentence"}, answers=SENTIMENTS),
        template_set="sst2",
        options=SENTIMENTS,
        size=67_140,
    ),
    FlanDataset(
        name="yelp_polarity_reviews",
        cluster="sentiment",
        tfds="yelp_polarity_reviews:0.2.0",
        splits=FIRST_30000_TEST,
        corpora=("yelp",),
        normalizer=ClassOfTexts(texts={"text": "text"}, answers=SENTIMENTS, tidy=unescaped),
        template_set="yelp_polarity_reviews",
        options=SENTIMENTS,
        size=559_800,
    ),
)

WORDS_AND_TOPICS = (
    FlanDataset(
        name="wic",
        cluster="word_disambiguation",
        tfds="super_glue/wic:1.0.2",
        splits=LAST_200,
        corpora=("wic",),
        normalizer=ClassOfTexts(
            texts={"word": "word", "sentence1": "sentence1", "sentence2": "sentence2"}, answers=SENSES
        ),
        template_set="wic",
        options=SENSES,
        license="CC BY-NC 4.0",
        size=5_220,
    ),
    FlanDataset(
        name="cola",
        cluster="linguistic_acceptability",
        tfds="glue/cola",
        splits=LAST_200,
        corpora=("cola",),
        normalizer=ClassOfTexts(texts={"sentence": "sentence"}, answers=GRAMMAR),
        template_set="cola",
        options=GRAMMAR,
        size=8_350,
    ),
    FlanDataset(
        name="trec",
        cluster="question_classification",
        tfds="trec:1.0.0",
        splits=LAST_200_TEST,
        corpora=("trec",),
        normalizer=ClassOfTexts(
            texts={"question": "text"},
            answers=ANSWER_TYPES,
            label="label-coarse",
            words={"kind": ANSWER_TYPES_IN_WORDS},
        ),
        template_set="trec",
        options=ANSWER_TYPES,
        size=5_250,
    ),
    FlanDataset(
        name="ag_news_subset",
        cluster="summarization",
        tfds="ag_news_subset:1.0.0",
        splits=FIRST_30000_TEST,
        corpora=("ag_news",),
        normalizer=ClassOfTexts(texts={"title": "title", "text": "description"}, answers=TOPICS),
        template_set="ag_news_subset",
        options=TOPICS,
        size=119_800,
    ),
)
