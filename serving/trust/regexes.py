"""Regular expressions that an engine may be held to: none whose every token takes longer than the one before.

An engine follows an expression token by token, for all requests of a step, and keeps every way in which the
text so far can be read. `(.*)*` reads a text of n characters in 2^n ways: twelve characters of a request can
stop an engine. So a repetition is refused inside another one if what it repeats can also follow it. In
`[a-z]+(-[a-z]+)*` nothing can: the hyphen says where a word begins. Python's own parser, a private part of
it, reads the expressions; tests/trust/test_regexes.py fails when it moves.
"""

from __future__ import annotations

import re
from functools import reduce
from operator import or_
from typing import Any

from re import _constants as codes  # type: ignore[attr-defined]  # isort: skip
from re import _parser as parser  # type: ignore[attr-defined]  # isort: skip

MAX_CHARACTERS = 1024
# A set of characters: a bit for each of ASCII, and one for all others.
_OTHERS = 1 << 128
_ALL = (_OTHERS << 1) - 1


def _of(text: str) -> int:
    return reduce(or_, (1 << ord(one) for one in text), 0)


_DIGITS = _of("0123456789")
_SPACES = _of(" \t\n\r\f\v")
_WORDS = _of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_") | _DIGITS
# Of ASCII only, as engines read them.
_CATEGORIES = {
    codes.CATEGORY_DIGIT: _DIGITS,
    codes.CATEGORY_SPACE: _SPACES,
    codes.CATEGORY_WORD: _WORDS,
    codes.CATEGORY_NOT_DIGIT: _ALL & ~_DIGITS,
    codes.CATEGORY_NOT_SPACE: _ALL & ~_SPACES,
    codes.CATEGORY_NOT_WORD: _ALL & ~_WORDS,
}
_REPEATS = (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT)


def objection(pattern: str) -> str | None:
    """Why no engine is held to this expression; None when one can be."""
    if len(pattern) > MAX_CHARACTERS:
        return f"it may have at most {MAX_CHARACTERS} characters"
    try:
        tree = parser.parse(pattern)
        _follow([*tree], 0, is_repeated=False)
    except _RefusedError as refused:
        return str(refused)
    except (re.error, RecursionError, OverflowError, KeyError):
        return "it is no regular expression that can be read"
    return None


class _RefusedError(Exception):
    """An expression that no engine is held to."""


def _follow(nodes: list[Any], after: int, *, is_repeated: bool) -> None:
    """Look at a sequence; `after` are the characters that may stand behind it."""
    for index, (code, value) in enumerate(nodes):
        first, can_be_empty = _first(nodes[index + 1 :])
        behind = first | (after if can_be_empty else 0)
        if code in _REPEATS:
            _repeat(value, behind, is_repeated=is_repeated)
        elif code is codes.SUBPATTERN:
            _follow([*value[-1]], behind, is_repeated=is_repeated)
        elif code is codes.ATOMIC_GROUP:
            _follow([*value], behind, is_repeated=is_repeated)
        elif code is codes.BRANCH:
            for branch in value[1]:
                _follow([*branch], behind, is_repeated=is_repeated)
        elif code in (codes.ASSERT, codes.ASSERT_NOT, codes.GROUPREF, codes.GROUPREF_EXISTS):
            raise _RefusedError("it looks around or back, which no grammar can")
        elif not _first([(code, value)])[0] and code is not codes.AT:
            raise _RefusedError("one of its characters is none at all")


def _repeat(value: Any, behind: int, *, is_repeated: bool) -> None:
    low, high, body = value
    nodes = [*body]
    first, can_be_empty = _first(nodes)
    if is_repeated and low != high and first & behind:
        raise _RefusedError(
            "it repeats something inside a repetition, and what is repeated can also follow it: put a "
            "separator between"
        )
    loops = high > 1
    if loops and can_be_empty:
        raise _RefusedError("it repeats something that may be empty")
    _follow(nodes, behind | (first if loops else 0), is_repeated=is_repeated or loops)


def _first(nodes: list[Any]) -> tuple[int, bool]:
    """The characters with which a sequence may begin, and whether it may be empty."""
    found = 0
    for code, value in nodes:
        mask, can_be_empty = _begins(code, value)
        found |= mask
        if not can_be_empty:
            return found, False
    return found, True


def _begins(code: Any, value: Any) -> tuple[int, bool]:
    if code in _REPEATS:
        mask, can_be_empty = _first([*value[2]])
        return mask, can_be_empty or value[0] == 0
    if code is codes.SUBPATTERN:
        return _first([*value[-1]])
    if code is codes.ATOMIC_GROUP:
        return _first([*value])
    if code is codes.BRANCH:
        found = [_first([*branch]) for branch in value[1]]
        return reduce(or_, (mask for mask, _ in found), 0), any(empty for _, empty in found)
    if code is codes.AT:
        return 0, True
    return _set(code, value), False


def _set(code: Any, value: Any) -> int:
    if code is codes.LITERAL:
        return _one(value)
    if code is codes.NOT_LITERAL:
        return _ALL & ~(_one(value) & ~_OTHERS)
    if code is codes.ANY:
        return _ALL
    if code is codes.IN:
        members = [member for member in value if member[0] is not codes.NEGATE]
        mask = reduce(or_, (_member(*member) for member in members), 0)
        if len(members) == len(value):
            return mask
        # `[^é]` leaves others beyond ASCII; `[^\D]` does not.
        takes_all = any(
            code is codes.CATEGORY and _CATEGORIES[kind] & _OTHERS for code, kind in members
        )
        return _ALL & ~(mask if takes_all else mask & ~_OTHERS)
    return _ALL


def _member(code: Any, value: Any) -> int:
    if code is codes.RANGE:
        low, high = value
        ascii_part = ((1 << (int(min(high, 127)) + 1)) - 1) & ~((1 << int(min(low, 128))) - 1)
        return ascii_part | (_OTHERS if high > 127 else 0)
    return int(_CATEGORIES[value]) if code is codes.CATEGORY else _one(value)


def _one(character: int) -> int:
    return 1 << character if character < 128 else _OTHERS
