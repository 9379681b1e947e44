"""The schema of a task of Super-NaturalInstructions, and the further validation rules of its authors.

Problems are sentences that name the field; the caller adds the file and the fix (`task_files` rejects what cannot be
read, `schema_problems` lists everything for a report).
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from flan_jax.names import nearest, shortened

HEAD_KEYS = ("Definition", "Positive Examples", "Negative Examples", "Categories")
LIST_KEYS = ("Categories", "Source", "Instance License")
KNOWN_KEYS = {*HEAD_KEYS, *LIST_KEYS, "Instances", "Task", "id", "input", "output", "explanation"}
V1_KEYS = ("Title", "Prompt", "Examples")
MAX_FILE_BYTES = 50 * 2**20
MIN_INSTANCES, MAX_INSTANCES = 26, 6_500
FEW_LABELS, MIN_ENTROPY = 15, 0.8
NAME = re.compile(r"task\d{3,}(_[^\sA-Z]+)+")


def head_problem(record: Mapping[str, Any]) -> str | None:
    """Returns the first problem of a task's fields without its instances, or None."""
    return next(_head_problems(record), None)


def instances_problem(record: Mapping[str, Any]) -> str | None:
    """Returns the problem of a task's list of instances, or None."""
    if not record.get("Instances"):
        return _absent("Instances", record, "the task")
    instances = record["Instances"]
    if not isinstance(instances, list):
        return f"'Instances' must be a list of objects, got {shortened(instances)}"
    for index, instance in enumerate(instances):
        if not isinstance(instance, dict):
            return f"'Instances'[{index}] must be an object with 'input' and 'output', got {shortened(instance)}"
    return None


def instance_problem(instance: Mapping[str, Any]) -> str | None:
    """Returns the first problem of an instance, or None.

    >>> instance_problem({"id": "i1", "input": "2+2", "output": "4"})
    "'output' must be a list of one or more texts, got '4'"
    """
    for key in ("input", "output"):
        if key not in instance:
            return _absent(key, instance, "the instance")
    if not isinstance(instance["input"], str):
        return f"'input' must be a text, got {shortened(instance['input'])}"
    output = instance["output"]
    if not isinstance(output, list) or not output or not all(isinstance(text, str) for text in output):
        return f"'output' must be a list of one or more texts, got {shortened(output)}"
    return None


def schema_problems(
    record: Mapping[str, Any], *, name: str | None = None, size_bytes: int | None = None
) -> tuple[str, ...]:
    """Returns every violation of the schema and of the repository's own validation rules.

    Those rules (natural-instructions, `src/test_all.py`): at most 50 MB; 26 to 6,500 instances; two positive examples
    and a negative one; no input twice, nor that of a positive example; outputs that vary and, if there are fewer than
    15 different ones, are not too skewed; a name like task001_source_type in lower case. Being listed in the
    repository's README is not checked.

    Args:
      record: The task.
      name: Of the task; None does not check it.
      size_bytes: Of its file; None does not check it.
    """
    found = list(_head_problems(record))
    problem = instances_problem(record)
    if problem is not None:
        found.append(problem)
    else:
        found += _instances_problems(record["Instances"])
    # These rules count and compare, which needs records of the schema.
    if not found:
        found += _rules_broken(record)
    if name is not None and not NAME.fullmatch(name):
        found.append(f"the name {name!r} must look like task001_source_type, in lower case")
    if size_bytes is not None and size_bytes > MAX_FILE_BYTES:
        found.append(f"the file has {size_bytes / 2**20:,.0f} MiB, at most {MAX_FILE_BYTES // 2**20} are allowed")
    return tuple(found)


def is_v1(record: Mapping[str, Any]) -> bool:
    """Whether a record has the fields that only tasks of Natural Instructions v1 have."""
    return isinstance(record.get("Examples"), Mapping) or all(key in record for key in V1_KEYS)


