"""Compares bills with the engines' own counters: all kinds of requests, clients that leave, a killed gateway.

    python -m loadtests.checks.metering_real                 # 200 of each of ten kinds: some three minutes

Two gateways with a journal, three tiny models. A quarter of all requests are left by their clients at some
moment, and all of one kind; half way, one gateway is killed. In the end all bills in the journals together,
each counted once, must be what the engines say in /status, to the token; and each answer's `usage` its bill.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import typer
from rich.table import Table

from loadtests.checks.metering_kinds import KINDS, Kind, Reading
from loadtests.checks.stack import Stack, serve_config
from serving.api import STATUS
from serving.commands.output import run as run_command
from serving.commands.output import show
from serving.settings import hash_key

MODELS = ("qwen3", "qwen3-embedding", "qwen3-reranker")
WORKERS = 12
LEAVES = 0.25
TENANTS = ("acme", "bolt")
GATEWAY = "ray::ServeReplica:gateway"
# A killed gateway's bills are anybody's after ten seconds.
SETTLE_TIMEOUT_S = 60.0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass
class Tally:
    """The clients' view."""

    ends: Counter[str] = field(default_factory=Counter)
    readings: dict[str, Reading] = field(default_factory=dict)


def deployment(journal: Path, keys: Mapping[str, str]) -> dict[str, Any]:
    """Two gateways and the models; small caches, so that all fit on a laptop."""
    entries = [
        {
            "name": name,
            "hash": hash_key(key),
            "scopes": ["operator" if name == "ops" else "inference"],
        }
        for name, key in keys.items()
    ]
    gateway = {"replicas": 2, "keys": entries, "metering": {"journal": str(journal)}}
    models = [{"id": name, "catalogue": f"tiny-{name}", "kv_cache_gib": 0.25} for name in MODELS]
    return serve_config(gateway, *models)


