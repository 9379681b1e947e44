"""Promptsource's folder of templates, or a zip archive of it: one YAML file per dataset or subset, read on demand.

A file is at `<dataset>/templates.yaml` or `<dataset>/<subset>/templates.yaml`; folders above a folder "templates" do
not count, so that a checkout of promptsource will do:

    dataset: super_glue
    subset: rte
    templates:
      2b52a83c-0021-41fe-b44c-5aaa076d71a2: !Template
        name: does it follow
        answer_choices: Yes ||| No
        jinja: '{{premise}} Does it follow that {{hypothesis}}? ||| {{ answer_choices[label] }}'
        reference: ''
        metadata: !TemplateMetadata
          {original_task: true, choices_in_prompt: false, metrics: [Accuracy], languages: [en]}

Reading executes nothing: the tags mean plain mappings, and all others are refused.
"""

import functools
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flan_jax.errors import MissingFileError, UnknownNameError, UserError
from flan_jax.names import nearest
from flan_jax.paths import user_path
from flan_jax.settings import Place, parse, require_mapping
from flan_jax.templates.promptsource import PromptMetadata, PromptTemplate
from flan_jax.yaml_loader import StrictLoader, load_yaml

FILE_NAME = "templates.yaml"
_MEMBER = re.compile(r"(?:.*/)?templates/(.+)/templates\.yaml|(.+)/templates\.yaml")


@dataclass(frozen=True, kw_only=True)
class PromptArchive:
    """A folder or zip archive of templates.

    Attributes:
      path: Where it is, absolute.
      members: For each dataset ("super_glue/rte") its file, relative to the folder.
    """

    path: str
    members: Mapping[str, str]

    def templates(self, dataset: str) -> tuple[PromptTemplate, ...]:
        """Returns the templates of a dataset by name, as the original sorts them.

        Raises:
          UnknownNameError: There is none of this name.
          UserError: Its file is not what it should be; names the file and the place.
        """
        if dataset not in self.members:
            raise UnknownNameError(
                f"{self.path} has no templates for {dataset!r}.{nearest(dataset, self.members)} "
                f"It has {len(self.members)} datasets."
            )
        # Part of the cache's key, so that a file that changes is read again.
        status = Path(_file(self.path, self.members[dataset])).stat()
        return _read(self.path, self.members[dataset], dataset, (status.st_size, status.st_mtime_ns))


def open_archive(path: Path | str) -> PromptArchive:
    """Lists the datasets of a folder or archive; reads no template.

    Raises:
      MissingFileError: Nothing is there.
      UserError: It is neither a folder nor a zip archive, or has no templates.
    """
    place = user_path(path)
    if not place.exists():
        neighbors = [p.name for p in place.parent.iterdir()] if place.parent.is_dir() else []
        raise MissingFileError(
            f"No folder or archive {place} to read templates from.{nearest(place.name, neighbors)} To get them: git "
            "clone https://github.com/bigscience-workshop/promptsource; its folder promptsource/templates has them."
        )
    if place.is_dir():
        names = [p.relative_to(place).as_posix() for p in place.rglob(FILE_NAME)]
    else:
        try:
            with zipfile.ZipFile(place) as archive:
                names = archive.namelist()
        except zipfile.BadZipFile as error:
            raise UserError(f"{place}: neither a folder nor a zip archive of templates ({error}).") from error
    found = {(match[1] or match[2]): name for name in sorted(names) if (match := _MEMBER.fullmatch(name))}
    if not found:
        raise UserError(f"{place}: no <dataset>/{FILE_NAME} in it.")
    return PromptArchive(path=str(place), members=found)


@dataclass(frozen=True, kw_only=True)
class _Metadata:
    """The keys of a template's metadata."""

    original_task: bool | None = None
    choices_in_prompt: bool | None = None
    metrics: tuple[str, ...] | None = None
    languages: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class _Template:
    """The keys of a template."""

    name: str
    jinja: str
    id: str | None = None
    answer_choices: str | None = None
    reference: str | None = None
    metadata: _Metadata | None = None
    # The name of `original_task` in older files; not read.
    task_template: Any = None

    def __post_init__(self) -> None:
        for key in ("name", "jinja"):
            if not getattr(self, key).strip():
                raise UserError(f"{key} is blank.")


@dataclass(frozen=True, kw_only=True)
class _File:
    """The keys of a file."""

    dataset: str
    templates: Mapping[str, _Template]
    subset: str | None = None


class _Loader(StrictLoader):
    """Knows promptsource's two tags too, as plain mappings."""


for _tag in ("!Template", "!TemplateMetadata"):
    _Loader.add_constructor(_tag, StrictLoader.located_mapping)


# All templates of a dataset are in one file, which each of its tasks asks for.
@functools.lru_cache(maxsize=1024)
def _read(path: str, member: str, dataset: str, version: tuple[int, int]) -> tuple[PromptTemplate, ...]:
    """Returns the templates of one file; `version` tells an archive from an earlier one at the same path."""
    del version
    place = Place(file=f"{path}/{member}")
    content = require_mapping(load_yaml(_bytes(path, member), place=place, loader=_Loader), place)
    file = parse(content, _File, place)
    declared = file.dataset if file.subset is None else f"{file.dataset}/{file.subset}"
    if declared != dataset:
        raise place.error(f"it declares the dataset {declared}, and its path is that of {dataset}.")
    by_name: dict[str, PromptTemplate] = {}
    for key, entry in sorted(file.templates.items(), key=lambda item: item[1].name):
        if entry.id not in (None, key):
            raise place.error(f"templates.{key}: its id is {entry.id!r}; it must be its key.")
        if entry.name in by_name:
            raise place.error(f"two templates have the name {entry.name!r}.")
        by_name[entry.name] = _template(key, entry, dataset=dataset, file=_file(path, member))
    return tuple(by_name.values())


def _file(path: str, member: str) -> str:
    """Returns the file on disk that contains a member: itself, or the archive."""
    return path if Path(path).is_file() else str(Path(path, member))


def _bytes(path: str, member: str) -> bytes:
    if Path(path).is_dir():
        return Path(path, member).read_bytes()
    with zipfile.ZipFile(path) as archive:
        return archive.read(member)


def _template(key: str, entry: _Template, *, dataset: str, file: str) -> PromptTemplate:
    metadata = entry.metadata or _Metadata()
    return PromptTemplate(
        id=key,
        name=entry.name,
        dataset=dataset,
        jinja=entry.jinja,
        answer_choices=entry.answer_choices,
        reference=entry.reference or "",
        metadata=PromptMetadata(
            original_task=bool(metadata.original_task),
            choices_in_prompt=metadata.choices_in_prompt,
            metrics=metadata.metrics or (),
            languages=metadata.languages or (),
        ),
        file=file,
    )
