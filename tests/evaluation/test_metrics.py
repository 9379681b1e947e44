import math
import random
import re
import unicodedata

import pytest

from flan_jax.evaluation.metrics import METRICS, metric
from flan_jax.evaluation.rank_metrics import OptionScores


def score(name, references, predictions):
    return next(iter(METRICS[name].fn(references, predictions).values()))


@pytest.mark.parametrize(
    ("name", "reference", "prediction", "wanted"),
    [
        ("exact_match", "The Cat!", "the  cat", 100),
        ("exact_match", "the cat", "cat", 0),  # Articles stay, unlike SQuAD's.
        ("exact_match", "'Paris'", "“paris.”", 100),
        ("exact_match", "(B)", "b", 100),
        ("exact_match", "don't", "don’t", 100),
        ("exact_match", "-5", "−5", 100),
        ("exact_match", "42", "42.", 100),
        ("exact_match", "北京", "北京。", 100),
        ("exact_match", "", " ", 100),
        ("exact_match", "-5", "5", 0),
        ("exact_match", "3.14", "314", 0),
        ("exact_match", "a+b", "a b", 0),
        ("exact_match", "a+b", "a-b", 0),
        ("exact_match", "C++", "C", 0),
        ("exact_match", "C#", "C", 0),
        ("exact_match", "50%", "50", 0),
        ("exact_match", "$5", "5", 0),
        ("exact_match", "$5", "€5", 0),
        ("exact_match", "5!", "5", 0),
        ("exact_match", "n!", "n", 0),
        ("exact_match", "x²", "x2", 0),
        ("exact_match", "1/2", "12", 0),
        ("exact_match", "1,2", "12", 0),
        ("exact_match", "12:30", "1230", 0),
        ("exact_match", "a*b", "ab", 0),
        ("exact_match", "x_1", "x1", 0),
        ("exact_match", "!x", "x", 0),
        ("exact_match", "<", ">", 0),
        ("exact_match", ".", "", 0),
        ("superni_exact_match", "The Cat!", "the  cat", 100),
        ("superni_exact_match", "the cat", "cat", 0),
        ("superni_exact_match", "co-op", "coop", 100),
        ("superni_exact_match", "-5", "5", 100),  # As published.
        ("number_match", "1000", "So it is $1,000.", 100),
        ("number_match", "0.5", "1/2", 100),
        ("number_match", "1500", "1.5e3", 100),
        ("number_match", "50", "50%", 100),
        ("number_match", "50%", "0.5", 100),
        ("number_match", "$50", "50%", 0),
        ("number_match", "4.50", "4.5", 100),
        ("number_match", "-5", "−5", 100),
        ("number_match", "-5", "5", 0),
        ("number_match", "314", "3.14", 0),
        ("number_match", "42 apples", "the answer is 42.", 100),
        ("number_match", "4", "3-4", 0),
        ("number_match", "6", "2024-05-06", 0),
        ("number_match", "2024-05-06", "2024-05-06", 100),
        ("number_match", "2024-05-06", "2024-05-07", 0),
        ("number_match", "B12", "C12", 0),
        ("number_match", "-0.5", "−½", 100),
        ("number_match", "-0.5", "-.5", 100),
        ("number_match", "5", "2^5", 0),
        ("number_match", "yes", "Yes.", 100),
        ("number_match", "5", "five", 0),
        ("number_match", "9" * 5000, "9" * 5000, 100),
        ("number_match", "1e999", "1e998", 0),
        ("accuracy", "yes", " yes\n", 100),
        ("accuracy", "yes", "Yes", 0),
        ("f1", "the big red cat", "A red cat", 80),
        ("f1", "red red cat", "red cat cat", 200 * 2 / 6),
        ("f1", "", "the", 100),  # Both empty once articles are gone.
        ("f1", "", "cat", 0),
        ("squad", "the cat", "Cat.", 100),
        ("rouge_l", "police killed the gunman", "police kill the gunman", 100),  # Stemmed.
        ("rouge_l", "police killed the gunman", "the gunman kill police", 50),
        ("rouge_l", "!", "?", 0),  # No words at all.
        ("rouge_l", "кошки спят", "кошки едят", 50),
        ("rouge_l", "原因是天气", "天气", 400 / 7),
        ("rouge_l", "", "", 100),
        ("rouge_l", "", "cat", 0),
        ("f1", "北京市", "北京", 80),
        ("f1", "الكلب الكبير", "الكلب؟", 200 / 3),
        ("squad", "北京。", "北京", 100),
        ("rouge_l_xlingual", "кошки спят", "кошка спит", 700 / 9),  # Seven of nine letters stand.
        ("rouge_l_xlingual", "原因", "结果", 0),
        ("rouge_l_xlingual", "killed the Gunman", "kill the gunman", 100 / 3),  # Neither stemmed nor lower-cased.
        ("rouge_l_xlingual", "déjà vu", "de\u0301ja\u0300 vu", 100),  # Composed or not.
        ("edit_similarity", "abc", "", 0),
        ("edit_similarity", "abcd", "bcde", 50),
        ("edit_similarity", "", "", 100),
    ],
)
def test_texts_score_as_their_papers_define(name, reference, prediction, wanted):
    assert score(name, [[reference]], [prediction]) == pytest.approx(wanted)


