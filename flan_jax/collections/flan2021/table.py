"""The 70 datasets of FLAN 2021 (Wei et al. 2021, arXiv:2109.01652), one row each; `splits` has their clusters.

Columns: name, TFDS's spelling, windows of its splits, training rows, normalizer. The names of classes are in the order
of TFDS's class numbers, which for CB differs from the related datasets. Documents are not truncated here: the export
truncates tokens. All correct answers of a dataset count, including those of DROP and QuAC that the released code
ignores. The target of an unanswerable question is one word that its templates announce, also for QuAC.
"""

from flan_jax.collections.flan2021 import own_normalizers as own
from flan_jax.collections.flan2021 import repairs
from flan_jax.collections.flan2021.fields import Fields, From
from flan_jax.collections.flan2021.normalizers import ClassOfTexts, OneOfOptions, line_breaks, one_line, typed_quotes
from flan_jax.collections.flan2021.own_normalizers import NO_YES
from flan_jax.collections.flan2021.records import FlanDataset, Windows, row

FIRST = "train[:30000]"
FIRST_30000: Windows = (FIRST, "train[-200:]", "validation")
FIRST_30000_TEST: Windows = (FIRST, "train[-200:]", "test")
OWN_VALIDATION: Windows = (FIRST, "validation[:200]", "test")
# For training splits of a few hundred rows.
LAST_50: Windows = ("train[:-50]", "train[-50:]", "validation")
LAST_100: Windows = ("train[:-100]", "train[-100:]", "validation")
LAST_200: Windows = ("train[:-200]", "train[-200:]", "validation")
LAST_200_TEST: Windows = ("train[:-200]", "train[-200:]", "test")
OPINIONS: Windows = ("train[:-600]", "train[-600:-500]", "train[-500:]")

BLEU = "bleu(tokenizer=intl)"  # T5's metric, which FLAN uses.

YES_NO = ("yes", "no")
SENTIMENTS = ("negative", "positive")
NEUTRAL = 2  # Of Sentiment140's polarities 0 to 4; only its test split has neutral ones.
# Neutral rows are dropped. The released code defines this filter without applying it, and calls them negative.
POLARITIES = {0: "negative", 1: "negative", 3: "positive", 4: "positive"}

PREMISE_AND_HYPOTHESIS = {"premise": "premise", "hypothesis": "hypothesis"}
TWO_SENTENCES = {"sentence1": "sentence1", "sentence2": "sentence2"}
TEXT, SENTENCE = {"text": "text"}, {"sentence": "sentence"}

_ANLI = ClassOfTexts(
    {"premise": "context", "hypothesis": "hypothesis"},
    ("Yes", "Not enough information", "No"),
    tidy=line_breaks,
    words={
        "relation": (
            "must be true if the text above is",
            "may or may not be true if the text above is",
            "cannot be true if the text above is",
        )
    },
)
_CB = ClassOfTexts(
    PREMISE_AND_HYPOTHESIS,
    ("Yes", "No", "Uncertain"),
    tidy=typed_quotes,
    words={
        "bearing": (
            "makes clear that this is so",
            "makes clear that this is not so",
            "leaves open whether this is so",
        )
    },
)
_MNLI = ClassOfTexts(PREMISE_AND_HYPOTHESIS, ("yes", "cannot tell", "no"))
_SNLI = ClassOfTexts(
    PREMISE_AND_HYPOTHESIS,
    ("yes", "maybe", "no"),
    words={"relation": ("is certainly true of", "may or may not be true of", "cannot be true of")},
)
_TREC = ClassOfTexts(
    {"question": "text"},
    ("description", "thing", "abbreviation", "person or group", "number or date", "place"),
    label="label-coarse",
    words={
        "kind": (
            "a description or an explanation",
            "a thing of some kind",
            "an abbreviation or what one stands for",
            "a person or a group of people",
            "a number, a date or an amount",
            "a place",
        )
    },
)

_TARGET = From("target", one_line)
# GEM's training rows have a target and no references, its evaluation rows both.
_REFERENCES = From(("target", "references"), repairs.distinct_lines)
_GEM = {"text": _TARGET, "texts": _REFERENCES}


