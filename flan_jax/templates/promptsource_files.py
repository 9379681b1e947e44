"""Promptsource's folder of templates, or a zip archive of it: one YAML file a dataset or subset, read when asked for.

A file lies at `<dataset>/templates.yaml` or `<dataset>/<subset>/templates.yaml`; folders above a folder "templates" do
not count, so that a checkout of promptsource will do:

    dataset: super_glue
    subset: rte
    templates:
      2b52a83c-0021-41fe-b44c-5aaa076d71a2: !Template
        name: does it follow
        answer_choices: Yes ||| No
        jinja: '{{premise}} Does it follow that {{hypothesis}}? ||| {{ answer_choices[label] }}'
        reference: ''
        metadata: !TemplateMetadata {original_task: true, choices_in_prompt: false, metrics: [Accuracy], languages: [en]}

Reading executes nothing: the tags stand for plain mappings, and all others are refused.
"""

import functools
import re
import zipfile
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flan_jax.errors import MissingFileError, UnknownNameError, UserError
from flan_jax.names import nearest, shortened
from flan_jax.templates.load import require_keys, require_mapping
from flan_jax.templates.promptsource import PromptMetadata, PromptTemplate

FILE_NAME = "templates.yaml"
FILE_KEYS = ("dataset", "subset", "templates")
TEMPLATE_KEYS = ("id", "name", "jinja", "answer_choices", "reference", "metadata", "task_template")
METADATA_KEYS = ("original_task", "choices_in_prompt", "metrics", "languages")
_MEMBER = re.compile(r"(?:.*/)?templates/(.+)/templates\.yaml|(.+)/templates\.yaml")


@dataclass(frozen=True, kw_only=True)
class PromptArchive:
    """A folder or zip archive of templates.

    Attributes:
      path: where it is, absolute.
      members: for each dataset ("super_glue/rte") its file, relative to the folder.
    """

    path: str
    members: Mapping[str, str]

    def templates(self, dataset: str) -> tuple[PromptTemplate, ...]:
        """Returns the templates of a dataset by name, as the original sorts them.

        Raises:
          UnknownNameError: there is none of this name.
          UserError: its file is not what it should be; names the file and the place.
        """
        if dataset not in self.members:
            raise UnknownNameError(
                f"{self.path} has no templates for {dataset!r}.{nearest(dataset, self.members)} "
                f"It has {len(self.members)} datasets."
            )
        status = Path(_file(self.path, self.members[dataset])).stat()
        return _read(self.path, self.members[dataset], dataset, (status.st_size, status.st_mtime_ns))


def open_archive(path: Path | str) -> PromptArchive:
    """Lists the datasets of a folder or archive; reads no template.

    Raises:
      MissingFileError: nothing is there.
      UserError: it is neither a folder nor a zip archive, or has no templates.
    """
    place = Path(path).expanduser()
    if not place.exists():
        beside = [p.name for p in place.parent.iterdir()] if place.parent.is_dir() else []
        raise MissingFileError(f"No folder or archive {place} to read templates from.{nearest(place.name, beside)}")
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
    return PromptArchive(path=str(place.absolute()), members=found)


@functools.lru_cache(maxsize=1024)
def _read(path: str, member: str, dataset: str, version: tuple[int, int]) -> tuple[PromptTemplate, ...]:
    """The templates of one file; `version` tells an archive from what it was before."""
    del version
    where = f"{path}/{member}"
    content = require_mapping(_parsed(path, member, where), where=where)
    require_keys(content, FILE_KEYS, where=where, needed=("dataset", "templates"))
    subset = content.get("subset")
    said = str(content["dataset"]) if subset is None else f"{content['dataset']}/{subset}"
    if said != dataset:
        raise UserError(f"{where}: it says that it is for {said}, and lies where {dataset} belongs.")
    entries = require_mapping(content["templates"], where=f"{where}: templates")
    templates = [
        _template(key, entry, dataset=dataset, file=_file(path, member), where=f"{where}: templates.{key}")
        for key, entry in entries.items()
    ]
    by_name: dict[str, PromptTemplate] = {}
    for template in sorted(templates, key=lambda t: t.name):
        if by_name.setdefault(template.name, template) is not template:
            raise UserError(f"{where}: two templates have the name {template.name!r}.")
    return tuple(by_name.values())


def _file(path: str, member: str) -> str:
    """The file on disk that a member is in: itself, or the archive."""
    return path if Path(path).is_file() else str(Path(path, member))


def _parsed(path: str, member: str, where: str) -> object:
    if Path(path).is_dir():
        data = Path(path, member).read_bytes()
    else:
        with zipfile.ZipFile(path) as archive:
            data = archive.read(member)
    try:
        return yaml.load(data.decode(), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{where}: not a file of templates: {error}") from error


def _template(key: str, value: object, *, dataset: str, file: str, where: str) -> PromptTemplate:
    entry = require_mapping(value, where=where)
    require_keys(entry, TEMPLATE_KEYS, where=where, needed=("name", "jinja"))
    if entry.get("id", key) != key:
        raise UserError(f"{where}: its id is {entry['id']!r}; it must be its key.")
    for name in ("name", "jinja", "answer_choices", "reference"):
        needed = name in ("name", "jinja")
        if not isinstance(entry.get(name), str if needed else str | None) or (needed and not entry[name].strip()):
            raise UserError(f"{where}.{name}: expected a text, got {shortened(entry.get(name))}.")
    return PromptTemplate(
        id=key,
        name=entry["name"],
        dataset=dataset,
        jinja=entry["jinja"],
        answer_choices=entry.get("answer_choices"),
        reference=entry.get("reference") or "",
        metadata=_metadata(entry.get("metadata") or {}, where=f"{where}.metadata"),
        file=file,
    )


def _metadata(value: object, *, where: str) -> PromptMetadata:
    entry = require_mapping(value, where=where)
    require_keys(entry, METADATA_KEYS, where=where)
    for name in ("original_task", "choices_in_prompt"):
        if not isinstance(entry.get(name), bool | None):
            raise UserError(f"{where}.{name}: expected true or false, got {shortened(entry[name])}.")
    for name in ("metrics", "languages"):
        texts = entry.get(name) or []
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise UserError(f"{where}.{name}: expected a list of texts, got {shortened(entry[name])}.")
    return PromptMetadata(
        original_task=bool(entry.get("original_task")),
        choices_in_prompt=entry.get("choices_in_prompt"),
        metrics=tuple(entry.get("metrics") or ()),
        languages=tuple(entry.get("languages") or ()),
    )


class _Loader(yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc]
    """Knows plain YAML and promptsource's two tags; refuses a key that is there twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


for _tag in ("!Template", "!TemplateMetadata"):
    _Loader.add_constructor(_tag, lambda loader, node: loader.construct_mapping(node, deep=True))
