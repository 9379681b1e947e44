"""What a rule makes of rows."""

from collections import Counter


def judged(rule, rows):
    """The verdict on each row; a row given as a text is its field "t"."""
    rows = [{"t": row} if isinstance(row, str) else row for row in rows]
    judge = rule.start("train", lambda: iter(rows))
    return [judge(row) for row in rows]


def retained(rule, rows):
    """The rows that are left, and how many are not, by reason."""
    verdicts = judged(rule, rows)
    left = [row for row, verdict in zip(rows, verdicts, strict=True) if verdict is None]
    return left, Counter(filter(None, verdicts))
