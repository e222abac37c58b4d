"""Two nodes: both serve; one is cut off and comes back; one leaves. The tests go on from one another."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from loadtests.processes.titles import ENGINE, is_called
from serving.gateway.peer import PEER_TIMEOUT_S
from tests.cluster.clients import Clients, Outcome
from tests.cluster.conftest import MODEL, Cluster
from tests.cluster.nodes import SCRIPTS

# Longer than the head's --node-timeout (20): the worker is dead for the others when it comes back.
CUT_S = 26.0
RECOVERY_S = 120.0
DRAIN_DEADLINE_S = 60
LONG_TOKENS = 1500
# Beyond the kernel's own timeout: the engine's last token, the way to the client.
SAID_SO_WITHIN_S = PEER_TIMEOUT_S + 3


def clients(cluster: Cluster) -> Clients:
    return Clients(cluster.gateways, MODEL, cluster.key)


def say(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        print(f"\n    {text}", flush=True)


async def test_each_gateway_reaches_the_replicas_of_both_nodes(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    say(capsys, f"two nodes started and deployed to in {cluster.start_s:.0f} s")
    async with clients(cluster) as asking:
        for name in cluster.gateways:
            before = await asking.status(name)
            assert len(before["replicas"]) == 2
            sent = [asking.one(n, via=name, streamed=True, tokens=200) for n in range(8)]
            requests = asyncio.gather(*sent)
            busy: Counter[str] = Counter()
            while not requests.done():
                for replica in (await asking.status(name)).get("replicas", ()):
                    busy[replica["id"]] += replica["in_flight"]
                await asyncio.sleep(0.1)
            assert {outcome.fate for outcome in await requests} == {"answered"}
            assert len([replica for replica, count in busy.items() if count]) == 2
    for machine in (cluster.head, cluster.worker):
        titles = machine.titles()
        assert sum(title.startswith("ray::ServeReplica:gateway") for title in titles) == 1
        assert sum(is_called(title, ENGINE) for title in titles) == 1


async def test_a_node_that_is_cut_off_costs_no_request_that_had_not_begun(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    async with clients(cluster) as asking:
        asking.keep_asking(4, via="a")
        asking.keep_asking(4, via=None)
        long = [
            asyncio.create_task(asking.one(n, via="a", streamed=True, tokens=LONG_TOKENS))
            for n in range(6)
        ]
        await asyncio.sleep(3)
        cut_s = time.monotonic()
        cluster.worker.cut()
        try:
            await asyncio.sleep(CUT_S)
            left = len((await asking.status("a"))["replicas"])
        finally:
            cluster.worker.mend()
        # The engine that starts shares two cores with the load.
        asking.pause_s = 0.5
        mended_s = time.monotonic()
        noticed_s = await until(lambda: "Ray ended" in cluster.worker.output)
        recovery_s = await asyncio.to_thread(cluster.wait_until_whole, RECOVERY_S)
        recovery_s += noticed_s
        await asyncio.gather(*long)
        again = await asking.one(0, via="b", streamed=True, tokens=32)
        await until(lambda: asking.gateways["b"].is_up)
        await asyncio.sleep(1)
    seen = [outcome for outcome in asking.outcomes if outcome.ended_s >= cut_s]
    fates = Counter(outcome.fate for outcome in seen)
    ended = [o.ended_s - cut_s for o in seen if o.fate == "broken, said so"]
    retried = [o for o in seen if o.tries > 1]
    say(
        capsys,
        f"{len(seen)} requests since the cut: {dict(fates)}; "
        f"{len(retried)} sent again by the balancer; a short one took {slowest(seen)}. "
        f"Streams of the cut replica ended after {min(ended, default=0):.1f} to "
        f"{max(ended, default=0):.1f} s. {left} replica left after {CUT_S:.0f} s. "
        f"Its Ray ended {noticed_s:.1f} s after the network was back, all was whole after "
        f"{recovery_s:.0f} s.",
    )
    assert failures(seen, "not started") == []
    assert failures(seen, "broken silently") == []
    # The fault was one: streams were open on the node, and its gateway was in use.
    assert ended
    assert retried
    assert max(ended) < SAID_SO_WITHIN_S
    assert {o.gateway for o in seen if o.fate == "lost"} <= {"b"}
    assert left == 1
    assert again.fate == "answered"
    assert any(o.gateway == "b" and o.began_s > mended_s + recovery_s for o in seen)
    # Nothing of its former life is left on the node.
    assert sum(is_called(title, ENGINE) for title in cluster.worker.titles()) == 1


async def test_a_node_that_is_drained_breaks_nothing(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    async with clients(cluster) as asking:
        asking.keep_asking(2, via="a")
        asking.keep_asking(2, via=None)
        await asyncio.sleep(1)
        # First out of the balancer, as docs/bare-metal.md says.
        asking.gateways["b"].is_leaving = True
        long = [
            asyncio.create_task(asking.one(n, via=via, streamed=True, tokens=LONG_TOKENS // 2))
            for n, via in enumerate("abab")
        ]
        await asyncio.sleep(1)
        began_s = time.monotonic()
        options = ("--head", f"{cluster.head.address}:6379", "--deadline", str(DRAIN_DEADLINE_S))
        said = await asyncio.to_thread(
            cluster.worker.call,
            *(str(SCRIPTS / "drain.sh"), *options, "--token-file", str(cluster.token)),
            env=cluster.env,
            timeout_s=DRAIN_DEADLINE_S + 90,
        )
        drained_s = time.monotonic() - began_s
        await asyncio.gather(*long)
        await asyncio.sleep(2)
        left = len((await asking.status("a"))["replicas"])
    fates = Counter(outcome.fate for outcome in asking.outcomes)
    say(capsys, f"drained in {drained_s:.0f} s; {len(asking.outcomes)} requests: {dict(fates)}")
    assert "no replica is left here" in said
    assert set(fates) == {"answered"}
    assert left == 1
    titles = cluster.worker.titles()
    assert not [title for title in titles if title.startswith(("ray::ServeReplica", "VLLM::"))]


async def until(holds: Callable[[], bool], timeout_s: float = 60) -> float:
    """Wait; returns the seconds that took."""
    began_s = time.monotonic()
    while not holds():
        assert time.monotonic() - began_s < timeout_s
        await asyncio.sleep(0.1)
    return time.monotonic() - began_s


def failures(outcomes: Sequence[Outcome], fate: str) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.fate == fate]


def slowest(outcomes: Sequence[Outcome]) -> str:
    """Of those that were answered: the seconds of most and of all."""
    took = sorted(
        o.ended_s - o.began_s for o in outcomes if o.fate == "answered" and o.tokens < LONG_TOKENS
    )
    return f"{took[len(took) // 2]:.2f} s in the middle and {took[-1]:.1f} s at most"