EQUAL_TEXTS = {
    "Arabic": "الكلب الكبير نائم هنا",
    "Hindi": "बड़ा कुत्ता यहाँ सो रहा है",
    "Chinese": "大狗在这里睡觉",
    "Japanese": "大きな犬はここで寝ている",
    "Thai": "สุนัขตัวใหญ่นอนอยู่ที่นี่",
    "Korean": "큰 개가 여기서 자고 있다",
    "Russian": "большая собака спит здесь",
    "Greek": "ο μεγάλος σκύλος κοιμάται",
    "Hebrew": "הכלב הגדול ישן כאן",
    "Georgian": "დიდი ძაღლი აქ სძინავს",
    "Khmer": "ឆ្កែធំកំពុងដេក",
    "Vietnamese": "con chó lớn ngủ ở đây",
    "an accent alone": "é",
    "emoji": "🐕 🐈",
    "mixed": "GPT-4 は 大きい model です",
}


@pytest.mark.parametrize("text", EQUAL_TEXTS.values(), ids=EQUAL_TEXTS)
@pytest.mark.parametrize("name", ["exact_match", "rouge_l", "rouge", "rouge_l_xlingual", "f1", "squad", "trivia_qa"])
def test_equal_texts_score_100_in_every_script(name, text):
    assert score(name, [[text]], [text]) == pytest.approx(100)
    if name in ("exact_match", "rouge_l_xlingual"):  # The others count words of Latin script as published.
        assert score(name, [[text]], [unicodedata.normalize("NFD", text)]) == pytest.approx(100)
    assert score(name, [[text]], ["something else"]) < 20


LATIN_TEXTS = [
    ("The U.S. won 3-1, didn't it?", "the us didn't win: 3 1"),
    ("Déjà vu à l'école — naïve façade", "deja vu a l’école, naive facade"),
    ("Running dogs ran\nThe cat's 1,000 toys", "The dog runs.\nThe cats 1000 toy"),
    ("İstanbul'da ğ, ş ve Straße", "istanbul da strasse"),
    ("", "something"),
]


@pytest.mark.parametrize(("reference", "prediction"), LATIN_TEXTS)
def test_rouge_of_latin_text_is_the_packages(reference, prediction):
    from rouge_score.rouge_scorer import RougeScorer

    stemmed = RougeScorer(["rougeL"], use_stemmer=True).score(reference, prediction)
    assert score("rouge_l", [[reference]], [prediction]) == pytest.approx(100 * stemmed["rougeL"].fmeasure)
    types = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_lsum": "rougeLsum"}
    plain = RougeScorer(list(types.values())).score(reference, prediction)
    wanted = {name: pytest.approx(100 * plain[of].fmeasure) for name, of in types.items()}
    assert METRICS["rouge"].fn([[reference]], [prediction]) == wanted


