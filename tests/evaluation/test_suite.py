import dataclasses
import json
import math

import pytest

from flan_jax import processes
from flan_jax.errors import DamagedFileError
from flan_jax.evaluation import results
from flan_jax.evaluation.directory import predictions_path
from flan_jax.evaluation.suite import EvaluationPlan, Labeled, Model, labeled, run_suite
from flan_jax.files import json_with_digest
from flan_jax.run.rescoring import rescore

WORDS = ["red", "green", "blue", "black"]


def copying(task, *, name="copy", cluster="copying", **fields):
    rows = [{"inputs": w, "targets": w, "template": n % 2} for n, w in enumerate(WORDS)]
    return task(rows, name=name, cluster=cluster, **fields)


def choosing(task, *, name="choose"):
    rows = [{"inputs": w, "targets": w, "options": sorted(WORDS)} for w in WORDS]
    return task(rows, name=name, cluster="choosing", evaluation="rank", metrics=("rank_accuracy", "macro_f1"))


class Noted:
    """Progress that remembers its calls."""

    def __init__(self):
        self.counts, self.reused = [], {}

    def examples(self, task, done, total):
        self.counts.append((task, done, total))

    def finished(self, result, *, seconds, reused):
        self.reused[result.task] = reused


@pytest.fixture
def evaluate(answering, scoring, vocabulary, tmp_path_factory):
    """Evaluates with a model that knows all words except the given ones."""

    def run(members, *, wrong=(), directory=None, limit=None, settings=(), progress=None, **model):
        knows = {
            "decode": answering(lambda text: "?" if text in wrong else text),
            "score": scoring(lambda text, option: float((option == text) != (text in wrong))),
            "vocabulary": vocabulary,
            "programs": lambda: 3,
            "external": lambda manifest, rows: ({}, ()),
        }
        return run_suite(
            members,
            plan=EvaluationPlan(batch_size=3, max_examples_per_task=limit),
            step=7,
            model=Model(**knows | model),
            directory=directory or tmp_path_factory.mktemp("evaluation"),
            settings=dict(settings),
            group=processes.Group(),
            progress=progress or Noted(),
        )

    return run


def test_scores_are_given_by_task_cluster_and_label(task, evaluate):
    members = labeled([("trained", [copying(task), choosing(task)]), ("held_out", [copying(task, name="other")])])
    result = evaluate(members, wrong=("red",))
    assert [(t.task, t.label, t.metrics) for t in result.tasks] == [
        ("copy", "trained", {"accuracy": 75.0}),
        ("choose", "trained", {"accuracy": 75.0, "macro_f1": pytest.approx(100 * (2 / 3 + 1 + 1 + 0) / 4)}),
        ("other", "held_out", {"accuracy": 75.0}),
    ]
    assert (result.means()["accuracy"].num_tasks, result.means()["macro_f1"].num_tasks) == (3, 1)
    assert [(key, means["accuracy"].over_tasks) for key, means in result.clusters().items()] == [
        (("trained", "copying"), 75.0),
        (("trained", "choosing"), 75.0),
        (("held_out", "copying"), 75.0),
    ]
    flat = result.as_metrics()
    assert flat["eval/mean/accuracy"] == flat["eval/label/held_out/accuracy"] == 75.0
    assert flat["eval/cluster/copying/accuracy"] == 75.0
    assert flat["eval/mean/macro_f1"] == flat["eval/task/choose/macro_f1"] < 75.0


def test_no_mean_is_over_different_metrics(task, evaluate):
    numbers = task([{"inputs": "5", "targets": "5"}, {"inputs": "6", "targets": "7"}], metrics=("number_match",))
    result = evaluate(labeled([("trained", [copying(task), numbers])]))
    assert {name: (m.over_tasks, m.num_tasks) for name, m in result.means().items()} == {
        "accuracy": (100.0, 1),
        "number_match": (50.0, 1),
    }
    names = [name for name in result.as_metrics() if not name.startswith("eval/task/")]
    assert all(name.endswith(("/accuracy", "/number_match", "eval/normalized_average")) for name in names)


