"""The description of a mixture agrees with its export."""

import pytest

pytestmark = pytest.mark.tensorflow

LENGTHS = {"inputs": 16, "targets": 6}


def mixture(name, **changes):
    from flan_jax.tasks import mixture_description

    settings = {"split": "train", "steps": 10, "batch_size": 3, "lengths": LENGTHS, "export_dir": None}
    return mixture_description.mixture(name, **{**settings, **changes})


def test_a_mixture_reports_examples_cap_rate_share_and_epochs(registries, sums, plain):
    from flan_jax.data.rates import ProportionalRate

    registries.register_mixture("both", [("sums", ProportionalRate(maximum=2)), ("plain", 6)])
    found = mixture("both")
    of = {member["name"]: member for member in found["members"]}
    assert [(of[n]["examples"], of[n]["cap"], of[n]["rate"], of[n]["share_percent"]) for n in ("sums", "plain")] == [
        (3, 2.0, 2.0, 25.0),
        (2, None, 6.0, 75.0),
    ]
    # 30 examples are drawn: a quarter of them from 3, three quarters from 2.
    assert (of["sums"]["expected_epochs"], of["plain"]["expected_epochs"]) == (2.5, 11.25)
    assert found["examples"] == 5 and found["skipped"] == {}
    assert found["epochs"] == [
        "epochs in 10 steps: 2.5 (sums) to 11 (plain); each has every row of its task once",
    ]


def test_members_without_the_split_are_listed_with_the_reason(registries, sums, plain):
    registries.register_mixture("both", [("sums", 1), ("plain", 6)])
    found = mixture("both", split="validation")
    assert [member["name"] for member in found["members"]] == ["sums"]
    assert found["skipped"] == {"plain": "has no split 'validation', only train"}


def test_epochs_count_the_examples_that_share_a_row_in_the_export(registries, sums, tmp_path):
    from tests.tasks.exporting.exported import export_task

    export_task(registries.task("sums"), "train", lengths=LENGTHS, export_dir=tmp_path)
    alone, packed = mixture("sums"), mixture("sums", export_dir=tmp_path)
    # Inputs of 5, 5 and 16 tokens, targets of 2, 4 and 2: a target row of 6 holds 6 / (8 / 3) examples.
    assert alone["examples_per_row"] == 1.0
    assert packed["examples_per_row"] == pytest.approx(0.97 * 16 / (26 / 3))
    assert packed["members"][0]["expected_epochs"] == pytest.approx(10 * packed["examples_per_row"])
    with pytest.raises(FileNotFoundError, match=r"does not hold 'sums', split 'train', with lengths .*9.*: export"):
        mixture("sums", export_dir=tmp_path, lengths={"inputs": 9, "targets": 6})


def test_missing_members_are_listed_and_the_others_share(registries, sums, lost):
    registries.register_mixture("both", [("sums", 1), ("lost", 3)])
    found = mixture("both")
    assert [(m["name"], m["share_percent"], m["license"]) for m in found["members"]] == [("sums", 100.0, "CC0")]
    assert found["skipped"]["lost"].startswith("is not available: No file ") and found["examples"] == 3


def test_a_mixture_without_available_members_is_still_described(registries, lost):
    registries.register_mixture("none", ["lost"])
    found = mixture("none")
    assert found["members"] == [] and list(found["skipped"]) == ["lost"]


def test_the_measurements_of_an_export_are_reported(registries, sums, tmp_path):
    from tests.tasks.exporting.exported import export_task

    made = export_task(registries.task("sums"), "train", lengths=LENGTHS, export_dir=tmp_path)
    (member,) = mixture("sums", export_dir=tmp_path)["members"]
    definition = made.identity["definition"]
    assert (member["rows_read"], member["dropped"], member["truncated"]) == (3, {}, {"inputs": 1, "targets": 0})
    assert member["source_revision"] == definition["source_revision"]
    assert member["templates_digest"] == definition["templates_digest"]
