from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from itertools import pairwise

import httpx
import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from loadtests.bench.raw_http import TimedConnection, request_bytes
from loadtests.reference import ReferenceConfig, Running, Truth, running
from loadtests.reference.cli import app
from loadtests.reference.plans import planner
from loadtests.reference.wheel import TICK_S, EngineClock, Wheel
from loadtests.simulation.queueing import simulate
from serving.commands.output import exit_code
from serving.errors import ConfigError
from tests.lazily import lazily

openai = lazily("openai")

TTFT_MS, ITL_MS = 40, 8
ROLE, FINISH, USAGE, DONE = 1, 1, 1, 1


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(ttft_ms=TTFT_MS, itl_ms=ITL_MS, model="tiny") as one:
        yield one


@pytest.fixture
def http(server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=20) as client:
        yield client


@pytest.fixture
def client(server: Running, http: httpx.Client) -> openai.OpenAI:
    url = f"{server.url}/v1"
    return openai.OpenAI(base_url=url, api_key="none", max_retries=0, http_client=http)


def body(tokens: int, text: str = "a b c", **more: object) -> dict[str, object]:
    messages = [{"role": "user", "content": text}]
    return {"model": "m", "messages": messages, "max_tokens": tokens, "stream": True} | more


def ask(
    http: httpx.Client, path: str = "chat/completions", id: str = "", **fields: object
) -> httpx.Response:
    headers = {"x-request-id": id} if id else {}
    return http.post(f"/v1/{path}", json=fields, headers=headers)


def eventually(server: Running, id: str) -> Truth:
    """Of a request whose end the server may not have noticed yet."""
    for _ in range(200):
        if id in (truths := server.truth()):
            return truths[id]
        time.sleep(0.01)
    raise AssertionError(f"{id} does not end")


def due_s(truth: Truth) -> np.ndarray:
    """When each token was to leave, in the engine's time: whatever the machine did, that is exact."""
    return np.array(truth.tokens_s) - np.array(truth.late_ms) / 1000


async def stream(address: str, id: str, tokens: int) -> TimedConnection:
    """A request over a connection of its own, until its end."""
    connection = await TimedConnection.open(address)
    await connection.start(request_bytes(address, {"x-request-id": id}, body(tokens)))
    connection.close()
    return connection


# ---- what it says ----------------------------------------------------------------------------------------


def test_openais_client_reads_a_stream_as_vllm_sends_it(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": "one two  three\nfour"}],
            max_tokens=5,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
    )
    first, *tokens, finish, last = chunks
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert [chunk.choices[0].delta.content for chunk in tokens] == [" word"] * 5
    assert finish.choices[0].finish_reason == "length"
    assert not last.choices
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (4, 5)
    assert len({chunk.id for chunk in chunks}) == 1


def test_openais_client_reads_whole_answers(client: openai.OpenAI) -> None:
    parts = [{"type": "text", "text": "a b"}, {"type": "text", "text": "c"}]
    chat = client.chat.completions.create(
        model="m",
        messages=[{"role": "system", "content": "d e"}, {"role": "user", "content": parts}],  # type: ignore[list-item]
        max_completion_tokens=3,
    )
    assert chat.choices[0].message.content == " word word word"
    assert chat.usage is not None
    assert (chat.usage.prompt_tokens, chat.usage.total_tokens) == (5, 8)
    completion = client.completions.create(model="m", prompt=[7, 8, 9, 10], max_tokens=2)
    assert completion.choices[0].text == " word word"
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (4, 2)
    assert [model.id for model in client.models.list()] == ["tiny"]


def test_completions_stream_without_a_role(client: openai.OpenAI) -> None:
    chunks = list(client.completions.create(model="m", prompt="a b", max_tokens=3, stream=True))
    assert [chunk.choices[0].text for chunk in chunks] == [" word"] * 3 + [""]