def _mnli(which: str) -> FlanDataset:
    # Both have the same training rows, so that MNLI enters a training mixture twice, as in the release.
    windows = (FIRST, "train[-200:]", f"validation_{which}")
    return row(f"mnli_{which}", "glue/mnli:2.0.0", windows, 392_500, _MNLI, corpus="mnli", templates="mnli")


def _squad(name: str, version: str, size: int, *, answer: From, answers: From) -> FlanDataset:
    title = From("title", repairs.spaced)
    normalizer = Fields(
        {"title": title, "context": "context", "question": "question", "answer": answer, "answers": answers}
    )
    return row(
        name, f"squad/{version}:3.0.0", FIRST_30000, size, normalizer,
        corpus="squad", metric="squad", references="answers", license="CC BY-SA 4.0",
    )  # fmt: skip


def _formatting(name: str, windows: Windows, size: int, normalizer: Fields) -> FlanDataset:
    """Returns a task over the English side of ParaCrawl; its windows overlap those of no other task, except in test."""
    return row(
        name, "para_crawl/enda:1.2.0", windows, size, normalizer,
        corpus="para_crawl", metric="edit_similarity", license="CC0",
    )  # fmt: skip


def _languages(code: str, language: str) -> Fields:
    return Fields({"sent1": "en", "sent2": code}, given={"lang1": "English", "lang2": language})


def _wmt16(code: str, language: str, size: int) -> FlanDataset:
    return row(
        f"wmt16_translate_{code}en", f"wmt16_translate/{code}-en:1.0.0", OWN_VALIDATION, size,
        _languages(code, language), corpus="wmt16", templates="wmt16_translate", metric=BLEU,
    )  # fmt: skip


