"""FLAN 2021's summarization datasets, except AG News."""

from flan_jax.collections.flan2021 import repairs
from flan_jax.collections.flan2021.fields import Fields, From
from flan_jax.collections.flan2021.normalizers import one_line
from flan_jax.collections.flan2021.records import FlanDataset

FIRST_ROWS = {"train": "train[:30000]", "validation": "validation[:200]", "test": "test"}
OPINION_ABSTRACTS = {"train": "train[:-600]", "validation": "train[-600:-500]", "test": "train[-500:]"}


def _dataset(
    name: str,
    *,
    tfds: str,
    normalizer: Fields,
    size: int,
    splits: dict[str, str] | None = None,
    corpus: str | None = None,
    license: str = "unknown",
) -> FlanDataset:
    return FlanDataset(
        name=name,
        cluster="summarization",
        tfds=tfds,
        splits=splits or FIRST_ROWS,
        corpora=(corpus or name,),
        normalizer=normalizer,
        template_set=name,
        metrics=("rouge",),
        license=license,
        size=size,
    )


SUMMARIES: tuple[FlanDataset, ...] = (
    _dataset(
        "aeslc",
        tfds="aeslc:1.0.0",
        splits={"train": "train", "validation": "validation[-200:]", "test": "test"},
        normalizer=Fields(
            fields={
                "body": From(path="email_body", then=one_line),
                "subject": From(path="subject_line", then=one_line),
            }
        ),
        size=14_430,
    ),
    _dataset(
        "cnn_dailymail",
        tfds="cnn_dailymail:3.1.0",
        normalizer=Fields(
            fields={"article": From(path="article", then=repairs.without_dateline), "highlights": "highlights"}
        ),
        size=287_040,
    ),
    _dataset(
        "gigaword",
        tfds="gigaword:1.2.0",
        normalizer=Fields(fields={"text": "document", "summary": "summary"}, drop_if=repairs.has_placeholders),
        size=2_044_370,
    ),
    _dataset(
        "multi_news",
        tfds="multi_news:1.0.0",
        normalizer=Fields(
            fields={
                "articles": From(path="document", then=repairs.separate_articles),
                "summary": From(path="summary", then=repairs.without_dash),
            }
        ),
        size=44_960,
    ),
    _dataset(
        "newsroom",
        tfds="newsroom:1.0.0",
        normalizer=Fields(fields={"title": "title", "text": "text", "summary": "summary"}),
        size=994_560,
    ),
    _dataset(
        "samsum",
        tfds="samsum:1.0.0",
        splits={"train": "train", "validation": "validation[:200]", "test": "test"},
        normalizer=Fields(fields={"dialogue": From(path="dialogue", then=repairs.plain_chat), "summary": "summary"}),
        license="CC BY-NC-ND 4.0",
        size=14_730,
    ),
    _dataset(
        "xsum",
        # FLAN read it from "huggingface:xsum", which TFDS serves over a network; this is the same corpus, TFDS's own.
        tfds="xsum:1.1.0",
        normalizer=Fields(fields={"article": "document", "summary": "summary"}),
        size=203_560,
    ),
    _dataset(
        "opinion_abstracts_rotten_tomatoes",
        tfds="opinion_abstracts/rotten_tomatoes:1.0.0",
        splits=OPINION_ABSTRACTS,
        normalizer=Fields(
            fields={
                "movie": From(path="_movie_name", then=repairs.spaced),
                "reviews": From(path="_critics/value", then=repairs.ten_numbered),
                "first_review": From(path="_critics/value", then=repairs.first),
                "consensus": "_critic_consensus",
            }
        ),
        corpus="opinion_abstracts",
        size=3_130,
    ),
    _dataset(
        "opinion_abstracts_idebate",
        tfds="opinion_abstracts/idebate:1.0.0",
        splits=OPINION_ABSTRACTS,
        normalizer=Fields(
            fields={
                "debate": From(path="_debate_name", then=repairs.spaced),
                "arguments": From(path="_argument_sentences/value", then=repairs.ten_numbered),
                "claim": "_claim",
            }
        ),
        corpus="opinion_abstracts",
        size=1_650,
    ),
    _dataset(
        "wiki_lingua_english_en",
        tfds="gem/wiki_lingua_english_en:1.1.0",
        normalizer=Fields(fields={"article": "source", "summary": "target"}),
        corpus="wiki_lingua",
        license="CC BY-NC-SA 3.0",
        size=99_000,
    ),
)
