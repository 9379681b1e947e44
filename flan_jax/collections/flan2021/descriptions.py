"""FLAN 2021's structure-to-text datasets: sentences from facts or words, with several references."""

from flan_jax.collections.flan2021 import repairs
from flan_jax.collections.flan2021.fields import Fields, From
from flan_jax.collections.flan2021.normalizers import one_line
from flan_jax.collections.flan2021.records import FlanDataset

SPLITS = {"train": "train[:30000]", "validation": "train[-200:]", "test": "validation"}
TARGET = From(path="target", then=one_line)
# GEM's training rows have a target and no references, its evaluation rows both.
REFERENCES = From(path=("target", "references"), then=repairs.distinct_lines)


def _dataset(name: str, *, corpus: str, normalizer: Fields, references: str, license: str, size: int) -> FlanDataset:
    return FlanDataset(
        name=name,
        cluster="structure_to_text",
        tfds=f"gem/{name}:1.1.0",
        splits=SPLITS,
        corpora=(corpus,),
        normalizer=normalizer,
        template_set=name,
        metrics=("rouge",),
        references=references,
        license=license,
        size=size,
    )


DESCRIPTIONS: tuple[FlanDataset, ...] = (
    _dataset(
        "web_nlg_en",
        corpus="web_nlg",
        normalizer=Fields(
            fields={"facts": From(path="input", then=repairs.triples), "text": TARGET, "texts": REFERENCES}
        ),
        references="texts",
        license="CC BY-NC-SA 4.0",
        size=35_220,
    ),
    _dataset(
        "common_gen",
        corpus="common_gen",
        normalizer=Fields(
            fields={
                "concepts": From(path="concepts", then=repairs.with_commas),
                "concept_lines": From(path="concepts", then=repairs.on_lines),
                "sentence": TARGET,
                "sentences": REFERENCES,
            }
        ),
        references="sentences",
        license="MIT",
        size=67_180,
    ),
    _dataset(
        "e2e_nlg",
        corpus="e2e_nlg",
        normalizer=Fields(
            fields={
                "facts": From(path="meaning_representation", then=repairs.pairs),
                "text": TARGET,
                "texts": REFERENCES,
            }
        ),
        references="texts",
        license="CC BY-SA 4.0",
        size=33_320,
    ),
    _dataset(
        "dart",
        corpus="dart",
        normalizer=Fields(
            fields={
                "facts": From(path="tripleset", then=repairs.facts_in_line),
                "fact_lines": From(path="tripleset", then=repairs.fact_lines),
                "text": TARGET,
                "texts": REFERENCES,
            }
        ),
        references="texts",
        license="MIT",
        size=62_450,
    ),
)
