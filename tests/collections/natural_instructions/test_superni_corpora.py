"""Free-text sources become the corpora that hold-out goes by."""

import pytest

from flan_jax.collections.natural_instructions.corpora import corpora


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["snli"], ("snli",)),
        (["e_snli"], ("esnli", "snli")),  # Made of another corpus's rows: both.
        (["multinli"], ("mnli",)),
        (["wsc; enhanced_wsc"], ("wsc",)),  # Two in one, and one under two spellings.
        (["wsc_fiexed"], ("wsc",)),
        (["scitailv1.1"], ("scitail",)),
        (["Librispeech ASR,"], ("librispeech_asr",)),
        (["rocstories"], ("story_cloze",)),
        (["roc_stories"], ("story_cloze",)),
        (["synthetic"], ()),  # No corpus: two of these have nothing in common.
        (["missing", "qed"], ("qed", "natural_questions")),
        ([], ()),
    ],
)
def test_spellings_of_a_corpus_become_one_and_what_it_was_made_from_is_added(sources, expected):
    assert corpora(sources) == expected
