"""Leaks between what is trained on and what is held out, in words."""

import pytest

from flan_jax.data.holdout import Facts, HoldOut, in_words, leaks, parted, record, ways, with_origins


def facts(task, cluster="elsewhere", *, corpora=(), exemplars=()):
    return Facts(task=task, cluster=cluster, corpora=corpora, exemplar_corpora=exemplars)


ANLI = facts("anli", "entailment", corpora=("anli", "snli"))
RTE = facts("rte", "entailment", corpora=("rte",))


def words(*training, **held_out):
    return [str(leak) for leak in leaks(training, **held_out)]


def test_a_task_leaks_through_itself_its_cluster_its_corpora_and_its_exemplars():
    assert words(facts("good", "sums", corpora=("gsm8k",)), tasks=[ANLI]) == []
    assert words(facts("anli", "renamed"), tasks=[ANLI]) == ["'anli' is itself held out"]
    assert words(facts("cb", "entailment"), tasks=[ANLI]) == [
        "'cb' is of the held-out cluster 'entailment' (of 'anli')"
    ]
    assert words(facts("premises", corpora=("x", "snli")), tasks=[ANLI]) == [
        "'premises' is made from the held-out corpus 'snli' (of 'anli')"
    ]
    assert words(facts("shots", corpora=("x",), exemplars=("x", "snli")), tasks=[ANLI]) == [
        "'shots' shows exemplars from the held-out corpus 'snli' (of 'anli')"
    ]


def test_what_exemplars_share_with_the_rows_is_said_once():
    found = leaks([facts("t", corpora=("snli",), exemplars=("snli",))], tasks=[ANLI])
    assert [leak.through for leak in found] == ["corpus"]


def test_the_pool_of_a_held_out_task_is_nobodys_secret():
    """What a held-out task shows in its own prompts comes from a training split: training on that gives nothing away."""
    asked = facts("asked", "asking", corpora=("a",), exemplars=("b",))
    assert leaks([facts("t", corpora=("b",))], tasks=[asked]) == []


def test_clusters_and_corpora_may_be_held_out_by_name():
    hold_out = HoldOut(clusters=("entailment",), corpora=["gsm8k"])
    assert words(RTE, facts("sums", corpora=("gsm8k",)), facts("t"), hold_out=hold_out) == [
        "'rte' is of the held-out cluster 'entailment'",
        "'sums' is made from the held-out corpus 'gsm8k'",
    ]


def test_unnamed_clusters_have_nothing_in_common():
    for cluster in ("", "external", "user"):
        assert leaks([facts("mine", cluster)], tasks=[facts("yours", cluster)]) == []
        assert words(facts("mine", cluster), tasks=[facts("mine", cluster)]) == ["'mine' is itself held out"]


def test_a_corpus_made_from_another_gives_it_away_both_ways():
    squad, qnli = facts("squad", "reading", corpora=("squad",)), facts("qnli", "entailment", corpora=("qnli",))
    for training, held_out in ((squad, qnli), (qnli, squad)):
        assert words(training, tasks=[held_out]) == [
            f"'{training.task}' is made from the held-out corpus 'squad' (of '{held_out.task}')"
        ]
    # Siblings of one source, and what they share themselves is reported once.
    wnli, wsc, again = (facts(name, name, corpora=(name.rstrip("x"),)) for name in ("wnli", "wsc", "wscx"))
    assert [leak.name for leak in leaks([wnli], tasks=[wsc])] == ["winograd_schemas"]
    assert [leak.name for leak in leaks([again], tasks=[wsc])] == ["wsc"]
    assert with_origins(("dart",)) == ("dart", "e2e_nlg", "web_nlg")


def test_allowed_leaks_name_the_task_or_what_it_leaks_through():
    found = leaks([RTE, facts("premises", corpora=("snli",))], tasks=[ANLI])
    assert [leak.task for leak in found] == ["rte", "premises"]
    for allowed, refused in (((), 2), (("rte",), 1), (("entailment",), 1), (("snli", "rte"), 0), (("anli",), 2)):
        left, accepted = parted(found, allow_leak=allowed)
        assert (len(left), len(accepted)) == (refused, 2 - refused)
    assert ways(found) == ["entailment", "snli"]
    assert parted(found, allow_leak=ways(found))[0] == []


def test_long_lists_are_cut():
    many = [facts(f"t{i}", "entailment") for i in range(12)]
    message = in_words(leaks(many, tasks=[facts(f"held{i}", "entailment") for i in range(5)]))
    assert message.count("held-out cluster") == 8 and message.endswith("; and 4 more")
    assert "(of 'held0', 'held1', 'held2' and 2 more)" in message


def test_what_was_asked_and_allowed_is_written_down():
    hold_out = HoldOut(clusters=("entailment",), allow_leak=("rte",))
    assert record(hold_out, allowed=leaks([RTE], hold_out=hold_out)) == {
        "clusters": ["entailment"], "corpora": [], "tasks": [], "allow_leak": ["rte"],
        "allowed": ["'rte' is of the held-out cluster 'entailment'"],
    }  # fmt: skip


@pytest.mark.parametrize(("field", "value"), [("clusters", "entailment"), ("corpora", ("snli", 3))])
def test_a_hold_out_lists_names(field, value):
    with pytest.raises(ValueError, match=f"HoldOut.{field}: expected a list, each item a text, got "):
        HoldOut(**{field: value})
