"""The two baselines without a model: what they copy, whom the best reference favours, and what is missing counts for."""

import gzip
import importlib.util
import json
from pathlib import Path

import pytest

from tests.tasks.superni_synthetic import synthetic_folder, task, write_lists, write_shard

TOOL = Path(__file__).resolve().parents[3] / "tools" / "superni_copy_baselines.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("superni_copy_baselines", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_copies_its_text_and_the_best_reference_counts(tool, tmp_path):
    instances = [
        {"input": "red cats", "output": ["dog", "red cat"]},  # The input's words after stemming.
        {"input": "red cat", "output": ["a b c", "no"]},  # Half of the demonstration's two words, one of three.
    ]
    examples = [{"input": "i", "output": "a z"}, {"input": "j", "output": "no"}]
    write_shard(tmp_path / "a.jsonl", task("task1_x", Instances=instances, **{"Positive Examples": examples}))
    write_lists(tmp_path / "splits", test=["task1_x", "task2_gone"])
    found, num_listed = tool.score(tmp_path)
    assert num_listed == 2
    (copied,), (shown,) = found["copy the input"], found["copy the demonstration"]
    assert (copied.rouge_l, copied.num_instances, copied.category) == (50.0, 2, "Toy Sorting")
    assert shown.rouge_l == pytest.approx((0 + 40) / 2)


def test_only_the_first_hundred_instances_count(tool, tmp_path):
    instances = [{"input": f"w{i}", "output": [f"w{i}" if i < 50 else "x"]} for i in range(150)]
    write_shard(tmp_path / "a.jsonl", task("task1_x", Instances=instances))
    write_lists(tmp_path / "splits", test=["task1_x"])
    (copied,) = tool.score(tmp_path)[0]["copy the input"]
    assert (copied.num_instances, copied.rouge_l) == (100, 50.0)


def test_the_mean_is_over_instances_and_missing_tasks_have_a_hundred(tool):
    scores = [
        tool.Score(task="a", category="x", num_instances=100, rouge_l=10.0),
        tool.Score(task="b", category="y", num_instances=50, rouge_l=40.0),
    ]
    assert tool.over_instances(scores) == 20.0
    # 150 instances at 20 and 100 at 45 are 250 at 30.
    assert tool.needed(scores, published=30.0, num_listed=3) == 45.0


def test_the_table_has_a_line_for_all_tasks_and_one_per_category(tool, tmp_path):
    found, num_listed = tool.score(synthetic_folder(tmp_path / "superni"))
    names = list(tool.table(found, num_listed=num_listed).columns[0].cells)
    assert names == ["here: 3 of 3 tasks", "published", "Textual Entailment", "Title Generation"]
    names = list(tool.table(found, num_listed=4).columns[0].cells)
    assert names[2] == "the other tasks, if so"


@pytest.mark.shared_data
def test_real_test_tasks_score_as_measured(tool, shared_data):
    """All 103 of 119 tasks that are here come to 15.12 and 29.14 (published: 14.20 and 28.54); these are the first.

    The same figures from the raw lines and the reference scorer, without reader, source or metric of this project.
    """
    from rouge_score.rouge_scorer import RougeScorer

    found, num_listed = tool.score(shared_data / "superni_default", max_tasks=6)
    assert num_listed == 119
    means = {name: tool.over_instances(scores) for name, scores in found.items()}
    assert {name: round(mean, 2) for name, mean in means.items()} == {
        "copy the input": 16.36,
        "copy the demonstration": 33.11,
    }
    scorer, plain = RougeScorer(["rougeL"], use_stemmer=True), {name: [] for name in found}
    scored = {score.task for score in found["copy the input"]}
    for path in sorted((shared_data / "superni_default").glob("test-*.jsonl.gz")):
        for record in map(json.loads, gzip.open(path)):
            for instance in record["Instances"][:100] if record["Task"] in scored else ():
                copies = (instance["input"], record["Positive Examples"][0]["output"])
                for retained, copy in zip(plain.values(), copies, strict=True):
                    retained.append(max(scorer.score(text, copy)["rougeL"].fmeasure for text in instance["output"]))
    assert means == {name: pytest.approx(100 * sum(retained) / len(retained)) for name, retained in plain.items()}