def is_v2(record: Mapping[str, Any]) -> bool:
    """Whether a record has the fields that only tasks of Super-NaturalInstructions have."""
    return "Positive Examples" in record


def _head_problems(record: Mapping[str, Any]) -> Iterator[str]:
    for key in HEAD_KEYS:
        # A list of examples may be empty, nothing else.
        if not record.get(key) and not (key.endswith("Examples") and key in record):
            yield _absent(key, record, "the task")
    definition = record.get("Definition")
    texts = [definition] if isinstance(definition, str) else definition
    if definition and not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
        yield f"'Definition' must be a list of texts, got {shortened(definition)}"
    for key in LIST_KEYS:
        value = record.get(key)
        if value and not (isinstance(value, list) and all(isinstance(text, str) for text in value)):
            yield f"{key!r} must be a list of texts, got {shortened(value)}"
    for key in ("Positive Examples", "Negative Examples"):
        yield from _examples_problems(key, record.get(key) or [])


def _examples_problems(key: str, examples: Any) -> Iterator[str]:
    if not isinstance(examples, list):
        yield f"{key!r} must be a list of objects, got {shortened(examples)}"
        return
    for index, example in enumerate(examples):
        place = f"{key!r}[{index}]"
        if not isinstance(example, dict):
            yield f"{place} must be an object with 'input' and 'output', got {shortened(example)}"
            continue
        for field in ("input", "output"):
            if field not in example:
                yield _absent(field, example, place)
        for field in ("input", "output", "explanation"):
            if not isinstance(example.get(field, ""), str):
                yield f"{place}[{field!r}] must be a text, got {shortened(example[field])}"


def _instances_problems(instances: list[Mapping[str, Any]]) -> list[str]:
    """Yields the unreadable instances: the first of each kind with the number of others."""
    bad = [(i, p) for i, p in enumerate(map(instance_problem, instances)) if p is not None]
    if not bad:
        return []
    index, problem = bad[0]
    more = f" (and {len(bad) - 1} more instances)" if len(bad) > 1 else ""
    return [f"'Instances'[{index}]: {problem}{more}"]


def _rules_broken(record: Mapping[str, Any]) -> Iterator[str]:
    instances, positive, negative = (record[k] for k in ("Instances", "Positive Examples", "Negative Examples"))
    if not MIN_INSTANCES <= len(instances) <= MAX_INSTANCES:
        yield f"{len(instances):,} instances, {MIN_INSTANCES} to {MAX_INSTANCES:,} are allowed"
    if len(positive) < 2:
        yield f"{len(positive)} positive examples, at least 2 are required"
    if not negative:
        yield "no negative example, at least 1 is required"
    inputs = Counter(instance["input"] for instance in instances)
    twice = [text for text, count in inputs.items() if count > 1]
    if twice:
        yield f"{len(twice)} inputs are there more than once, as {shortened(twice[0])}"
    shown = [example["input"] for example in positive if example["input"] in inputs]
    if shown:
        yield f"the input {shortened(shown[0])} is in a positive example and in an instance"
    yield from _skewed(Counter(output for instance in instances for output in instance["output"]))


def _skewed(outputs: Counter[str]) -> Iterator[str]:
    if len(outputs) == 1:
        yield f"all instances have the output {shortened(next(iter(outputs)))}"
    elif len(outputs) < FEW_LABELS:
        total = outputs.total()
        entropy = -sum(n / total * math.log(n / total) for n in outputs.values()) / math.log(len(outputs))
        if entropy <= MIN_ENTROPY:
            yield (
                f"the {len(outputs)} outputs are skewed: normalized entropy {entropy:.2f}, above {MIN_ENTROPY} is asked"
            )


def _absent(key: str, record: Mapping[str, Any], what: str) -> str:
    if key in record:
        return f"{what} has no {key!r}: got {shortened(record[key])}"
    # A known key is not the misspelling of another one.
    return f"{what} has no {key!r}.{nearest(key, set(record) - KNOWN_KEYS)} Fields: {', '.join(record) or 'none'}"
