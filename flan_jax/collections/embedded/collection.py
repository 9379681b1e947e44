"""The embedded suite: 28 small instruction tasks in ten clusters that need no internet access and no external files.

Eight clusters are for training and two are held out. The suite is for tests, and for running all stages in minutes on a
laptop. A network of half a million parameters learns it from random initialization, so its scores show that the code
works, not that a model is good.

The held-out clusters share no row and no template with training clusters, only everyday words. "feedback" uses the
adjectives of "sentiment" about other things, which a tiny model can transfer; "inference" requires comparing two
sentences, which no training task teaches, and stays near chance. `recipes` draws the rows; the templates are in
`templates/embedded.yaml`.
"""

import functools
from collections.abc import Iterable
from pathlib import Path

from flan_jax.collections.embedded import words
from flan_jax.collections.embedded.recipes import SPLITS, rows
from flan_jax.settings import Section
from flan_jax.tasks import registry
from flan_jax.tasks.declare import Evaluation, TemplatedTask
from flan_jax.tasks.sources.file_sources import InMemorySource
from flan_jax.templates.load import template_sets
from flan_jax.vocab import Vocabulary

TEMPLATES = Path(__file__).parents[2] / "templates" / "embedded.yaml"
PREFIX = "embedded_"
VERDICTS = ("positive", "negative")
YES_NO = ("yes", "no")
HELD_OUT = ("feedback", "inference")

# Cluster -> task -> its kind of evaluation, and its options, if any.
CLUSTERS: dict[str, dict[str, tuple[Evaluation, tuple[str, ...] | None]]] = {
    "sentiment": {
        "film_verdict": ("rank", VERDICTS),
        "meal_opinion": ("generate", YES_NO),
        "speaker_emotion": ("rank", tuple(words.EMOTIONS)),
    },
    "topic": {
        "headline_topic": ("rank", tuple(words.HEADLINE_TOPICS)),
        "hobby": ("generate", tuple(words.HOBBIES)),
        "shop_department": ("generate", tuple(words.DEPARTMENTS)),
    },
    "grammar": {
        "plural_form": ("generate", None),
        "past_tense": ("generate", None),
        "word_class": ("rank", tuple(words.WORD_CLASSES)),
    },
    "word_meaning": {
        "opposite_word": ("generate", None),
        "kind_of_thing": ("rank", tuple(words.KINDS)),
        "young_animal": ("generate", None),
    },
    "knowledge": {
        "capital_city": ("generate", None),
        "language_spoken": ("generate", None),
        "workplace": ("generate", None),
    },
    "numbers_and_time": {
        "number_in_digits": ("generate", None),
        "day_shift": ("generate", None),
        "larger_number": ("generate", None),
    },
    "reading": {
        "who_did_it": ("generate", None),
        "where_is_it": ("generate", None),
        "what_colour": ("generate", None),
    },
    "rewriting": {
        "sentence_in_past": ("generate", None),
        "swapped_people": ("generate", None),
        "negated": ("generate", None),
    },
    "feedback": {
        "product_recommendation": ("rank", YES_NO),
        "service_feedback": ("rank", VERDICTS),
    },
    "inference": {
        "statement_check": ("rank", ("true", "false")),
        "same_meaning": ("rank", YES_NO),
    },
}


def tasks() -> tuple[TemplatedTask, ...]:
    """Returns the records of all tasks; their rows are drawn on demand."""
    templates = template_sets(TEMPLATES)
    return tuple(
        TemplatedTask(
            name=PREFIX + name,
            source=InMemorySource(data={split: functools.partial(rows, name, split) for split in SPLITS}),
            cluster=cluster,
            templates=templates[name],
            options=options,
            metrics=("rank_accuracy",) if evaluation == "rank" else ("accuracy",),
            evaluation=evaluation,
            license="Apache-2.0",
        )
        for cluster, members in CLUSTERS.items()
        for name, (evaluation, options) in members.items()
    )


def names(clusters: Iterable[str]) -> tuple[str, ...]:
    """Returns the names of the tasks of some clusters, in the order of `CLUSTERS`."""
    return tuple(PREFIX + name for cluster in clusters for name in CLUSTERS[cluster])


def register() -> None:
    """Registers the tasks and their mixtures under the default vocabulary."""
    trained = names(cluster for cluster in CLUSTERS if cluster not in HELD_OUT)
    for task in tasks():
        registry.register(task)
    registry.register_mixture("embedded_train", trained)
    registry.register_mixture("embedded_validation", trained)
    registry.register_mixture("embedded_held_out", names(HELD_OUT))
    registry.register_mixture("embedded", names(CLUSTERS))


def register_declared(settings: Section, *, vocabulary: Vocabulary) -> None:
    """Refuses the settings of a YAML file: the suite has none.

    Raises:
      UserError: Always.
    """
    del vocabulary
    raise settings.place.error("the embedded suite has no settings, and is registered anyway. Remove the entry.")
