"""FLAN 2021's datasets with options as published: a literal copy of its tables, for tests to compare with."""

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
    show_options: int
    size: int | None


# fmt: off
PUBLISHED = {
    "copa": Published("common_sense", "super_glue/copa:1.0.2", "train[:-50]", "train[-50:]", "validation", "accuracy", "copa", 2, 8, 350),
    "hellaswag": Published("common_sense", "hellaswag:1.1.0", "train[:30000]", "train[-200:]", "validation", "accuracy", "hellaswag", 0, 10, 39_700),
    "piqa": Published("common_sense", "piqa:1.0.0", "train[:-100]", "train[-100:]", "validation", "accuracy", "piqa", 2, 8, 16_010),
    "story_cloze": Published("common_sense", "story_cloze/2016:1.0.0", "validation[:-200]", "validation[-200:]", "test", "accuracy", "story_cloze", 2, 8, 1_670),
    "definite_pronoun_resolution": Published("coreference", "definite_pronoun_resolution:1.1.0", "train[:-200]", "train[-200:]", "test", "accuracy", "definite_pronoun_resolution", 0, 10, 1_120),
    "winogrande": Published("coreference", "winogrande:1.1.0", "train_xl[:30000]", "train_xl[-200:]", "validation", "accuracy", "winogrande", 0, 5, 40_190),
    "wsc": Published("coreference", "super_glue/wsc:1.0.2", "train[:-50]", "train[-50:]", "validation", "accuracy", "wsc", 0, 10, 500),
    "anli_r1": Published("entailment", "anli/r1:0.1.0", "train", "validation[:200]", "test", "accuracy", "anli", 1, 9, 16_940),
    "anli_r2": Published("entailment", "anli/r2:0.1.0", "train[:30000]", "validation[:200]", "test", "accuracy", "anli", 1, 9, 45_460),
    "anli_r3": Published("entailment", "anli/r3:0.1.0", "train[:30000]", "validation[:200]", "test", "accuracy", "anli", 1, 9, 100_450),
    "cb": Published("entailment", "super_glue/cb:1.0.2", "train[:-50]", "train[-50:]", "validation", "macro_f1", "cb", 1, 9, 200),
    "mnli_matched": Published("entailment", "glue/mnli:2.0.0", "train[:30000]", "train[-200:]", "validation_matched", "accuracy", "mnli", 0, 10, 392_500),
    "mnli_mismatched": Published("entailment", "glue/mnli:2.0.0", "train[:30000]", "train[-200:]", "validation_mismatched", "accuracy", "mnli", 0, 10, 392_500),
    "qnli": Published("entailment", "glue/qnli:2.0.0", "train[:30000]", "train[-200:]", "validation", "accuracy", "qnli", 1, 9, 104_540),
    "rte": Published("entailment", "super_glue/rte:1.0.2", "train[:-200]", "train[-200:]", "validation", "accuracy", "rte", 1, 9, 2_290),
    "snli": Published("entailment", "snli:1.1.0", "train[:30000]", "validation[:200]", "test", "accuracy", "snli", 1, 9, 549_360),
    "wnli": Published("entailment", "glue/wnli:2.0.0", "train[:-30]", "train[-30:]", "validation", "accuracy", "wnli", 0, 10, 600),
    "cola": Published("linguistic_acceptability", "glue/cola", "train[:-200]", "train[-200:]", "validation", "accuracy", "cola", 2, 8, 8_350),
    "arc_challenge": Published("open_domain_qa", "ai2_arc/ARC-Challenge:1.0.0", "train[:-200]", "train[-200:]", "test", "accuracy", "arc", 3, 7, 910),
    "arc_easy": Published("open_domain_qa", "ai2_arc/ARC-Easy:1.0.0", "train[:-200]", "train[-200:]", "test", "accuracy", "arc", 3, 7, 2_040),
    "glue_mrpc": Published("paraphrase", "glue/mrpc:2.0.0", "train[:-200]", "train[-200:]", "validation", "positive_f1", "glue_mrpc", 0, 10, 3_460),
    "glue_qqp": Published("paraphrase", "glue/qqp:2.0.0", "train[:30000]", "train[-200:]", "validation", "positive_f1", "glue_qqp", 0, 10, 363_640),
    "paws_wiki": Published("paraphrase", "paws_wiki:1.1.0", "train[:30000]", "validation[:200]", "test", "accuracy", "paws_wiki", 0, 9, 49_400),
    "stsb": Published("paraphrase", "glue/stsb:2.0.0", "train[:-100]", "train[-100:]", "validation", "correlation", "stsb", 2, 8, 5_640),
    "trec": Published("question_classification", "trec:1.0.0", "train[:-200]", "train[-200:]", "test", "accuracy", "trec", 1, 9, 5_250),
    "cosmos_qa": Published("read_comp_and_common_sense", "cosmos_qa:1.0.0", "train[:-200]", "train[-200:]", "validation", "accuracy", "cosmos_qa", 2, 8, 25_060),
    "record": Published("read_comp_and_common_sense", "super_glue/record:1.0.2", "train[:30000]", "train[-200:]", "validation", "record", "record", 0, 0, 100_520),
    "bool_q": Published("reading_comprehension", "bool_q:1.0.0", "train[:-200]", "train[-200:]", "validation", "accuracy", "bool_q", 0, 10, 9_220),
    "multirc": Published("reading_comprehension", "super_glue/multirc:1.0.2", "train[:-200]", "train[-200:]", "validation", "multirc", "multirc", 2, 8, 27_040),
    "openbookqa": Published("reading_comprehension", "openbookqa:0.1.0", "train", "validation[:200]", "test", "accuracy", "openbookqa", 3, 7, 4_950),
    "imdb_reviews": Published("sentiment", "imdb_reviews/plain_text:1.0.0", "train[:-200]", "train[-200:]", "test", "accuracy", "imdb_reviews", 3, 7, 24_800),
    "sentiment140": Published("sentiment", "sentiment140:1.0.0", "train[:30000]", "train[-200:]", "test", "accuracy", "sentiment140", 4, 6, 1_599_800),
    "sst2": Published("sentiment", "glue/sst2:2.0.0", "train[:30000]", "train[-200:]", "validation", "accuracy", "sst2", 2, 8, 67_140),
    "yelp_polarity_reviews": Published("sentiment", "yelp_polarity_reviews:0.2.0", "train[:30000]", "train[-200:]", "test", "accuracy", "yelp_polarity_reviews", 3, 7, 559_800),
    "ag_news_subset": Published("summarization", "ag_news_subset:1.0.0", "train[:30000]", "train[-200:]", "test", "accuracy", "ag_news_subset", 2, 8, 119_800),
    "wic": Published("word_disambiguation", "super_glue/wic:1.0.2", "train[:-200]", "train[-200:]", "validation", "accuracy", "wic", 0, 10, 5_220),
    "wsc273": Published("", "wsc273:1.0.0", "", "", "test", "accuracy", "wsc273", 0, 10, None),
}
# fmt: on
