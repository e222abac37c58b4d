"""The only gateway of a site changes under load: keys, limits, the gateway itself. No request may fail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from loadtests.processes.titles import title_of
from serving.commands.stack import processes
from serving.settings import hash_key
from tests.stack.conftest import Stack, start, stop
from tests.stack.deploying import deploy, eventually
from tests.stack.load import MESSAGES, Load

MODEL = "qwen3"
STEADY, LEAVING, ADDED = "sk-steady", "sk-leaving", "sk-added"
# A revoked key is refused within this.
REVOKED_WITHIN_S = 5.0


def site(keys_file: Path, live: dict[str, Any] | None = None, **args: Any) -> dict[str, Any]:
    gateway: dict[str, Any] = {
        "name": "gateway",
        "route_prefix": None,
        "import_path": "serving.app:build_gateway",
        "args": {"host": "127.0.0.1", "port": 8000, "keys_file": str(keys_file)} | args,
    }
    if live is not None:
        gateway["deployments"] = [{"name": "GatewayReplica", "user_config": live}]
    model = {
        "name": MODEL,
        "route_prefix": None,
        "import_path": "serving.app:build_model",
        "args": {"id": MODEL, "catalogue": f"tiny-{MODEL}"},
    }
    return {
        "proxy_location": "Disabled",
        "logging_config": {"enable_access_log": False},
        "applications": [gateway, model],
    }


def write_keys(path: Path, *keys: str) -> None:
    """As a careful operator does: a file that is complete takes the place of the old one."""
    new = path.with_name("keys.new")
    new.write_text(yaml.safe_dump([{"name": key, "hash": hash_key(key)} for key in keys]))
    new.replace(path)


@dataclass(frozen=True)
class Keyed:
    """A stack with one model, one gateway and keys."""

    stack: Stack
    keys_file: Path

    def ask(self, key: str, **fields: Any) -> int:
        body = {"model": MODEL, "messages": MESSAGES, "max_tokens": 2} | fields
        headers = {"authorization": f"Bearer {key}"}
        url = f"{self.stack.url}/v1/chat/completions"
        return httpx.post(url, json=body, headers=headers, timeout=30).status_code

    def gateways(self) -> set[int]:
        """Process ids of the gateway's replicas."""
        found = processes.of_stack(self.stack.state.stack_id, self.stack.port)
        return {each.pid for each in found if ":GatewayReplica" in title_of(each)}


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[Keyed]:
    keys_file, config = tmp_path / "keys.yaml", tmp_path / "site.yaml"
    write_keys(keys_file, STEADY, LEAVING)
    config.write_text(yaml.safe_dump(site(keys_file)))
    process, stack = start(config, tmp_path)
    try:
        yield Keyed(stack, keys_file)
    finally:
        code = stop(process)
    assert code == 0, stack.output[-4000:]


@pytest.mark.timeout(900)
def test_keys_limits_and_the_gateway_change_without_a_failed_request(
    keyed: Keyed, tmp_path: Path
) -> None:
    stack, file = keyed.stack, keyed.keys_file
    (first,) = keyed.gateways()
    with (
        Load(stack, MODEL, streams=2, whole=1, pace_s=0.05, tokens=60, key=STEADY) as kept,
        Load(
            stack, MODEL, streams=1, whole=1, pace_s=0.02, tokens=8, key=STEADY, fresh=True
        ) as fresh,
    ):
        assert keyed.ask(ADDED) == 401
        write_keys(file, STEADY, LEAVING, ADDED)
        added_s = eventually(lambda: keyed.ask(ADDED) == 200, 30)

        assert keyed.ask(LEAVING) == 200
        write_keys(file, STEADY, ADDED)
        revoked_s = eventually(lambda: keyed.ask(LEAVING) == 401, 30)

        file.write_text("- {name: broken")
        time.sleep(2.0)
        assert keyed.ask(ADDED) == 200
        write_keys(file, STEADY, ADDED)

        assert keyed.ask(STEADY, n=2) == 200
        deploy(stack, site(file, {"limits": {"max_n": 1}}), tmp_path)
        limited_s = eventually(lambda: keyed.ask(STEADY, n=2) == 400, 60)
        assert keyed.gateways() == {first}

        deploy(stack, site(file, {"limits": {"max_n": 1}}, response_timeout_s=599.0), tmp_path)
        changed_s = eventually(lambda: not psutil.pid_exists(first), 120)
        assert len(keyed.gateways()) == 1
        assert keyed.ask(STEADY, n=2) == 400
        kept.counted_over(3)
    print(
        f"\nfailed: {len(kept.failures)} of {kept.answers.total()} on kept connections, "
        f"{len(fresh.failures)} of {fresh.answers.total()} on fresh ones; longest silence "
        f"{kept.longest_wait_s:.2f} s and {fresh.longest_wait_s:.2f} s\n"
        f"key added after {added_s:.1f} s, revoked after {revoked_s:.1f} s, limits after {limited_s:.1f} s, "
        f"another gateway after {changed_s:.1f} s"
    )
    assert (kept.failures, fresh.failures) == ([], [])
    assert min(kept.answers.total(), fresh.answers.total()) > 20
    assert revoked_s < REVOKED_WITHIN_S
