"""FLAN 2021's datasets with options: the published tables, and every template on rows as TFDS declares them."""

import re
from collections import Counter

import pytest

from flan_jax.collections.flan2021 import table
from flan_jax.collections.flan2021.variants import RANK_METRICS
from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.normalizing import DROPPED_BY_NORMALIZER
from flan_jax.tasks.rendering import iter_rendered
from flan_jax.tasks.sources.file_sources import InMemorySource
from flan_jax.templates import load
from tests.collections.flan2021.flan2021_choice_rows import REAL_ROWS
from tests.tasks.mocked_rows import declared_features, mocked_rows

FILES = ("entailment", "paraphrase", "sentiment", "words_and_topics", "endings_and_references", "reading_with_options")
FOLDER = load.__file__.removesuffix("load.py") + "flan2021/"
SETS = {name: templates for file in FILES for name, templates in load.template_sets(f"{FOLDER}{file}.yaml").items()}
DATASETS = {name: dataset for name, dataset in table.DATASETS.items() if dataset.is_classification}

# The version of the published table is no longer in TFDS's code, whose own has the same fields.
NEWER_IN_TFDS = {"winogrande": "winogrande/1.2.0"}
DEFAULT_CONFIGS = {"paws_wiki": "paws_wiki/labeled_final_tokenized/1.1.0", "cola": "glue/cola/2.0.0"}

# What TFDS's types do not say: which numbers an integer takes, what a text has in it, which lists go together.
MOCKED = {
    "copa": {"question": ("cause", "effect")},
    "hellaswag": {"label": (0, 1, 2, 3)},
    "story_cloze": {"label": (1, 2), "endings": (["The end.", "An end."], ["He left.", "She stayed."])},
    "winogrande": {"sentence": ("Ann beat Sue because _ was fast.", "The cup broke the dish, so the _ was thrown away.")},
    "definite_pronoun_resolution": {"candidates": (["Ann", "Sue"],)},
    "wsc273": {"text": ("The ball hit the pane and it broke.",), "pronoun_start": (26,), "pronoun_end": (28,), "label": (0, 1)},
    "sentiment140": {"polarity": (0, 2, 4)},
    "stsb": {"label": (0.0, 1.2, 1.6, 2.75, 3.8, 5.0)},
    "record": {
        "passage": ("Ann met Bo in Rome.\n@highlight\nThey met",),
        "query": ("Later @placeholder's car broke", "@placeholder left", "Bo left @placeholder"),
        "entities": (["Ann", "Bo", "Rome"],),
        "answers": (["Bo"], ["Ann", "Bo"]),
    },
}  # fmt: skip
# Of the ten published templates of each set: how many are inverted, and how many show the options where that is not
# every forward one.
INVERTED = {
    "copa": 2, "piqa": 2, "story_cloze": 2, "anli": 1, "cb": 1, "qnli": 1, "rte": 1, "snli": 1, "cola": 2, "arc": 3,
    "stsb": 2, "trec": 1, "cosmos_qa": 2, "multirc": 2, "openbookqa": 3, "imdb_reviews": 3, "sentiment140": 4, "sst2":
    2, "yelp_polarity_reviews": 3, "ag_news_subset": 2,
}  # fmt: skip
SHOW_OPTIONS = {"winogrande": 5, "paws_wiki": 9, "record": 0}
LEFT_OUT = {"sentiment140": 4, "arc_challenge": 2, "arc_easy": 2}  # Of 12 rows: neutral ones; a key without a choice.


def task_of(name, rows, *, evaluation="generate"):
    """The dataset's declaration over other rows, each under all ten templates in training."""
    dataset = DATASETS[name]
    return TemplatedTask(
        name=name,
        source=InMemorySource(data={"train": list(rows), "test": list(rows)}),
        cluster=dataset.cluster or "coreference",
        templates=SETS[dataset.template_set],
        options=dataset.options,
        metrics=RANK_METRICS if evaluation == "rank" else dataset.metrics,
        normalizer=dataset.normalizer,
        references=dataset.references,
        evaluation=evaluation,
        license=dataset.license,
        corpora=dataset.corpora,
        group=dataset.group,
        templates_per_row=0,
    )


