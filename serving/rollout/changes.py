"""The changes of a new revision: `key=value` on the command line, and the resulting arguments. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from serving.config.revisions import public_name, revision_name
from serving.config.yaml_file import parse_json
from serving.errors import ConfigError
from serving.settings import ModelConfig

# Values that stay text, whatever they look like: a revision may consist of digits.
_TEXT = frozenset(
    name
    for name, field in ModelConfig.model_fields.items()
    if field.annotation is str or field.annotation == (str | None)
)


def changed_args(args: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """A model's args with `key=value` applied; dots lead into mappings, `null` removes a key.

    Values are JSON where they can be read as such, else text.

    Raises:
        ConfigError: no `=`, or a key leads into something that is not a mapping.
    """
    changed = copy.deepcopy(dict(args))
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        path = key.strip().split(".")
        if not equals or not all(path):
            raise ConfigError(
                f"--to {assignment!r}: write key=value, for instance revision=main or "
                "engine_args.max_model_len=8192",
                param="to",
            )
        _assign(changed, path, _value(path, text), assignment)
    return changed


def _value(path: list[str], text: str) -> Any:
    if text != "null" and len(path) == 1 and path[0] in _TEXT:
        return text
    try:
        return parse_json(text)
    except ValueError:
        return text


def _assign(args: dict[str, Any], path: list[str], value: Any, assignment: str) -> None:
    place = args
    for part in path[:-1]:
        inner = place.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(
                f"--to {assignment!r}: {part!r} is not a mapping here: {inner!r}", param=path[0]
            )
        place = inner
    if value is None:
        place.pop(path[-1], None)
    else:
        place[path[-1]] = value


def revised_args(
    present: Mapping[str, Any], wanted: Mapping[str, Any], number: int
) -> dict[str, Any]:
    """The args of a revision's application, from those that are wanted.

    Only the names differ from `wanted`: the id and the adapters get the revision's number, so that both
    revisions can run; the present one keeps its `aliases`, and routing hands them on.

    Raises:
        ConfigError: nothing changes, a name changes, or the change is invalid.
    """
    _same_names(present, wanted)
    if public_args(wanted) == public_args(present):
        raise ConfigError(
            "the new revision would be the present one: say what changes with --to or --args",
            param="to",
        )
    public = public_name(present["id"])
    args = {key: copy.deepcopy(value) for key, value in wanted.items() if key != "aliases"}
    args["id"] = revision_name(public, number)
    # Without one, the id says what the model is.
    args["catalogue"] = wanted.get("catalogue") or present.get("catalogue") or public
    if args.get("adapters"):
        args["adapters"] = {
            revision_name(public_name(name), number): source
            for name, source in args["adapters"].items()
        }
    ModelConfig.from_args(args)
    return args


def public_args(args: Mapping[str, Any]) -> dict[str, Any]:
    """A revision's args without what every revision has of its own: its names."""
    found = {key: value for key, value in args.items() if key != "aliases"}
    found["id"] = public_name(args["id"])
    found["catalogue"] = args.get("catalogue") or found["id"]
    if args.get("adapters"):
        found["adapters"] = {public_name(name): path for name, path in args["adapters"].items()}
    return found


def _same_names(present: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse a change of names: a rollout is there so that clients notice nothing."""
    for key in ("id", "aliases"):
        ours, theirs = present.get(key), wanted.get(key)
        if theirs not in (None, ours, public_name(present["id"])):
            raise ConfigError(
                f"{key}: a rollout keeps the names under which clients ask: deploy a file to change "
                "them",
                param=key,
            )
    ours, theirs = ({public_name(name) for name in _adapters(one)} for one in (present, wanted))
    if ours != theirs:
        raise ConfigError(
            "adapters: a rollout keeps their names and changes what is behind them; the model has: "
            f"{', '.join(sorted(ours)) or 'none'}",
            param="adapters",
        )


def _adapters(args: Mapping[str, Any]) -> Iterable[str]:
    found = args.get("adapters") or {}
    return found if isinstance(found, Mapping) else ()
