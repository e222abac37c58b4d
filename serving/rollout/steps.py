"""The steps of a rollout, each a Serve config from the one before: start, weigh, settle, remove. Pure.

A rollout has no state but the config itself: it is in progress when two applications are revisions
of one model.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from serving.config.revisions import public_name, revision_name, revision_number
from serving.errors import ConfigError
from serving.rollout.changes import public_args, revised_args
from serving.rollout.document import (
    Document,
    Site,
    read_site,
    with_application,
    with_routing,
    without_application,
)
from serving.rollout.routing import Names, percent_of_new, settled, shared


@dataclass(frozen=True)
class Rollout:
    """A rollout in progress: the public name, the two applications, the new one's share in percent."""

    model: str
    old: str
    new: str
    names: Names
    percent: float


def present_revision(site: Site, model: str) -> str:
    """The application that answers for a model, while no rollout is in progress.

    Raises:
        ConfigError: there is no such model, or a rollout is going on.
    """
    public = _known(site, model)
    revisions = site.revisions(public)
    if len(revisions) > 1:
        raise ConfigError(
            f"a rollout of {public!r} is already in progress ({', '.join(revisions)}): end it first "
            f"with `comptoir rollout promote {public}` or `comptoir rollout abort {public}`",
            param="model",
        )
    return revisions[0]


def find(document: Mapping[str, Any], model: str) -> Rollout:
    """The rollout of a model.

    Raises:
        ConfigError: there is no such model, no rollout, or there are three revisions.
    """
    site = read_site(document)
    public = _known(site, model)
    revisions = site.revisions(public)
    if len(revisions) == 1:
        raise ConfigError(
            f"no rollout of {public!r} is in progress: `comptoir rollout start {public} --to ...` "
            "begins one",
            param="model",
        )
    if len(revisions) > 2:
        raise ConfigError(
            f"{public!r} has {len(revisions)} revisions ({', '.join(revisions)}), and a rollout is "
            "between two: deploy a file that has one of them less",
            param="model",
        )
    old, new = revisions
    names = _names(site.models[old], site.models[new])
    return Rollout(public, old, new, names, percent_of_new(site.routing, public, old, new))


def rollouts(document: Mapping[str, Any]) -> list[Rollout]:
    """All rollouts in progress."""
    site = read_site(document)
    public = dict.fromkeys(public_name(name) for name in site.models)
    return [find(document, name) for name in public if len(site.revisions(name)) == 2]


def started(
    document: Mapping[str, Any],
    model: str,
    wanted: Mapping[str, Any],
    taken: Collection[str] = (),
) -> Document:
    """The document with a new revision beside the present one, which gets no requests yet.

    Args:
        wanted: the args that the new revision is to have, in the words of the present one.
        taken: further names of applications that cannot be had: some may still be ending.

    Raises:
        ConfigError: no such model, a rollout goes on already, nothing changes, or the args do not fit.
    """
    site = read_site(document)
    old = present_revision(site, model)
    public = public_name(old)
    number = 1 + max(revision_number(name) for name in {old, *taken} if public_name(name) == public)
    application = copy.deepcopy(dict(site.models[old]))
    application["name"] = revision_name(public, number)
    application["args"] = revised_args(application["args"], wanted, number)
    return with_application(document, application)


def weighted(document: Mapping[str, Any], model: str, percent: float) -> Document:
    """The document with another share for the new revision.

    Raises:
        ConfigError: no rollout is in progress, or the percentage is none.
    """
    if not 0 <= percent <= 100:
        raise ConfigError(f"weight: must be from 0 to 100 percent, not {percent:g}", param="weight")
    rollout = find(document, model)
    # From where it began: an interrupted `promote` has renamed what there is.
    routing = settled(read_site(document).routing, rollout.names, "old")
    return with_routing(document, shared(routing, rollout.names, percent))


def decided(document: Mapping[str, Any], model: str, keep: Literal["old", "new"]) -> Document:
    """The document in which only one revision gets requests, and both still run: the other one drains."""
    rollout = find(document, model)
    return with_routing(document, settled(read_site(document).routing, rollout.names, keep))


def ended(document: Mapping[str, Any], model: str, keep: Literal["old", "new"]) -> Document:
    """The document after the rollout: the other revision is gone."""
    rollout = find(document, model)
    gone = rollout.old if keep == "new" else rollout.new
    return without_application(decided(document, model, keep), gone)


def what_changes(site: Site, rollout: Rollout) -> list[str]:
    """The keys of the args in which the revisions differ."""
    old, new = (public_args(site.models[name]["args"]) for name in (rollout.old, rollout.new))
    return [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]


def _known(site: Site, model: str) -> str:
    public = public_name(model)
    if site.revisions(public):
        return public
    known = ", ".join(dict.fromkeys(public_name(name) for name in site.models)) or "none"
    what = f"there is no model {model!r} on the cluster"
    if model in site.routing.get("aliases", {}):
        what = f"{model!r} is an alias and not a model"
    raise ConfigError(f"{what}; available: {known}", param="model")


def _names(old: Mapping[str, Any], new: Mapping[str, Any]) -> Names:
    args = old["args"]
    adapters: Mapping[str, Any] = args.get("adapters") or {}
    theirs = {public_name(name): name for name in new["args"].get("adapters") or {}}
    pairs = {old["name"]: new["name"]} | {
        name: theirs[public_name(name)] for name in adapters if public_name(name) in theirs
    }
    aliases: list[str] = list(args.get("aliases") or ())
    public = {public_name(name): name for name in pairs} | dict.fromkeys(aliases, old["name"])
    return Names(pairs, public, frozenset({*pairs, *aliases}))
