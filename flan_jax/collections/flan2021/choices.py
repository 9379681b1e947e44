"""The datasets of FLAN 2021 whose answers are chosen from options (Wei et al. 2021, arXiv:2109.01652): 37 of the 70.

They share 33 sets of templates, in `templates/flan2021`, which are this project's own words. Names, TFDS names and split
expressions are those of the released code; sizes are those of the training splits before the limit of 30,000 rows.
"""

from flan_jax.collections.flan2021.classes import SENTIMENT, WORDS_AND_TOPICS
from flan_jax.collections.flan2021.endings import COMMON_SENSE, COREFERENCE
from flan_jax.collections.flan2021.inference import ENTAILMENT, PARAPHRASE
from flan_jax.collections.flan2021.reading import KNOWLEDGE, READING, READING_WITH_COMMON_SENSE
from flan_jax.collections.flan2021.records import FlanDataset

DATASETS: tuple[FlanDataset, ...] = (
    *ENTAILMENT,
    *PARAPHRASE,
    *SENTIMENT,
    *WORDS_AND_TOPICS,
    *COREFERENCE,
    *COMMON_SENSE,
    *READING,
    *KNOWLEDGE,
    *READING_WITH_COMMON_SENSE,
)
