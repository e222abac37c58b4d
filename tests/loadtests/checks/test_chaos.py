"""What a fault may cost, and what counts as more."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from loadtests.checks.chaos.__main__ import CONFIG
from loadtests.checks.chaos.faults import AT_ONCE_S, DYING_S, FAULTS, SOLO, Fault, judge
from loadtests.checks.chaos.load import Fate, Load, Outcome
from loadtests.reference import Running, running
from serving.config.yaml_file import read_mapping

ENGINE = Fault("engine", "VLLM::EngineCore")
GATEWAY = Fault("gateway", "ray::ServeReplica:gateway", takes_requests_along=True)
AT_S = 100.0


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(ttft_ms=0, itl_ms=0) as found:
        yield found


def outcome(fate: Fate, began_s: float = 99.0, ended_s: float = 100.2) -> Outcome:
    return Outcome(began_s, ended_s, True, fate)


def test_a_stream_that_says_so_when_it_breaks_is_no_offence() -> None:
    verdict = judge(ENGINE, [outcome("broken, said so"), outcome("answered")], AT_S, 9.0)
    assert verdict.holds
    assert (verdict.requests, verdict.said_so, verdict.recovery_s) == (2, 1, 9.0)


def test_a_request_that_had_not_begun_must_not_fail_and_no_stream_may_break_silently() -> None:
    for fate in ("not started", "broken silently"):
        verdict = judge(ENGINE, [outcome(fate)], AT_S, 9.0)  # type: ignore[arg-type]
        assert not verdict.holds


def test_what_ended_before_the_fault_is_not_its_doing() -> None:
    verdict = judge(ENGINE, [outcome("not started", ended_s=99.5)], AT_S, 9.0)
    assert (verdict.requests, verdict.holds) == (0, True)


def test_a_gateway_takes_along_what_was_inside_it_and_nothing_later() -> None:
    inside = [outcome("not started"), outcome("broken silently")]
    assert judge(GATEWAY, inside, AT_S, 3.0).holds
    slow = outcome("not started", ended_s=AT_S + AT_ONCE_S + 0.1)
    later = outcome("not started", began_s=AT_S + DYING_S + 0.1, ended_s=AT_S + 0.5)
    for bad in (slow, later):
        assert not judge(GATEWAY, [bad], AT_S, 3.0).holds


def test_faults_hit_hard_by_default() -> None:
    assert ENGINE.signal == signal.SIGKILL


@pytest.mark.parametrize(
    ("end", "streamed", "whole"),
    [
        ("", "answered", "answered"),
        ("http", "not started", "not started"),
        ("reset", "not started", "not started"),
        ("error_body", "not started", "not started"),
        ("malformed:empty-object", "not started", "not started"),
        ("truncated:cut", "broken silently", "not started"),
        ("aborted", "broken silently", "broken silently"),
        ("no_finish_reason", "broken silently", "broken silently"),
        ("short", "broken silently", "broken silently"),
        ("error_event", "broken, said so", None),
        ("truncated", "broken silently", None),
    ],
)
async def test_only_a_whole_answer_is_one(
    server: Running, end: str, streamed: Fate, whole: Fate | None
) -> None:
    headers = {"x-reference-end": end} if end else {}
    async with Load(server.url, "m", workers=0, headers=headers) as load:
        assert (await load.one(0, streamed=True, tokens=9)).fate == streamed
        if whole is not None:
            assert (await load.one(1, streamed=False, tokens=9)).fate == whole


def test_each_fault_finds_as_many_processes_in_the_file_as_it_hits() -> None:
    document = read_mapping(CONFIG)
    replicas = {
        application["name"]: application["args"]["replicas"]["min"]
        for application in document["applications"]
        if application["import_path"].endswith(":build_model")
    }
    assert {fault.model for fault in FAULTS} == set(replicas)
    for fault in FAULTS:
        assert fault.count <= replicas[fault.model]
    # Every replica of a model at once, and the only one of another.
    assert any(fault.count == replicas[fault.model] > 1 for fault in FAULTS)
    assert replicas[SOLO] == 1