def test_embeddings_come_as_numbers_and_as_base64(
    client: openai.OpenAI, http: httpx.Client
) -> None:
    # The client asks for base64 by itself.
    got = client.embeddings.create(model="m", input=["a b", "c"])
    plain = ask(http, "embeddings", input="a b").json()
    assert [one.embedding for one in got.data] == [plain["data"][0]["embedding"]] * 2
    assert got.usage.prompt_tokens == 3
    assert len(client.embeddings.create(model="m", input=[1, 2, 3]).data) == 1


def test_usage_comes_only_when_asked_for(http: httpx.Client) -> None:
    for options, usage in ((None, 0), ({"include_usage": True}, USAGE)):
        text = ask(http, **body(2, stream_options=options)).text
        *events, done, rest = text.split("\n\n")
        assert (done, rest) == ("data: [DONE]", "")
        assert len(events) == ROLE + 2 + FINISH + usage
        assert all(json.loads(event.removeprefix("data: "))["model"] == "m" for event in events)


async def test_each_event_is_framed_for_itself(server: Running) -> None:
    connection = await stream(server.address, "framed", 6)
    assert connection.events == ROLE + 6 + FINISH + DONE
    # And the empty frame that ends the body.
    assert connection.frames == connection.events + 1


def test_prompt_ids_in_a_chat_are_counted_instead_of_its_words(http: httpx.Client) -> None:
    answer = ask(http, **body(1, stream=False, prompt=[1] * 77)).json()
    assert answer["usage"]["prompt_tokens"] == 77


@pytest.mark.parametrize(
    ("path", "sent", "status"),
    [
        ("chat/completions", b"{", 400),
        ("chat/completions", b"[]", 400),
        ("chat/completions", b'{"messages": "hello"}', 400),
        ("completions", b'{"prompt": "a", "max_tokens": -1}', 400),
        ("completions", b'{"prompt": "a", "max_tokens": "many"}', 400),
        ("rerank", b"{}", 404),
    ],
)
def test_what_it_cannot_answer_gets_an_openai_error(
    http: httpx.Client, path: str, sent: bytes, status: int
) -> None:
    answer = http.post(f"/v1/{path}", content=sent)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, status)
    assert http.get("/health").status_code == 200


async def test_metrics_have_vllms_names(server: Running, http: httpx.Client) -> None:
    def value(name: str) -> float:
        lines = http.get("/metrics").text.splitlines()
        line = next(one for one in lines if one.startswith(f"vllm:{name}{{"))
        assert 'model_name="tiny"' in line
        return float(line.rpartition(" ")[2])

    before = value("generation_tokens_total"), value("prompt_tokens_total")
    connection = await TimedConnection.open(server.address)
    done = connection.start(request_bytes(server.address, {}, body(20, "a b c d")))
    await connection.first
    assert (value("num_requests_running"), value("num_requests_waiting")) == (1, 0)
    assert 0 < value("kv_cache_usage_perc") < 0.001
    await done
    connection.close()
    assert value("num_requests_running") == 0
    after = value("generation_tokens_total"), value("prompt_tokens_total")
    assert (after[0] - before[0], after[1] - before[1]) == (20, 4)


def test_a_client_that_wants_its_connection_closed_gets_that(server: Running) -> None:
    with httpx.Client(headers={"connection": "close"}, trust_env=False) as http:
        for _ in range(2):
            assert http.get(f"{server.url}/health").status_code == 200
            assert http.post(f"{server.url}/v1/chat/completions", json=body(1)).is_success


# ---- what it tells ---------------------------------------------------------------------------------------


async def test_the_truth_is_when_tokens_left_just_before_they_arrived(server: Running) -> None:
    sent_s = time.perf_counter()
    connections = await asyncio.gather(*(stream(server.address, f"t{n}", 12) for n in range(10)))
    truths = await asyncio.to_thread(server.truth)
    later_ms = []
    for number, connection in enumerate(connections):
        truth = truths[f"t{number}"]
        assert (truth.status, truth.error, truth.output_tokens, truth.prompt_tokens) == (
            200,
            "",
            12,
            3,
        )
        assert sent_s < truth.arrival_s < truth.tokens_s[0]
        # Events: the role, twelve tokens, and what ends the stream.
        seen_s = connection.arrivals_s[ROLE : ROLE + 12]
        later_ms += [(at - left) * 1000 for at, left in zip(seen_s, truth.tokens_s, strict=True)]
        assert truth.ttft_s is not None
        assert truth.ttft_s * 1000 >= TTFT_MS
        assert truth.end_s >= truth.tokens_s[-1]
    assert min(later_ms) > 0


