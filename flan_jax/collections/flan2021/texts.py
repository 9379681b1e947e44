"""The datasets of FLAN 2021 whose answers are free text (Wei et al. 2021, arXiv:2109.01652): 33 of the 70.

Names, TFDS names and split expressions are those of the released code; the templates, in `templates/flan2021`, are this
project's own words. Sizes are those of the training splits before the limit of 30,000 rows. Documents are not cut here:
the export cuts tokens.
"""

from flan_jax.collections.flan2021.answers import ANSWERS
from flan_jax.collections.flan2021.descriptions import DESCRIPTIONS
from flan_jax.collections.flan2021.records import FlanDataset
from flan_jax.collections.flan2021.rewriting import REWRITING
from flan_jax.collections.flan2021.summaries import SUMMARIES

DATASETS: tuple[FlanDataset, ...] = (*SUMMARIES, *DESCRIPTIONS, *ANSWERS, *REWRITING)
