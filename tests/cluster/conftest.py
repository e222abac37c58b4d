"""A cluster of two machines in network namespaces, with deployments/two-nodes.yaml on it."""

from __future__ import annotations

import os
import secrets
import shutil
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from serving.settings import hash_key
from tests.cluster.nodes import BIN, ROOT, Machine, Wire, short_folder, why_not

START_TIMEOUT_S = 150
MODEL = "qwen3"


@dataclass
class Cluster:
    """Two machines, and what one needs to call them."""

    head: Machine
    worker: Machine
    token: Path
    key: str
    start_s: float = 0.0

    @property
    def env(self) -> dict[str, str]:
        """Of a command that talks to Ray."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token)}

    @property
    def gateways(self) -> dict[str, str]:
        """URLs by the machine's name."""
        return {each.name: f"http://{each.address}:8000" for each in (self.head, self.worker)}

    def deploy(self, config: Path) -> None:
        """`serve deploy` on the head."""
        self.head.call(str(BIN / "serve"), "deploy", str(config), env=self.env)

    def wait_until_whole(self, timeout_s: float) -> float:
        """Until each gateway answers and knows two replicas; returns the seconds that took.

        Raises:
            Failed: it took longer; with what is known.
        """
        began_s = time.monotonic()
        while any(self._replicas(url) != 2 for url in self.gateways.values()):
            if time.monotonic() - began_s > timeout_s:
                pytest.fail(self.describe())
            time.sleep(0.25)
        return time.monotonic() - began_s

    def describe(self) -> str:
        """What is known of a cluster that does not become whole."""
        parts = [self.head.call(str(BIN / "serve"), "status", env=self.env)]
        for machine in (self.head, self.worker):
            titles = [title[:90] for title in machine.titles()]
            parts += [f"--- {machine.name}:", machine.output[-1500:], *titles]
        return "\n".join(parts)

    def _replicas(self, url: str) -> int:
        request = urllib.request.Request(  # noqa: S310
            f"{url}/status", headers={"Authorization": f"Bearer {self.key}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=1) as response:  # noqa: S310
                models = yaml.safe_load(response.read())["models"]
        except OSError:
            return 0
        return sum(len(each["replicas"]) for each in models if each["id"] == MODEL)


def _config(folder: Path, key: str) -> Path:
    document = yaml.safe_load((ROOT / "deployments" / "two-nodes.yaml").read_text())
    gateway = document["applications"][0]["args"]
    gateway["keys"] = [{"name": "test", "hash": hash_key(key), "scopes": ["inference", "operator"]}]
    path = folder / "two-nodes.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if not os.environ.get("TEST_CLUSTER"):
        pytest.skip("two Ray nodes in network namespaces take four minutes: set TEST_CLUSTER=1")
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    began_s = time.monotonic()
    folder = short_folder()
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    wire = Wire()
    machines: list[Machine] = []
    try:
        for number, name in enumerate(("a", "b"), start=11):
            machines.append(Machine(wire, name, number, folder))
        head, worker = machines
        head.start("head.sh", "--cpus", "1", token=token)
        worker.start("worker.sh", "--cpus", "1", "--head", f"{head.address}:6379", token=token)
        started = Cluster(head, worker, token, key=f"sk-{secrets.token_hex(16)}")
        _wait_for_dashboard(started)
        started.deploy(_config(folder, started.key))
        started.wait_until_whole(START_TIMEOUT_S)
        started.start_s = time.monotonic() - began_s
        yield started
    finally:
        for machine in machines:
            machine.stop()
        wire.remove()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for_dashboard(cluster: Cluster) -> None:
    deadline = time.monotonic() + 60
    while not cluster.head.listens(8265):
        assert time.monotonic() < deadline, cluster.head.output[-3000:]
        time.sleep(0.25)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/cluster/test_two_nodes" in item.nodeid:
            item.add_marker(pytest.mark.ray)
            item.add_marker(pytest.mark.engine)
