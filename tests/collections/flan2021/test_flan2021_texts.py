"""FLAN 2021's datasets with free answers: the published table, and every template on rows as TFDS declares them."""

import csv
import gzip
import io
import itertools
import json
from collections import Counter

import pytest

from flan_jax.collections.flan2021 import table
from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.normalizing import DROPPED_BY_NORMALIZER
from flan_jax.tasks.rendering import iter_rendered
from flan_jax.tasks.sources.file_sources import InMemorySource
from flan_jax.templates import load
from tests.tasks.mocked_rows import declared_features, mocked_rows

FILES = ("summaries", "data_to_text", "free_answers", "formatting", "translation")
FOLDER = load.__file__.removesuffix("load.py") + "flan2021/"
SETS = {name: templates for file in FILES for name, templates in load.template_sets(f"{FOLDER}{file}.yaml").items()}
DATASETS = {name: dataset for name, dataset in table.DATASETS.items() if not dataset.is_classification}

# Of these the versions of the published table are no longer in TFDS's code; the fields used are the same in its own.
NEWER_IN_TFDS = {"cnn_dailymail": "cnn_dailymail/3.4.0", "multi_news": "multi_news/2.1.0"}
# How many of the ten published templates of each set are inverted.
INVERTED = {
    "coqa": 1, "quac": 2, "drop": 3, "squad_v1": 2, "common_gen": 4, "dart": 2, "web_nlg_en": 2, "aeslc": 2,
    "cnn_dailymail": 3, "gigaword": 2, "multi_news": 2, "newsroom": 3, "opinion_abstracts_idebate": 4,
    "opinion_abstracts_rotten_tomatoes": 3, "samsum": 3, "wiki_lingua_english_en": 2, "xsum": 2, "true_case": 1,
    "word_segment": 2, "para_crawl": 4, "wmt14_enfr": 4, "wmt16_translate": 4,
}  # fmt: skip
ENGLISH = ("Hello, World! It is 5 pm.", "Is Bo's café open?", 'The "Old Mill" is shut.')
QUESTIONS = ("who wrote it", "Who wrote it?", "who wrote it ?")
MOCKED = {
    **{name: {"en": ENGLISH} for name in ("true_case", "fix_punct", "word_segment")},
    **{name: {"question": QUESTIONS} for name in ("natural_questions", "quac")},
    **{name: {"question": QUESTIONS[1:2]} for name in ("squad_v1", "squad_v2", "drop", "trivia_qa")},
}


def task_of(name, rows):
    """The dataset's declaration over other rows, each under all ten templates in training."""
    dataset = DATASETS[name]
    return TemplatedTask(
        name=name,
        source=InMemorySource(data={"train": list(rows), "test": list(rows)}),
        cluster=dataset.cluster,
        templates=SETS[dataset.template_set],
        options=dataset.options,
        metrics=dataset.metrics,
        normalizer=dataset.normalizer,
        references=dataset.references,
        license=dataset.license,
        corpora=dataset.corpora,
        templates_per_row=0,
    )


def normalized(name, row):
    return DATASETS[name].normalizer(row)


def checked_renderings(name, rows, *, dropped=0):
    """Renders rows under all templates, looks at every text, and returns the renderings of training."""
    task, counts = task_of(name, rows), Counter()
    examples = list(iter_rendered(task, "train", dropped=counts))
    assert counts[DROPPED_BY_NORMALIZER] == counts.total() == dropped
    assert len(examples) == 10 * (len(rows) - dropped)
    assert Counter(example.template for example in examples) == dict.fromkeys(range(10), len(rows) - dropped)
    for _, rendered, template, _ in examples:
        place = f"{name}, template {template}: {rendered}"
        assert rendered.inputs.strip() and rendered.targets.strip(), place
        fixed = task.templates[template].inputs
        assert len(rendered.inputs) >= len(fixed) - 20 * fixed.count("{"), place
    tested = list(iter_rendered(task, "test"))
    assert len(tested) == len(rows) - dropped
    for _, rendered, template, _ in tested:
        assert task.templates[template].direction == "forward"
        if task.references is not None:
            assert rendered.targets in rendered.references, (name, rendered)
    return examples


