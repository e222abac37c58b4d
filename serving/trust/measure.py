"""Measures JSON values without looking longer than a bound allows. Pure."""

from __future__ import annotations

from typing import Any


def fits(value: Any, values: int, depth: int | None = None, characters: int | None = None) -> bool:
    """Whether a JSON value holds at most so many values, levels and characters, its keys' among them.

    Level by level, which is the fastest way in Python; a level that is too large is not looked at.
    """
    level, seen, read = [value], 1, 0
    for _ in range(values if depth is None else depth):
        below: list[Any] = []
        for node in level:
            kind = type(node)
            if kind is str:
                read += len(node)
            elif kind is dict or kind is list:
                seen += len(node)
                if seen > values:
                    return False
                if kind is list:
                    below += node
                else:
                    below += node.values()
                    if characters is not None:
                        read += sum(map(len, node))
        if not below:
            return characters is None or read <= characters
        level = below
    return False
