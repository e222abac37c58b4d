"""Modules that are imported when a test first uses them.

Every worker of `pytest -n` reads all test files, and few of them run the tests that need OpenAI's or
Anthropic's client: 7 s of processor time for each of the others.
"""

from __future__ import annotations

import importlib
from typing import Any


class _Module:
    """Stands for a module; pytest's look would wake an `importlib.util.LazyLoader`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        # Pytest looks at all that a test file holds for marks and fixtures.
        if name.startswith(("_", "pytest")):
            raise AttributeError(name)
        return getattr(importlib.import_module(self._name), name)


def lazily(name: str) -> Any:
    """The module, imported when an attribute of it is first asked for."""
    return _Module(name)