async def test_nothing_is_early_and_the_pace_is_kept_however_late_a_token_was(
    server: Running,
) -> None:
    await asyncio.gather(*(stream(server.address, f"p{n}", 25) for n in range(8)))
    truths = await asyncio.to_thread(server.truth)
    for truth in (truths[f"p{n}"] for n in range(8)):
        assert min(truth.late_ms) >= 0
        assert due_s(truth)[0] - truth.arrival_s == pytest.approx(TTFT_MS / 1000)
        assert np.diff(due_s(truth)) == pytest.approx([ITL_MS / 1000] * 24)


def test_requests_without_an_id_are_numbered_and_can_be_forgotten(
    server: Running, http: httpx.Client
) -> None:
    server.forget()
    ask(http, **body(1, stream=False))
    ask(http, id="named", **body(2))
    numbered, named = server.truth().values()
    assert numbered.id == str(numbered.number)
    assert (named.id, named.number) == ("named", numbered.number + 1)
    assert (numbered.stream, numbered.first_s, len(numbered.tokens_s)) == (False, None, 0)
    assert numbered.end_s - numbered.arrival_s >= TTFT_MS / 1000
    assert Truth.from_line(named.as_line()).as_line() == named.as_line()


async def test_a_client_that_leaves_is_told_of(server: Running) -> None:
    connection = await TimedConnection.open(server.address)
    connection.start(request_bytes(server.address, {"x-request-id": "left"}, body(10_000)))
    await connection.first
    connection.close()
    truth = await asyncio.to_thread(eventually, server, "left")
    assert (truth.error, len(truth.tokens_s)) == ("gone", truth.output_tokens)
    assert 1 <= truth.output_tokens < 1000


# ---- modes -----------------------------------------------------------------------------------------------


def due(tokens: int, requests: int = 1, **options: object) -> list[list[float]]:
    plan = planner(ReferenceConfig.model_validate(options))
    return [plan(100.0, 5, tokens).due_s for _ in range(requests)]


def test_jitter_keeps_the_mean_is_cut_and_is_the_same_for_the_same_seed() -> None:
    options = {"mode": "jitter", "ttft_ms": 100, "itl_ms": 10, "jitter": 0.5}
    plans = due(200, 100, **options)
    gaps = np.diff(np.array(plans), axis=1)
    assert gaps.mean() == pytest.approx(0.01, rel=0.02)
    # A normal distribution cut at two deviations has 0.88 of its spread.
    assert gaps.std() == pytest.approx(0.005 * 0.88, rel=0.03)
    assert gaps.min() >= 0
    assert gaps.max() <= 0.02 + 1e-9
    firsts = np.array(plans)[:, 0] - 100
    assert firsts.mean() == pytest.approx(0.1, rel=0.15)
    assert due(200, 100, **options) == plans
    assert due(200, 100, **options, seed=2) != plans


def test_stalls_come_before_every_nth_token() -> None:
    (plan,) = due(10, mode="stalls", ttft_ms=100, itl_ms=10, stall_every=4, stall_ms=200)
    gaps_ms = [round((after - before) * 1000) for before, after in pairwise([100.0, *plan])]
    assert gaps_ms == [100, 10, 10, 210, 10, 10, 10, 210, 10, 10]


async def test_a_stall_delays_what_comes_after_it() -> None:
    with running(mode="stalls", ttft_ms=5, itl_ms=5, stall_every=3, stall_ms=150) as server:
        connection = await stream(server.address, "s", 4)
        truth = (await asyncio.to_thread(server.truth))["s"]
    assert np.diff(due_s(truth)) == pytest.approx([0.005, 0.155, 0.005])
    assert connection.arrivals_s[ROLE + 2] - truth.arrival_s >= 0.165