def test_rouge_lsum_takes_sentences_in_any_order_by_t5s_rule():
    sentences = ["red cats ran . dogs sat . birds flew ."]
    assert METRICS["rouge"].fn([sentences], ["birds flew . red cats ran . dogs sat ."])["rouge_lsum"] == 100
    assert METRICS["rouge"].fn([["a . b . c ."]], ["c . a . b ."])["rouge_lsum"] == 100
    assert METRICS["rouge"].fn([["a.b.c."]], ["c.a.b."])["rouge_lsum"] < 100  # The rule needs spaces.


TEXT = "this is a string"


@pytest.mark.parametrize(
    ("name", "references", "predictions", "wanted"),
    [
        ("bleu(tokenizer=intl)", [[TEXT]] * 2, [TEXT] * 2, [100]),
        ("bleu(tokenizer=intl)", [[TEXT]] * 2, ["", ""], [0]),
        ("rouge", [[TEXT]] * 2, [TEXT] * 2, [100, 100, 100]),
        ("rouge", [[TEXT]] * 2, ["", ""], [0, 0, 0]),
        ("squad", [["", TEXT], [TEXT, TEXT]], [TEXT] * 2, [100, 100]),
        ("squad", [[TEXT, TEXT]] * 2, ["", ""], [0, 0]),
        ("squad", [["big moose", "hippo"], ["correct1"], ["correct2.1", "correct2.2"], ["a", "b"]],
         ["a big  Moose!", "wrong", "correct2.2", "c"], [50, 50]),
        ("squad", [["abc abd", "$$$$"]], ["abd"], [0, 200 / 3]),
        ("macro_f1", [["0"], ["1"], ["1"], ["2"]], ["0", "0", "2", "2"], [400 / 9, 50]),
        ("correlation", [["0"], ["2"], ["1"]], ["0", "1", "2"], [50, 50]),
        ("accuracy", [["0"], ["0"], ["2"], ["1"]], ["0", "1", "2", "1"], [75]),
        ("matthews_corrcoef", [["0"], ["0"], ["2"], ["1"]], ["0", "1", "2", "1"], [70, 75]),
        ("trivia_qa", [["", TEXT], [TEXT, TEXT]], [TEXT] * 2, [100, 100]),
        ("edit_distance", [["This is a test 1."], ["This is a test 1."]], ["This is a test 2.", "this is a test 1"],
         [1, 1, 1, 1, 2]),
    ],
)  # fmt: skip
def test_the_examples_of_t5s_own_tests(name, references, predictions, wanted):
    assert [*METRICS[name].fn(references, predictions).values()] == [pytest.approx(score) for score in wanted]


TEXT_METRICS = [
    "exact_match", "accuracy", "f1", "squad", "squad_v2", "trivia_qa", "rouge_l", "rouge", "rouge(use_stemmer=True)",
    "edit_similarity", "bleu", "chrf", "chrf++", "gleu",
]  # fmt: skip


@pytest.mark.parametrize("name", TEXT_METRICS)
def test_the_best_reference_of_a_row_counts_whatever_their_order(name):
    prediction = "a small red cat sat down"
    assert score(name, [["nothing alike", prediction]], [prediction]) == pytest.approx(100)
    assert score(name, [[prediction, "nothing alike"]], [prediction]) == pytest.approx(100)


@pytest.mark.parametrize("name", [*TEXT_METRICS, "macro_f1", "weighted_f1", "matthews_corrcoef", "correlation"])
def test_right_answers_score_100_and_two_of_four_score_less(name):
    is_of_ngrams = name in ("bleu", "rouge(use_stemmer=True)", "chrf++")
    texts = ["1 1 1 1", "2 2 2 2", "3 3 3 3", "4 4 4 4"] if is_of_ngrams else ["1", "2", "3", "4"]
    assert score(name, [[t] for t in texts], texts) == pytest.approx(100)
    assert 0 <= score(name, [[t] for t in texts], [*texts[:2], "9", "8"]) < 100