def test_scores_come_with_baselines_and_standard_errors(task, evaluate):
    rows = [{"inputs": t, "targets": t, "options": ["yes", "no"]} for t in ["no", "no", "no", "yes"]]
    ranked = task(rows, name="ranked", evaluation="rank", metrics=("rank_accuracy", "rank_classes", "exact_match"))
    written = task(rows, name="written", metrics=("accuracy", "f1"))
    (rank, write, copy) = evaluate(labeled([("trained", [ranked, written, copying(task)])])).tasks
    assert rank.majority["accuracy"] == rank.majority["exact_match"] == 75.0 and rank.chance == {"accuracy": 50.0}
    assert rank.majority["auc_roc"] == 50.0
    assert write.majority == {"accuracy": 75.0, "f1": 75.0} and write.chance == {}
    assert copy.majority == {}  # No answer is more frequent than another.
    assert rank.standard_errors["accuracy"] == 0.0
    assert evaluate(labeled([("trained", [written])]), wrong=("yes",)).tasks[0].standard_errors["f1"] > 5


def test_the_normalized_average_is_the_way_from_the_baseline_to_100(task, evaluate):
    rows = [{"inputs": t, "targets": t, "options": ["yes", "no"]} for t in ["no", "yes"]]
    ranked = task(rows, name="ranked", evaluation="rank", metrics=("rank_accuracy",))
    result = evaluate(labeled([("trained", [ranked, copying(task)])]), wrong=("red",))
    assert result.normalized_average() == pytest.approx((100.0 + 75.0) / 2)
    assert evaluate(labeled([("t", [ranked])]), wrong=("no",)).normalized_average() == pytest.approx(0.0)


def test_a_distance_has_no_part_in_the_normalized_average(task, evaluate):
    distant = copying(task, name="distant", metrics=("edit_distance",))
    result = evaluate(labeled([("trained", [distant, copying(task)])]), wrong=("red",))
    assert result.tasks[0].score == 0.5 and result.normalized_average() == pytest.approx(75.0)


def test_templates_are_scored_apart(task, evaluate):
    (copy, choose) = evaluate(labeled([("trained", [copying(task), choosing(task)])]), wrong=("red",)).tasks
    assert copy.by_template == {0: 50.0, 1: 100.0}
    assert choose.by_template == {}  # One template alone has no spread.


def test_means_over_tasks_and_over_examples_differ(task, evaluate):
    short = task([{"inputs": "red", "targets": "red"}], name="short")
    mean = evaluate(labeled([("trained", [copying(task), short])]), wrong=("red",)).means()["accuracy"]
    assert (mean.over_tasks, mean.over_examples) == (37.5, 60.0)
    assert (mean.num_tasks, mean.num_examples) == (2, 5)


def test_predictions_and_summary_are_written_one_row_an_example(task, evaluate, tmp_path):
    members = labeled([("trained", [copying(task, name="a/copy:1"), choosing(task)])])
    result = evaluate(members, directory=tmp_path / "7", settings={"params_digest": "abc"}, wrong=("red",))
    assert sorted(p.name for p in (tmp_path / "7").iterdir()) == [
        predictions_path("", "a/copy:1").name,
        "choose.jsonl",
        "evaluation.json",
        "summary.json",
    ]
    rows = [json.loads(line) for line in predictions_path(tmp_path / "7", "a/copy:1").read_text().splitlines()]
    assert [(row["input"], row["prediction"], row["template"], row["metrics"]) for row in rows] == [
        (word, "?" if word == "red" else word, number % 2, {"accuracy": 100.0 * (word != "red")})
        for number, word in enumerate(WORDS)
    ]
    assert results.read_summary(tmp_path / "7") == result
    summary = json.loads((tmp_path / "7" / "summary.json").read_text())
    assert summary["labels"]["trained"]["accuracy"]["over_tasks"] == 75.0
    assert summary["provenance"]["params_digest"] == "abc"
    assert (summary["performance"]["examples"], summary["performance"]["programs"]) == (8, 3) and summary[
        "performance"
    ]["task_seconds"].keys() == {
        "a/copy:1",
        "choose",
    }


def test_tasks_of_like_names_have_files_of_their_own(task, evaluate, tmp_path):
    names = ["a:b", "a_b", "a/b", "A_b", "a b", "a_b-" + "0" * 8, "x" * 300, "x" * 299 + "y"]
    evaluate(labeled([("trained", [copying(task, name=name) for name in names])]), directory=tmp_path)
    files = {predictions_path(tmp_path, name).name.lower() for name in names}
    assert len(files) == len(names) and all(predictions_path(tmp_path, name).is_file() for name in names)


def test_the_summary_is_written_last(task, evaluate, tmp_path):
    bad = task([{"inputs": "q", "targets": "x", "options": []}], name="bad", evaluation="rank")
    evaluate(labeled([("trained", [copying(task)])]), directory=tmp_path)
    with pytest.raises(ValueError, match="Task 'bad'"):
        evaluate(labeled([("trained", [copying(task), bad])]), directory=tmp_path)
    assert "copy.jsonl" in [p.name for p in tmp_path.iterdir()]
    assert results.read_summary(tmp_path) is None


