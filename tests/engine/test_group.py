"""A model in a group of ranks: each answers with the experts of all, and they stop together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import psutil
import pytest

from loadtests.processes.titles import engines_under
from serving.engine.group import Group

BODY = {
    "messages": [{"role": "user", "content": "Bonjour, 你好"}],
    "temperature": 0,
    "ignore_eos": True,
}


# ---- stopping, without Ray -----------------------------------------------------------------------------


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> set[bytes]:
    keys: set[bytes] = set()
    monkeypatch.setattr("serving.engine.group._POLL_S", 0.01)
    monkeypatch.setattr("serving.engine.group._internal_kv_exists", lambda key: key in keys)
    monkeypatch.setattr(
        "serving.engine.group._internal_kv_put", lambda key, value, overwrite: keys.add(key)
    )
    return keys


async def test_a_rank_waits_until_all_have_finished(store: set[bytes]) -> None:
    waiting = [asyncio.create_task(Group("g", rank, 3).all_finished(5)) for rank in (0, 1)]
    await asyncio.sleep(0.1)
    assert not any(task.done() for task in waiting)
    assert await Group("g", 2, 3).all_finished(5)
    assert await asyncio.gather(*waiting) == [True, True]


async def test_a_rank_does_not_wait_for_ever(store: set[bytes]) -> None:
    assert not await Group("g", 0, 2).all_finished(0.05)


async def test_a_group_that_is_started_again_is_another_one(store: set[bytes]) -> None:
    await Group("old", 1, 2).all_finished(0)
    assert not await Group("new", 0, 2).all_finished(0.05)


# ---- two ranks on a CPU --------------------------------------------------------------------------------


def model(name: str, engine_args: dict[str, Any]) -> Any:
    from serving.app import build_model

    return build_model(
        {
            "id": name,
            "catalogue": "tiny-qwen3-moe",
            "device": "cpu",
            "drain_timeout_s": 20,
            "engine_args": engine_args,
        }
    )


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    """The doors of a running group of two, and of the same model in one engine."""
    import ray
    from ray import serve

    cache: Path = tmp_path_factory.mktemp("cache")
    root = str(Path(__file__).parents[2])
    env = {
        "PYTHONPATH": root,
        "COMPTOIR_CACHE_DIR": str(cache),
        "COMPTOIR_REPLICA_HOST": "127.0.0.1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        ray.init(
            address="local",
            num_cpus=8,
            include_dashboard=False,
            logging_level="ERROR",
            log_to_driver=False,
            object_store_memory=100 * 1024 * 1024,
            runtime_env={"env_vars": env},
        )
        try:
            # In 16 bits the place of a request in a batch can change its text.
            args = {"dtype": "float32"}
            alone = serve.run(model("one", args), name="one", route_prefix=None)
            args |= {
                "data_parallel_size": 2,
                "worker_extension_cls": "tests.engine.cpu_collectives.Extension",
            }
            handle = serve.run(model("m", args), name="m", route_prefix=None)
            doors: dict[int, dict[str, Any]] = {}
            for _ in range(200):
                facts = handle.record_replica_metadata.remote().result()
                doors[facts["port"]] = facts
                if len(doors) == 2:
                    break
            yield [*doors.values(), alone.record_replica_metadata.remote().result()]
        finally:
            serve.shutdown()
            ray.shutdown()


async def ask(door: dict[str, Any], tokens: int) -> str:
    url = f"http://{door['host']}:{door['port']}/v1/chat/completions"
    headers = {"x-comptoir-token": door["token"]}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(url, json=BODY | {"max_tokens": tokens}) as response,
    ):
        raw = await response.read()
        assert response.status == 200, raw
        answer = orjson.loads(raw)
        assert answer["usage"]["completion_tokens"] == tokens
        return str(answer["choices"][0]["message"]["content"])


@pytest.mark.engine
@pytest.mark.ray
@pytest.mark.timeout(280)
async def test_both_ranks_answer_alone_and_together_and_stop_when_the_last_is_done(
    group: list[dict[str, Any]],
) -> None:
    from ray import serve

    *ranks, single = group
    assert len(ranks) == 2
    expected = await ask(single, 8)
    # One works and the other lends its slices of the experts; which of them makes no difference.
    assert [await ask(door, 8) for door in ranks] == [expected, expected]
    together = await asyncio.gather(*(ask(door, 8) for door in ranks for _ in range(2)))
    assert set(together) == {expected}
    # A rank without requests stays while the other one has some.
    long = asyncio.create_task(ask(ranks[0], 400))
    await asyncio.sleep(1.0)
    stopping = asyncio.create_task(asyncio.to_thread(serve.delete, "m"))
    assert len(await long) > 0
    await stopping
    await asyncio.to_thread(serve.delete, "one")
    assert engines_under(psutil.Process()) == []