def test_a_mean_over_rows_is_in_percent():
    assert METRICS["exact_match"].fn([["1"], ["2"], ["3"], ["4"]], ["1", "2", "3", "9"]) == {"exact_match": 75.0}


def test_bleu_equals_sacrebleu_where_rows_have_unequal_numbers_of_references():
    import sacrebleu

    references = [["the cat is on the mat", "there is a cat on the mat"], ["it is a guide to action"]]
    predictions = ["the cat is on a mat", "it is a guide to the action"]
    streams = [[r[0] for r in references], [references[0][1], None]]
    wanted = sacrebleu.corpus_bleu(predictions, streams).score
    assert METRICS["bleu"].fn(references, predictions) == {"bleu": pytest.approx(wanted)}
    assert 0 < wanted < 100
    whole = sacrebleu.BLEU()
    whole.corpus_score(predictions, streams)
    assert METRICS["bleu"].measure(references, predictions).signature == str(whole.get_signature())


CHINESE = "今天天气很好，我们去公园散步。"


@pytest.mark.parametrize("tokenizer", ["intl", "zh", "char", "none"])
@pytest.mark.parametrize("text", [CHINESE, "It's 5 o'clock; the bus (no. 7) left — late!"])
def test_bleu_takes_sacrebleus_tokenizers_by_name(tokenizer, text):
    import sacrebleu

    name = f"bleu(tokenizer={tokenizer})"
    prediction = text.replace("5", "6").replace("公园", "学校")
    measured = METRICS[name].measure([[text]], [prediction])
    wanted = sacrebleu.corpus_bleu([prediction], [[text]], tokenize=tokenizer).score
    assert measured.scores() == {name: pytest.approx(wanted)}
    assert f"|tok:{tokenizer}|" in measured.signature


@pytest.mark.parametrize(
    ("name", "text", "note"),
    [
        ("bleu", CHINESE, r"use bleu\(tokenizer=zh\)"),
        ("bleu(tokenizer=intl)", EQUAL_TEXTS["Thai"], r"use bleu\(tokenizer=char\)"),
        ("bleu", EQUAL_TEXTS["Japanese"], r"use bleu\(tokenizer=char\)"),
        ("bleu(tokenizer=zh)", EQUAL_TEXTS["Japanese"], r"use bleu\(tokenizer=char\)"),
        ("bleu(tokenizer=zh)", CHINESE, "^$"),
        ("bleu(tokenizer=char)", EQUAL_TEXTS["Thai"], "^$"),
        ("bleu", EQUAL_TEXTS["Russian"], "^$"),
        ("bleu", "The word 北 means north", "^$"),
    ],
)
def test_a_tokenizer_that_cannot_split_a_script_is_noted(name, text, note):
    assert re.search(note, METRICS[name].measure([[text]], [text]).note)


def test_a_tokenizer_whose_package_is_missing_is_refused():
    name = "bleu(tokenizer=ja-mecab)"
    if METRICS[name].lacks:
        with pytest.raises(ValueError, match=r'needs the package ipadic: pip install "sacrebleu\[ja\]"'):
            metric(name)
    with pytest.raises(KeyError, match="a metric must be one of .*; got 'bleu"):
        metric("bleu(tokenizer=jp)")


def test_standard_errors_are_seeded_and_those_of_a_mean_are_its_spread():
    references, predictions = [["1"]] * 400, ["1"] * 300 + ["2"] * 100
    measured = METRICS["exact_match"].measure(references, predictions)
    assert measured.standard_errors() == METRICS["exact_match"].measure(references, predictions).standard_errors()
    assert measured.standard_errors()["exact_match"] == pytest.approx(100 * (0.75 * 0.25 / 400) ** 0.5, rel=0.15)
    assert math.isnan(METRICS["exact_match"].measure([["1"]], ["1"]).standard_errors()["exact_match"])
    assert METRICS["exact_match"].measure([["1"]] * 9, ["1"] * 9).standard_errors() == {"exact_match": 0.0}