class Run:
    """The load on one stack, and its evaluation."""

    def __init__(
        self, stack: Stack, keys: Mapping[str, str], journal: Path, requests: int, seed: int
    ) -> None:
        self._stack = stack
        self._keys = keys
        self._journal = journal
        self._random = random.Random(seed)
        self._plan = [kind for kind in KINDS for _ in range(requests)]
        self._random.shuffle(self._plan)
        self._kill_at = len(self._plan) // 2
        self.tally = Tally()

    async def load(self) -> None:
        """Send all requests, and kill a gateway half way."""
        left = list(enumerate(self._plan))
        timeout = aiohttp.ClientTimeout(total=120)

        async def work() -> None:
            # A connection for each request: the kernel then spreads them over both gateways.
            connector = aiohttp.TCPConnector(force_close=True)
            async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
                while left:
                    number, kind = left.pop()
                    if number == self._kill_at:
                        self._kill_gateway()
                    await self._one(session, kind)

        await asyncio.gather(*(work() for _ in range(WORKERS)))

    async def _one(self, session: aiohttp.ClientSession, kind: Kind) -> None:
        leaves = kind.always_left or self._random.random() < LEAVES
        tenant = self._random.choice(TENANTS)
        headers = {"authorization": f"Bearer {self._keys[tenant]}"}
        after_s = self._random.uniform(0.0, 0.4) if leaves else None
        body = kind.body(self._random)
        try:
            async with asyncio.timeout(after_s):
                url = self._stack.url + kind.path
                async with session.post(url, json=body, headers=headers) as response:
                    content = await response.read()
                    request_id = response.headers.get("x-request-id", "")
        except TimeoutError:
            self.tally.ends[f"{kind.name}: left"] += 1
        except aiohttp.ClientError as error:
            self.tally.ends[f"{kind.name}: {type(error).__name__}"] += 1
        else:
            self.tally.ends[f"{kind.name}: {response.status}"] += 1
            reading = kind.read(content) if response.status == 200 else None
            if reading is not None:
                self.tally.readings[request_id] = reading

    def _kill_gateway(self) -> None:
        self._stack.find(GATEWAY)[0].kill()
        print("killed a gateway", flush=True)

    # ---- the end -----------------------------------------------------------------------------------------

    async def settled(self) -> tuple[dict[str, Counter[str]], list[dict[str, Any]], float]:
        """The counters and all lines of the journals, once every bill is acknowledged and they agree.

        Returned as they are when that takes too long; last, how long it took.
        """
        began_s = time.monotonic()
        while True:
            engines, lines = await self.engines(), self.lines()
            waited_s = time.monotonic() - began_s
            is_quiet = not any(counts["kept_bills"] for counts in engines.values())
            agree = is_quiet and same(engines, billed(lines))
            if agree or waited_s > SETTLE_TIMEOUT_S:
                return engines, lines, waited_s
            await asyncio.sleep(0.5)

    async def engines(self) -> dict[str, Counter[str]]:
        """The engines' counts of each model, from /status."""
        headers = {"authorization": f"Bearer {self._keys['ops']}"}
        found: dict[str, Counter[str]] = {}
        connector = aiohttp.TCPConnector(force_close=True)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(self._stack.url + STATUS, headers=headers) as response,
        ):
            models = (await response.json())["models"]
        for model in models:
            counts = found[model["id"]] = Counter[str]()
            for replica in model["replicas"]:
                counts["prompt"] += int(replica["prompt_tokens"])
                counts["output"] += int(replica["generated_tokens"])
                for name in ("unattributed_prompt_tokens", "unattributed_output_tokens"):
                    counts[name] += int(replica[name])
                for name in ("kept_bills", "dropped_bills"):
                    counts[name] += int(replica[name])
        return found

    def lines(self) -> list[dict[str, Any]]:
        """Every line of every journal."""
        files = sorted(self._journal.glob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def billed(lines: Sequence[Mapping[str, Any]]) -> dict[str, Counter[str]]:
    """Tokens of all bills by model, each bill once."""
    found: dict[str, Counter[str]] = {}
    for line in {line["bill"]: line for line in lines}.values():
        counts = found.setdefault(line["model"], Counter())
        counts["prompt"] += line["prompt_tokens"]
        counts["output"] += line["output_tokens"]
    return found


def same(engines: Mapping[str, Counter[str]], bills: Mapping[str, Counter[str]]) -> bool:
    """Whether the bills have exactly the tokens that the engines counted."""
    return all(
        counts[kind] - counts[f"unattributed_{kind}_tokens"] == bills.get(model, Counter())[kind]
        for model, counts in engines.items()
        for kind in ("prompt", "output")
    )


def disagreeing(
    readings: Mapping[str, Reading], lines: Sequence[Mapping[str, Any]]
) -> list[tuple[Reading, Reading | None]]:
    """Answers whose `usage` is not what their bills say."""
    said: dict[str, Reading] = {}
    for line in {line["bill"]: line for line in lines}.values():
        before = said.get(line["request_id"], Reading(0, 0))
        said[line["request_id"]] = Reading(
            before.prompt_tokens + line["distinct_prompt_tokens"],
            before.output_tokens + line["output_tokens"],
        )
    return [
        (reading, said.get(request_id))
        for request_id, reading in readings.items()
        if said.get(request_id) != reading
    ]


def print_comparison(
    run: Run, engines: Mapping[str, Counter[str]], lines: Sequence[Mapping[str, Any]]
) -> bool:
    """How requests ended, and every token; returns whether the bills hold."""
    show(_table(("request", "number"), sorted(run.tally.ends.items())))
    bills = billed(lines)
    unique = {line["bill"]: line for line in lines}
    outcomes = Counter(line["outcome"] for line in unique.values())
    print(f"{len(unique)} bills, {len(lines) - len(unique)} written twice, {dict(outcomes)}")
    show(_table(("model", "", "engine", "bills", "nobody"), _tokens(engines, bills), left=2))
    wrong = disagreeing(run.tally.readings, lines)
    print(f"usage of {len(run.tally.readings)} answers: {len(wrong)} are not what their bills say")
    for reading, bill in wrong[:5]:
        print(f"  said {reading}, billed {bill}")
    kept = {model: counts["kept_bills"] for model, counts in engines.items()}
    print(f"bills that no gateway has acknowledged: {kept}")
    tenants = Counter(line["tenant"] for line in unique.values())
    print(f"bills by tenant: {dict(tenants)}")
    return same(engines, bills) and not wrong


def _tokens(
    engines: Mapping[str, Counter[str]], bills: Mapping[str, Counter[str]]
) -> Iterator[tuple[object, ...]]:
    for model, counts in engines.items():
        for kind in ("prompt", "output"):
            mine = bills.get(model, Counter())[kind]
            yield model, kind, counts[kind], mine, counts[f"unattributed_{kind}_tokens"]


def _table(head: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> Table:
    made = Table(*head, box=None, pad_edge=False)
    for column in made.columns[left:]:
        column.justify = "right"
    for row in rows:
        made.add_row(*map(str, row))
    return made


async def measure(requests: int, seed: int, folder: Path) -> bool:
    """One stack, one run; returns whether the bills are what the engines counted."""
    keys = {name: f"sk-{secrets.token_hex(8)}" for name in (*TENANTS, "ops")}
    journal = folder / "journal"
    with Stack.of(deployment(journal, keys), folder / "metering.yaml", MODELS[0]) as stack:
        await stack.ready()
        run = Run(stack, keys, journal, requests, seed)
        began_s = time.monotonic()
        await run.load()
        loaded_s = time.monotonic() - began_s
        engines, lines, settled_s = await run.settled()
        print(f"the load took {loaded_s:.0f} s, the last bill came {settled_s:.1f} s after it")
        return print_comparison(run, engines, lines)


@app.command()
def metering_real(
    requests: Annotated[int, typer.Option(min=1, help="Requests of each kind.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the requests and of who leaves when.")] = 1,
) -> None:
    """Hold bills against the engines' own counters: all kinds of requests, a killed gateway.

    Ends with 1 when they differ.

    Example: python -m loadtests.checks.metering_real --requests 50
    """
    with tempfile.TemporaryDirectory(prefix="comptoir-metering-") as folder:
        holds = asyncio.run(measure(requests, seed, Path(folder)))
    print(
        "every token is on exactly one bill" if holds else "the bills are NOT what the engines say"
    )
    raise typer.Exit(0 if holds else 1)


if __name__ == "__main__":
    run_command(app)
