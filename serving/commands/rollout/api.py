"""The clients of `comptoir rollout`: Ray Serve's REST API on the dashboard, the gateway's endpoint."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from serving import api, http_client
from serving.commands.endpoint import refusal
from serving.commands.stack import ray_api
from serving.commands.stack.progress_view import reason
from serving.errors import StackError
from serving.replica_facts import ModelCard
from serving.rollout.document import Document, running_document, same
from serving.settings import ProcessSettings

# How a model is asked whether it answers, by its task; others are asked nothing.
_PROBES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "chat": (
        api.CHAT,
        {"messages": [{"role": "user", "content": "Bonjour"}], "max_tokens": 1},
    ),
    "embed": (api.EMBEDDINGS, {"input": "Bonjour"}),
    "rerank": (api.RERANK, {"query": "Bonjour", "documents": ["Bonsoir"]}),
}
_PROBES = {**_PROBES, "guard": _PROBES["chat"]}


@dataclass(frozen=True)
class Running:
    """The running site: the config, and the state of each application by name."""

    document: Document
    applications: Mapping[str, Mapping[str, Any]]

    def state(self, name: str) -> str:
        """Serve's word for an application's state; `GONE` when there is none."""
        return str(self.applications.get(name, {}).get("status", "GONE"))

    def message(self, name: str) -> str:
        """Serve's message on a failed application."""
        return reason(dict(self.applications.get(name, {})))


@dataclass(frozen=True)
class Cluster:
    """The dashboard of a Ray cluster, as `serve deploy` uses it."""

    address: str

    def running(self) -> Running:
        """The config and states of now.

        Raises:
            StackError: the dashboard does not answer, or refuses.
        """
        url = self.address.rstrip("/") + ray_api.APPLICATIONS
        body = _call(url, headers=ray_api.authorization(), is_inside=True)
        details = _json(body, url)
        return Running(running_document(details), details.get("applications") or {})

    def submit(self, expected: Mapping[str, Any], document: Mapping[str, Any]) -> Running:
        """Deploy a document, if the cluster still runs the config that it was made from.

        Serve's API has no version to compare with: commands of one user on one machine take turns, and a
        command that is overwritten between reading and writing is told so afterwards.

        Raises:
            StackError: somebody else changed the config meanwhile, or the dashboard does not answer.
            ConfigError: Serve refuses the document.
        """
        with self._turn():
            if not same(self.running().document, expected):
                raise StackError(
                    "the config on the cluster has changed meanwhile, and not by this command: nothing "
                    "more is done; look at it with `comptoir rollout status`, then go on"
                )
            ray_api.deploy(self.address.rstrip("/"), document)
            now = self.running()
        if not same(now.document, document):
            raise StackError(
                "somebody else changed the config on the cluster at the same moment, and theirs is the "
                "one that runs: this command stops here; look at it with `comptoir rollout status`, "
                "then run the command again"
            )
        return now

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """One command at a time at this cluster; the kernel lets the next one in if this one dies."""
        folder = ProcessSettings.load().cache_dir / "rollout"
        name = hashlib.sha256(self.address.rstrip("/").encode()).hexdigest()[:16]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / f"{name}.lock").open("ab")
        except OSError as error:
            raise StackError(f"{folder}: cannot be written: {error.strerror}") from None
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


@dataclass(frozen=True)
class Endpoint:
    """The gateway, as any client reaches it."""

    url: str
    key: str | None = field(default=None, repr=False)

    def status(self) -> Mapping[str, Any]:
        """The gateway's status of its models."""
        url = self._at(api.STATUS)
        return _json(_call(url, headers=self._headers), url)

    def ask(self, model: str) -> bool:
        """Send one small request to a model; true when it answers, whatever the text.

        Raises:
            StackError: the answer is not valid.
        """
        url = self._at(f"{api.MODELS}/{model}")
        task = ModelCard.parse(_json(_call(url, headers=self._headers), url)).task
        if task is not None and task in _PROBES:
            path, body = _PROBES[task]
            headers = {"Content-Type": "application/json"} | self._headers
            _call(self._at(path), headers, json.dumps(body | {"model": model}).encode(), 120.0)
        return True

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def _at(self, path: str) -> str:
        return self.url.rstrip("/").removesuffix("/v1") + path


def _call(
    url: str,
    headers: Mapping[str, str],
    body: bytes | None = None,
    timeout_s: float = 30.0,
    *,
    is_inside: bool = False,
) -> bytes:
    try:
        answer = http_client.ask(
            url,
            method="GET" if body is None else "POST",
            headers=headers,
            body=body,
            timeout_s=timeout_s,
            is_inside=is_inside,
        )
    except (http_client.Unreachable, http_client.NotHttp) as error:
        raise StackError(f"{url} does not answer: {error}") from None
    if answer.is_good:
        return answer.body
    hint = ""
    if answer.status in (401, 403):
        hint = f": {refusal(answer.body) or 'give a key that may use the model'}"
    raise StackError(f"{url} answers with status {answer.status}{hint}")


def _json(body: bytes, url: str) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise StackError(f"{url} is not the expected address: its answer is not a JSON object")
    return found
