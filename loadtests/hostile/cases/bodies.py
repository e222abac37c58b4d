"""Bodies that are wrong, large, deep or compressed."""

from __future__ import annotations

import gzip
import json
import zlib
from functools import partial

from loadtests.hostile.case import Cases, expect, nothing_more, one_answer
from loadtests.hostile.target import CHAT, Target
from loadtests.hostile.wire import BrokenError, Wire
from serving import api

cases = Cases("bodies")
answers = cases.answers
WRONG = (400, 413)


def _message(target: Target, text: str) -> bytes:
    return b'{"model": "%b", "max_tokens": 1, "messages": [{"role": "user", "content": %b}]}' % (
        target.model.encode(),
        text.encode(),
    )


def _filled(target: Target, start: str, item: str, end: str) -> bytes:
    """A body as long as the endpoint takes, of as many items as fit."""
    room = target.max_body_bytes - 400 - len(start) - len(end)
    return _message(target, start + ", ".join([item] * (room // (len(item) + 2))) + end)


def _post_filled(target: Target, text: tuple[str, str, str]) -> bytes:
    return target.post(_filled(target, *text))


for name, body in {
    "not-json": b"{not json",
    "empty": b"",
    "array": b"[]",
    "number": b"1",
    "null": b"null",
    "bom": b"\xef\xbb\xbf{}",
    "utf16": '{"model": "a"}'.encode("utf-16"),
    "not-utf8": b'{"model": "\xff\xfe"}',
    "nan": b'{"model": "a", "messages": [], "temperature": NaN}',
    "deep": b'{"model": "a", "messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep-objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "surrogate": b'{"model": "\\ud800", "messages": [{"role": "user", "content": "\\udfff"}]}',
    "huge-number": b'{"model": "a", "messages": [], "seed": ' + b"9" * 100_000 + b"}",
}.items():
    answers(
        f"json-{name}",
        "a body that is no JSON object of the right kind is 400",
        partial(Target.post, body=body),
        (400,),
    )

answers(
    "json-infinite",
    "a number beyond all bounds is 400",
    lambda target: target.post(target.chat()[:-1] + b', "temperature": 1e999}'),
    (400,),
)
answers(
    "json-doubled-model",
    "a name that appears twice is read once",
    lambda target: target.post(b'{"model": "no-such-model", ' + target.chat()[1:]),
    (200, 400, 404),
)
answers(
    "json-many-keys",
    "a hundred thousand unknown fields are 400",
    lambda target: target.post(json.dumps({f"k{i}": i for i in range(100_000)}).encode()),
    WRONG,
)
answers(
    "model-long",
    "a model name of a megabyte is refused",
    lambda target: target.post(target.chat(model="m" * 1_000_000)),
    (400, 404),
)
answers(
    "model-odd",
    "so is one with control characters",
    lambda target: target.post(target.chat(model="a\0b\r\nx: y")),
    (400, 404),
)
for name, text in {
    "parts": ("[", '{"type": "text", "text": ""}', "]"),
    "odd-parts": ("[", '{"type":"text","text":"a","b":1}', "]"),
    "numbers": ("[", "1", "]"),
    "lists": ("[", "[]", "]"),
}.items():
    answers(
        f"limit-{name}",
        "a body at the limit, full of small things, is answered",
        partial(_post_filled, text=text),
        (200, 400, 413),
    )


@cases.add("limit-prompt-tokens", "half a million token ids are answered")
async def _(target: Target) -> None:
    ids = "[" + ",".join(["7"] * ((target.max_body_bytes - 400) // 2)) + "]"
    body = f'{{"model": "{target.model}", "max_tokens": 1, "prompt": {ids}}}'.encode()
    await one_answer(target, target.post(body, path=api.COMPLETIONS), (200, 400, 404, 413))


@cases.add("limit-over", "a body beyond the limit is 413, and the answer is read")
async def _(target: Target) -> None:
    body = b" " * (target.max_body_bytes + 1)
    for lines in ((f"content-length: {len(body)}",), ("transfer-encoding: chunked",)):
        head = target.head("POST", CHAT, "content-type: application/json", *lines)
        async with await Wire.open(target) as wire:
            if "chunked" in lines[0]:
                await wire.try_send(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
            else:
                await wire.try_send(head + body)
            expect(await wire.reply("POST"), (413,))


# ---- encodings -------------------------------------------------------------------------------------------


@cases.add("gzip", "a body in gzip is read")
async def _(target: Target) -> None:
    await one_answer(
        target, target.post(gzip.compress(target.chat()), "content-encoding: gzip"), (200,)
    )


@cases.add("gzip-bomb", "what a body in gzip becomes counts, not what it was")
async def _(target: Target) -> None:
    bomb = gzip.compress(b" " * (64 * 1024 * 1024))
    await one_answer(target, target.post(bomb, "content-encoding: gzip"), (413,))


@cases.add("gzip-wrong", "gzip that is broken, cut or has more behind it is 400")
async def _(target: Target) -> None:
    whole = gzip.compress(target.chat())
    for body in (b"not gzip", whole[:-8], whole[:20], whole[:10] + b"\xff" * 40):
        await one_answer(target, target.post(body, "content-encoding: gzip"), (400,))


@cases.add("encoding-unknown", "any other encoding is 415, and the answer names what is read")
async def _(target: Target) -> None:
    body = zlib.compress(target.chat())
    for name in ("deflate", "br", "zstd", "gzip, gzip", "gzip, br"):
        reply = await one_answer(target, target.post(body, f"content-encoding: {name}"), (415,))
        if "gzip" not in reply.headers.get("accept-encoding", ""):
            raise BrokenError(f"{name}: the answer has no accept-encoding")


@cases.add("type", "a body of another type is 415")
async def _(target: Target) -> None:
    body = target.chat()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        lines = (f"content-type: {kind}", f"content-length: {len(body)}")
        async with await Wire.open(target) as wire:
            await wire.send(target.head("POST", CHAT, *lines) + body)
            expect(await wire.reply("POST"), (415,))
            await nothing_more(wire)