@pytest.mark.parametrize("name", ["macro_f1", "bleu", "correlation", "squad", "rouge_l"])
def test_more_rows_have_smaller_standard_errors(name):
    words = ["1 2 3 4 5", "2 3 4 5 6", "7 8 9 1 2", "4 4 5 5 5"] if name == "bleu" else ["1", "2", "3", "4"]
    wrong = [words[0], words[1], words[2], words[0]]
    few, many = (
        next(iter(METRICS[name].measure([[w] for w in words * n], wrong * n).standard_errors().values()))
        for n in (2, 50)
    )
    assert 0 < many < few


@pytest.mark.parametrize("one", METRICS.values(), ids=METRICS)
def test_a_metric_gives_the_scores_that_it_declares(one):
    if one.lacks:
        pytest.skip(f"{one.lacks} is not installed")
    if one.kind == "rank":
        got = one.fn([OptionScores.choosing(0, 2), OptionScores.choosing(1, 2)], [{0}, {1}])
    else:
        facts = {"options": [["a", "b"]] * 2, "groups": ["x", "y"]}
        rule = '{"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}'
        references = [[rule]] * 2 if one.name == "ifeval" else [["a"], ["b"]]
        got = one.fn(references, ["a", "b"], **{fact: facts[fact] for fact in one.needs})
    assert next(iter(got)) == one.gives[0] and set(got) <= set(one.gives)


def test_macro_f1_weighs_rare_classes_as_much_as_common_ones():
    result = METRICS["macro_f1"].fn([["a"]] * 3 + [["b"]], ["a"] * 4)
    assert result == {"macro_f1": pytest.approx(100 * (6 / 7) / 2), "accuracy": 75.0}


def test_spearman_looks_at_order_alone_and_shares_tied_ranks():
    result = METRICS["correlation"].fn([["1"], ["2"], ["3"], ["4"]], ["1", "10", "10", "200"])
    assert result["spearman"] == pytest.approx(100 * 4.5 / (5 * 4.5) ** 0.5)
    assert result["pearson"] < result["spearman"]


def test_correlation_with_a_constant_or_with_words_is_zero():
    assert METRICS["correlation"].fn([["1"], ["2"]], ["3", "3"]) == {"pearson": 0.0, "spearman": 0.0}
    assert METRICS["correlation"].fn([["1"], ["2"]], ["high", "nan"]) == {"pearson": 0.0, "spearman": 0.0}


def test_an_unknown_metric_is_answered_with_the_nearest_name():
    assert metric("rouge_l").kind == "generate"
    with pytest.raises(
        KeyError, match="a metric must be one of exact_match, .*; got 'rouge_ll'. Did you mean 'rouge_l'"
    ):
        metric("rouge_ll")


@pytest.mark.parametrize(
    ("references", "predictions", "message"),
    [
        ([["a"], []], ["a", "b"], r"Row 1 must have .* references, got \[\]"),
        (["abc"], ["a"], "Row 0 must have .* references, got 'abc'"),
    ],
)
@pytest.mark.parametrize("name", ["accuracy", "rouge_l", "bleu", "macro_f1", "correlation"])
def test_rows_that_do_not_fit_are_refused(name, references, predictions, message):
    with pytest.raises(ValueError, match=message):
        METRICS[name].fn(references, predictions)


@pytest.mark.parametrize(
    ("reference", "prediction", "squad", "trivia_qa"),
    [
        ("rock-and-roll", "rock and roll", 0, 100),  # A space for each mark, or nothing.
        ("O’Neill", "O'Neill", 0, 100),  # The typographic apostrophe is no ASCII punctuation.
        ("U.S.", "US", 100, 0),
        ("the_end", "end", 0, 100),
    ],
)
def test_trivia_qa_reads_punctuation_as_space_where_squad_removes_it(reference, prediction, squad, trivia_qa):
    assert METRICS["squad"].fn([[reference]], [prediction])["em"] == squad
    assert METRICS["trivia_qa"].fn([[reference]], [prediction])["trivia_qa_em"] == trivia_qa


