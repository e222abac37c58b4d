"""The one reader of YAML: invalid YAML and doubled keys are refused with file and line.

PyYAML takes the last of two equal keys and forgets the first, follows aliases without a bound, and recurses
with the depth of a text. Nothing else in this project calls its loaders; a test looks.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import yaml

from serving.errors import ConfigError

MAX_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 100
# With what aliases repeat counted as often as it is repeated.
MAX_NODES = 1_000_000
# libyaml is five times as fast; PyYAML's wheels carry it, a source build may not.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGE = "tag:yaml.org,2002:merge"


def read_mapping(path: Path, param: str | None = None, *, holding: str = "") -> dict[str, Any]:
    """The mapping in a file.

    Args:
        param: what the error is about; by default the file.
        holding: what the mapping must hold, for the error.

    Raises:
        ConfigError: there is no such file, or it holds something else.
    """
    document = read(path, param)
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: must be a mapping{holding}", param=param or str(path))
    return document


def read(path: Path, param: str | None = None) -> Any:
    """The contents of a file of one document.

    Raises:
        ConfigError: there is no such file, or it is not YAML.
    """
    param = param or str(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}", param=param) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not YAML: it is not UTF-8 text", param=param) from None
    found = parse_all(text, str(path), param)
    if len(found) > 1:
        raise ConfigError(f"{path}: must be one document, not {len(found)}", param=param)
    return found[0] if found else None


def parse(text: str, where: str, param: str | None = None) -> Any:
    """The contents of a text of one document; the first of several.

    Raises:
        ConfigError: it is not YAML; the message begins with `where`.
    """
    found = parse_all(text, where, param)
    return found[0] if found else None


def parse_all(text: str, where: str, param: str | None = None) -> list[Any]:
    """The contents of a text of several documents.

    Raises:
        ConfigError: it is not YAML; the message begins with `where`.
    """
    param = param or where
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{where}: is longer than {MAX_BYTES // 2**20} MiB", param=param)
    try:
        _refuse_depth(text)
        loader = _Loader(text)
        try:
            return list(_documents(loader))
        finally:
            loader.dispose()
    except _Refused as error:
        raise ConfigError(f"{where}: {error}", param=param) from None
    # ValueError: a date that does not exist, a number of thousands of digits.
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise ConfigError(f"{where}: is not YAML{_place(text, error)}", param=param) from None


def parse_json(text: str) -> Any:
    """The contents of a JSON text from a configuration.

    Raises:
        ValueError: it is not JSON.
        ConfigError: an object has a key twice.
    """
    return json.loads(text, object_pairs_hook=_once)


class _Refused(Exception):
    """The text is YAML with contents that nobody can intend."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ConfigError(f"the key {key[:64]!r} appears twice", param=key[:64])
        found[key] = value
    return found


def _place(text: str, error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        try:
            # libyaml's marks of what is missing at the end are past the end.
            for _ in yaml.parse(text, Loader=yaml.SafeLoader):
                pass
        except yaml.MarkedYAMLError as exact:
            error = exact
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return ""
    place = f" (line {mark.line + 1}, column {mark.column + 1})"
    return place + (
        ": a tab; indent with spaces" if text[mark.index : mark.index + 1] == "\t" else ""
    )


def _refuse_depth(text: str) -> None:
    depth = 0
    # Events come one by one; composing them would recurse.
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                mark = event.start_mark
                place = f" (line {mark.line + 1})" if mark else ""
                raise _Refused(f"is nested more than {MAX_DEPTH} deep{place}")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _documents(loader: Any) -> Iterator[Any]:
    while loader.check_node():
        node = loader.get_node()
        _weigh(node, {}, set())
        for mapping in _mappings(node):
            _refuse_doubled(loader, mapping)
        yield loader.construct_document(node)


def _weigh(node: yaml.Node, known: dict[int, int], above: set[int]) -> int:
    """The number of nodes below this one, aliases followed."""
    if id(node) in known:
        return known[id(node)]
    line = node.start_mark.line + 1
    if id(node) in above:
        raise _Refused(f"an alias leads to what it stands in (line {line})")
    above.add(id(node))
    total = 1 + sum(_weigh(child, known, above) for child in _children(node))
    above.discard(id(node))
    if total > MAX_NODES:
        raise _Refused(f"its aliases make more than {MAX_NODES} values of it (line {line})")
    known[id(node)] = total
    return total


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _mappings(root: yaml.Node) -> Iterator[yaml.MappingNode]:
    seen, left = set(), [root]
    while left:
        node = left.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
        left += _children(node)


def _refuse_doubled(loader: Any, mapping: yaml.MappingNode) -> None:
    """Before what `<<` brings is merged in: a key of the mapping itself goes before a merged one."""
    lines: dict[Hashable, int] = {}
    for key, _ in mapping.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        line = key.start_mark.line + 1
        # As Python compares them: of 1, 1.0 and true, only one would be left.
        name = key.value if key.tag == _MERGE else loader.construct_object(key)
        if name in lines:
            remedy = ": give it a list, `<<: [*a, *b]`" if key.tag == _MERGE else ""
            raise _Refused(
                f"the key {str(name)[:64]!r} appears twice, in lines {lines[name]} and {line}{remedy}"
                if line != lines[name]
                else f"the key {str(name)[:64]!r} appears twice in line {line}{remedy}"
            )
        lines[name] = line
