"""What a request meets before its first byte: fallbacks, queues, models without replicas, one deadline."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from serving.admission.deadline import Deadline
from serving.discovery.directory import Directory, Model, Replica
from serving.errors import ComptoirError, EngineFailedError, ModelUnavailableError
from serving.gateway import forwarding
from serving.gateway.admission import Admission
from serving.gateway.bills import Bills
from serving.gateway.checked_request import CheckedRequest
from serving.gateway.dispatch import Dispatcher
from serving.gateway.forwarding import Forwarder
from serving.gateway.holding import Holding
from serving.gateway.prefill import Prefill
from serving.gateway.upstream import Gone, LateError, ReplicaGoneError
from serving.replica_facts import ModelCard
from serving.settings import GatewayConfig, RequestLimits
from serving.telemetry.metrics import GatewayMetrics
from serving.tenancy.keys import Caller
from serving.trust.fields import endpoints
from tests.gateway.leaping import now, run, settle
from tests.gateway.test_forwarding import Answer, Upstream

CHAT = endpoints(RequestLimits())["/v1/chat/completions"]
GONE = ReplicaGoneError("refused", Gone.REFUSED)
DIED = ReplicaGoneError("closed", Gone.DIED)


class Site:
    """A dispatcher whose models have replicas of their own name, in a time that leaps."""

    def __init__(self, *models: str, asleep: tuple[str, ...] = (), **config: Any) -> None:
        self.models = {
            name: Model(name, ModelCard(task="chat"), replicas_of(name)) for name in models
        }
        for name in asleep:
            self.models[name] = Model(name, ModelCard(task="chat", min_replicas=0))
        self.config = GatewayConfig.model_validate(config)
        self.upstream = Upstream()
        self.woken: list[str] = []
        metrics = GatewayMetrics()
        self.forwarder = Forwarder(
            self.directory,
            self.upstream,
            self.config,
            metrics,
            now,  # type: ignore[arg-type]
        )
        self.admission = Admission(self.config.admission, self.directory, 1, now)
        self.holding = Holding(
            self.config.admission,
            self.directory,
            self.woken.append,
            self.forwarder.can_ask,
            metrics,
            now,
        )
        self.dispatcher = Dispatcher(
            self.config,
            self.directory,
            self.forwarder,
            Prefill(self.directory, self.config, metrics, now),
            self.admission,
            self.holding,
            metrics,
            Bills(metrics),
            clock=now,
        )

    def directory(self) -> Directory:
        return Directory(self.models.values())

    def set_replicas(self, model: str, *names: str) -> None:
        self.models[model] = replace(self.models[model], replicas=replicas_of(*names))

    async def ask(
        self, model: str = "m", tenant: str = "a", deadline_s: float | None = None, **fields: Any
    ) -> str:
        """Who answers."""
        body = {"model": model, "messages": []} | fields
        deadline = None if deadline_s is None else Deadline(now() + deadline_s, is_named=True)
        caller = Caller(tenant, frozenset({"*"}))
        response = await self.dispatcher.open(
            CheckedRequest(CHAT, caller, body, "id", deadline=deadline)
        )
        response.close()
        return response.replica_response.replica.id

    def asking(self, *args: Any, **fields: Any) -> asyncio.Task[str]:
        return asyncio.create_task(self.ask(*args, **fields))


def replicas_of(*names: str) -> tuple[Replica, ...]:
    return tuple(Replica(name, f"http://{name}:80", "t") for name in names)


FALLBACKS = {"routing": {"fallbacks": {"m": {"to": ["n", "o"]}}}}


# ---- one deadline --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["asleep", "busy", "refuses"])
def test_a_deadline_is_one_moment_for_all_candidates(state: str) -> None:
    async def play() -> None:
        names = ("m", "n", "o")
        narrow = {"max_open_per_replica": 1, "min_open_per_replica": 1, "reserve_share": 0}
        site = Site(
            *(() if state == "asleep" else names),
            asleep=names if state == "asleep" else (),
            admission=narrow,
            **FALLBACKS,
        )
        if state == "busy":
            site.upstream.delays = dict.fromkeys(names, 1000.0)
            for name in names:
                site.asking(name, deadline_s=500)
            await settle()
        elif state == "refuses":
            site.upstream.replies = dict.fromkeys(names, GONE)
        began = now()
        with pytest.raises(ComptoirError) as raised:
            await site.ask(deadline_s=1.0)
        assert raised.value.status in (429, 503)
        assert raised.value.retry_after_s
        assert now() - began <= 1.0 + 0.1
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    run(play())


def test_what_was_held_waits_in_the_queue_for_what_is_left() -> None:
    async def play() -> None:
        narrow = {"max_open_per_replica": 1, "min_open_per_replica": 1, "reserve_share": 0}
        site = Site("m", admission=narrow)
        site.set_replicas("m")
        site.upstream.delays["m"] = 1000.0
        first, second = site.asking(deadline_s=900), site.asking(deadline_s=3.0)
        await asyncio.sleep(2)
        site.set_replicas("m", "m")
        with pytest.raises(ComptoirError, match="deadline"):
            await second
        assert now() == pytest.approx(3.0, abs=0.3)
        first.cancel()

    run(play())


def test_an_answer_that_an_engine_works_on_is_not_cut_off_by_the_deadline() -> None:
    async def play() -> None:
        site = Site("m")
        site.upstream.delays["m"] = 20.0
        assert await site.ask(deadline_s=1.0) == "m"

    run(play())


def test_a_deadline_that_passes_while_connecting_blames_nobody() -> None:
    async def play() -> None:
        site = Site("m", "n", breaker={"consecutive_failures": 1}, **FALLBACKS)
        site.upstream.replies["m"] = LateError("no connection in time")
        assert await site.ask("m", deadline_s=1.0) == "n"
        assert site.forwarder.breakers.replica("m").snapshot(now()).state == "closed"
        assert site.forwarder.is_well("m")
        assert not site.forwarder._lanes.suspects

    run(play())


# ---- nobody answers ------------------------------------------------------------------------------------


def test_a_request_whose_only_replica_died_under_it_goes_to_the_next_one() -> None:
    async def play() -> None:
        site = Site("m")
        site.upstream.replies["m"] = DIED
        held = site.asking()
        await asyncio.sleep(1)
        site.set_replicas("m")
        await asyncio.sleep(30)
        assert not held.done()
        assert site.holding.held("m") == 1
        site.set_replicas("m", "new")
        came = now()
        assert await held == "new"
        assert now() - came <= 0.2

    run(play())


def test_a_replica_that_only_seemed_gone_is_asked_once_more() -> None:
    async def play() -> None:
        site = Site("m")
        site.upstream.replies["m"] = GONE
        held = site.asking()
        await asyncio.sleep(1)
        del site.upstream.replies["m"]
        assert await held == "m"
        assert now() <= forwarding.SUSPECT_S + 0.3

    run(play())


def test_two_replicas_that_die_at_once_cost_no_request_that_had_not_begun() -> None:
    async def play() -> None:
        site = Site("m")
        site.set_replicas("m", "one", "two")
        for name in ("one", "two"):
            site.upstream.replies[name] = DIED
            site.upstream.delays[name] = 0.05
        asking = [site.asking(tenant=f"t{number % 3}") for number in range(40)]
        await asyncio.sleep(0.1)
        # Dead, they accept no more connections.
        site.upstream.replies = dict.fromkeys(("one", "two"), GONE)
        site.upstream.delays.clear()
        await asyncio.sleep(1)
        site.set_replicas("m")
        await asyncio.sleep(40)
        site.set_replicas("m", "three")
        assert await asyncio.gather(*asking) == ["three"] * 40
        assert len(site.forwarder.quarantine) == 0

    run(play())


def test_what_waits_is_not_charged_for_what_no_engine_did() -> None:
    async def play() -> None:
        site = Site("m")
        site.upstream.replies["m"] = GONE
        held = site.asking()
        await asyncio.sleep(1)
        (seen,) = site.admission.snapshots()
        assert (seen.open, seen.admitted) == (0, 0)
        held.cancel()

    run(play())


def test_a_fallback_that_is_well_is_asked_before_anyone_is_held() -> None:
    async def play() -> None:
        site = Site("m", "n", "o", **FALLBACKS)
        site.set_replicas("m")
        assert await site.ask() == "n"
        site.upstream.replies["n"] = GONE
        assert await site.ask() == "o"
        assert now() < 0.1

    run(play())


def test_a_model_that_sleeps_is_woken_though_another_answers() -> None:
    async def play() -> None:
        site = Site("n", "o", asleep=("m",), **FALLBACKS)
        assert await site.ask() == "n"
        assert site.woken == ["m"]

    run(play())


def test_whoever_comes_first_answers_what_is_held() -> None:
    async def play() -> None:
        site = Site("m", "n", "o", **FALLBACKS)
        for name in ("m", "n", "o"):
            site.set_replicas(name)
        held = site.asking()
        await asyncio.sleep(5)
        site.set_replicas("o", "o")
        assert await held == "o"

    run(play())


def test_a_model_whose_breakers_are_open_is_held_until_a_probe_succeeds() -> None:
    async def play() -> None:
        site = Site("m", breaker={"consecutive_failures": 1, "open_s": 5, "jitter": 0})
        site.upstream.replies["m"] = GONE
        asking = [site.asking()]
        await asyncio.sleep(1)
        asking += [site.asking(tenant=f"t{number}") for number in range(20)]
        await asyncio.sleep(1)
        assert site.upstream.asked == ["m"]
        del site.upstream.replies["m"]
        assert set(await asyncio.gather(*asking)) == {"m"}
        assert now() < 6

    run(play())


def test_waiting_in_vain_is_a_503_at_once() -> None:
    async def play() -> None:
        site = Site("m")
        site.models["m"] = replace(site.models["m"], replicas=(), fails_to_start=True)
        with pytest.raises(ModelUnavailableError) as raised:
            await site.ask()
        assert raised.value.retry_after_s
        assert now() == 0

    run(play())


def test_a_request_whose_replica_died_is_not_held_for_ever() -> None:
    async def play() -> None:
        site = Site("m")
        site.upstream.replies["m"] = DIED
        site.upstream.delays["m"] = 100.0
        held = site.asking()
        await asyncio.sleep(101)
        site.upstream.replies["m"] = GONE
        site.upstream.delays.clear()
        with pytest.raises(ModelUnavailableError):
            await held
        # It waits anew from its engine's death on, once.
        assert now() == pytest.approx(160, abs=1)

    run(play())


def test_one_that_is_not_well_is_asked_when_the_better_one_is_full() -> None:
    async def play() -> None:
        narrow = {"max_open_per_replica": 1, "min_open_per_replica": 1, "reserve_share": 0}
        site = Site("m", "n", "o", admission=narrow | {"max_waiting": 0}, **FALLBACKS)
        site.forwarder.is_well = lambda model_id: model_id != "m"  # type: ignore[method-assign]
        site.upstream.delays = dict.fromkeys("no", 100.0)
        busy = [site.asking("n"), site.asking("o")]
        await settle()
        assert await site.ask() == "m"
        assert now() == 0
        for task in busy:
            task.cancel()

    run(play())


# ---- the cause -----------------------------------------------------------------------------------------


def test_a_request_that_is_the_cause_is_answered_without_an_engine_for_a_minute() -> None:
    async def play() -> None:
        site = Site("m")
        site.set_replicas("m", "one", "two", "three")
        fails = Answer(b"{}", status=500)
        site.upstream.replies = dict.fromkeys(("one", "two", "three"), fails)
        for _ in range(3):
            with pytest.raises(EngineFailedError) as raised:
                await site.ask()
        assert len(site.upstream.asked) == 2
        assert raised.value.retry_after_s
        assert raised.value.retry_after_s <= 60
        site.upstream.replies = {}
        # Another tenant's same words, and the tenant's other words, go through; a minute later these do, too.
        await site.ask(tenant="b")
        await site.ask(max_tokens=5)
        await asyncio.sleep(61)
        await site.ask()

    run(play())


def test_what_a_stream_refuses_after_its_200_is_the_clients_400() -> None:
    async def play() -> None:
        site = Site("m")
        refused = (
            b'data: {"error": {"message": "Grammar error: x", "code": 400, "param": null}}\n\n'
        )
        site.upstream.replies["m"] = Answer(refused)
        for _ in range(10):
            with pytest.raises(ComptoirError, match="cannot compile") as raised:
                await site.ask(stream=True, response_format={})
            assert (raised.value.status, raised.value.param) == (400, "response_format")
        assert site.forwarder.breakers.replica("m").snapshot(now()).window_failures == 0
        assert not site.forwarder.in_flight

    run(play())