class Killed(BaseException):
    pass


def killed_after(count):
    """Progress of a process that is killed when so many examples are done, of all tasks together."""

    class Killing(Noted):
        def examples(self, task, done, total):
            super().examples(task, done, total)
            if len(self.counts) == count:
                raise Killed

    return Killing()


def files_of(directory):
    return {p.name: p.read_text() for p in directory.iterdir() if p.suffix == ".jsonl"}


@pytest.mark.parametrize("moment", range(1, 9))
def test_a_killed_evaluation_continues_where_it_stopped(task, evaluate, answering, scoring, tmp_path, moment):
    members = labeled([("trained", [copying(task), choosing(task)])])
    whole = evaluate(members, directory=tmp_path / "whole", wrong=("red",))
    with pytest.raises(Killed):
        evaluate(members, directory=tmp_path / "killed", wrong=("red",), progress=killed_after(moment))
    for partial in (tmp_path / "killed").glob("*.partial"):  # Killed within a line.
        with open(partial, "ab") as file:
            file.write('{"task": "é'.encode()[:-1])
    decode, score, after = answering(lambda text: text), scoring(lambda text, option: 0.0), Noted()
    again = evaluate(members, directory=tmp_path / "killed", progress=after, decode=decode, score=score)
    assert sum(after.reused.values()) == moment == again.performance["examples_reused"]
    assert len(after.counts) == 8 - moment
    if moment == 8:
        assert not decode.decoded and not score.rows
        assert again.tasks == whole.tasks and files_of(tmp_path / "killed") == files_of(tmp_path / "whole")
    assert not list((tmp_path / "killed").glob("*.partial*"))


def test_a_continued_evaluation_has_the_bytes_of_one_that_was_not_killed(task, evaluate, tmp_path):
    members = labeled([("trained", [copying(task), choosing(task)])])
    whole = evaluate(members, directory=tmp_path / "whole", wrong=("red",))
    for moment in (2, 3, 2):
        with pytest.raises(Killed):
            evaluate(members, directory=tmp_path / "killed", wrong=("red",), progress=killed_after(moment))
    again = evaluate(members, directory=tmp_path / "killed", wrong=("red",))
    assert again.tasks == whole.tasks and files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("finished", [True, False])
def test_predictions_of_other_settings_or_another_export_are_computed_again(task, evaluate, tmp_path, finished):
    def run(member, settings, progress=None):
        return evaluate(labeled([("t", [member])]), directory=tmp_path, settings=settings, progress=progress or Noted())

    if finished:
        run(copying(task), {"weights": "a"})
    else:
        with pytest.raises(Killed):
            run(copying(task), {"weights": "a"}, killed_after(2))
    other = copying(task)
    other.manifest = dataclasses.replace(other.manifest, fingerprint="0" * 12)
    for member, settings in ((copying(task), {"weights": "b"}), (other, {"weights": "b"})):
        assert run(member, settings).performance["examples"] == 4
    assert run(other, {"weights": "b"}).performance["examples"] == 0


def test_more_examples_of_the_same_task_are_added_to_those_that_are_there(task, evaluate, tmp_path):
    members = labeled([("trained", [copying(task)])])
    assert evaluate(members, directory=tmp_path, limit=3).performance["examples"] == 3
    assert evaluate(members, directory=tmp_path).performance["examples"] == 1
    assert evaluate(members, directory=tmp_path, limit=2).tasks[0].num_examples == 2
    assert len((tmp_path / "copy.jsonl").read_text().splitlines()) == 2


def test_predictions_under_a_record_of_another_version_are_computed_again(task, evaluate, tmp_path):
    members = labeled([("trained", [copying(task)])])
    evaluate(members, directory=tmp_path)
    record = json.loads((tmp_path / "evaluation.json").read_text())
    del record["sha256"]
    (tmp_path / "evaluation.json").write_text(json_with_digest(record | {"format_version": 99}))
    assert evaluate(members, directory=tmp_path).performance["examples"] == 4
    (tmp_path / "evaluation.json").write_text(json.dumps(record))
    with pytest.raises(DamagedFileError, match="evaluation.json is damaged.*evaluate again"):
        evaluate(members, directory=tmp_path)