def test_record_counts_a_group_once_with_the_answers_of_all_its_rows():
    references, predictions = [["Rome"], ["Roma"], ["Pisa"]], ["Roma", "Roma", "Bari"]
    assert METRICS["record"].fn(references, predictions, groups=["q1", "q1", "q2"])["em"] == 50
    assert METRICS["record"].fn(references, predictions, groups=[None] * 3)["em"] == pytest.approx(100 / 3)
    assert METRICS["record"].fn(references, predictions)["em"] == pytest.approx(100 / 3)


PAIR = ("not_duplicate", "duplicate")


@pytest.mark.parametrize(
    ("wanted", "got", "f1", "accuracy"),
    [
        ([1, 1, 0, 0], [1, 0, 0, 0], 200 / 3, 75),
        ([1, 1, 0, 0], [1, 0, 1, 0], 50, 50),
        ([0, 0], [0, 0], 0, 100),  # No positive is there, none is found.
    ],
)
def test_positive_f1_is_of_the_second_option(wanted, got, f1, accuracy):
    result = METRICS["positive_f1"].fn([[PAIR[w]] for w in wanted], [PAIR[g] for g in got], options=[PAIR] * len(got))
    assert result == {"positive_f1": pytest.approx(f1), "accuracy": accuracy}


def test_an_answer_that_is_no_option_counts_as_the_wrong_one():
    references = [[PAIR[w]] for w in (1, 0, 0)]
    result = METRICS["positive_f1"].fn(references, [PAIR[1], "eh", PAIR[0]], options=[PAIR] * 3)
    assert result["positive_f1"] == pytest.approx(100 * 2 / 3)  # A false positive, by T5's definition.


def test_options_may_differ_by_row_as_templates_word_them():
    options = [("no", "yes"), ("false", "true")]
    result = METRICS["positive_f1"].fn([["yes"], ["true"]], ["yes", "false"], options=options)
    assert result["positive_f1"] == pytest.approx(100 * 2 / 3)


def test_multirc_takes_f1_over_all_answers_and_exact_match_by_question():
    yes_no = {"options": [("no", "yes")] * 5, "groups": ["q1", "q1", "q2", "q2", "q3"]}
    wanted = [["yes"], ["no"], ["yes"], ["no"], ["no"]]
    got = ["yes", "no", "yes", "yes", "no"]
    assert METRICS["multirc"].fn(wanted, got, **yes_no) == {"f1a": 80.0, "em_by_question": pytest.approx(200 / 3)}


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        (
            "positive_f1",
            {"options": [("a", "b", "c")]},
            r"Row 0 must have two options .* 'a', among .* \['a', 'b', 'c'",
        ),
        ("positive_f1", {"options": [("b", "c")]}, r"Row 0 must have two options with the right one, 'a'"),
        ("positive_f1", {"options": [("a", "a")]}, r"Row 0 must have two options"),
        ("positive_f1", {"options": []}, "0 options for 1 rows"),
        ("multirc", {"options": [("a", "b")], "groups": [None]}, "Row 0 belongs to no group"),
        ("multirc", {"options": [("a", "b")], "groups": ["x", "y"]}, "2 groups for 1 rows"),
        ("record", {"groups": []}, "0 groups for 1 rows"),
    ],
)
def test_facts_about_rows_that_do_not_fit_are_refused(name, more, message):
    with pytest.raises((ValueError, AssertionError), match=message):
        METRICS[name].fn([["a"]], ["a"], **more)


def test_a_metric_says_what_it_must_know_about_rows():
    assert {name: m.needs for name, m in METRICS.items() if m.needs} == {
        "mean_multiclass_f1": ("options",),
        "positive_f1": ("options",),
        "multirc": ("options", "groups"),
    }
    assert {name: m.takes for name, m in METRICS.items() if m.takes} == {"record": ("groups",)}


SENTENCES = "the cat sat on a mat, (hi) it's 北京 кошка don't. !".split()


