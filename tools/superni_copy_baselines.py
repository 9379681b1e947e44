"""Scores the two baselines of Super-NaturalInstructions without a model: copying the input, and copying an answer.

    python tools/superni_copy_baselines.py --data_dir=DIR

Both are scored as in the paper (arXiv:2204.07705, section 6.1 and the repository's table): the first 100 instances of
each test task, ROUGE-L with stemming against the best reference, the mean over instances. "Copy the demonstration"
answers with the output of the task's first positive example. This checks reader, split list, cap, references and metric
end to end. Missing tasks explain a difference from the published figures, and the last line prints what they would have
to score.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flan_jax.collections.natural_instructions.instances import SuperNISource
from flan_jax.collections.natural_instructions.task_files import task_files, task_lists
from flan_jax.evaluation.text_metrics import rouge_l
from flan_jax.tasks.sources.rows import Row

MAX_INSTANCES = 100
PUBLISHED = {"copy the input": 14.20, "copy the demonstration": 28.54}
BASELINES: Mapping[str, Callable[[Row], str]] = {
    "copy the input": lambda row: row["input"],
    "copy the demonstration": lambda row: row["Positive Examples"][0]["output"],
}


@dataclass(frozen=True, kw_only=True)
class Score:
    """One baseline on one task: its mean ROUGE-L over the instances."""

    task: str
    category: str
    num_instances: int
    rouge_l: float


def score(data_dir: Path | str, *, max_tasks: int | None = None) -> tuple[dict[str, list[Score]], int]:
    """Returns each baseline's scores on the test tasks that are there, and how many tasks the test list names.

    Args:
      data_dir: as `natural_instructions.task_files.task_files` reads it.
      max_tasks: only the first so many tasks of the list.
    """
    files, listed = task_files(data_dir), task_lists(data_dir)["test"]
    there = [files[name] for name in listed if name in files]
    found: dict[str, list[Score]] = {name: [] for name in BASELINES}
    for file in there[:max_tasks]:
        rows = list(SuperNISource(task=file, split="test", max_instances=MAX_INSTANCES, seed=0).rows("test"))
        references = [row["output"] for row in rows]
        for name, copy in BASELINES.items():
            mean = rouge_l(references, [copy(row) for row in rows]).scores()["rouge_l"]
            found[name].append(Score(task=file.name, category=file.category, num_instances=len(rows), rouge_l=mean))
    return found, len(listed)


def over_instances(scores: Sequence[Score]) -> float:
    """Returns the mean over all instances, as the official script gives it."""
    return sum(s.rouge_l * s.num_instances for s in scores) / sum(s.num_instances for s in scores)


def needed(scores: Sequence[Score], *, published: float, num_listed: int) -> float:
    """Returns what the tasks that are not here would have to score on average for the published figure."""
    missing = (num_listed - len(scores)) * MAX_INSTANCES
    here = sum(s.num_instances for s in scores)
    return (published * (here + missing) - over_instances(scores) * here) / missing


def table(found: Mapping[str, Sequence[Score]], *, num_listed: int) -> Table:
    """Returns a line for all tasks, one for the published figures, and one a category."""
    made = Table(title="ROUGE-L, mean over instances", title_justify="left")
    for column in ("", *found, "tasks", "instances"):
        made.add_column(column, justify="left" if not column else "right")
    first = next(iter(found.values()))

    def add(name: str, chosen: Callable[[Score], bool]) -> None:
        kept = {baseline: [s for s in scores if chosen(s)] for baseline, scores in found.items()}
        of_first = next(iter(kept.values()))
        means = (f"{over_instances(scores):.2f}" for scores in kept.values())
        made.add_row(name, *means, f"{len(of_first)}", f"{sum(s.num_instances for s in of_first):,}")

    add(f"here: {len(first)} of {num_listed} tasks", lambda s: True)
    made.add_row("published", *(f"{PUBLISHED[name]:.2f}" for name in found), f"{num_listed}", "")
    if len(first) < num_listed:
        lacks = [f"{needed(s, published=PUBLISHED[n], num_listed=num_listed):.2f}" for n, s in found.items()]
        made.add_row("the other tasks, if so", *lacks, f"{num_listed - len(first)}", "")
    made.add_section()
    for category in sorted({s.category for s in first}):
        add(category, lambda s, category=category: s.category == category)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="folder of tasks and split lists")
    parser.add_argument("--max_tasks", type=int, help="only the first so many test tasks")
    given = parser.parse_args()
    found, num_listed = score(given.data_dir, max_tasks=given.max_tasks)
    Console().print(table(found, num_listed=num_listed))


if __name__ == "__main__":
    main()