def test_there_are_28_sets_for_33_datasets():
    assert len(DATASETS) == 33
    assert set(SETS) == {dataset.template_set for dataset in DATASETS.values()} and len(SETS) == 28
    assert all(dataset.corpora for dataset in DATASETS.values())
    assert sum(len(load.template_sets(f"{FOLDER}{file}.yaml")) for file in FILES) == 28


def test_a_set_has_ten_templates_and_as_many_inverted_ones_as_published(subtests):
    for name, templates in SETS.items():
        with subtests.test(name):
            assert len(templates) == len({(t.inputs, t.targets) for t in templates}) == 10
            assert sum(t.direction == "inverted" for t in templates) == INVERTED.get(name, 0)


def test_a_template_does_not_reveal_its_target(subtests):
    for name in SETS:
        with subtests.test(name):
            for template in SETS[name]:
                asked_for = {field for field in template.fields if "{" + field + "}" in template.targets}
                shown = {field for field in template.fields if "{" + field + "}" in template.inputs}
                assert asked_for and shown and not asked_for & shown, template
                assert not template.shows_options


def test_templates_put_the_text_in_different_places(subtests):
    for name in SETS:
        with subtests.test(name):
            begins = sum(template.inputs.startswith("{") for template in SETS[name])
            ends = sum(template.inputs.endswith("}") for template in SETS[name])
            assert 1 <= begins <= 6 and 1 <= ends <= 8, (begins, ends)


def test_templates_are_written_cleanly(subtests):
    for name in SETS:
        with subtests.test(name):
            for template in SETS[name]:
                for text in (template.inputs, template.targets):
                    assert text == text.strip() and "  " not in text and "\n\n\n" not in text, template
                    assert not any(doubled in text for doubled in ("??", "question}?", "?.", "..", " .", " ,", "\t")), (
                        template
                    )


@pytest.mark.tensorflow
def test_every_template_renders_rows_of_the_declared_features(subtests, tmp_path):
    for name in DATASETS:
        with subtests.test(name):
            features, full_name = declared_features(DATASETS[name].tfds, data_dir=tmp_path)
            assert full_name == NEWER_IN_TFDS.get(name, DATASETS[name].tfds.replace(":", "/"))
            examples = checked_renderings(name, mocked_rows(features, count=12, given=MOCKED.get(name)))
            for _, rendered, template, _ in examples:
                assert not set("{}") & set(rendered.inputs + rendered.targets), (template, rendered)
                assert "??" not in rendered.inputs and "? ?" not in rendered.inputs, (template, rendered)


def test_translation_predicts_the_other_language_forward_and_english_or_the_language_inverted(subtests):
    for name in [name for name in DATASETS if name.startswith(("wmt", "para"))]:
        with subtests.test(name):
            code, set_name = name[-4:].replace("en", ""), DATASETS[name].template_set
            row = {"en": "Good morning.", code: "Xyz xyz."}
            targets = Counter(
                (SETS[set_name][e.template].direction, e.rendered.targets) for e in checked_renderings(name, [row])
            )
            back = {("inverted", "Good morning."): 4}
            if set_name != "para_crawl":
                language = normalized(name, row)["lang2"]
                back = {("inverted", "Good morning."): 3, ("inverted", language): 1}
            assert targets == {("forward", "Xyz xyz."): 6, **back}


def test_the_languages_are_named_rightly():
    languages = {name: DATASETS[name].normalizer.given["lang2"] for name in DATASETS if "lang2" in _given(name)}
    assert languages == {
        "para_crawl_enes": "Spanish", "wmt14_enfr": "French", "wmt16_translate_csen": "Czech",
        "wmt16_translate_deen": "German", "wmt16_translate_fien": "Finnish", "wmt16_translate_roen": "Romanian",
        "wmt16_translate_ruen": "Russian", "wmt16_translate_tren": "Turkish",
    }  # fmt: skip


def _given(name):
    return DATASETS[name].normalizer.given


def test_questions_end_with_one_question_mark():
    rows = [{"question": question, "answer": ["Ann", "Ann B."]} for question in QUESTIONS]
    for _, rendered, _, _ in checked_renderings("natural_questions", rows):
        assert rendered.inputs.lower().count("who wrote it?") == 1
        assert not any(wrong in rendered.inputs for wrong in ("??", "? ?", "it ?", "?."))