def random_corpus(*, num_references):
    """Short sentences, some of them empty, with as many references each."""
    rng = random.Random(num_references)
    make = lambda: " ".join(rng.choices(SENTENCES, k=rng.randint(0, 8)))  # noqa: E731
    return [[make() for _ in range(num_references)] for _ in range(60)], [make() for _ in range(60)]


@pytest.mark.parametrize("num_references", [1, 3])
@pytest.mark.parametrize(("name", "word_order"), [("chrf", 0), ("chrf++", 2)])
def test_chrf_equals_sacrebleu_with_its_signature(name, word_order, num_references):
    from sacrebleu.metrics import CHRF

    references, predictions = random_corpus(num_references=num_references)
    published = CHRF(word_order=word_order)
    wanted = published.corpus_score(predictions, list(zip(*references, strict=True))).score
    measured = METRICS[name].measure(references, predictions)
    assert measured.scores() == {name: pytest.approx(wanted)} and 5 < wanted < 50
    assert measured.signature == str(published.get_signature())


@pytest.mark.parametrize("num_references", [1, 3])
def test_gleu_equals_nltk(num_references):
    from nltk.translate.gleu_score import corpus_gleu
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    split = lambda text: Tokenizer13a()(text).split()  # noqa: E731
    references, predictions = random_corpus(num_references=num_references)
    wanted = corpus_gleu([[split(r) for r in row] for row in references], [split(p) for p in predictions])
    assert METRICS["gleu"].fn(references, predictions) == {"gleu": pytest.approx(100 * wanted)}
    assert METRICS["gleu"].fn([[""]], [""]) == {"gleu": 0.0} == {"gleu": 100 * corpus_gleu([[[]]], [[]])}


def test_gleu_sums_over_rows_instead_of_averaging_them():
    long = "he was interested in world history because he read the book"
    result = METRICS["gleu"].fn([["yes"], [long]], ["no", long])["gleu"]
    assert result == pytest.approx(100 * 38 / 39)  # The mean of rows would be 50.


@pytest.mark.parametrize("name", ["rouge(use_stemmer=True)", "rouge(use_stemmer=False)"])
def test_all_four_rouge_scores_are_the_packages(name):
    from rouge_score.rouge_scorer import RougeScorer

    pairs = [*LATIN_TEXTS, ("Cats ran fast.\nDogs slept.", "Dogs sleep.\nThe cat ran fast.")]
    types = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL", "rouge_lsum": "rougeLsum"}
    scorer = RougeScorer(list(types.values()), use_stemmer="True" in name)
    for reference, prediction in pairs:
        wanted = scorer.score(reference, prediction)
        got = METRICS[name].fn([[reference]], [prediction])
        suffix = name.removeprefix("rouge")
        assert got == {kind + suffix: pytest.approx(100 * wanted[of].fmeasure) for kind, of in types.items()}


@pytest.mark.parametrize("language", ["zh", "th"])
def test_a_language_chooses_bleus_tokenizer(language):
    text = {"zh": CHINESE, "th": EQUAL_TEXTS["Thai"]}[language]
    tokenizer = {"zh": "zh", "th": "char"}[language]
    by_language = METRICS[f"bleu(language={language})"].measure([[text]], [text[:-3]])
    by_tokenizer = METRICS[f"bleu(tokenizer={tokenizer})"].measure([[text]], [text[:-3]])
    assert list(by_language.scores().values()) == list(by_tokenizer.scores().values())
    assert by_language.signature == by_tokenizer.signature and by_language.note == ""


def test_squad_2_scores_answerable_and_unanswerable_questions_apart():
    # By the official script's rule: an empty reference next to others does not count.
    references = [["the red cat", ""], [""], [""], ["Rome", "Roma"]]
    result = METRICS["squad_v2"].fn(references, ["a red dog", "", "Paris", "Roma"])
    assert result == {
        "em": 50.0, "f1": 62.5,
        "has_ans_em": 50.0, "has_ans_f1": 75.0,
        "no_ans_em": 50.0, "no_ans_f1": 50.0,
    }  # fmt: skip