def normalized(name, row):
    return DATASETS[name].normalizer(row)


def checked_renderings(name, rows, *, dropped=0):
    """Renders rows under all templates, looks at every text, and returns the renderings of training."""
    task, counts = task_of(name, rows), Counter()
    examples = list(iter_rendered(task, "train", dropped=counts))
    retained = len(rows) - dropped
    assert counts[DROPPED_BY_NORMALIZER] == counts.total() == dropped
    assert Counter(example.template for example in examples) == dict.fromkeys(range(10), retained)
    for example in examples:
        template, rendered = task.templates[example.template], example.rendered
        place = f"{name}, template {example.template}: {rendered}"
        assert rendered.inputs.strip() and rendered.targets.strip(), place
        if template.direction == "forward":
            assert rendered.targets in rendered.options, place
            shows = template.shows_options or name == "record"
            assert shows == all(f"\n- {option}" in rendered.inputs for option in rendered.options), place
    # Ranking refuses a right answer that is none of the options.
    ranked = list(iter_rendered(task_of(name, rows, evaluation="rank"), "test"))
    assert len(ranked) == retained and all(len(set(example.rendered.options)) >= 2 for example in ranked)
    return examples


def test_there_are_33_sets_for_37_datasets():
    assert len(DATASETS) == 37
    assert set(SETS) == {dataset.template_set for dataset in DATASETS.values()} and len(SETS) == 33
    assert all(dataset.corpora for dataset in DATASETS.values())
    assert sum(len(load.template_sets(f"{FOLDER}{file}.yaml")) for file in FILES) == 33


def test_datasets_that_share_rows_share_their_corpus():
    by_corpus = {}
    for dataset in DATASETS.values():
        assert len(dataset.corpora) == 1 and dataset.corpora[0] == dataset.corpora[0].lower()
        by_corpus.setdefault(dataset.corpora[0], []).append(dataset.name)
    shared = {corpus: sorted(names) for corpus, names in by_corpus.items() if len(names) > 1}
    assert shared == {
        "anli": ["anli_r1", "anli_r2", "anli_r3"],
        "mnli": ["mnli_matched", "mnli_mismatched"],
        "arc": ["arc_challenge", "arc_easy"],
    }


def test_a_set_has_ten_templates_with_the_published_numbers_of_inversions_and_of_options_shown(subtests):
    for name, templates in SETS.items():
        with subtests.test(name):
            inverted = INVERTED.get(name, 0)
            assert len(templates) == len({(t.inputs, t.targets) for t in templates}) == 10
            assert sum(t.direction == "inverted" for t in templates) == inverted
            assert sum(t.shows_options for t in templates) == SHOW_OPTIONS.get(name, 10 - inverted)
            assert not any(t.shows_options for t in templates if t.direction == "inverted")
            # The first n templates are a task of their own, which must be one that can be evaluated.
            assert [t.direction for t in templates] == sorted(t.direction for t in templates)


def test_forward_templates_ask_for_the_answer_and_inverted_ones_for_another_field(subtests):
    for name in SETS:
        with subtests.test(name):
            revealing = {
                "answer",
                "others",
                "relation",
                "bearing",
                "kind",
                "verdict",
                "counterpart",
                "answers",
                "options",
            }
            for template in SETS[name]:
                shown, asked = (set(re.findall(r"{(\w+)}", side)) for side in (template.inputs, template.targets))
                assert not shown & asked and len(asked) == 1, template
                if template.direction == "forward":
                    assert template.targets == "{answer}" and not shown & revealing, template
                else:
                    assert not asked & revealing, template


def test_an_inverted_template_contains_the_class_of_its_target(subtests):
    for name, says_the_class in {
        "rte": "relation",
        "anli": "relation",
        "cb": "bearing",
        "qnli": "relation",
        "snli": "relation",
        "stsb": "answer",
        "imdb_reviews": "answer",
        "sentiment140": "answer",
        "sst2": "answer",
        "yelp_polarity_reviews": "answer",
        "copa": "answer",
        "piqa": "answer",
        "story_cloze": "answer",
        "cola": "answer",
        "trec": "kind",
        "multirc": "verdict",
        "arc": "answer",
    }.items():
        with subtests.test(name):
            inverted = [template for template in SETS[name] if template.direction == "inverted"]
            assert inverted and all("{" + says_the_class + "}" in template.inputs for template in inverted)


