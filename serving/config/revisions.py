"""Names of a model's revisions: `qwen3--r2` is the second revision of what clients call `qwen3`.

Two revisions run beside each other during a rollout (docs/rollout.md), each under a name of its own. What was
said of the public name, above all which keys may use it, holds for its revisions.
"""

from __future__ import annotations

import re

_REVISION = re.compile(r"(?P<name>.+)--r(?P<number>[1-9][0-9]{0,5})")


def public_name(name: str) -> str:
    """What clients call the model (or adapter) that this is a revision of; any other name is its own."""
    found = _REVISION.fullmatch(name)
    return found["name"] if found else name


def revision_number(name: str) -> int:
    """Which revision it is; a name without a number is the first."""
    found = _REVISION.fullmatch(name)
    return int(found["number"]) if found else 1


def revision_name(public: str, number: int) -> str:
    """The name of a revision."""
    return f"{public}--r{number}"