def test_a_directory_is_scored_as_the_evaluation_was_with_all_samples_in_its_rows(task, evaluate, answering, tmp_path):
    members = labeled([("trained", [copying(task, metrics=("f1", "exact_match")), choosing(task)])])
    result = evaluate(members, directory=tmp_path, decode=answering(lambda text: [text[::-1], text]))
    rows = [json.loads(line) for line in (tmp_path / "copy.jsonl").read_text().splitlines()]
    assert [[one["prediction"] for one in row["predictions"]] for row in rows] == [[w[::-1], w] for w in WORDS]
    assert all("predictions" not in json.loads(line) for line in (tmp_path / "choose.jsonl").read_text().splitlines())
    again = rescore(str(tmp_path))
    assert json.dumps(results.as_json(again)["tasks"]) == json.dumps(results.as_json(result)["tasks"])
    assert (again.step, again.provenance) == (result.step, result.provenance)


def test_truncated_inputs_are_noted(task, evaluate):
    truncated = copying(task)
    truncated.manifest = dataclasses.replace(truncated.manifest, truncated={"inputs": 3, "targets": 0})
    assert evaluate(labeled([("t", [truncated])])).tasks[0].notes == ("3 of 4 inputs truncated",)


def test_damaged_predictions_are_refused_with_their_line(task, evaluate, tmp_path):
    members = labeled([("trained", [copying(task)])])
    evaluate(members, directory=tmp_path)
    for damage in ("{", "[1]", '{"index": 1}', '{"index": 0, "references": [], "prediction": ""}'):
        lines = (tmp_path / "copy.jsonl").read_text().splitlines()
        (tmp_path / "copy.jsonl").write_text("\n".join([lines[0], damage, *lines[2:]]) + "\n")
        with pytest.raises(ValueError, match=r"copy\.jsonl, line 2: .*evaluate again"):
            evaluate(members, directory=tmp_path)


def test_a_limit_takes_part_of_each_task(task, evaluate):
    result = evaluate(labeled([("trained", [copying(task), choosing(task)])]), limit=3)
    assert [t.num_examples for t in result.tasks] == [3, 3]


def test_progress_counts_examples_of_each_task_to_the_end(task, evaluate):
    progress = Noted()
    evaluate(labeled([("trained", [copying(task), choosing(task)])]), progress=progress)
    assert progress.counts == [(name, done, 4) for name in ("copy", "choose") for done in range(1, 5)]


def test_external_tasks_have_their_own_metrics_first_and_those_of_texts(task, evaluate):
    asked = []

    def external(manifest, rows):
        asked.append((manifest.task, [row.prediction for row in rows]))
        return {"accuracy": 0.75}, ("ranks is no number",)

    result = evaluate(
        labeled([("trained", [copying(task, evaluation="external", metrics=()), copying(task, name="ours")])]),
        external=external,
    )
    (theirs, _) = result.tasks
    assert asked == [("copy", WORDS)]
    assert list(theirs.metrics.items()) == [("seqio.accuracy", 0.75), ("exact_match", 100.0), ("rouge_l", 100.0)]
    assert theirs.score == 0.75 and theirs.notes == ("ranks is no number",) and theirs.by_template == {}
    # Its unit is not known.
    assert math.isnan(theirs.normalized_score) and result.means()["accuracy"].num_tasks == 1


def test_a_external_vocabulary_is_noted(task, evaluate, answering):
    result = evaluate(labeled([("trained", [copying(task)])]), vocabulary=None, decode=answering(lambda text: text))
    assert result.tasks[0].metrics == {"accuracy": 100.0}
    assert result.tasks[0].notes == ("token ids compared: the vocabulary is external",)


def test_tasks_without_metrics_get_the_usual_one(task, evaluate):
    rows = [{"inputs": "red", "targets": "red", "options": ["red", "blue"]}]
    members = labeled([("trained", [copying(task, metrics=()), task(rows, name="r", evaluation="rank", metrics=())])])
    assert [t.metrics for t in evaluate(members).tasks] == [{"exact_match": 100.0}, {"accuracy": 100.0}]


def test_predictions_that_did_not_end_are_counted(task, evaluate, answering):
    result = evaluate(labeled([("trained", [copying(task)])]), decode=answering(lambda text: text, length=3))
    assert result.tasks[0].num_truncated == 4


def test_a_metric_that_does_not_fit_is_refused_before_anything_is_computed(task, evaluate, tmp_path):
    bad = copying(task, name="bad", metrics=("accuracy", "rank_accuracy"))
    with pytest.raises(ValueError, match="'rank_accuracy' judges scores of options, but task 'bad'.*evaluation='rank'"):
        evaluate(labeled([("trained", [copying(task), bad])]), directory=tmp_path)
    assert not list(tmp_path.iterdir())