async def test_the_queue_does_what_its_model_predicts() -> None:
    options = {"slots": 1, "replicas": 2, "ttft_ms": 30, "itl_ms": 6, "prefill_ms_per_token": 2}
    with running(mode="queue", **options) as server:
        await asyncio.gather(*(stream(server.address, f"q{n}", 5) for n in range(6)))
        truths = sorted((await asyncio.to_thread(server.truth)).values(), key=lambda t: t.number)
    model = ReferenceConfig.model_validate(options).engine_model
    arrivals = [truth.arrival_s for truth in truths]
    predicted = simulate(model, arrivals, [3] * 6, [5] * 6, 2)
    assert [truth.start_s for truth in truths] == pytest.approx(predicted.start_s.tolist())
    # Two at a time, 60 ms each.
    assert predicted.start_s[5] - arrivals[0] >= 0.12 - 1e-6
    off_ms = [
        (truth.tokens_s[0] - at) * 1000 for truth, at in zip(truths, predicted[1], strict=True)
    ]
    assert min(off_ms) >= 0


async def test_the_role_can_come_long_before_the_first_token() -> None:
    with running(ttft_ms=600_000, early_role=True) as server:
        connection = await TimedConnection.open(server.address)
        connection.start(request_bytes(server.address, {}, body(2)))
        await asyncio.wait_for(connection.first, 20)
        connection.close()
    assert b'"role":"assistant"' in b"".join(connection.pieces)
    assert connection.events == ROLE


# ---- faults ----------------------------------------------------------------------------------------------


async def test_a_freeze_stops_everything_and_plans_go_on_behind_it() -> None:
    with running(ttft_ms=20, itl_ms=10) as server:
        running_stream = asyncio.create_task(stream(server.address, "before", 60))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(server.freeze, 0.0, 0.8)
        await asyncio.sleep(0.05)
        sent_s = time.perf_counter()
        await stream(server.address, "during", 3)
        await running_stream
        ((began_s, ended_s),) = await asyncio.to_thread(server.freezes)
        truths = await asyncio.to_thread(server.truth)
    assert began_s < sent_s < ended_s
    assert ended_s - began_s >= 0.8
    before, during = truths["before"], truths["during"]
    assert not any(began_s < at < ended_s for at in before.tokens_s)
    # One long gap, and no burst behind it: what was planned moved with it.
    gaps_s = np.sort(np.diff(due_s(before)))
    assert gaps_s[:-1] == pytest.approx([0.01] * 58)
    assert gaps_s[-1] == pytest.approx(0.01 + ended_s - began_s)
    assert min(before.late_ms) >= 0
    assert during.arrival_s >= ended_s


async def test_a_freeze_can_be_ordered_at_the_start() -> None:
    with running(freeze_at_s=0.05, freeze_for_s=0.4) as server:
        freezes: list[tuple[float, float]] = []
        for _ in range(200):
            if freezes := await asyncio.to_thread(server.freezes):
                break
            await asyncio.sleep(0.01)
    ((began_s, ended_s),) = freezes
    assert ended_s - began_s >= 0.4


def test_a_freeze_must_be_of_seconds(server: Running, http: httpx.Client) -> None:
    for wrong in ({}, {"for_s": 0}, {"for_s": "x"}, {"in_s": -1, "for_s": 1}, []):
        assert http.post("/freeze", json=wrong).status_code == 400
    assert server.freezes() == []


def faults(seed: int) -> list[str]:
    """What becomes of forty requests, every other one streamed."""
    options = {"ttft_ms": 0, "itl_ms": 0.1, "error_share": 0.3, "break_share": 0.3, "seed": seed}
    seen = []
    with running(**options) as server:
        with httpx.Client(base_url=server.url, trust_env=False) as http:
            for number in range(40):
                try:
                    answer = ask(http, id=str(number), **body(3, stream=number % 2 == 0))
                    seen.append("" if answer.status_code == 200 else "http")
                except httpx.TransportError:
                    seen.append("broken")
        eventually(server, "39")
        truths = list(server.truth().values())
    for truth, word in zip(truths, seen, strict=True):
        assert truth.error == word
        assert (truth.status == 500) == (word == "http")
        assert (truth.output_tokens == 3) == (word == "")
    return seen


