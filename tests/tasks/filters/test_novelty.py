"""Novelty by ROUGE-L: the same verdicts as comparing all with all by the reference scorer, with far fewer comparisons."""

import pytest

from flan_jax.draws import Draws
from flan_jax.tasks.filters import novelty
from flan_jax.tasks.filters.novelty import Novelty, least_common, longest_common, rouge_words
from flan_jax.tasks.filters.texts import FileTexts
from tests.tasks.judging import judged, retained

# Few words, so that texts are often alike; many repeats, so that occurrences count.
WORDS = [
    "write",
    "a",
    "a",
    "a",
    "poem",
    "about",
    "the",
    "the",
    "sea",
    "song",
    "old",
    "man",
    "short",
    "long",
    "on",
    "it",
]


def drawn_texts(count):
    """Texts of 4 to 12 words; in every third, later ones differ in none to half of the words."""
    texts = []
    for i in range(count):
        words = [Draws(i // 3, j).choice(WORDS) for j in range(4 + Draws(i // 3).below(9))]
        for j in range(Draws(i, "changes").below(1 + len(words) // 2) if i % 3 else 0):
            words[Draws(i, "where", j).below(len(words))] = Draws(i, "what", j).choice(WORDS)
        texts.append(" ".join(words))
    return texts


def all_with_all(texts, threshold):
    from rouge_score import rouge_scorer

    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    found = []
    for text in texts:
        if all(round(scorer.score(text, other)["rougeL"].fmeasure, 9) <= threshold for other in found):
            found.append(text)
    return found


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.85])
def test_the_retained_texts_are_those_of_the_reference_scorer(threshold):
    texts = drawn_texts(150)
    expected = all_with_all(texts, threshold)
    assert retained(Novelty(field="t", threshold=threshold), texts)[0] == expected
    assert 30 < len(expected) < 130


def test_only_texts_that_share_rare_words_are_compared(monkeypatch):
    texts = [f"tell me what number{i} and number{i + 1} and number{i + 2} are" for i in range(0, 3000, 3)]
    calls, is_like = [], novelty.Pool._is_similar
    monkeypatch.setattr(novelty.Pool, "_is_similar", lambda *both: calls.append(1) or is_like(*both))
    assert len(retained(Novelty(field="t"), texts)[0]) == 1000
    assert len(calls) < 1000  # Of half a million pairs.


def test_the_limit_itself_is_novel_enough():
    # 7 of 10 words in common are 0.7 exactly; 8 are more.
    ten = "a b c d e f g h i j".split()
    seven, eight = " ".join([*ten[:7], "x", "y", "z"]), " ".join([*ten[:8], "x", "y"])
    assert judged(Novelty(field="t", against=(" ".join(ten),)), [seven]) == [None]
    assert judged(Novelty(field="t", against=(" ".join(ten),)), [eight]) == ["t: not novel (ROUGE-L above 0.7)"]
    assert least_common(90, 90, threshold=0.7) == 64  # 0.7 * 180 is 125.99999999999999 to a computer.


def test_texts_in_another_script_are_never_similar():
    assert judged(Novelty(field="t"), ["写一首诗", "写一首诗"]) == [None, None]


def test_rows_of_one_instruction_may_share_a_verdict():
    rows = ["write a poem about cats", "write a poem about cats", "write a long poem about cats", "add two numbers"]
    bad = "t: not novel (ROUGE-L above 0.7)"
    assert judged(Novelty(field="t"), rows) == [None, bad, bad, None]
    assert judged(Novelty(field="t", once=True), [*rows, rows[2]]) == [None, None, bad, None, bad]


def test_rows_are_compared_with_the_texts_of_files(tmp_path):
    (tmp_path / "seeds.jsonl").write_text('{"q": "write a poem about cats"}\n')
    seeds = FileTexts(files=(tmp_path / "seeds.jsonl",), fields=("q",))
    rule = Novelty(field="t", against=seeds)
    assert judged(rule, ["write a poem about cats"]) != [None]
    assert rule.revision() and rule.files() == (str(tmp_path / "seeds.jsonl"),) and Novelty(field="t").revision() == ""


@pytest.mark.parametrize(("first", "second", "length"), [("", "a", 0), ("abcbdab", "bdcaba", 4), ("aaa", "aa", 2)])
def test_the_longest_common_subsequence_is_found(first, second, length):
    assert longest_common(first, second) == longest_common(second, first) == length


def test_words_are_split_as_by_rouge():
    from rouge_score import tokenize

    text = "Don't—stop! 3.5 naïve 'steps'\n\t(now_here)"
    assert rouge_words(text) == tokenize.tokenize(text, None)


def test_a_threshold_is_between_0_and_1():
    with pytest.raises(ValueError, match="Novelty.threshold: expected a number above 0 and below 1, got 1"):
        Novelty(field="t", threshold=1)
