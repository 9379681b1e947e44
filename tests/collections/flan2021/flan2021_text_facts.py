"""FLAN 2021's datasets with free answers as published: a literal copy of its table, for tests to compare with."""

from typing import NamedTuple


class Published(NamedTuple):
    cluster: str
    tfds: str
    train: str
    validation: str
    test: str
    metric: str
    template_set: str
    inverted: int
    size: int


# fmt: off
PUBLISHED = {
    "coqa": Published("conversational_qa", "coqa:1.0.0", "train[:-100]", "train[-100:]", "test", "squad", "coqa", 1, 7_090),
    "quac": Published("conversational_qa", "quac:1.0.0", "train[:30000]", "train[-200:]", "validation", "trivia_qa", "quac", 2, 83_360),
    "math_dataset": Published("math", "math_dataset/algebra__linear_1d:1.0.0", "train[:30000]", "train[-200:]", "test", "accuracy", "math_dataset", 0, 1_999_780),
    "natural_questions": Published("open_domain_qa", "natural_questions_open:1.0.0", "train[:30000]", "train[-200:]", "validation", "trivia_qa", "natural_questions", 0, 87_720),
    "trivia_qa": Published("open_domain_qa", "trivia_qa/rc:1.1.0", "train[:30000]", "train[-200:]", "validation", "trivia_qa", "trivia_qa", 0, 87_420),
    "drop": Published("reading_comprehension", "drop:2.0.0", "train[:30000]", "train[-200:]", "dev", "squad", "drop", 3, 77_200),
    "squad_v1": Published("reading_comprehension", "squad/v1.1:3.0.0", "train[:30000]", "train[-200:]", "validation", "squad", "squad_v1", 2, 87_390),
    "squad_v2": Published("reading_comprehension", "squad/v2.0:3.0.0", "train[:30000]", "train[-200:]", "validation", "squad", "squad_v2", 0, 130_110),
    "common_gen": Published("structure_to_text", "gem/common_gen:1.1.0", "train[:30000]", "train[-200:]", "validation", "rouge", "common_gen", 4, 67_180),
    "dart": Published("structure_to_text", "gem/dart:1.1.0", "train[:30000]", "train[-200:]", "validation", "rouge", "dart", 2, 62_450),
    "e2e_nlg": Published("structure_to_text", "gem/e2e_nlg:1.1.0", "train[:30000]", "train[-200:]", "validation", "rouge", "e2e_nlg", 0, 33_320),
    "web_nlg_en": Published("structure_to_text", "gem/web_nlg_en:1.1.0", "train[:30000]", "train[-200:]", "validation", "rouge", "web_nlg_en", 2, 35_220),
    "aeslc": Published("summarization", "aeslc:1.0.0", "train", "validation[-200:]", "test", "rouge", "aeslc", 2, 14_430),
    "cnn_dailymail": Published("summarization", "cnn_dailymail:3.1.0", "train[:30000]", "validation[:200]", "test", "rouge", "cnn_dailymail", 3, 287_040),
    "gigaword": Published("summarization", "gigaword:1.2.0", "train[:30000]", "validation[:200]", "test", "rouge", "gigaword", 2, 2_044_370),
    "multi_news": Published("summarization", "multi_news:1.0.0", "train[:30000]", "validation[:200]", "test", "rouge", "multi_news", 2, 44_960),
    "newsroom": Published("summarization", "newsroom:1.0.0", "train[:30000]", "validation[:200]", "test", "rouge", "newsroom", 3, 994_560),
    "opinion_abstracts_idebate": Published("summarization", "opinion_abstracts/idebate:1.0.0", "train[:-600]", "train[-600:-500]", "train[-500:]", "rouge", "opinion_abstracts_idebate", 4, 1_650),
    "opinion_abstracts_rotten_tomatoes": Published("summarization", "opinion_abstracts/rotten_tomatoes:1.0.0", "train[:-600]", "train[-600:-500]", "train[-500:]", "rouge", "opinion_abstracts_rotten_tomatoes", 3, 3_130),
    "samsum": Published("summarization", "samsum:1.0.0", "train", "validation[:200]", "test", "rouge", "samsum", 3, 14_730),
    "wiki_lingua_english_en": Published("summarization", "gem/wiki_lingua_english_en:1.1.0", "train[:30000]", "validation[:200]", "test", "rouge", "wiki_lingua_english_en", 2, 99_000),
    # Published as "huggingface:xsum".
    "xsum": Published("summarization", "xsum:1.1.0", "train[:30000]", "validation[:200]", "test", "rouge", "xsum", 2, 203_560),
    "fix_punct": Published("text_formatting", "para_crawl/enda:1.2.0", "train[30200:60200]", "train[60200:60400]", "train[-3000:]", "edit_similarity", "fix_punct", 0, 28_070),
    "true_case": Published("text_formatting", "para_crawl/enda:1.2.0", "train[:30000]", "train[30000:30200]", "train[-3000:]", "edit_similarity", "true_case", 1, 29_260),
    "word_segment": Published("text_formatting", "para_crawl/enda:1.2.0", "train[60400:90400]", "train[90400:90600]", "train[-3000:]", "edit_similarity", "word_segment", 2, 30_000),
    "para_crawl_enes": Published("translation", "para_crawl/enes:1.2.0", "train[:30000]", "train[-1200:-1000]", "train[-1000:]", "bleu", "para_crawl", 4, 30_000),
    "wmt14_enfr": Published("translation", "wmt14_translate/fr-en:1.0.0", "train[:30000]", "validation[:200]", "test", "bleu", "wmt14_enfr", 4, 40_835_840),
    "wmt16_translate_csen": Published("translation", "wmt16_translate/cs-en:1.0.0", "train[:30000]", "validation[:200]", "test", "bleu", "wmt16_translate", 4, 52_335_360),
    "wmt16_translate_deen": Published("translation", "wmt16_translate/de-en:1.0.0", "train[:30000]", "validation[:200]", "test", "bleu", "wmt16_translate", 4, 4_548_800),
    "wmt16_translate_fien": Published("translation", "wmt16_translate/fi-en:1.0.0", "train[:30000]", "validation[:200]", "test", "bleu", "wmt16_translate", 4, 2_073_360),
    "wmt16_translate_roen": Published("translation", "wmt16_translate/ro-en:1.0.0", "train[:30000]", "validation[:200]", "test", "bleu", "wmt16_translate", 4, 610_320),
    "wmt16_translate_ruen": Published("translation", "wmt16_translate/ru-en:1.0.0", "train[:30000]", "validation[:200]", "test", "bleu", "wmt16_translate", 4, 2_516_160),
    "wmt16_translate_tren": Published("translation", "wmt16_translate/tr-en:1.0.0", "train[:30000]", "validation[:200]", "test", "bleu", "wmt16_translate", 4, 205_750),
}
# fmt: on