def test_templates_are_written_cleanly(subtests):
    for name in SETS:
        with subtests.test(name):
            for template in SETS[name]:
                for text in (template.inputs, template.targets):
                    assert text == text.strip() and "  " not in text and "\n\n\n" not in text, template
                    assert not any(doubled in text for doubled in ("??", "?.", "..", " .", " ,", "\t", " \n", "\n ")), (
                        template
                    )
                    # Questions have their mark, so that templates add none.
                    assert not re.search(r"question\d?}\"?\?", text), template
                    assert not re.search(r"}[a-z]", text), template
                for placeholder in ("{options_}", "{options_str}"):
                    if placeholder in template.inputs:
                        assert template.inputs.endswith("\n" + placeholder), template


def test_templates_put_the_text_in_different_places(subtests):
    for name in SETS:
        with subtests.test(name):
            begins = sum(template.inputs.startswith("{") for template in SETS[name])
            assert 0 < begins < 7, begins
            assert len({template.inputs[:12] for template in SETS[name] if not template.inputs.startswith("{")}) > 1


@pytest.mark.tensorflow
def test_every_template_renders_rows_of_the_declared_features(subtests, tmp_path):
    for name in DATASETS:
        with subtests.test(name):
            features, full_name = declared_features(DATASETS[name].tfds, data_dir=tmp_path)
            assert full_name == (NEWER_IN_TFDS | DEFAULT_CONFIGS).get(name, DATASETS[name].tfds.replace(":", "/"))
            rows = mocked_rows(features, count=12, given=MOCKED.get(name))
            examples = checked_renderings(name, rows, dropped=LEFT_OUT.get(name, 0))
            for example in examples:
                assert not set("{}") & set(example.rendered.inputs + example.rendered.targets), example
                assert "??" not in example.rendered.inputs, example
            if isinstance(DATASETS[name].options, tuple):  # Every class came up.
                answers = {fields["answer"] for row in rows if (fields := normalized(name, row))}
                assert answers == set(DATASETS[name].options)


LABELS = {"trec": "label-coarse", **dict.fromkeys(("arc_easy", "arc_challenge", "openbookqa"), "answerKey")}
ALWAYS_LABELED = ("sentiment140", "bool_q")


@pytest.mark.tensorflow
def test_rows_without_a_label_are_dropped(subtests, tmp_path):
    for name in [name for name in DATASETS if name not in ALWAYS_LABELED]:
        with subtests.test(name):
            features, _ = declared_features(DATASETS[name].tfds, data_dir=tmp_path)
            (row,) = mocked_rows(features, count=1, given=MOCKED.get(name))
            without = {"answers": []} if name == "record" else {LABELS.get(name, "label"): -1}
            assert set(without) <= set(row) and normalized(name, row) is not None
            assert normalized(name, row | without) is None


@pytest.mark.tensorflow
def test_answers_name_the_classes_of_tfds(subtests, tmp_path):
    for name, classes in {
        "rte": {"entailment": "yes", "not_entailment": "no"},
        "qnli": {"entailment": "yes", "not_entailment": "no"},
        "wnli": {"not_entailment": "no", "entailment": "yes"},
        "cb": {"entailment": "Yes", "contradiction": "No", "neutral": "Uncertain"},
        "anli_r1": {"e": "Yes", "n": "Not enough information", "c": "No"},
        "mnli_matched": {"entailment": "yes", "neutral": "cannot tell", "contradiction": "no"},
        "mnli_mismatched": {"entailment": "yes", "neutral": "cannot tell", "contradiction": "no"},
        "snli": {"entailment": "yes", "neutral": "maybe", "contradiction": "no"},
        "glue_mrpc": {"not_equivalent": "no", "equivalent": "yes"},
        "glue_qqp": {"not_duplicate": "no", "duplicate": "yes"},
        "paws_wiki": {"different_meaning": "no", "paraphrase": "yes"},
        "imdb_reviews": {"neg": "negative", "pos": "positive"},
        "yelp_polarity_reviews": {"1": "negative", "2": "positive"},
        "sst2": {"negative": "negative", "positive": "positive"},
        "cola": {"unacceptable": "unacceptable", "acceptable": "acceptable"},
        "wic": {"False": "different senses", "True": "the same sense"},
        "wsc": {"False": "no", "True": "yes"},
        "multirc": {"False": "no", "True": "yes"},
        "trec": {
            "DESC": "description",
            "ENTY": "thing",
            "ABBR": "abbreviation",
            "HUM": "person or group",
            "NUM": "number or date",
            "LOC": "place",
        },
        "ag_news_subset": {
            "World": "World",
            "Sports": "Sports",
            "Business": "Business",
            "Sci/Tech": "Science and technology",
        },
    }.items():
        with subtests.test(name):
            features, _ = declared_features(DATASETS[name].tfds, data_dir=tmp_path)
            names = features[LABELS.get(name, "label")].names
            rows = mocked_rows(features, count=len(names))
            assert {label: normalized(name, row)["answer"] for label, row in zip(names, rows, strict=True)} == classes
            assert DATASETS[name].options == tuple(classes.values())


