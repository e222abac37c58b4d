"""Loads the catalogue: YAML files into validated, immutable entries and licences.

A file holds families; the fields of a family apply to each of its models unless the model
overrides them:

    vendor: Example AI
    vendor_jurisdiction: FR
    families:
      - family: Example
        licence: apache-2.0
        models:
          - {id: example-7b, ...}
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from serving.catalogue.frozen import FrozenMapping
from serving.catalogue.licences import Licence
from serving.catalogue.spec import ModelSpec, Task
from serving.config.paths import expanded
from serving.config.yaml_file import parse
from serving.errors import CatalogueError, ComptoirError, ConfigError

_FILE_KEYS = frozenset({"vendor", "vendor_jurisdiction", "families", "licences"})
T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All entries by id, and the licences they name. Build it with `load_catalogue`."""

    models: Mapping[str, ModelSpec]
    licences: Mapping[str, Licence]

    def __len__(self) -> int:
        return len(self.models)

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self.models.values())

    def __contains__(self, model_id: object) -> bool:
        return model_id in self.models

    def get(self, model_id: str) -> ModelSpec:
        """The entry with this id.

        Raises:
            CatalogueError: there is no such entry; the message lists the nearest names.
        """
        spec = self.models.get(model_id)
        if spec is None:
            raise CatalogueError(_unknown("model", model_id, self.models), param="model")
        return spec

    def list(self) -> tuple[ModelSpec, ...]:
        """All entries, in the order of their files."""
        return tuple(self.models.values())

    def filter(
        self, *, vendor: str | None = None, family: str | None = None, task: Task | None = None
    ) -> tuple[ModelSpec, ...]:
        """Entries whose vendor and family contain these words (in any case) and have this task."""
        return tuple(
            spec
            for spec in self
            if (vendor is None or vendor.lower() in spec.vendor.lower())
            and (family is None or family.lower() in spec.family.lower())
            and (task is None or spec.task == task)
        )

    def licence_of(self, spec: ModelSpec) -> Licence:
        """The licence an entry names.

        Raises:
            CatalogueError: the catalogue has no such licence.
        """
        licence = self.licences.get(spec.licence)
        if licence is None:
            raise CatalogueError(
                f"{spec.id}: licence: {_unknown('licence', spec.licence, self.licences)}",
                param="licence",
            )
        return licence


def load_catalogue(extra_paths: Iterable[str | Path] = ()) -> Catalogue:
    """The entries shipped with Comptoir and those of an operator's own files.

    Args:
        extra_paths: YAML files of the same form; they add models and licences and replace none.

    Raises:
        CatalogueError: a file cannot be read or an entry is wrong; the message names file, entry
            and field.
    """
    return _catalogue((*_shipped(), *(_read(Path(path)) for path in extra_paths)))


# A site's models are planned one by one, each with the same files: reading takes 0.2 s.
@lru_cache(maxsize=4)
def _catalogue(files: tuple[tuple[str, str], ...]) -> Catalogue:
    """What the files say; each with its name."""
    models: dict[str, ModelSpec] = {}
    licences: dict[str, Licence] = {}
    for name, text in files:
        content = _parse(name, text)
        for licence in _licences(name, content):
            if licence.id in licences or licence.name in {
                other.name for other in licences.values()
            }:
                raise CatalogueError(
                    f"{name}: licence {licence.id}: its id or name exists already", param="licences"
                )
            licences[licence.id] = licence
        for spec in _specs(name, content):
            if spec.id in models:
                raise CatalogueError(
                    f"{name}: {spec.id}: id: another entry has it; ids are unique", param="id"
                )
            models[spec.id] = spec
    catalogue = Catalogue(FrozenMapping(models), FrozenMapping(licences))
    for spec in catalogue:
        catalogue.licence_of(spec)
    return catalogue


def _shipped() -> list[tuple[str, str]]:
    folder = resources.files("serving.catalogue") / "data"
    files = sorted((item for item in folder.iterdir() if item.name.endswith(".yaml")), key=_name)
    return [(item.name, item.read_text(encoding="utf-8")) for item in files]


def _name(item: Any) -> str:
    return str(item.name)


def _read(path: Path) -> tuple[str, str]:
    try:
        return str(path), expanded(path, "catalogue_files").read_text(encoding="utf-8")
    except OSError as error:
        raise CatalogueError(
            f"catalogue file {str(path)!r} cannot be read: {error.strerror}",
            param="catalogue_files",
        ) from None
    except UnicodeDecodeError:
        raise CatalogueError(
            f"catalogue file {str(path)!r} is not UTF-8 text", param="catalogue_files"
        ) from None


def _parse(name: str, text: str) -> Mapping[str, Any]:
    try:
        content = parse(text, name)
    except ConfigError as error:
        raise CatalogueError(error.message, param="catalogue_files") from None
    if not isinstance(content, dict):
        raise CatalogueError(f"{name} must hold a mapping with `families`", param="catalogue_files")
    unknown = sorted(str(key) for key in content if key not in _FILE_KEYS)
    if unknown:
        raise CatalogueError(
            f"{name}: unknown key {unknown[0]!r}; known: {', '.join(sorted(_FILE_KEYS))}",
            param=unknown[0],
        )
    return content


def _licences(name: str, content: Mapping[str, Any]) -> Iterator[Licence]:
    for index, fields in enumerate(_mappings(name, content, "licences")):
        yield _validated(Licence, fields, f"{name}: licence {fields.get('id', f'#{index + 1}')}")


def _specs(name: str, content: Mapping[str, Any]) -> Iterator[ModelSpec]:
    shared = {key: content[key] for key in ("vendor", "vendor_jurisdiction") if key in content}
    for family in _mappings(name, content, "families"):
        where = f"{name}: family {family.get('family', '?')}"
        defaults = {key: value for key, value in family.items() if key != "models"}
        for index, fields in enumerate(_mappings(where, family, "models")):
            entry = fields.get("id", f"{family.get('family', '?')} #{index + 1}")
            yield _validated(ModelSpec, {**shared, **defaults, **fields}, f"{name}: {entry}")


def _mappings(where: str, content: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    items = content.get(key) or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise CatalogueError(f"{where}: {key}: must be a list of mappings", param=key)
    return items


def _validated(cls: type[T], fields: Mapping[str, Any], where: str) -> T:
    try:
        return cls.model_validate(fields)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
        # A misspelt field is reported twice, as unknown and as missing: the first explains more.
        first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
        field = ".".join(str(part) for part in first["loc"])
        text = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            text = _unknown("field", field, cls.model_fields)
        elif first["type"] == "missing":
            text = "is required"
        raise CatalogueError(
            f"{where}: {field}: {text}" if field else f"{where}: {text}", param=field or None
        ) from None
    except ComptoirError as error:
        raise CatalogueError(f"{where}: {error.message}", param=error.param) from None


def _unknown(kind: str, wanted: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(wanted.lower(), names, n=5, cutoff=0.4)
    hint = f"nearest: {', '.join(near)}" if near else f"there are {len(names)}"
    return f"{kind} {wanted!r} is unknown; {hint}"
