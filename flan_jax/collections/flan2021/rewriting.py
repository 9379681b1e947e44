"""FLAN 2021's rewriting datasets: text formatting, from the English side of ParaCrawl en-da, and translation.

The three formatting tasks take windows of ParaCrawl that do not overlap, and share their test rows.
"""

from collections.abc import Callable

from flan_jax.collections.flan2021 import repairs
from flan_jax.collections.flan2021.fields import Fields, From
from flan_jax.collections.flan2021.records import FlanDataset
from flan_jax.tasks.sources.rows import Row

WMT = {"train": "train[:30000]", "validation": "validation[:200]", "test": "test"}


def _formatting(
    name: str,
    *,
    train: str,
    validation: str,
    field: str,
    then: Callable[[str], str],
    size: int,
    drop_if: Callable[[Row], bool] | None = None,
) -> FlanDataset:
    return FlanDataset(
        name=name,
        cluster="text_formatting",
        tfds="para_crawl/enda:1.2.0",
        splits={"train": train, "validation": validation, "test": "train[-3000:]"},
        corpora=("para_crawl",),
        normalizer=Fields(fields={field: From(path="en", then=then), "text": "en"}, drop_if=drop_if),
        template_set=name,
        metrics=("edit_similarity",),
        license="CC0",
        size=size,
    )


_FORMATTING = (
    _formatting(
        "true_case",
        train="train[:30000]",
        validation="train[30000:30200]",
        field="lower",
        then=repairs.lower_case,
        drop_if=repairs.same_in_lower_case,
        size=29_260,
    ),
    _formatting(
        "fix_punct",
        train="train[30200:60200]",
        validation="train[60200:60400]",
        field="bare",
        then=repairs.without_punctuation,
        drop_if=repairs.same_without_punctuation,
        size=28_070,
    ),
    _formatting(
        "word_segment",
        train="train[60400:90400]",
        validation="train[90400:90600]",
        field="joined",
        then=repairs.without_spaces,
        size=30_000,
    ),
)


def _translation(
    name: str,
    *,
    tfds: str,
    code: str,
    language: str,
    corpus: str,
    templates: str,
    size: int,
    splits: dict[str, str] | None = None,
    license: str = "unknown",
) -> FlanDataset:
    return FlanDataset(
        name=name,
        cluster="translation",
        tfds=tfds,
        splits=splits or WMT,
        corpora=(corpus,),
        normalizer=Fields(fields={"sent1": "en", "sent2": code}, given={"lang1": "English", "lang2": language}),
        template_set=templates,
        metrics=("bleu(tokenizer=intl)",),  # T5's metric, which FLAN uses.
        license=license,
        size=size,
    )


def _wmt16(code: str, *, language: str, size: int) -> FlanDataset:
    return _translation(
        f"wmt16_translate_{code}en",
        tfds=f"wmt16_translate/{code}-en:1.0.0",
        code=code,
        language=language,
        corpus="wmt16",
        templates="wmt16_translate",
        size=size,
    )


_TRANSLATION = (
    _translation(
        "para_crawl_enes",
        tfds="para_crawl/enes:1.2.0",
        code="es",
        language="Spanish",
        corpus="para_crawl",
        templates="para_crawl",
        splits={"train": "train[:30000]", "validation": "train[-1200:-1000]", "test": "train[-1000:]"},
        license="CC0",
        size=30_000,
    ),
    _translation(
        "wmt14_enfr",
        tfds="wmt14_translate/fr-en:1.0.0",
        code="fr",
        language="French",
        corpus="wmt14",
        templates="wmt14_enfr",
        size=40_835_840,
    ),
    _wmt16("cs", language="Czech", size=52_335_360),
    _wmt16("de", language="German", size=4_548_800),
    _wmt16("fi", language="Finnish", size=2_073_360),
    _wmt16("ro", language="Romanian", size=610_320),
    _wmt16("ru", language="Russian", size=2_516_160),
    _wmt16("tr", language="Turkish", size=205_750),
)

REWRITING: tuple[FlanDataset, ...] = (*_FORMATTING, *_TRANSLATION)