def test_the_class_has_the_words_of_the_answer():
    texts = {"premise": "P.", "hypothesis": "H.", "question": "Q?", "sentence": "S."}
    bearings = [normalized("cb", {**texts, "label": label})["bearing"] for label in range(3)]
    assert [("not" in bearing, "whether" in bearing) for bearing in bearings] == [(0, 0), (1, 0), (0, 1)]
    for name, words in {"anli_r2": ("must", "may", "cannot"), "snli": ("certainly", "may", "cannot")}.items():
        for label, word in enumerate(words):
            assert word in normalized(name, {**texts, "context": "P.", "label": label})["relation"].split()
    relations = [normalized("rte", {**texts, "label": label})["relation"] for label in range(2)]
    assert relations == ["follows from", "does not follow from"]
    assert [normalized("qnli", {**texts, "label": label})["relation"] for label in range(2)] == [
        "answers",
        "leaves unanswered",
    ]


def test_multirc_knows_paragraph_question_and_answer_apart():
    idx = {"paragraph": 3, "question": 17, "answer": 4}
    row = {"paragraph": "P", "question": "Q?", "answer": "A", "label": 1, "idx": idx}
    fields = normalized("multirc", row)
    assert (fields["paragraph_index"], fields["question_index"], fields["answer_index"]) == (3, 17, 4)
    assert fields["group"] == "3/17" and fields["answer"] == "yes" and fields["verdict"] == "a right answer"
    tested = list(iter_rendered(task_of("multirc", [row, {**row, "label": 0}]), "test"))
    assert [example.group for example in tested] == ["3/17", "3/17"]


def test_neutral_tweets_are_dropped_and_counted():
    rows = [{"text": f"tweet {polarity}", "polarity": polarity} for polarity in range(5)]
    checked_renderings("sentiment140", rows, dropped=1)
    assert [(normalized("sentiment140", row) or {}).get("answer") for row in rows] == [
        "negative", "negative", None, "positive", "positive",
    ]  # fmt: skip


def test_scores_are_rounded_to_the_nearest_option_and_halves_to_the_even_one():
    row, scores = {"sentence1": "A", "sentence2": "B"}, (0.4, 0.5, 1.5, 2.5, 3.6, 5.0)
    assert [normalized("stsb", {**row, "label": score})["answer"] for score in scores] == ["0", "0", "2", "2", "4", "5"]


def test_copa_knows_what_the_premise_is_of_the_answer():
    row = {"premise": "P.", "choice1": "A.", "choice2": "B.", "question": "cause", "label": 0}
    assert normalized("copa", row)["counterpart"] == "effect"
    assert normalized("copa", {**row, "question": "effect"})["counterpart"] == "cause"
    inputs = {example.rendered.inputs for example in checked_renderings("copa", [row])}
    assert "A.\n\nName something that could be the effect of this." in inputs