def test_all_right_answers_are_references():
    row = {"question": "Who?", "answer": ["Ann", "Ann B.", "Ann "]}
    (tested,) = iter_rendered(task_of("natural_questions", [row]), "test")
    assert tested.rendered.targets == "Ann" and tested.rendered.references == ("Ann", "Ann B.")
    assert normalized(
        "drop", {"passage": "P", "question": "Q?", "answer": "4", "validated_answers": ["four", "4", ""]}
    )["answers"] == ["4", "four"]
    gem = {"meaning_representation": "name[A]", "target": "It is A.", "references": ["It is A.", "A."]}
    assert normalized("e2e_nlg", gem) == {"facts": "name = A", "text": "It is A.", "texts": ["It is A.", "A."]}
    assert normalized("e2e_nlg", {**gem, "references": []})["texts"] == ["It is A."]
    trivia = {"question": "Q?", "answer": {"normalized_value": "oslo", "normalized_aliases": ["kristiania", "oslo"]}}
    assert normalized("trivia_qa", trivia)["answers"] == ["oslo", "kristiania"]


def test_questions_without_an_answer_are_answered_with_a_word_that_templates_announce():
    squad = {
        "title": "Oslo",
        "context": "Snow fell.",
        "question": "Why?",
        "is_impossible": True,
        "answers": {"text": []},
    }
    assert normalized("squad_v2", squad)["answers"] == [normalized("squad_v2", squad)["answer"]] == ["unanswerable"]
    answered = normalized("squad_v2", {**squad, "is_impossible": False, "answers": {"text": ["Snow", "snow", "Snow"]}})
    assert (answered["answer"], answered["answers"]) == ("Snow", ["Snow", "snow"])
    quac = {
        "title": "Oslo", "section_title": "Weather", "background": "A city.", "context": "Snow fell. CANNOTANSWER",
        "question": "Why?", "orig_answer": {"text": "CANNOTANSWER"}, "answers": {"text": ["CANNOTANSWER", "Snow fell."]},
    }  # fmt: skip
    fields = normalized("quac", quac)
    assert (fields["answer"], fields["answers"]) == ("unanswerable", ["unanswerable", "Snow fell."])
    assert fields["context"] == "Snow fell."
    for template in itertools.chain(SETS["squad_v2"], SETS["quac"]):
        assert ("unanswerable" in template.inputs) == (template.direction == "forward"), template


def test_a_conversation_of_coqa_is_one_example_with_all_its_turns():
    row = {"story": "Ann has a cat.", "questions": ["Who?", "What?"], "answers": {"input_text": ["Ann", "a cat"]}}
    fields = normalized("coqa", row)
    assert (fields["questions"], fields["answers"]) == ("1. Who?\n2. What?", "1. Ann\n2. a cat")


def test_formatting_makes_its_inputs_from_the_english_side():
    row = {"en": "Is Bo's Café open at 5?", "da": "?"}
    assert normalized("true_case", row) == {"lower": "is bo's café open at 5?", "text": row["en"]}
    assert normalized("fix_punct", row) == {"bare": "Is Bos Café open at 5", "text": row["en"]}
    assert normalized("word_segment", row) == {"joined": "IsBo'sCaféopenat5?", "text": row["en"]}


def test_rows_with_nothing_to_restore_are_dropped_and_counted():
    rows = [{"en": "no capitals."}, {"en": "No marks"}, {"en": "?!"}]
    checked_renderings("true_case", rows, dropped=2)
    checked_renderings("fix_punct", rows, dropped=2)
    checked_renderings("word_segment", rows)


def test_the_windows_of_formatting_do_not_overlap():
    used = []
    for name in ("true_case", "fix_punct", "word_segment"):
        for split in ("train", "validation"):
            first, last = DATASETS[name].splits[split].removeprefix("train[").removesuffix("]").split(":")
            used.append((int(first or 0), int(last)))
    assert used == sorted(used) and all(a[1] == b[0] for a, b in itertools.pairwise(used))
    assert {DATASETS[name].splits["test"] for name in ("true_case", "fix_punct", "word_segment")} == {"train[-3000:]"}


def test_masked_rows_of_gigaword_are_dropped_and_counted():
    documents = ("rain fell in oslo .", "UNK fell in oslo .", "rain fell on day ## .")
    rows = [{"document": document, "summary": "rain in oslo"} for document in documents]
    assert {e.rendered.inputs for e in checked_renderings("gigaword", rows, dropped=2)}


