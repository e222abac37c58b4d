"""Parses a large JSON text in pieces, so that others may run between two of them. Pure.

`orjson.loads` takes up to 190 ms for 2 MiB that are nothing but empty lists, 25 ms for 60,000 parts of a
message, and lets nobody run meanwhile. Here a tokenizer finds where lists and objects begin and end; whenever
enough has come by, `orjson` parses the elements since the last time, and what is still open is on a stack:

    {"model": "m", "messages": [{...}, {...}, {...}, ...
     parsed: a member           parsed: 2 elements  ^ pending

orjson alone decides validity and meaning: every character passes through it, except for the brackets
and commas between two pieces.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any

import orjson

from serving.errors import InvalidFieldError, MalformedJsonError

# Less than a millisecond of `orjson.loads`, and of tokens.
PIECE_TOKENS, STEP_TOKENS = 1024, 1024
# Of text that is looked at in one go; lists of numbers are parsed in pieces of this length.
PIECE_BYTES = 16 * 1024
STEP_BYTES = 32 * 1024
COUNT_BYTES = 256 * 1024
# Of one object; nothing that is accepted has so many.
MAX_MEMBERS = 16_384
# As orjson has it.
MAX_DEPTH = 1024

# Short strings; the end of a longer one is found faster than `re` does it.
_STRING = rb'"[^"\\]{0,256}+(?:\\.[^"\\]{0,256}+){0,16}+"'
_PLAIN = rb'[^"\[\]{}]{0,16384}+'
# A list or an object with little in it is one token.
_FLAT = rb"(?:%s%s){0,64}+%s" % (_PLAIN, _STRING, _PLAIN)
_TOKEN = re.compile(
    rb"(?P<flat>\{%s\}|\[%s\])|(?P<open>[\[{])|(?P<close>[\]}])|(?P<comma>,)|(?P<text>%s)|(?P<quote>\")"
    % (_FLAT, _FLAT, _STRING),
    re.DOTALL,
)
_BLANK = b" \t\n\r"


def many_values_in_steps(text: bytes) -> Generator[None, None, bool]:
    """Whether parsing may take long: never false for a text that does."""
    found = 0
    for start in range(0, len(text), COUNT_BYTES):
        found += sum(text.count(sign, start, start + COUNT_BYTES) for sign in (b",", b"[", b"{"))
        if found > PIECE_TOKENS:
            return True
        yield
    return False


def parse_in_steps(text: bytes, max_objects: int) -> Generator[None, None, Any]:
    """The value that `orjson.loads` gives for the text.

    Args:
        max_objects: limit of lists and objects.

    Raises:
        MalformedJsonError: it is not JSON.
        InvalidFieldError: it holds too many lists and objects, or an object too many members.
    """
    reader = _Reader(text)
    at = tokens = objects = rested = 0
    while at < len(text):
        for token in _TOKEN.finditer(text, at):
            kind, at = token.lastgroup, token.start()
            tokens += 1
            if kind == "comma":
                reader.comma(at)
            elif kind == "close":
                reader.close(at)
            elif kind == "open":
                objects += 1
                reader.open(at)
                if reader.begins_numbers(at):
                    at = yield from reader.numbers()
                    break
            elif kind == "quote":
                reader.inside(at)
                at = yield from _string_end(text, at)
                break
            else:
                objects += kind == "flat"
                reader.inside(at, token.end() - at)
            if objects > max_objects:
                raise InvalidFieldError(
                    f"the body holds too many lists and objects: at most {max_objects}"
                )
            if tokens % STEP_TOKENS == 0 or at - rested > STEP_BYTES:
                rested = at
                yield
        else:
            break
    return reader.end()


def _string_end(text: bytes, at: int) -> Generator[None, None, int]:
    """The position after the string that begins there; the end of the text if it is not closed."""
    quotes = 0
    start = at + 1
    while (at := text.find(b'"', start)) >= 0:
        before = text[start:at]
        # After an even number of backslashes the quotation mark ends the string.
        if (len(before) - len(before.rstrip(b"\\"))) % 2 == 0:
            return at + 1
        start = at + 1
        quotes += 1
        if quotes % STEP_TOKENS == 0:
            yield
    return len(text)


_LIST = ord("[")
_SIGNS = (b'"', b"[", b"{", b"]", b"}")


class _Frame:
    """A list or an object that has begun.

    `value` is the parsed part; None: nothing yet, it is pending as part of its parent. The pending part
    begins at `start`. `comma` is the last comma since then, or -1.
    """

    __slots__ = ("comma", "ends_with_child", "key", "opened", "start", "value")

    def __init__(self, opened: int) -> None:
        self.opened = opened
        self.start = opened + 1
        self.comma = -1
        self.value: list[Any] | dict[str, Any] | None = None
        self.key = ""
        # A parsed child stands last: only a comma or the end may follow.
        self.ends_with_child = False


class _Reader:
    def __init__(self, text: bytes) -> None:
        self._text = text
        self._stack: list[_Frame] = []
        # Frames with a value: the outermost ones.
        self._begun = 0
        self._pending = 0
        self._is_over = False
        self._result: Any = None

    # ---- tokens --------------------------------------------------------------------------------------

    def inside(self, at: int, size: int = 0) -> None:
        """A string, or a whole small list or object: it stays pending."""
        if self._is_over or (self._stack and self._stack[-1].ends_with_child):
            raise self._malformed(at)
        # A list of numbers may have one in every second byte.
        self._pending += 1 + size // 16

    def open(self, at: int) -> None:
        self.inside(at)
        if len(self._stack) >= MAX_DEPTH:
            raise self._malformed(at)
        if not self._stack:
            self._blank(0, at)
        self._stack.append(_Frame(at))

    def comma(self, at: int) -> None:
        if not self._stack:
            raise self._malformed(at)
        frame = self._stack[-1]
        self._pending += 1
        if frame.ends_with_child:
            self._blank(frame.start, at)
            frame.ends_with_child = False
            frame.start = at + 1
        elif self._pending >= PIECE_TOKENS:
            self._begin_all()
            self._add(frame, frame.start, at)
            frame.start = at + 1
            self._pending = 0
        else:
            frame.comma = at

    def close(self, at: int) -> None:
        text = self._text
        if not self._stack or text[self._stack[-1].opened] + 2 != text[at]:
            raise self._malformed(at)
        frame = self._stack.pop()
        if frame.value is None:
            if not self._stack:
                self._over(self._loads(frame.opened, frame.opened, at + 1, b"", b""), at + 1)
            return
        if frame.ends_with_child:
            self._blank(frame.start, at)
        else:
            self._add(frame, frame.start, at)
        self._begun -= 1
        if self._stack:
            self._attach(self._stack[-1], frame.value, at + 1)
        else:
            self._over(frame.value, at + 1)

    def begins_numbers(self, at: int) -> bool:
        """Whether a list begins there with so many numbers that it is cut among them."""
        return self._text[at] == _LIST and self._is_plain(at + 1)

    def numbers(self) -> Generator[None, None, int]:
        """Parse them up to where something else comes; returns where that is."""
        self._begin_all()
        frame = self._stack[-1]
        while self._is_plain(frame.start):
            cut = self._text.rfind(b",", frame.start, frame.start + PIECE_BYTES)
            if cut < 0:
                break
            self._add(frame, frame.start, cut)
            frame.start = cut + 1
            yield
        self._pending = 0
        return frame.start

    def _is_plain(self, start: int) -> bool:
        window = self._text[start : start + PIECE_BYTES]
        return len(window) == PIECE_BYTES and not any(sign in window for sign in _SIGNS)

    def end(self) -> Any:
        """The value of the whole text."""
        if self._is_over:
            self._blank(self._end, len(self._text))
            return self._result
        if self._stack:
            raise self._malformed(len(self._text))
        return self._loads(0, 0, len(self._text), b"", b"")

    # ---- pieces --------------------------------------------------------------------------------------

    def _begin_all(self) -> None:
        """Parse what is pending before the innermost frame, so that it has a value to add to."""
        stack, text = self._stack, self._text
        for index in range(max(0, self._begun - 1), len(stack)):
            frame = stack[index]
            if frame.value is None:
                frame.value = [] if text[frame.opened] == _LIST else {}
            if index + 1 < len(stack):
                self._begin_child(frame, stack[index + 1].opened)
        self._begun = len(stack)

    def _begin_child(self, frame: _Frame, opened: int) -> None:
        lead = frame.start
        if frame.comma >= 0:
            lead = frame.comma + 1
            self._add(frame, frame.start, frame.comma)
        if isinstance(frame.value, list):
            self._blank(lead, opened)
        else:
            # `"key":` and an empty object for the child.
            one = self._loads(lead, lead, opened, b"{", b"{}}")
            if len(one) != 1:
                raise self._malformed(opened)
            (frame.key,) = one
        frame.start, frame.comma = opened, -1

    def _add(self, frame: _Frame, start: int, end: int) -> None:
        """Parse elements or members between two commas or brackets; there must be one."""
        if isinstance(frame.value, list):
            elements = self._loads(start, start, end, b"[", b"]")
            frame.value.extend(elements)
        else:
            elements = self._loads(start, start, end, b"{", b"}")
            if frame.value is not None:
                frame.value.update(elements)
            if frame.value is not None and len(frame.value) > MAX_MEMBERS:
                raise InvalidFieldError(
                    f"an object in the body has too many members: at most {MAX_MEMBERS}"
                )
        frame.comma = -1
        if not elements:
            raise self._malformed(end)

    def _attach(self, frame: _Frame, value: Any, end: int) -> None:
        if isinstance(frame.value, list):
            frame.value.append(value)
        elif frame.value is not None:
            frame.value[frame.key] = value
        frame.start, frame.comma, frame.ends_with_child = end, -1, True

    def _over(self, value: Any, end: int) -> None:
        self._is_over, self._result, self._end = True, value, end

    def _blank(self, start: int, end: int) -> None:
        if self._text[start:end].strip(_BLANK):
            raise self._malformed(start)

    def _loads(self, at: int, start: int, end: int, before: bytes, after: bytes) -> Any:
        try:
            return orjson.loads(b"%b%b%b" % (before, self._text[start:end], after))
        except orjson.JSONDecodeError as error:
            offset = len(error.doc[: error.pos].encode("utf-8", "surrogatepass")) - len(before)
            raise self._malformed(min(at + max(0, offset), end)) from None

    def _malformed(self, at: int) -> MalformedJsonError:
        line = self._text.count(b"\n", 0, at) + 1
        begins = self._text.rfind(b"\n", 0, at) + 1
        column = len(self._text[begins:at].decode("utf-8", "replace")) + 1
        return MalformedJsonError(f"the body is not valid JSON (line {line}, column {column})")