def test_errors_and_breaks_are_drawn_from_the_seed() -> None:
    once, again, other = faults(1), faults(1), faults(2)
    assert once == again != other
    assert set(once) == {"", "http", "broken"}
    assert 5 <= once.count("http") <= 19


def test_a_share_of_the_answers_ends_as_it_is_told_to() -> None:
    with (
        running(ttft_ms=0, itl_ms=0, end="error_body", end_share=0.4, error_share=0.3) as server,
        httpx.Client(base_url=server.url, trust_env=False) as http,
    ):
        seen = []
        for number in range(40):
            answer = ask(http, id=str(number), **body(3, stream=number % 2 == 0))
            is_error = answer.status_code == 200 and answer.text.startswith('{"error"')
            seen.append("error_body" if is_error else "" if answer.status_code == 200 else "http")
        eventually(server, "39")
        assert [truth.error for truth in server.truth().values()] == seen
        assert 6 <= seen.count("error_body") <= 26
        assert set(seen) == {"error_body", "http", ""}


def test_an_end_that_a_request_cannot_have_is_refused(http: httpx.Client) -> None:
    for end in ("well", "error_event"):
        answer = http.post(
            "/v1/chat/completions",
            json=body(3, stream=False),
            headers={"x-reference-end": end},
        )
        assert answer.status_code == 400
        assert "x-reference-end" in answer.json()["error"]["message"]


# ---- the process -----------------------------------------------------------------------------------------


def test_its_process_ends_with_the_block() -> None:
    with running() as server:
        assert psutil.pid_exists(server.pid)
        assert server.truth() == {}
    assert not psutil.pid_exists(server.pid)


def test_a_wrong_option_is_named_before_anything_starts() -> None:
    with (
        pytest.raises(ConfigError, match=r"ttft: unknown key; known: host, port"),
        running(ttft=3),
    ):
        pass


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (["--itl-ms", "-1"], "itl_ms: "),
        (["--mode", "wild"], "mode: "),
        (["--error-share", "0.6", "--break-share", "0.6"], "add up to more than 1"),
        (["--end", "well"], "there is no 'well'; available: http, reset"),
        (["--end", "empty", "--end-share", "0.6", "--break-share", "0.6"], "add up to more than 1"),
        (["--host", "192.0.2.1"], "cannot listen"),
    ],
)
def test_the_command_says_what_is_wrong(line: list[str], complaint: str) -> None:
    refused = CliRunner().invoke(app, line).exception
    assert isinstance(refused, ConfigError)
    assert exit_code(refused) == 2
    assert complaint in refused.message


def test_the_help_names_every_option() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    for option in ("--freeze-at ", "--freeze-for ", "--error-share ", "--port ", "--early-role "):
        assert option in shown


async def test_the_wheel_emits_in_order_and_never_early() -> None:
    class Note:
        def __init__(self, due_s: float) -> None:
            self.due_s = due_s

        def emit(self) -> None:
            notes.append((self.due_s, clock()))
            if len(notes) == 1:
                # Put during a turn, and overdue: comes with one of the next turns.
                wheel.put(self.due_s, Note(self.due_s))

    clock, notes = EngineClock(), list[tuple[float, float]]()
    wheel, now_s = Wheel(clock), clock()
    for delay_ms in (9, 3, 3.1, 0, 30, -5, 12):
        wheel.put(now_s + delay_ms / 1000, Note(now_s + delay_ms / 1000))
    for _ in range(200):
        await asyncio.sleep(0.005)
        if len(notes) == 8:
            break
    assert len(notes) == 8
    assert all(at >= due_s for due_s, at in notes)
    ticks = [round(due_s / TICK_S + 0.5) for due_s, _ in notes]
    assert ticks[2:] == sorted(ticks[2:])