def test_scores_that_are_not_defined_are_null_and_left_out_of_means(task, tmp_path):
    shared = {"split": "validation", "cluster": "c", "label": "trained", "evaluation": "rank", "num_examples": 2}
    tasks = (
        results.TaskResult(task="a", metrics={"auc_roc": math.nan}, main_metric="auc_roc", **shared),
        results.TaskResult(task="b", metrics={"accuracy": 50.0}, main_metric="accuracy", **shared),
    )
    result = results.SuiteResult(step=1, tasks=tasks)
    means = {name: (mean.over_tasks, mean.num_tasks, mean.num_examples) for name, mean in result.means().items()}
    assert means["accuracy"] == (50.0, 1, 2) and math.isnan(means["auc_roc"][0]) and means["auc_roc"][1:] == (0, 0)
    results.write_summary(tmp_path, result)
    assert json.loads((tmp_path / "summary.json").read_text())["tasks"][0]["metrics"] == {"auc_roc": None}
    assert math.isnan(results.read_summary(tmp_path).tasks[0].score)


def test_a_summary_of_another_format_is_not_read(tmp_path):
    (tmp_path / "summary.json").write_text('{"format_version": 99}')
    assert results.read_summary(tmp_path) is None


def test_a_task_of_several_mixtures_is_evaluated_once(task):
    one, two = copying(task), choosing(task)
    assert labeled([("a", [one, two]), ("a", [two])]) == (Labeled(label="a", task=one), Labeled(label="a", task=two))


def test_a_task_under_two_labels_is_refused(task):
    with pytest.raises(ValueError, match="Task 'copy' is in the suites 'trained' and 'held_out'"):
        labeled([("trained", [copying(task)]), ("held_out", [copying(task)])])


def test_an_evaluation_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no task to evaluate"):
        labeled([("trained", [])])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected a whole number of at least 1, got 0"),
        ({"max_examples_per_task": 0}, "max_examples_per_task: expected .*got 0"),
        ({"max_decode_length": -1}, "max_decode_length: expected .*got -1"),
        ({"strategy": "greedy"}, "strategy must be one of Greedy, Sampling, BeamSearch; got 'greedy'"),
        ({"suites": {"trained": 3}}, "Suite 'trained' must list names .*got 3"),
        ({"suites": {"trained": ("mine", 3)}}, "Suite 'trained' must list names"),
        ({"suites": {"trained": ()}}, r"Suite 'trained' must list names .*got \(\)"),
    ],
)
def test_impossible_plans_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        EvaluationPlan(**fields)


def test_tasks_of_a_published_suite_have_a_score_by_its_rule(task, evaluate, tmp_path):
    members = labeled(
        [("t0/held_out", [copying(task, name="a"), copying(task, name="b")]), ("trained", [choosing(task)])]
    )
    groups = {"a": "nli/rte", "b": "nli/cb"}
    members = [
        dataclasses.replace(one, group=groups[one.task.manifest.task], aggregation="t0")
        if one.label != "trained"
        else one
        for one in members
    ]
    result = evaluate(members, wrong=("red",), directory=tmp_path)
    (label, aggregate), *others = result.aggregates().items()
    assert (label, aggregate.score, aggregate.clusters, others) == ("t0/held_out", 75.0, {"nli": 75.0}, [])
    assert results.read_summary(tmp_path).aggregates() == result.aggregates()
    assert result.as_metrics()["eval/suite/t0/held_out"] == 75.0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["aggregates"]["t0/held_out"]["score"] == 75.0


def test_a_summary_has_intervals_and_the_spread_over_templates(task, evaluate, tmp_path):
    result = evaluate(labeled([("trained", [copying(task), choosing(task)])]), wrong=("red",), directory=tmp_path)
    copy = result.tasks[0]
    assert copy.intervals == {"accuracy": (25.0, 100.0)}
    written, ranked = json.loads((tmp_path / "summary.json").read_text())["tasks"]
    assert written["intervals"] == {"accuracy": [25.0, 100.0]}
    assert written["template_spread"] == {
        "count": 2, "mean": 75.0, "median": 75.0, "minimum": 50.0, "maximum": 100.0, "std": 25.0, "iqr": 25.0,
    }  # fmt: skip
    assert ranked["template_spread"]["count"] == 0 and ranked["template_spread"]["mean"] is None
    assert results.read_summary(tmp_path) == result