# fmt: off
_CHOICES = (
    row("anli_r1", "anli/r1:0.1.0", ("train", "validation[:200]", "test"), 16_940, _ANLI,
        corpus="anli", templates="anli", license="CC BY-NC 4.0"),
    row("anli_r2", "anli/r2:0.1.0", OWN_VALIDATION, 45_460, _ANLI,
        corpus="anli", templates="anli", license="CC BY-NC 4.0"),
    row("anli_r3", "anli/r3:0.1.0", OWN_VALIDATION, 100_450, _ANLI,
        corpus="anli", templates="anli", license="CC BY-NC 4.0"),
    row("cb", "super_glue/cb:1.0.2", LAST_50, 200, _CB, metric="macro_f1"),
    _mnli("matched"),
    _mnli("mismatched"),
    row("qnli", "glue/qnli:2.0.0", FIRST_30000, 104_540,
        ClassOfTexts({"question": "question", "sentence": "sentence"}, YES_NO,
                     words={"relation": ("answers", "leaves unanswered")}),
        license="CC BY-SA 4.0"),
    row("rte", "super_glue/rte:1.0.2", LAST_200, 2_290,
        ClassOfTexts(PREMISE_AND_HYPOTHESIS, YES_NO, words={"relation": ("follows from", "does not follow from")})),
    row("snli", "snli:1.1.0", OWN_VALIDATION, 549_360, _SNLI, license="CC BY-SA 4.0"),
    row("wnli", "glue/wnli:2.0.0", ("train[:-30]", "train[-30:]", "validation"), 600,
        ClassOfTexts(TWO_SENTENCES, NO_YES), license="CC BY 4.0"),
    row("glue_mrpc", "glue/mrpc:2.0.0", LAST_200, 3_460, ClassOfTexts(TWO_SENTENCES, NO_YES),
        corpus="mrpc", metric="positive_f1"),
    row("glue_qqp", "glue/qqp:2.0.0", FIRST_30000, 363_640,
        ClassOfTexts({"question1": "question1", "question2": "question2"}, NO_YES, tidy=own.doubled_quotes),
        corpus="qqp", metric="positive_f1"),
    row("paws_wiki", "paws_wiki:1.1.0", OWN_VALIDATION, 49_400,
        ClassOfTexts(TWO_SENTENCES, NO_YES, tidy=typed_quotes), corpus="paws"),
    row("stsb", "glue/stsb:2.0.0", LAST_100, 5_640, own.stsb,
        options=("0", "1", "2", "3", "4", "5"), metric="correlation", license="CC BY-SA 4.0"),
    row("imdb_reviews", "imdb_reviews/plain_text:1.0.0", LAST_200_TEST, 24_800,
        ClassOfTexts(TEXT, SENTIMENTS, tidy=line_breaks), corpus="imdb"),
    row("sentiment140", "sentiment140:1.0.0", FIRST_30000_TEST, 1_599_800,
        ClassOfTexts(TEXT, POLARITIES, label="polarity", dropped_labels=(NEUTRAL,)), options=SENTIMENTS),
    row("sst2", "glue/sst2:2.0.0", FIRST_30000, 67_140, ClassOfTexts(SENTENCE, SENTIMENTS)),
    row("yelp_polarity_reviews", "yelp_polarity_reviews:0.2.0", FIRST_30000_TEST, 559_800,
        ClassOfTexts(TEXT, SENTIMENTS, tidy=own.unescaped), corpus="yelp"),
    row("wic", "super_glue/wic:1.0.2", LAST_200, 5_220,
        ClassOfTexts({"word": "word", **TWO_SENTENCES}, ("different senses", "the same sense")),
        license="CC BY-NC 4.0"),
    row("cola", "glue/cola", LAST_200, 8_350, ClassOfTexts(SENTENCE, ("unacceptable", "acceptable"))),
    row("trec", "trec:1.0.0", LAST_200_TEST, 5_250, _TREC),
    row("ag_news_subset", "ag_news_subset:1.0.0", FIRST_30000_TEST, 119_800,
        ClassOfTexts({"title": "title", "text": "description"},
                     ("World", "Sports", "Business", "Science and technology")),
        corpus="ag_news"),
    row("definite_pronoun_resolution", "definite_pronoun_resolution:1.1.0", LAST_200_TEST, 1_120,
        OneOfOptions({"sentence": "sentence", "pronoun": "pronoun"}, "candidates")),
    row("winogrande", "winogrande:1.1.0", ("train_xl[:30000]", "train_xl[-200:]", "validation"), 40_190,
        own.winogrande, options="options", license="CC BY 4.0"),
    row("wsc", "super_glue/wsc:1.0.2", LAST_50, 500,
        ClassOfTexts({"text": "text", "noun": "span1_text", "pronoun": "span2_text"}, NO_YES), license="CC BY 4.0"),
    row("wsc273", "wsc273:1.0.0", ("", "", "test"), None, own.wsc273, options="options", license="CC BY 4.0"),
    row("copa", "super_glue/copa:1.0.2", LAST_50, 350, own.copa, options="options", license="BSD-2-Clause"),
    row("hellaswag", "hellaswag:1.1.0", FIRST_30000, 39_700,
        OneOfOptions({"context": "context", "activity": "activity_label"}, "endings",
                     tidy=own.without_marks, tidy_option=own.without_marks),
        license="MIT"),
    row("piqa", "piqa:1.0.0", LAST_100, 16_010, OneOfOptions({"goal": "goal"}, ("sol1", "sol2")), license="AFL-3.0"),
    # It has no training split with endings: as in the release, validation rows are trained on.
    row("story_cloze", "story_cloze/2016:1.0.0", ("validation[:-200]", "validation[-200:]", "test"), 1_670,
        OneOfOptions({"context": "context"}, "endings", first=1)),
    row("bool_q", "bool_q:1.0.0", LAST_200, 9_220, own.bool_q, corpus="boolq", options=NO_YES, license="CC BY-SA 3.0"),
    row("multirc", "super_glue/multirc:1.0.2", LAST_200, 27_040, own.multirc,
        options=NO_YES, metric="multirc", group="group"),
    row("openbookqa", "openbookqa:0.1.0", ("train", "validation[:200]", "test"), 4_950, own.openbookqa,
        options="options", license="Apache-2.0"),
    row("arc_challenge", "ai2_arc/ARC-Challenge:1.0.0", LAST_200_TEST, 910, own.arc,
        corpus="arc", templates="arc", options="options", license="CC BY-SA 4.0"),
    row("arc_easy", "ai2_arc/ARC-Easy:1.0.0", LAST_200_TEST, 2_040, own.arc,
        corpus="arc", templates="arc", options="options", license="CC BY-SA 4.0"),
    row("cosmos_qa", "cosmos_qa:1.0.0", LAST_200, 25_060,
        OneOfOptions({"context": "context", "question": "question"}, ("answer0", "answer1", "answer2", "answer3")),
        license="CC BY 4.0"),
    row("record", "super_glue/record:1.0.2", FIRST_30000, 100_520, own.record,
        options="options", metric="record", references="answers", license="Apache-2.0"),
)

