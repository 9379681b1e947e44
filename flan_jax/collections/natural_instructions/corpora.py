"""The corpora that a task of Natural Instructions was made from, under the names that hold-out uses.

The dataset's "Source" field is free text: a corpus has several spellings, and a corpus derived from another one names
only itself. Both are corrected here, so that a task cannot leak a held-out corpus under another name.
"""

import re
from collections.abc import Iterable

NO_CORPUS = frozenset({"", "miscellaneous", "missing", "synthetic"})
"""Sources that are no corpus: rows written by a program or by the task's author."""

_ALIASES = {
    "abductive_nli": ("abductive_nli", "story_cloze"),
    "adversarial_qa": ("adversarial_qa", "squad"),
    "ambigqa": ("ambigqa", "natural_questions"),
    "aqua": ("aqua",),
    "aqua_rat": ("aqua",),
    "aquamuse": ("aquamuse", "natural_questions"),
    "commongen": ("common_gen",),
    "commonsenseqa": ("commonsense_qa",),
    "copa_hr": ("copa",),
    "cosmosqa": ("cosmos_qa",),
    "creak_2018": ("creak",),
    "defeasible_nli_atomic": ("defeasible_nli", "atomic", "snli"),
    "defeasible_nli_snli": ("defeasible_nli", "snli"),
    "disfl_qa": ("disfl_qa", "squad"),
    "e2e": ("e2e_nlg",),
    "e_snli": ("esnli", "snli"),
    "enhanced_wsc": ("wsc",),
    "eqasc": ("qasc",),
    "esnli": ("esnli", "snli"),
    "glucose": ("glucose", "story_cloze"),
    "hotpotqa": ("hotpot_qa",),
    "mathmatics_dataset": ("math_dataset",),
    "mathqa": ("math_qa", "aqua"),
    "math_qa": ("math_qa", "aqua"),
    "multinli": ("mnli",),
    "mwsc": ("wsc",),
    "paws_x": ("paws",),
    "qed": ("qed", "natural_questions"),
    "roc_stories": ("story_cloze",),
    "rocstories": ("story_cloze",),
    "rotten_tomatoe": ("rotten_tomatoes",),
    "scitailv1_1": ("scitail",),
    "semeval_2020_task4": ("sensemaking",),
    "squad2_0": ("squad",),
    "squad_v2": ("squad",),
    "storycloze": ("story_cloze",),
    "storycommonsense": ("storycommonsense", "story_cloze"),
    "sts_b": ("stsb",),
    "sst_2": ("sst2",),
    "tellmewhy": ("tellmewhy", "story_cloze"),
    "timetravel": ("timetravel", "story_cloze"),
    "triviaqa": ("trivia_qa",),
    "wiki_auto_all_data": ("wiki_auto",),
    "winograd_wsc": ("wsc",),
    "winowhy": ("winowhy", "wsc"),
    "wsc_fiexed": ("wsc",),
    "wsc_fixed": ("wsc",),
    "xcopa": ("copa",),
    "xcsr": ("x_csr", "commonsense_qa", "codah"),
    "x_csr": ("x_csr", "commonsense_qa", "codah"),
    "xl_wic": ("wic",),
    "xquad": ("squad",),
    "yelp_restaurant_review": ("yelp",),
}


def corpora(sources: Iterable[str]) -> tuple[str, ...]:
    """Returns the corpora in a "Source" list, each once, in the list's order.

    >>> corpora(["wsc; enhanced_wsc", "e_SNLI", "synthetic"])
    ('wsc', 'esnli', 'snli')
    """
    words = (_plain(word) for source in sources for word in re.split(r"[;,]", source))
    return tuple(dict.fromkeys(name for word in words if word not in NO_CORPUS for name in _ALIASES.get(word, (word,))))


def _plain(word: str) -> str:
    return re.sub(r"[^0-9a-z]+", "_", word.lower()).strip("_")