def test_arc_uses_letters_and_retains_questions_with_four_choices(subtests):
    for name in ("arc_easy", "arc_challenge"):
        with subtests.test(name):
            choices = {"text": ["a", "b", "c", "d"], "label": [3, 1, 0, 2]}
            row = {"question": "Q?", "choices": choices, "answerKey": 0}
            fields = normalized(name, row)
            assert (fields["answer"], fields["others"]) == ("c", "a; b; d")
            three = {**row, "choices": {"text": ["a", "b", "c"], "label": [0, 1, 2]}}
            checked_renderings(name, [row, three], dropped=1)


def test_questions_of_boolq_are_questions():
    row = {"title": "T", "passage": "P", "question": "is it so ?", "answer": False}
    assert normalized("bool_q", row)["question"] == "Is it so?"
    assert all(example.rendered.inputs.count("Is it so?") == 1 for example in checked_renderings("bool_q", [row]))


def test_record_completes_its_query_and_shows_its_options_itself():
    row = {
        "passage": "Ann met Bo.\n@highlight\nThey met",
        "query": "@placeholder's\n car broke",
        "entities": ["Ann", "Bo", "Ann"],
        "answers": ["Bo", "Ann", "Bo"],
    }
    fields = normalized("record", row)
    assert (fields["query"], fields["options"]) == ("...", ["Ann's car broke", "Bo's car broke"])
    (tested,) = iter_rendered(task_of("record", [row]), "test")
    assert tested.rendered.references == ("Bo's car broke", "Ann's car broke")
    assert tested.rendered.inputs.endswith("OPTIONS:\n- Ann's car broke\n- Bo's car broke")
    assert "highlight" not in tested.rendered.inputs


def test_marks_of_other_programs_are_undone():
    imdb = normalized("imdb_reviews", {"text": "Fun.<br /><br />See it!", "label": 1})
    assert imdb == {"text": "Fun.\n\nSee it!", "answer": "positive"}
    assert normalized("anli_r3", {"context": "A.<br>B.", "hypothesis": "C.", "label": 0})["premise"] == "A.\nB."
    assert normalized("yelp_polarity_reviews", {"text": 'A \\""nice\\"" bar.\\nGo.', "label": 0})["text"] == (
        'A "nice" bar.\nGo.'
    )
    quora = {"question1": 'What is ""this""?', "question2": "What is f''(x)?", "label": 0}
    assert normalized("glue_qqp", quora) == {
        "question1": 'What is "this"?',
        "question2": "What is f''(x)?",
        "answer": "no",
    }
    hellaswag = {
        "activity_label": "Cooking",
        "context": "[header] How to cook [title] Start. [step] Take a pan",
        "endings": ["and heat it. [substeps] Slowly.", "b", "c", "d"],
        "label": 0,
    }
    fields = normalized("hellaswag", hellaswag)
    assert fields["context"] == "How to cook\nStart.\nTake a pan" and fields["answer"] == "and heat it. Slowly."


def test_the_fact_of_openbookqa_fits_into_a_sentence():
    question = {"stem": "Cats", "choice_A": "purr", "choice_B": "bark", "choice_C": "moo", "choice_D": "hiss!"}
    fields = normalized("openbookqa", {"question": question, "fact1": "cats purr.", "answerKey": 0})
    assert (fields["fact"], fields["answer"], fields["others"]) == ("cats purr", "purr", "bark; moo; hiss!")


# Instances of Super-NaturalInstructions that lost a choice.
REAL_LEFT_OUT = {"arc_challenge": 12, "arc_easy": 21}
MOST_ROWS = 300


@pytest.mark.shared_data
def test_every_template_renders_real_rows(subtests, shared_data):
    for name in REAL_ROWS:
        with subtests.test(name):
            rows = REAL_ROWS[name](shared_data)
            left_out = [row for row in rows if normalized(name, row) is None]
            assert len(rows) >= 50 and len(left_out) == REAL_LEFT_OUT.get(name, 0)
            examples = checked_renderings(name, [row for row in rows if row not in left_out][:MOST_ROWS])
            if isinstance(DATASETS[name].options, tuple):
                assert {normalized(name, row)["answer"] for row in rows} == set(DATASETS[name].options)
            copies = sum(
                example.rendered.targets.lower() in example.rendered.inputs.lower()
                for example in examples
                if SETS[DATASETS[name].template_set][example.template].direction == "inverted"
            )
            assert copies <= 0.02 * len(examples)