_TEXTS = (
    row("aeslc", "aeslc:1.0.0", ("train", "validation[-200:]", "test"), 14_430,
        Fields({"body": From("email_body", one_line), "subject": From("subject_line", one_line)}), metric="rouge"),
    row("cnn_dailymail", "cnn_dailymail:3.1.0", OWN_VALIDATION, 287_040,
        Fields({"article": From("article", repairs.without_dateline), "highlights": "highlights"}), metric="rouge"),
    row("gigaword", "gigaword:1.2.0", OWN_VALIDATION, 2_044_370,
        Fields({"text": "document", "summary": "summary"}, drop_if=repairs.has_placeholders), metric="rouge"),
    row("multi_news", "multi_news:1.0.0", OWN_VALIDATION, 44_960,
        Fields({"articles": From("document", repairs.separate_articles),
                "summary": From("summary", repairs.without_dash)}),
        metric="rouge"),
    row("newsroom", "newsroom:1.0.0", OWN_VALIDATION, 994_560,
        Fields({"title": "title", "text": "text", "summary": "summary"}), metric="rouge"),
    row("samsum", "samsum:1.0.0", ("train", "validation[:200]", "test"), 14_730,
        Fields({"dialogue": From("dialogue", repairs.plain_chat), "summary": "summary"}),
        metric="rouge", license="CC BY-NC-ND 4.0"),
    # FLAN read it from "huggingface:xsum", which TFDS serves over a network; this is the same corpus, TFDS's own.
    row("xsum", "xsum:1.1.0", OWN_VALIDATION, 203_560,
        Fields({"article": "document", "summary": "summary"}), metric="rouge"),
    row("opinion_abstracts_rotten_tomatoes", "opinion_abstracts/rotten_tomatoes:1.0.0", OPINIONS, 3_130,
        Fields({"movie": From("_movie_name", repairs.spaced),
                "reviews": From("_critics/value", repairs.ten_numbered),
                "first_review": From("_critics/value", repairs.first),
                "consensus": "_critic_consensus"}),
        corpus="opinion_abstracts", metric="rouge"),
    row("opinion_abstracts_idebate", "opinion_abstracts/idebate:1.0.0", OPINIONS, 1_650,
        Fields({"debate": From("_debate_name", repairs.spaced),
                "arguments": From("_argument_sentences/value", repairs.ten_numbered),
                "claim": "_claim"}),
        corpus="opinion_abstracts", metric="rouge"),
    row("wiki_lingua_english_en", "gem/wiki_lingua_english_en:1.1.0", OWN_VALIDATION, 99_000,
        Fields({"article": "source", "summary": "target"}),
        corpus="wiki_lingua", metric="rouge", license="CC BY-NC-SA 3.0"),
    row("web_nlg_en", "gem/web_nlg_en:1.1.0", FIRST_30000, 35_220,
        Fields({"facts": From("input", repairs.triples), **_GEM}),
        corpus="web_nlg", metric="rouge", references="texts", license="CC BY-NC-SA 4.0"),
    row("common_gen", "gem/common_gen:1.1.0", FIRST_30000, 67_180,
        Fields({"concepts": From("concepts", repairs.with_commas), "concept_lines": From("concepts", repairs.on_lines),
                "sentence": _TARGET, "sentences": _REFERENCES}),
        metric="rouge", references="sentences", license="MIT"),
    row("e2e_nlg", "gem/e2e_nlg:1.1.0", FIRST_30000, 33_320,
        Fields({"facts": From("meaning_representation", repairs.pairs), **_GEM}),
        metric="rouge", references="texts", license="CC BY-SA 4.0"),
    row("dart", "gem/dart:1.1.0", FIRST_30000, 62_450,
        Fields({"facts": From("tripleset", repairs.facts_in_line), "fact_lines": From("tripleset", repairs.fact_lines),
                **_GEM}),
        metric="rouge", references="texts", license="MIT"),
    _squad("squad_v1", "v1.1", 87_390,
           answer=From("answers/text", repairs.first), answers=From("answers/text", repairs.distinct)),
    _squad("squad_v2", "v2.0", 130_110,
           answer=From(("is_impossible", "answers/text"), repairs.answer_if_any),
           answers=From(("is_impossible", "answers/text"), repairs.answers_if_any)),
    row("drop", "drop:2.0.0", (FIRST, "train[-200:]", "dev"), 77_200,
        Fields({"passage": "passage", "question": "question", "answer": "answer",
                "answers": From(("answer", "validated_answers"), repairs.distinct)}),
        metric="squad", references="answers", license="CC BY-SA 4.0"),
    row("trivia_qa", "trivia_qa/rc:1.1.0", FIRST_30000, 87_420,
        Fields({"question": "question", "answer": "answer/normalized_value",
                "answers": From(("answer/normalized_value", "answer/normalized_aliases"), repairs.distinct)}),
        metric="trivia_qa", references="answers"),
    row("natural_questions", "natural_questions_open:1.0.0", FIRST_30000, 87_720,
        Fields({"question": From("question", repairs.as_question), "answer": From("answer", repairs.first),
                "answers": From("answer", repairs.distinct)}),
        metric="trivia_qa", references="answers", license="CC BY-SA 3.0"),
    # As in the released code, a conversation is one example: all its questions, and all its answers.
    row("coqa", "coqa:1.0.0", ("train[:-100]", "train[-100:]", "test"), 7_090,
        Fields({"story": "story", "questions": From("questions", repairs.numbered),
                "answers": From("answers/input_text", repairs.numbered)}),
        metric="squad"),
    # As in the released code, a row is one turn of a conversation, without the turns before it.
    row("quac", "quac:1.0.0", FIRST_30000, 83_360,
        Fields({"title": "title", "section": "section_title", "background": "background",
                "context": From("context", repairs.without_end_mark), "question": "question",
                "answer": From("orig_answer/text", repairs.answer_in_words),
                "answers": From(("orig_answer/text", "answers/text"), repairs.answers_in_words)}),
        metric="trivia_qa", references="answers", license="CC BY-SA 4.0"),
    row("math_dataset", "math_dataset/algebra__linear_1d:1.0.0", FIRST_30000_TEST, 1_999_780,
        Fields({"question": "question", "answer": "answer"}), license="Apache-2.0"),
    _formatting("true_case", (FIRST, "train[30000:30200]", "train[-3000:]"), 29_260,
                Fields({"lower": From("en", repairs.lower_case), "text": "en"}, drop_if=repairs.same_in_lower_case)),
    _formatting("fix_punct", ("train[30200:60200]", "train[60200:60400]", "train[-3000:]"), 28_070,
                Fields({"bare": From("en", repairs.without_punctuation), "text": "en"},
                       drop_if=repairs.same_without_punctuation)),
    _formatting("word_segment", ("train[60400:90400]", "train[90400:90600]", "train[-3000:]"), 30_000,
                Fields({"joined": From("en", repairs.without_spaces), "text": "en"})),
    row("para_crawl_enes", "para_crawl/enes:1.2.0", (FIRST, "train[-1200:-1000]", "train[-1000:]"), 30_000,
        _languages("es", "Spanish"), corpus="para_crawl", templates="para_crawl", metric=BLEU, license="CC0"),
    row("wmt14_enfr", "wmt14_translate/fr-en:1.0.0", OWN_VALIDATION, 40_835_840,
        _languages("fr", "French"), corpus="wmt14", metric=BLEU),
    _wmt16("cs", "Czech", 52_335_360),
    _wmt16("de", "German", 4_548_800),
    _wmt16("fi", "Finnish", 2_073_360),
    _wmt16("ro", "Romanian", 610_320),
    _wmt16("ru", "Russian", 2_516_160),
    _wmt16("tr", "Turkish", 205_750),
)
# fmt: on

DATASETS = {dataset.name: dataset for dataset in (*_CHOICES, *_TEXTS)}
"""By name: 37 datasets whose answers are chosen from options, with 33 sets of templates, and 33 with free text."""
