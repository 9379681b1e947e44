"""The manifests of an export: their schemas, their files, and differences by field name.

    <export>/vocabularies/<digest12>.model
    <export>/tasks/<task>-<fingerprint12>/<split>/{manifest.json, lengths.npy, examples-00000-of-0000K.array_record}
    <export>/mixtures/<mixture>-<split>-<key12>.json

A task's fingerprint is the digest of everything that decides its bytes, so a task that several mixtures share is
exported once. This module reads and writes; `flan_jax.data.exports` checks whether an export is still valid.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from flan_jax.annotations import Fraction, Within, check_fields, fits
from flan_jax.data.holdout import Facts
from flan_jax.errors import MissingFileError, UserError
from flan_jax.files import differing_fields, json_with_digest, read_json_with_digest, sha256_of, write_atomic
from flan_jax.settings import from_json
from flan_jax.vocab import DescribedVocabulary, VocabularyKind

# Older versions are not read: an export can always be repeated, and a reader for each version would have to be tested.
FORMAT_VERSION = 3
MANIFEST_NAME = "manifest.json"
LENGTHS_NAME = "lengths.npy"
NO_SPLIT = "has no split"
NO_SOURCE = "is not available"

OnMissingSplit = Literal["skip", "error", "empty"]
OnMissingSource = Literal["error", "skip"]

Lengths = Mapping[str, int]
"""Token limits {"inputs": S, "targets": T}."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VocabularyRef:
    """The vocabulary of an export's ids, and the file of its model.

    Attributes:
      kind: "external" when only its own class can encode or decode.
      digest: SHA-256 of everything that defines it, extra ids included.
      size: Number of ids, extra ids included.
      eos_id: Id of the end of a sequence; -1 when there is none.
      file: A SentencePiece model, relative to the export directory.
    """

    kind: VocabularyKind
    digest: str
    size: int
    eos_id: int
    extra_ids: int = 0
    file: str | None = None

    @classmethod
    def of(cls, vocabulary: DescribedVocabulary, *, file: str | None = None) -> "VocabularyRef":
        """Describes a vocabulary."""
        return cls(
            kind=vocabulary.kind,
            digest=vocabulary.digest,
            size=vocabulary.size,
            eos_id=vocabulary.eos_id,
            extra_ids=vocabulary.extra_ids,
            file=file,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskMetadata:
    """The part of a task's declaration that its manifests repeat, for evaluation, hold-out and readers.

    Attributes:
      cluster: The skill; tasks of one cluster are held out together.
      metrics: Names in `flan_jax.evaluation.metrics`.
      evaluation: "external" when the task brings metrics that this package cannot run.
      corpora: Corpora that the rows come from.
      exemplar_corpora: Corpora that the solved examples in prompts come from.
    """

    cluster: str
    metrics: tuple[str, ...]
    postprocessor: str | None
    evaluation: Literal["generate", "rank", "external"]
    license: str
    corpora: tuple[str, ...] = ()
    exemplar_corpora: tuple[str, ...] = ()

    def facts(self, task: str) -> Facts:
        """Returns the facts that hold-out checks, of a task with this metadata."""
        return Facts(task=task, cluster=self.cluster, corpora=self.corpora, exemplar_corpora=self.exemplar_corpora)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskManifest:
    """One exported split of one task.

    Attributes:
      identity: Everything that `fingerprint` digests: definition, source revision, vocabulary, lengths, format.
      shard_examples: Examples in each shard; `shard_bytes` their sizes.
      tokens: Sums per feature, end-of-sequence included.
      dropped: Examples left out, by reason.
      truncated: Truncated examples, per feature.
      lengths_digest: SHA-256 of the array of lengths; set when the split is published.
    """

    format_version: int = FORMAT_VERSION
    task: str
    split: str
    metadata: TaskMetadata
    fingerprint: str
    identity: Mapping[str, Any]
    lengths: Lengths
    vocabulary: VocabularyRef
    num_examples: int
    num_shards: int
    shard_examples: tuple[int, ...]
    shard_bytes: tuple[int, ...]
    tokens: Mapping[str, int]
    rows_read: int
    dropped: Mapping[str, int]
    truncated: Mapping[str, int]
    lengths_digest: str = ""

    @property
    def mean_tokens(self) -> float:
        """Mean tokens of an example, inputs and targets together."""
        # No division by zero: an export without examples is refused.
        return sum(self.tokens.values()) / self.num_examples

    @property
    def truncated_targets_share(self) -> float:
        """Share of examples with a truncated target."""
        return self.truncated.get("targets", 0) / max(1, self.num_examples)

    def shard_name(self, shard: int) -> str:
        """The file name of a shard."""
        return shard_name(shard, self.num_shards)


def shard_name(shard: int, num_shards: int) -> str:
    """The file name of shard `shard` of `num_shards`.

    >>> shard_name(3, 12)
    'examples-00003-of-00012.array_record'
    """
    return f"examples-{shard:05d}-of-{num_shards:05d}.array_record"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
    """One task of an exported mixture.

    Attributes:
      rate: Relative share after flattening nested mixtures, > 0.
      cap: The largest number of examples that the task counts for, when its rate has a cap.
      path: "tasks/<folder>/<split>", relative to the export directory.
    """

    task: str
    rate: float
    cap: float | None
    path: str
    examples: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class RealizedShare:
    """A share that the definition of a mixture states, and its realized values.

    Attributes:
      mixture: The mixture that states it: the exported one, or one in it.
      member: A task or a mixture.
      unit: The unit of the stated `share`.
      of_examples: The member's realized share of the draws; `of_tokens`, of the tokens in them.
    """

    mixture: str
    member: str
    unit: Literal["examples", "tokens"]
    share: float
    of_examples: float
    of_tokens: float


def require_lengths(lengths: Lengths, *, of: str) -> None:
    """Refuses token limits in which no example fits.

    Args:
      lengths: To check.
      of: Their owner, for the message.

    Raises:
      UserError: They are not of inputs and targets, or below 2 tokens: one, and the end of the sequence.
    """
    if not fits(lengths, Mapping[str, Annotated[int, Within(least=2)]], "gin") or set(lengths) != {"inputs", "targets"}:
        raise UserError(
            f"{of}: got {lengths!r}, expected {{'inputs': S, 'targets': T}} with whole numbers of at least 2 tokens "
            "(TASK_FEATURE_LENGTHS)."
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """The export that a run needs.

    Attributes:
      name: A mixture or a task in SeqIO's registries.
      module: The modules that define it: dotted names or paths, separated by commas; None for the package's own.
      vocabulary: "embedded", "bytes", a SentencePiece model or a Hugging Face folder, for tasks that name none; None
        for the default.
      max_truncated_targets: Largest share of truncated targets that a task may have.
      on_missing_split: "skip" leaves out (and lists) members that lack the split, and refuses when all do; "error"
        refuses when one does; "empty" takes a mixture without members for an answer.
      on_missing_source: "error" refuses when a member's rows are not on this machine; "skip" leaves such members out,
        lists them in the manifest, and shares the mixture among the others.
    """

    name: str
    split: str = "train"
    lengths: Lengths
    module: str | None = None
    vocabulary: str | None = None
    tfds_data_dir: str | None = None
    max_truncated_targets: Fraction = 0.05
    on_missing_split: OnMissingSplit = "skip"
    on_missing_source: OnMissingSource = "error"

    def __post_init__(self) -> None:
        """Refuses settings that no export could have."""
        require_lengths(self.lengths, of=f"the lengths of {self.name!r}")
        check_fields(self)

    def content(self) -> dict[str, Any]:
        """Returns the fields that decide the export, without those that only decide whether it is accepted."""
        # Exports of requests that differ only in these have the same bytes, so they share one manifest.
        gates = ("max_truncated_targets", "on_missing_split", "on_missing_source")
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in gates}

    def key(self) -> str:
        """Returns the digest of the content, a part of the file name of the manifest."""
        return sha256_of(self.content())[:12]

    def manifest_path(self, export_dir: Path | str) -> Path:
        """Returns the path of the mixture manifest that answers this request."""
        return Path(export_dir) / "mixtures" / f"{safe_name(self.name)}-{safe_name(self.split)}-{self.key()}.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DefinitionFile:
    """A file, or a pattern of files, that the export depends on, as it was during the export.

    Attributes:
      kind: "package" (relative to this package's parent), "module", "vocabulary" or "data".
      digest: SHA-256; of the sorted matches for a pattern; "size:... mtime_ns:..." for large files.
      size_bytes: With `mtime_ns`, avoids digesting the file while both are unchanged.
    """

    kind: Literal["package", "module", "vocabulary", "data"]
    digest: str
    size_bytes: int = 0
    mtime_ns: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixtureManifest:
    """The export of a mixture: the members with their rates, and the files that it depends on.

    Attributes:
      skipped: Members left out, with the reason; those without the split begin with `NO_SPLIT`, those whose rows were
        not on the machine with `NO_SOURCE`.
      looked_for: Paths that would hold the rows of the latter.
      shares: Shares of examples or of tokens that the definition states, with their realized values.
      hold_out: The names that the mixture holds out by its definition, and the leaks that it allows; {} when nothing.
      notes: Notes of its definition for readers, such as the tasks of a published list that are not in it.
      definition_files: Path -> the file as it was at the export.
      given_files: Each path-like word of the request (modules, vocabulary) -> the file it meant at the export.
    """

    format_version: int = FORMAT_VERSION
    request: Request
    members: tuple[Member, ...]
    skipped: Mapping[str, str]
    looked_for: tuple[str, ...] = ()
    shares: tuple[RealizedShare, ...] = ()
    hold_out: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    vocabulary: VocabularyRef
    definition_files: Mapping[str, DefinitionFile]
    given_files: Mapping[str, str]

    @property
    def num_examples(self) -> int:
        """Examples of all members together."""
        return sum(member.examples for member in self.members)

    def fingerprint(self) -> str:
        """Returns the digest of the training data: members' bytes and rates, not paths or times of definition files."""
        # Without definition files: an export that was repeated on another machine holds the same data.
        members = [dataclasses.asdict(member) for member in self.members]
        return sha256_of({"members": members, "vocabulary": self.vocabulary.digest, "lengths": self.request.lengths})


def safe_name(name: str) -> str:
    """Returns a task's name as a file name, a different one for each task.

    A name that is not a portable file name gets part of its digest: `a:b` and `a_b` would share a file otherwise, and
    `A` and `a` where file systems ignore case.

    >>> safe_name("glue_v2.rte"), safe_name("glue:v2/rte")
    ('glue_v2.rte', 'glue_v2_rte-cd310b1a')
    """
    # 150 of the 255 bytes that file systems allow; fingerprints and suffixes follow.
    if re.fullmatch(r"[a-z0-9_][a-z0-9._-]{,149}", name):
        return name
    readable = re.sub(r"[^A-Za-z0-9._-]|^[.-]", "_", name)[:150]
    return f"{readable}-{sha256_of(name)[:8]}"


def differences(got: Any, expected: Any) -> list[str]:
    """Returns every field in which two JSON values differ.

    >>> differences({"lengths": {"inputs": 64}, "split": "train"}, {"lengths": {"inputs": 128}, "split": "train"})
    ['lengths.inputs: got 64, expected 128']
    """
    return [f"{field}: got {one!r}, expected {other!r}" for field, one, other in differing_fields(got, expected)]


Manifest = TypeVar("Manifest", TaskManifest, MixtureManifest)


def write(path: Path | str, manifest: TaskManifest | MixtureManifest) -> None:
    """Writes a manifest completely or not at all."""
    write_atomic(path, to_json(manifest))


def to_json(manifest: TaskManifest | MixtureManifest) -> str:
    """Returns a manifest as sorted JSON with its digest: equal manifests are equal bytes."""
    return json_with_digest(dataclasses.asdict(manifest))


def read_task(directory: Path | str) -> TaskManifest:
    """Reads the manifest of an exported split.

    Raises:
      MissingFileError: The directory holds no export.
      UserError: The manifest is not of this format.
    """
    return _read(Path(directory) / MANIFEST_NAME, TaskManifest)


def read_mixture(path: Path | str) -> MixtureManifest:
    """Reads a mixture manifest; raises as `read_task`."""
    return _read(Path(path), MixtureManifest)


def _read(path: Path, kind: type[Manifest]) -> Manifest:
    try:
        value = read_json_with_digest(path, setting="The manifest", fix="Delete it and run `flan-jax export`.")
    except MissingFileError:
        raise MissingFileError(
            f"No {path.name} in {path.parent}: not an export, or not a finished one. Run `flan-jax export`."
        ) from None
    if (got := value.get("format_version")) != FORMAT_VERSION:
        raise UserError(f"{path}: format_version: got {got!r}, expected {FORMAT_VERSION}. Run `flan-jax export` again.")
    try:
        return from_json(value, kind, file=path)
    except UserError as error:
        raise UserError(f"{error} Run `flan-jax export` again.") from None