def test_rows_that_lack_a_text_are_dropped_and_counted():
    rows = [{"email_body": "Come\nat five.", "subject_line": subject} for subject in ("Dinner", "", " \n")]
    assert {e.rendered.targets for e in checked_renderings("aeslc", rows, dropped=2)} == {"Dinner", "Come at five."}


def test_opinions_are_numbered_and_the_first_ten_of_them():
    reviews = {"key": list("abcdefghijkl"), "value": [f"Review {i}." for i in range(12)]}
    row = {"_movie_name": "up_and_away", "_critics": reviews, "_critic_consensus": "Fine."}
    fields = normalized("opinion_abstracts_rotten_tomatoes", row)
    assert fields["reviews"].splitlines()[0::9] == ["1. Review 0.", "10. Review 9."]
    assert len(fields["reviews"].splitlines()) == 10
    assert (fields["movie"], fields["first_review"]) == ("up and away", "Review 0.")


def json_of(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return json.load(file)


def nq_open(data):
    with gzip.open(data / "nq_open/NQ-open.dev.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def e2e_nlg(data):
    text = gzip.decompress((data / "e2e_nlg/devset.csv.gz").read_bytes()).decode()
    rows = csv.DictReader(io.StringIO(text))
    return [{"meaning_representation": row["mr"], "target": row["ref"], "references": [row["ref"]]} for row in rows]


def dart(data):
    return [
        {
            "tripleset": [" ".join(triple) for triple in row["tripleset"]],  # As TFDS's code joins them.
            "target": row["annotations"][0]["text"],
            "references": [annotation["text"] for annotation in row["annotations"]],
        }
        for row in json_of(data / "dart/dart-v1.1.1-full-dev.json.gz")
    ]


def instances(data, path):
    return [(row["input"], row["output"]) for row in json_of(data / f"superni_flan_tasks/{path}.json.gz")["Instances"]]


def coqa(data):
    turns = [
        (*text.split(", question: "), out)
        for text, out in instances(data, "reading_comp/task918_coqa_answer_generation")
    ]
    rows = []
    for story, group in itertools.groupby(turns, key=lambda turn: turn[0]):
        group = list(group)
        answers = {"input_text": [out[0] for *_, out in group]}
        rows.append(
            {
                "story": story.removeprefix("story: "),
                "questions": [question for _, question, _ in group],
                "answers": answers,
            }
        )
    return rows


# Original files, and what Super-NaturalInstructions copied from the same corpora, in the shape of TFDS's rows.
REAL_ROWS = {
    "natural_questions": nq_open,
    "e2e_nlg": e2e_nlg,
    "dart": dart,
    "coqa": coqa,
    "gigaword": lambda data: [
        {"document": text, "summary": out[0]}
        for text, out in instances(data, "summarization/task288_gigaword_summarization")
    ],
    "samsum": lambda data: [
        {"dialogue": text, "summary": out[0]} for text, out in instances(data, "summarization/task1572_samsum_summary")
    ],
    "common_gen": lambda data: [
        {"concepts": text.split("#"), "target": out[0], "references": out}
        for text, out in instances(data, "struct_to_text/task102_commongen_sentence_generation")
    ],
    "math_dataset": lambda data: [
        {"question": text, "answer": out[0]}
        for text, out in instances(data, "misc/task835_mathdataset_answer_generation")
    ],
    "trivia_qa": lambda data: [
        {"question": text.removeprefix("Question:"), "answer": {"normalized_value": out[0], "normalized_aliases": out}}
        for text, out in instances(data, "closed_book_qa/task1564_triviaqa_answer_generation")
    ],
}


@pytest.mark.shared_data
def test_every_template_renders_real_rows(subtests, shared_data):
    for name in REAL_ROWS:
        with subtests.test(name):
            rows = REAL_ROWS[name](shared_data)[:500]
            left_out = 0
            if name == "gigaword":
                left_out = sum("UNK" in str(row) or "#" in str(row) for row in rows)
            if name == "trivia_qa":
                left_out = sum(row["answer"]["normalized_value"] == "" for row in rows)
            assert len(rows) - left_out >= 100
            examples = checked_renderings(name, rows, dropped=left_out)
            if name in ("natural_questions", "trivia_qa"):
                assert not any("??" in example.rendered.inputs for example in examples)
            if name == "dart":
                assert not any(cell in e.rendered.inputs for e in examples for cell in ("[TABLECONTEXT]", "[TITLE]"))
