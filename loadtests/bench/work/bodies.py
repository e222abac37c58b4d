"""Bodies as large as a gateway takes, each heavy in another way. Pure."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from serving import api

SIZE = 2 * 1024 * 1024
CHAT, COMPLETIONS = api.CHAT, api.COMPLETIONS


@dataclass(frozen=True)
class Nasty:
    """One body: what it is, where it goes, its text."""

    name: str
    path: str
    text: bytes


def _filled(head: bytes, unit: bytes, tail: bytes, size: int) -> bytes:
    """As many units, with commas between them, as fit."""
    number = (size - len(head) - len(tail) + 1) // (len(unit) + 1)
    return head + b",".join([unit] * number) + tail


_MODEL = b'{"model":"null","max_tokens":1,'
_CONTENT = _MODEL + b'"messages":[{"role":"user","content":['
_MESSAGES = _MODEL + b'"messages":['
_MESSAGE = b'{"role":"user","content":"a"}'
_PART = b'{"type":"text","text":"a"}'
_TOOL = b'{"type":"function","function":{"name":"f","parameters":{"properties":{%b}}}}' % b",".join(
    b'"p%d":{"type":"string"}' % number for number in range(300)
)


def _image(size: int) -> bytes:
    """A PNG of one pixel, with a comment as long as it takes."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)),
        (b"tEXt", b"c\0" + b"x" * size),
        (b"IDAT", zlib.compress(b"\0" * 4)),
        (b"IEND", b""),
    )
    data = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + data)


def nasty_bodies(size: int = SIZE) -> Iterator[Nasty]:
    """Every one of them, none longer than `size`."""
    yield from _of_messages(size)
    yield from _of_texts(size)
    yield from _of_lists(size)
    yield from _of_fields(size)


def _chat(name: str, head: bytes, unit: bytes, tail: bytes, size: int) -> Nasty:
    return Nasty(name, CHAT, _filled(head, unit, tail, size))


def _of_messages(size: int) -> Iterator[Nasty]:
    call = b'{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}'
    calls = b'{"role":"assistant","tool_calls":[%b]}' % b",".join([call] * 128)
    parts = b'{"role":"user","content":[%b]}' % b",".join([_PART] * 2000)

    yield _chat("parts of a message", _CONTENT, _PART, b"]}]}", size)
    yield _chat("parts, the last one wrong", _CONTENT, _PART, b',{"type":3}]}]}', size)
    yield _chat("messages", _MESSAGES, _MESSAGE, b"]}", size)
    yield Nasty(
        "as many messages as are taken",
        CHAT,
        _MESSAGES + b",".join([b'{"role":"user","content":"%b"}' % (b"a" * 980)] * 2048) + b"]}",
    )
    yield Nasty("as many parts as are taken", CHAT, _MESSAGES + b",".join([parts] * 15) + b"]}")
    yield Nasty("as many calls as are taken", CHAT, _MESSAGES + b",".join([calls] * 120) + b"]}")
    yield Nasty(
        "as many tools as are taken",
        CHAT,
        _MESSAGES + _MESSAGE + b'],"tools":[' + b",".join([_TOOL] * 100) + b"]}",
    )


def _of_texts(size: int) -> Iterator[Nasty]:
    long = size - 200
    yield Nasty("one long text", CHAT, _CONTENT[:-1] + b'"' + b"a" * long + b'"}]}')
    sign = "é中".encode()
    yield Nasty(
        "one long text of many bytes a sign",
        CHAT,
        _CONTENT[:-1] + b'"' + sign * (long // 5) + b'"}]}',
    )
    yield Nasty(
        "one long text of escapes", CHAT, _CONTENT[:-1] + b'"' + rb"\"" * (long // 2) + b'"}]}'
    )
    image = b'{"type":"image_url","image_url":{"url":"data:image/png;base64,%b"}}'
    yield Nasty("one large image", CHAT, _CONTENT + image % _image(size * 3 // 4 - 400) + b"]}]}")


def _of_lists(size: int) -> Iterator[Nasty]:
    ids = _MODEL + b'"prompt":['
    yield Nasty("token ids of one digit", COMPLETIONS, _filled(ids, b"1", b"]}", size))
    yield Nasty("token ids of five digits", COMPLETIONS, _filled(ids, b"12345", b"]}", size))
    yield Nasty(
        "lists of token ids", COMPLETIONS, _filled(ids, b"[" + b"1," * 600 + b"1]", b"]}", size)
    )
    yield Nasty("short texts", COMPLETIONS, _filled(ids, b'"a"', b"]}", size))
    yield _chat("stop token ids", _MESSAGES + _MESSAGE + b'],"stop_token_ids":[', b"1", b"]}", size)
    yield _chat("empty lists", _CONTENT, b"[]", b"]}]}", size)
    yield _chat("empty objects", _CONTENT, b"{}", b"]}]}", size)


def _of_fields(size: int) -> Iterator[Nasty]:
    keys = b",".join(b'"k%06d":1' % number for number in range((size - 200) // 12))
    yield Nasty("unknown fields", CHAT, _MODEL + keys + b"}")
    yield Nasty(
        "fields of a schema",
        CHAT,
        _MESSAGES + _MESSAGE + b'],"tools":[{"type":"function",'
        b'"function":{"name":"f","parameters":{' + keys[:-20].rsplit(b",", 1)[0] + b"}}}]}",
    )
    yield Nasty("deep lists", CHAT, _CONTENT + b"[" * (size - 200))
    yield Nasty("no end", CHAT, _filled(_CONTENT, _PART, b"", size))
    yield Nasty("quotation marks", CHAT, b'"' * (size - 100))
    yield Nasty("backslashes", CHAT, _CONTENT + b'"' + b"\\" * (size - 200))
