"""Names of a model's revisions: `qwen3--r2` is the second revision of the model `qwen3`.

Two revisions run beside each other during a rollout (docs/rollout.md), each under a name of its own. Settings
of the public name, above all the keys that may use it, apply to its revisions.
"""

from __future__ import annotations

import re

_REVISION = re.compile(r"(?P<name>.+)--r(?P<number>[1-9][0-9]{0,5})")


def public_name(name: str) -> str:
    """The public name of a revision of a model or adapter; any other name is its own."""
    found = _REVISION.fullmatch(name)
    return found["name"] if found else name


def revision_number(name: str) -> int:
    """The number of the revision; a name without a number is the first."""
    found = _REVISION.fullmatch(name)
    return int(found["number"]) if found else 1


def revision_name(public: str, number: int) -> str:
    """The name of a revision."""
    return f"{public}--r{number}"