@pytest.mark.parametrize("reference", ["", "unanswerable", "Unanswerable.", "the"])
@pytest.mark.parametrize(("prediction", "wanted"), [("", 100), ("unanswerable", 100), ("Paris", 0), ("北京", 0)])
def test_no_answer_is_the_empty_text_or_unanswerable(reference, prediction, wanted):
    result = METRICS["squad_v2"].fn([[reference]], [prediction])
    assert result["no_ans_em"] == result["no_ans_f1"] == wanted
    assert math.isnan(result["has_ans_em"])
    assert METRICS["squad_v2"].fn([["Rome"]], ["unanswerable"])["em"] == 0


@pytest.mark.parametrize(
    ("name", "labels"),
    [("weighted_f1", "aab"), ("matthews_corrcoef", "aaa"), ("macro_f1", "aaa"), ("matthews_corrcoef", "ab")],
)
def test_labels_of_one_class_and_constant_predictions_have_a_score(name, labels):
    result = METRICS[name].fn([[label] for label in labels], ["a"] * len(labels))
    assert result["accuracy"] == pytest.approx(100 * labels.count("a") / len(labels))
    wanted = {"aab": 100 * (2 / 3) * 0.8, "aaa": {"matthews_corrcoef": 0, "macro_f1": 100}.get(name), "ab": 0}[labels]
    assert result[name] == pytest.approx(wanted)


@pytest.mark.reference
@pytest.mark.parametrize(("name", "function", "options"), [
    ("weighted_f1", "f1_score", {"average": "weighted", "zero_division": 0}),
    ("matthews_corrcoef", "matthews_corrcoef", {}),
    ("mean_multiclass_f1", "f1_score", {"average": "macro", "zero_division": 0, "labels": list("abcd")}),
])  # fmt: skip
def test_scores_of_classes_equal_scikit_learn(name, function, options):
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    rng = random.Random(1)
    expected, got = rng.choices("abc", k=200), rng.choices("abce", k=200)
    facts = {"options": [list("abcd")] * 200} if METRICS[name].needs else {}
    wanted = getattr(sklearn_metrics, function)(expected, got, **options)
    assert METRICS[name].fn([[e] for e in expected], got, **facts)[name] == pytest.approx(100 * wanted)


def test_mean_multiclass_f1_counts_options_by_position_and_absent_ones_as_0():
    facts = {"options": [["no", "maybe", "yes"], ["false", "unsure", "true"]]}
    result = METRICS["mean_multiclass_f1"].fn([["no"], ["true"]], ["no", "yes"], **facts)
    assert result == {"mean_multiclass_f1": pytest.approx(100 / 3), "accuracy": 50.0}
    with pytest.raises(ValueError, match="Row 1 must have 3 different options with the right one, 'b', .*each option"):
        METRICS["mean_multiclass_f1"].fn([["no"], ["b"]], ["", ""], options=[["no", "maybe", "yes"], ["a", "b"]])


def test_edit_distance_takes_the_nearest_reference_and_counts_words_of_any_script():
    result = METRICS["edit_distance"].fn([["red cat", "Кошка спит"], ["a b c"]], ["кошка спит", ""])
    assert (result["mean_edit"], result["max_edit"], result["sum_edit"]) == (1.5, 3.0, 3.0)


def test_the_interval_of_a_mean_is_the_normal_one_and_seeded():
    references, predictions = [["1"]] * 400, ["1"] * 300 + ["2"] * 100
    measured = METRICS["exact_match"].measure(references, predictions)
    low, high = measured.intervals()["exact_match"]
    error = 100 * (0.75 * 0.25 / 400) ** 0.5
    assert (low, high) == (pytest.approx(75 - 1.96 * error, abs=0.5), pytest.approx(75 + 1.96 * error, abs=0.5))
    assert METRICS["exact_match"].measure(references, predictions).intervals() == measured.intervals()
    assert METRICS["exact_match"].measure([["1"]] * 9, ["1"] * 9).intervals() == {"exact_match": (100.0, 100.0)}
    assert all(map(math.isnan, METRICS["exact_match"].measure([["1"]], ["1"]).intervals()["exact_match"]))
