"""Runs the cases one after the other, then generated requests, with a good client and the memory beside."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil

from loadtests.hostile.case import Case
from loadtests.hostile.fuzz import Fuzzed, fuzz
from loadtests.hostile.target import NotApplicableError, Target
from loadtests.hostile.wire import BrokenError
from loadtests.processes.child import Child, resident_bytes

# The good client alone, before the attack.
BASELINE_S = 5.0
# How long after the attack memory may take to come back.
SETTLE_S = 5.0
# An attack counts for so long at least: the good client has several answers in it.
PERIOD_S = 2.0
# Cases that are no crowds, at a time.
PARALLEL = 12
# A case that takes longer than any deadline of the endpoint hangs.
CASE_S = 120.0


@dataclass(frozen=True)
class Verdict:
    """How one case went: `fault` is "" where it held; `skipped` says why it could not be tried."""

    case: Case
    seconds: float
    fault: str = ""
    skipped: str = ""


@dataclass
class Findings:
    """All findings."""

    verdicts: list[Verdict] = field(default_factory=list)
    fuzzed: Fuzzed = field(default_factory=Fuzzed)
    calm: dict[str, Any] = field(default_factory=dict)
    # While each crowd, all other cases together, and the generated requests were at it.
    attacked: dict[str, dict[str, Any]] = field(default_factory=dict)
    # Of the gateway, in MiB; empty when the process is not ours.
    memory: list[float] = field(default_factory=list)


class Beside:
    """The good client's process."""

    def __init__(self, target: Target) -> None:
        self._child = Child.module(
            "the good client", "loadtests.hostile.beside", target.authority, target.model
        )
        self._child.ask(target.other_key or target.key, 30.0)

    async def period(self) -> dict[str, Any]:
        """The figures since the last call."""
        line = await asyncio.to_thread(self._child.ask, "", 60.0)
        found: dict[str, Any] = json.loads(line)
        return found

    def stop(self) -> None:
        """End it."""
        self._child.stop()


@contextmanager
def beside(target: Target) -> Iterator[Beside]:
    """A good client for as long as the attack takes."""
    client = Beside(target)
    try:
        yield client
    finally:
        client.stop()


async def run(
    target: Target,
    cases: Sequence[Case],
    count: int,
    seed: int,
    pid: int | None,
    say: Callable[[str], None],
) -> Findings:
    """Attack.

    Args:
        count: of generated requests.
        pid: of the gateway, if its memory can be looked at.
    """
    found = Findings()
    process = psutil.Process(pid) if pid is not None else None
    with beside(target) as good:
        await asyncio.sleep(1.0)
        await good.period()
        await asyncio.sleep(BASELINE_S)
        found.calm = await good.period()
        groups = {"cases side by side": [one for one in cases if not one.is_crowd]}
        groups |= {f"{one.group}/{one.name}": [one] for one in cases if one.is_crowd}
        for name, group in groups.items():
            if group:
                attack = try_all(group, target, found.verdicts, say)
                found.attacked[name] = await measured(good.period, attack)
        # Only now: the first attack of each kind allocates what is kept, and is no leak.
        _remember(found, process)
        if count:
            found.fuzzed = await fuzz(
                target, count, seed, lambda done: say(f"generated requests: {done} of {count}")
            )
            found.attacked["generated requests"] = await good.period()
            await asyncio.sleep(SETTLE_S)
            _remember(found, process)
    return found


async def measured(
    period: Callable[[], Awaitable[dict[str, Any]]], attack: Awaitable[None]
) -> dict[str, Any]:
    """The good client's figures during an attack, which may be shorter than one of its answers."""
    began_s = time.monotonic()
    await attack
    await asyncio.sleep(PERIOD_S - (time.monotonic() - began_s))
    return await period()


async def try_all(
    cases: Sequence[Case], target: Target, verdicts: list[Verdict], say: Callable[[str], None]
) -> None:
    """Try several cases at a time, those that are crowds one by one afterwards."""
    room = asyncio.Semaphore(PARALLEL)

    async def try_one(case: Case) -> None:
        async with room:
            verdicts.append(await _try(case, target))
        _say_verdict(say, len(verdicts), verdicts[-1])

    await asyncio.gather(*(try_one(case) for case in cases if not case.is_crowd))
    for case in cases:
        if case.is_crowd:
            await try_one(case)


async def _try(case: Case, target: Target) -> Verdict:
    began_s = time.monotonic()
    fault = skipped = ""
    try:
        async with asyncio.timeout(CASE_S + 2 * target.cut_s):
            await case.attack(target)
    except BrokenError as error:
        fault = str(error)
    except NotApplicableError as reason:
        skipped = str(reason)
    except TimeoutError:
        fault = "it hangs"
    except OSError as error:
        fault = f"the connection failed: {type(error).__name__}"
    return Verdict(case, time.monotonic() - began_s, fault, skipped)


def _say_verdict(say: Callable[[str], None], count: int, verdict: Verdict) -> None:
    case = verdict.case
    end = "BROKEN: " + verdict.fault if verdict.fault else "holds"
    if verdict.skipped:
        end = f"not tried: {verdict.skipped}"
    say(f"{count}  {case.group}/{case.name}: {end} ({verdict.seconds:.1f} s)")


def _remember(found: Findings, process: psutil.Process | None) -> None:
    if process is not None:
        found.memory.append(resident_bytes([process]) / 2**20)
