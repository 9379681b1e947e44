"""Detects leaks: training tasks that share a task, cluster, corpus or exemplar pool with held-out tasks.

Callers provide the metadata (from a task's declaration or an export's manifest) and decide what to do about a leak.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from flan_jax.annotations import check_fields

UNKNOWN_CLUSTERS = ("", "external", "user")
"""Clusters of tasks that were given none: two of them need not have a skill in common."""
SHOWN = 8  # Leaks in a message.

MADE_FROM: Mapping[str, tuple[str, ...]] = {
    "dart": ("e2e_nlg", "web_nlg"),  # Contains both, converted to triples.
    "ecqa": ("commonsense_qa",),
    "esnli": ("snli",),
    "qed": ("natural_questions",),
    "qnli": ("squad",),  # Pairs its questions with sentences of its passages.
    "record": ("cnn_dailymail",),  # Its passages are their articles.
    "stsb": ("mrpc",),  # Pairs of it are in MSRpar, one of its parts.
    "wnli": ("winograd_schemas",),
    "wsc": ("winograd_schemas",),
    "wsc273": ("winograd_schemas",),
}
"""Corpora whose rows were made from those of others, wholly or in part, as their authors say."""

Through = Literal["task", "cluster", "corpus", "exemplars"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """The metadata of a task that hold-out compares.

    Attributes:
      task: Its name.
      cluster: The skill it tests.
      corpora: The corpora that its rows were made from.
      exemplar_corpora: The corpora that the solved examples in its prompts were made from.
    """

    task: str
    cluster: str
    corpora: tuple[str, ...] = ()
    exemplar_corpora: tuple[str, ...] = ()

    @property
    def of_any_cluster(self) -> "Facts":
        """The same task without its cluster, so that others of the cluster give nothing away."""
        return dataclasses.replace(self, cluster="")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HoldOut:
    """The tasks, clusters and corpora that a mixture must not train on.

    Attributes:
      clusters: Names of clusters.
      corpora: Sources of rows, whichever task was made from them.
      tasks: Names of tasks and mixtures, whose corpora are held out with them. Other tasks of their clusters may be
        trained on, as in Super-NaturalInstructions, unless `clusters` names these.
      allow_leak: Leaks that are known and accepted: names of training tasks, clusters or corpora.
    """

    clusters: tuple[str, ...] = ()
    corpora: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    allow_leak: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leak:
    """One way in which a training task gives away what is held out.

    Attributes:
      task: The training task.
      through: The kind of the item that both share.
      name: The task, cluster or corpus.
      held_out: The held-out tasks that share it; empty when it was held out by name.
    """

    task: str
    through: Through
    name: str
    held_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        whose = f" (of {_listed(self.held_out)})" if self.held_out and self.through != "task" else ""
        if self.through == "task":
            return f"{self.task!r} is itself held out"
        if self.through == "cluster":
            return f"{self.task!r} is of the held-out cluster {self.name!r}{whose}"
        if self.through == "corpus":
            return f"{self.task!r} is made from the held-out corpus {self.name!r}{whose}"
        return f"{self.task!r} shows exemplars from the held-out corpus {self.name!r}{whose}"

    def is_allowed(self, allow_leak: Iterable[str]) -> bool:
        """Whether a list names the training task, or what it leaks through."""
        return not {self.task, self.name}.isdisjoint(allow_leak)


@functools.cache  # Called with few corpora, by hundreds of mixtures.
def with_origins(corpora: tuple[str, ...]) -> tuple[str, ...]:
    """Returns corpora and what they were made from, each once.

    >>> with_origins(("qnli", "squad"))
    ('qnli', 'squad')
    """
    # One level is enough: no origin in the table was itself made from another corpus.
    return tuple(dict.fromkeys(name for corpus in corpora for name in (corpus, *MADE_FROM.get(corpus, ()))))


def leaks(training: Iterable[Facts], *, hold_out: HoldOut | None = None, tasks: Iterable[Facts] = ()) -> list[Leak]:
    """Returns every leak, allowed or not, task by task.

    >>> anli = Facts(task="anli", cluster="entailment", corpora=("anli", "snli"))
    >>> leaked = leaks([Facts(task="write_a_premise", cluster="writing", corpora=("snli",))], tasks=[anli])
    >>> print(*leaked)
    'write_a_premise' is made from the held-out corpus 'snli' (of 'anli')

    Args:
      training: The training tasks.
      hold_out: The names that are held out.
      tasks: Tasks that are held out with their clusters and corpora; includes those that `hold_out` names.
    """
    named = _named(hold_out or HoldOut(), tasks)
    return [leak for facts in training for leak in _leaks_of(facts, named)]


def parted(leaked: Iterable[Leak], *, allow_leak: Iterable[str]) -> tuple[list[Leak], list[Leak]]:
    """Returns the leaks that are not allowed and those that are."""
    allowed = set(allow_leak)
    parts: tuple[list[Leak], list[Leak]] = ([], [])
    for leak in leaked:
        parts[leak.is_allowed(allowed)].append(leak)
    return parts


def in_words(leaked: Sequence[Leak]) -> str:
    """Returns the first few leaks as a message lists them."""
    more = f"; and {len(leaked) - SHOWN:,} more" if len(leaked) > SHOWN else ""
    return "; ".join(map(str, leaked[:SHOWN])) + more


def ways(leaked: Iterable[Leak]) -> list[str]:
    """Returns what a list of allowed leaks would have to name, the widest names first: clusters, corpora, tasks."""
    order = ("cluster", "corpus", "exemplars", "task")
    by_kind = sorted({(order.index(leak.through), leak.name) for leak in leaked})
    return list(dict.fromkeys(name for _, name in by_kind))


def record(hold_out: HoldOut, *, allowed: Sequence[Leak]) -> dict[str, Any]:
    """Returns the record of a hold-out for a manifest or a run: the request, and the leaks that were allowed."""
    asked = {name: list(value) for name, value in dataclasses.asdict(hold_out).items()}
    return {**asked, "allowed": [str(leak) for leak in allowed]}


Named = Mapping[Through, Mapping[str, tuple[str, ...]]]
"""The held-out tasks that share something, by its kind and its name."""


def _named(hold_out: HoldOut, tasks: Iterable[Facts]) -> Named:
    named: dict[Through, dict[str, tuple[str, ...]]] = {
        "task": {},
        "cluster": dict.fromkeys(hold_out.clusters, ()),
        "corpus": dict.fromkeys(with_origins(hold_out.corpora), ()),
    }
    for facts in tasks:
        pairs: list[tuple[Through, str]] = [("task", facts.task)]
        # Otherwise holding out one user's task would exclude every other user's task.
        pairs += [("cluster", facts.cluster)] if facts.cluster not in UNKNOWN_CLUSTERS else []
        pairs += [("corpus", corpus) for corpus in with_origins(facts.corpora)]
        for through, name in pairs:
            named[through][name] = (*named[through].get(name, ()), facts.task)
    return named


def _leaks_of(facts: Facts, named: Named) -> Iterator[Leak]:
    corpora = with_origins(facts.corpora)
    # Exemplars usually come from the task's own corpus, which is reported as such.
    shown = tuple(corpus for corpus in with_origins(facts.exemplar_corpora) if corpus not in corpora)
    has: list[tuple[Through, Through, tuple[str, ...]]] = [
        ("task", "task", (facts.task,)),
        ("cluster", "cluster", (facts.cluster,)),
        ("corpus", "corpus", corpora),
        ("exemplars", "corpus", shown),
    ]
    for through, kind, names in has:
        shared = [name for name in names if name in named[kind]]
        # A shared corpus implies shared origins of it: reported once.
        implied = {origin for name in shared for origin in MADE_FROM.get(name, ())} if kind == "corpus" else ()
        for name in shared:
            if name not in implied:
                yield Leak(task=facts.task, through=through, name=name, held_out=named[kind][name])


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(repr(name) for name in names[:3]) + more
