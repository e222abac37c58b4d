"""Keys, and what one tenant can see of another, or do to it."""

from __future__ import annotations

import asyncio
import json

from loadtests.hostile.case import Cases, expect, is_well, one_answer
from loadtests.hostile.target import CHAT, NotApplicableError, Target
from loadtests.hostile.wire import BrokenError, Wire
from serving import api

cases = Cases("tenants")


def _needs_keys(target: Target) -> None:
    if not target.key:
        raise NotApplicableError("the endpoint wants no key")


for name, line in {
    "none": "x-a: b",
    "wrong": "authorization: Bearer sk-comptoir-wrong",
    "empty": "authorization: Bearer ",
    "basic": "authorization: Basic dXNlcjpwYXNz",
    "long": "authorization: Bearer " + "k" * 30_000,
    "odd": "authorization: Bearer \xff\xfe\x80",
    "x-api-key": "x-api-key: wrong",
}.items():

    @cases.add(f"key-{name}", "without a key that is known there is no answer but 401")
    async def _(target: Target, line: str = line) -> None:
        _needs_keys(target)
        for path in (api.MODELS, api.STATUS, api.METRICS):
            await one_answer(target, target.head("GET", path, line, key=""), (401,), method="GET")
        await one_answer(target, target.post(target.chat(), line, key=""), (401,))


@cases.add("key-twice", "two keys in one request are one or none, never an error of ours")
async def _(target: Target) -> None:
    _needs_keys(target)
    request = target.post(target.chat(), "authorization: Bearer wrong", "x-api-key: wrong")
    await one_answer(target, request, (200, 400, 401))


@cases.add("other-model", "a model that the key may not use is 403 or 404, and in no list")
async def _(target: Target) -> None:
    if not target.other_model:
        raise NotApplicableError("no model is known that the key may not use")
    await one_answer(target, target.post(target.chat(model=target.other_model)), (403, 404))
    for path in (api.MODELS, api.STATUS, api.METRICS):
        reply = await one_answer(target, target.head("GET", path), (200, 403), method="GET")
        if target.other_model.encode() in reply.body:
            raise BrokenError(f"{path} names it")


@cases.add("other-tenant", "what one tenant sees does not name another")
async def _(target: Target) -> None:
    if not target.other_key:
        raise NotApplicableError("only one key is known")
    async with await Wire.open(target) as wire:
        await wire.send(target.post(target.chat(), key=target.other_key))
        expect(await wire.reply("POST"), (200,))
    for path in (api.METRICS, api.STATUS):
        reply = await one_answer(target, target.head("GET", path), (200, 403), method="GET")
        tenants = {
            line.split(b'tenant="', 1)[1].split(b'"', 1)[0]
            for line in reply.body.splitlines()
            if b'tenant="' in line
        }
        if len(tenants) > 1:
            raise BrokenError(f"{path} shows {len(tenants)} tenants")


for name, value in {
    "negative": "-1",
    "zero": "0",
    "huge": "9" * 400,
    "float": "1.5",
    "exponent": "1e3",
    "arabic": "\xd9\xa1",
    "empty": "",
}.items():

    @cases.add(f"deadline-{name}", "a deadline that is no whole number of milliseconds is 400")
    async def _(target: Target, value: str = value) -> None:
        request = target.post(target.chat(), f"x-comptoir-deadline-ms: {value}")
        await one_answer(target, request, (400,))


@cases.add(
    "flood",
    "three hundred requests at once of one tenant leave the other its answers",
    is_crowd=True,
)
async def _(target: Target) -> None:
    key = target.other_key or target.key

    async def ask() -> None:
        async with await Wire.open(target) as wire:
            await wire.try_send(target.post(target.chat(stream=True, max_tokens=100)))
            await wire.reply("POST", 60.0)

    flood = [asyncio.ensure_future(ask()) for _ in range(300)]
    try:
        await asyncio.sleep(0.2)
        for _ in range(5):
            async with await Wire.open(target) as wire:
                await wire.send(target.post(target.chat(), key=key))
                expect(await wire.reply("POST", 10.0), (200,))
    finally:
        await asyncio.gather(*flood, return_exceptions=True)


@cases.add("blamed", "requests that engines fail at close nothing to others", is_crowd=True)
async def _(target: Target) -> None:
    failing = (
        (api.RESPONSES, {"input": [{"role": "assistant", "content": []}]}),
        (
            api.RESPONSES,
            {"input": [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}]},
        ),
        (CHAT, {"messages": [{"role": "user", "content": "a"}], "stop_token_ids": [2**40]}),
        (
            CHAT,
            {
                "messages": [{"role": "user", "content": "a"}],
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": {"type": "no-such-type"}},
                },
            },
        ),
    )
    for path, fields in failing:
        for stream in (False, True):
            body = json.dumps({"model": target.model, "stream": stream} | fields).encode()
            for _ in range(8):
                async with await Wire.open(target) as wire:
                    await wire.send(target.post(body, path=path))
                    await wire.reply("POST", 30.0)
    for _ in range(5):
        await is_well(target)
