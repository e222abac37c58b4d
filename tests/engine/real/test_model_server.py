"""The real ModelServer, every tiny family: it loads, answers, streams what it answers, and stops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from loadtests.processes.titles import engines_under
from serving.catalogue import tiny
from serving.replica_protocol import BILLS_PATH, parse_bills
from tests.engine.real.conftest import LOOP, Running, Shared

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope=LOOP),
]

TOKENS = 24


def text_of_stream(raw: bytes) -> str:
    events = [orjson.loads(line[6:]) for line in raw.splitlines() if line.startswith(b"data: {")]
    return "".join(
        event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"]
    )


CHAT = [family.name for family in tiny.families() if family.task == "chat"]
EMBED = [family.name for family in tiny.families() if family.task == "embed"]
RERANK = [family.name for family in tiny.families() if family.task == "rerank"]


@pytest.mark.parametrize("running", CHAT, indirect=True)
async def test_a_chat_model_streams_what_it_answers(running: Running) -> None:
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": "Bonjour, 你好"}],
        "max_tokens": TOKENS,
        "temperature": 0,
        "ignore_eos": True,
    }
    status, raw = await running.post("/v1/chat/completions", body)
    assert status == 200, raw
    answer = orjson.loads(raw)
    assert answer["usage"]["completion_tokens"] == TOKENS
    status, raw = await running.post("/v1/chat/completions", body | {"stream": True})
    assert status == 200
    assert text_of_stream(raw) == answer["choices"][0]["message"]["content"] != ""
    stats = await running.replica.record_routing_stats()
    assert stats["generated_tokens"] >= 2 * TOKENS
    assert stats["running"] == stats["waiting"] == stats["open_requests"] == 0
    await running.replica.check_health()


@pytest.mark.parametrize("running", EMBED, indirect=True)
async def test_an_embedding_model_tells_texts_apart(running: Running) -> None:
    status, raw = await running.post("/v1/embeddings", {"input": ["Bonjour", "Bonjour", "你好"]})
    assert status == 200, raw
    first, again, other = (item["embedding"] for item in orjson.loads(raw)["data"])
    assert first == pytest.approx(again, abs=1e-2)
    assert first != pytest.approx(other, abs=1e-2)


@pytest.mark.parametrize("running", RERANK, indirect=True)
async def test_a_reranker_scores_every_document(running: Running) -> None:
    body = {"query": "Bonjour", "documents": ["Bonjour", "你好"]}
    status, raw = await running.post("/v1/rerank", body)
    assert status == 200, raw
    assert len(orjson.loads(raw)["results"]) == 2


@pytest.mark.parametrize("running", ["qwen3"], indirect=True)
async def test_the_door_lets_in_gateways_only(running: Running) -> None:
    assert (await running.post("/v1/chat/completions", {}, token="wrong"))[0] == 401
    for path in ("/tokenizer_info", "/v1/load_lora_adapter", "/invocations", "/pause"):
        assert (await running.post(path, {}))[0] == 404
    assert len(engines_under(psutil.Process())) == 1


def write_adapter(folder: Path, model: Path) -> None:
    """A LoRA adapter with random weights, in the form that PEFT saves."""
    import torch
    from safetensors.torch import save_file

    config = orjson.loads((model / "config.json").read_bytes())
    hidden = config["hidden_size"]
    rows = {
        "q_proj": config["num_attention_heads"] * config["head_dim"],
        "v_proj": config["num_key_value_heads"] * config["head_dim"],
    }
    torch.manual_seed(7)
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for name, width in rows.items():
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{prefix}.lora_A.weight"] = torch.randn(8, hidden)
            tensors[f"{prefix}.lora_B.weight"] = torch.randn(width, 8)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    facts = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 8,
        "lora_alpha": 16,
        "bias": "none",
        "target_modules": list(rows),
        "base_model_name_or_path": str(model),
    }
    (folder / "adapter_config.json").write_bytes(orjson.dumps(facts))


@pytest.fixture
def adapter(cache_dir: Path, tmp_path: Path) -> Path:
    write_adapter(tmp_path / "adapter", tiny.build(tiny.family("qwen3"), cache_dir))
    return tmp_path / "adapter"


@pytest.mark.parametrize("running", ["qwen3+adapter"], indirect=True)
async def test_an_adapter_answers_under_its_own_name(running: Running) -> None:
    texts = {}
    for name in ("qwen3", "tuned", "qwen3"):
        body = {
            "model": name,
            "messages": [{"role": "user", "content": "Bonjour"}],
            "max_tokens": TOKENS,
            "temperature": 0,
        }
        status, raw = await running.post("/v1/chat/completions", body)
        assert status == 200, raw
        text = orjson.loads(raw)["choices"][0]["message"]["content"]
        assert texts.setdefault(name, text) == text
    assert texts["qwen3"] != texts["tuned"]
    assert running.facts["card"]["adapters"] == ["tuned"]
    # What it cost is on bills that say so.
    _, raw = await running.post(BILLS_PATH, {"gateway": "g", "acknowledged": []})
    bills = [(bill.model, bill.adapter) for bill in parse_bills(raw)]
    assert sorted(bills) == [("qwen3", ""), ("qwen3", ""), ("qwen3", "tuned")]


async def test_no_engine_is_left_behind(shared: Shared) -> None:
    await shared.close()
    assert engines_under(psutil.Process()) == []
