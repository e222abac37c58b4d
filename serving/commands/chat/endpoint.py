"""The client of any OpenAI-compatible endpoint: its models, and the next answer piece by piece."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from serving import api, http_client
from serving.errors import ConfigError, StackError

if TYPE_CHECKING:
    import httpx

CONNECT_S = 10.0
# A model that sleeps is held for minutes before its first token.
SILENCE_S = 600.0
# One event of an answer; a logprob or a tool call is far shorter.
MAX_EVENT_BYTES = 4 * 2**20
MAX_MODELS_SHOWN = 20


@dataclass(frozen=True)
class Piece:
    """A piece of an answer's text, as received."""

    kind: Literal["reasoning", "content"]
    text: str


@dataclass
class Figures:
    """The tokens and times of one answer.

    Attributes:
        tokens: the endpoint's own count, or that of the pieces where it gives none.
        is_counted: whether the endpoint gave it.
        finish: why the answer ended: `stop`, `length`; None when it did not end.
    """

    began_s: float
    first_s: float | None = None
    last_s: float | None = None
    tokens: int = 0
    is_counted: bool = False
    finish: str | None = None

    @property
    def ttft_s(self) -> float | None:
        """Seconds from the request to the first token."""
        return None if self.first_s is None else self.first_s - self.began_s

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens per second after the first token."""
        if self.first_s is None or self.last_s is None or self.tokens < 2:
            return None
        seconds = self.last_s - self.first_s
        return (self.tokens - 1) / seconds if seconds > 0 else None

    def count(self, pieces: int, now_s: float) -> None:
        """Count pieces that have just arrived."""
        self.first_s = now_s if self.first_s is None else self.first_s
        self.last_s = now_s
        self.tokens += 0 if self.is_counted else pieces


@dataclass(frozen=True)
class Endpoint:
    """An endpoint.

    Attributes:
        url: with or without /v1.
        is_inside: a stack of this machine, reached without a proxy.
    """

    url: str
    key: str | None = None
    is_inside: bool = False
    headers: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(
                f"--url must begin with http:// or https://, not {self.url!r}", param="url"
            )
        if self.key and not (self.key.isascii() and self.key.isprintable()):
            raise ConfigError(
                "the API key holds characters that no HTTP header may hold", param="key"
            )
        authorization = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        object.__setattr__(self, "headers", authorization)

    def at(self, path: str) -> str:
        """The URL of a path of the API."""
        return self.url.rstrip("/").removesuffix("/v1") + path

    def models(self) -> list[dict[str, Any]]:
        """The models that the endpoint lists, those best suited for a chat first."""
        status, body = self._get(api.MODELS)
        if status >= 400:
            raise self.refusal(status, body)
        try:
            cards = [card for card in json.loads(body)["data"] if isinstance(card["id"], str)]
        except (ValueError, LookupError, TypeError):
            raise self._no_endpoint() from None
        # Only some endpoints say what a model is for.
        return sorted(cards, key=lambda card: card.get("task") not in (None, "chat"))

    def require_model(self, name: str) -> None:
        """Refuse a name that the endpoint does not know; some know more names than they list."""
        listed = self.models()
        if any(name == card["id"] or name in _aliases(card) for card in listed):
            return
        status, _ = self._get(f"{api.MODELS}/{quote(name, safe='/')}")
        if status >= 400:
            raise self.no_model(name, [card["id"] for card in listed])

    def no_model(self, name: str, listed: Sequence[str]) -> ConfigError:
        """The error for an unknown name."""
        more = (
            f" and {len(listed) - MAX_MODELS_SHOWN} more" if len(listed) > MAX_MODELS_SHOWN else ""
        )
        there = ", ".join(sorted(listed)[:MAX_MODELS_SHOWN]) or "none"
        return ConfigError(f"there is no model {name!r} at {self.url}; available: {there}{more}")

    def answer(self, body: dict[str, Any], figures: Figures) -> Generator[Piece]:
        """One answer, piece by piece; fills `figures` meanwhile.

        Raises:
            StackError: the endpoint refuses, breaks off, or reports an error.
        """
        streamed = body | {"stream": True, "stream_options": {"include_usage": True}}
        with self._streaming(streamed) as response:
            if response.status_code >= 400:
                raise self.refusal(response.status_code, response.read(), body["model"])
            if "text/event-stream" not in response.headers.get("content-type", ""):
                raise self._no_endpoint()
            for line in _lines(response):
                if line.startswith("data:") and (data := line[5:].strip()) != "[DONE]":
                    yield from _pieces(_event(data), figures)
        if figures.finish is None:
            raise StackError("the answer broke off: the endpoint ended it without a reason")

    def refusal(
        self, status: int, body: bytes, model: str | None = None
    ) -> StackError | ConfigError:
        """The error for a status of 400 or more."""
        said = _said(body)
        if status == 401:
            lack = "the endpoint does not know this key" if self.key else "an API key is required"
            return StackError(f"{self.url}: {lack}; give one with --key or COMPTOIR_API_KEY")
        if status == 404:
            if model is not None and said:
                return self.no_model(model, [card["id"] for card in self.models()])
            return self._no_endpoint()
        return StackError(
            f"{self.url} answers with status {status}" + (f": {said}" if said else "")
        )

    def _get(self, path: str) -> tuple[int, bytes]:
        try:
            answer = http_client.ask(
                self.at(path), timeout_s=CONNECT_S, headers=self.headers, is_inside=self.is_inside
            )
        except http_client.Unreachable as error:
            raise StackError(f"{self.url} does not answer: {error}") from None
        except http_client.NotHttp:
            raise self._no_endpoint() from None
        return answer.status, answer.body

    @contextmanager
    def _streaming(self, body: dict[str, Any]) -> Iterator[httpx.Response]:
        import httpx

        timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_S)
        url = self.at(api.CHAT)
        with http_client.client(url, timeout_s=SILENCE_S, is_inside=self.is_inside) as client:
            try:
                # In ASCII: half a surrogate pair, which an answer may hold, is no UTF-8.
                with client.stream(
                    "POST",
                    url,
                    content=json.dumps(body),
                    headers={"Content-Type": "application/json", **self.headers},
                    timeout=timeout,
                ) as response:
                    yield response
            except httpx.ConnectError:
                raise StackError(f"{self.url} no longer answers") from None
            except httpx.TimeoutException:
                raise StackError(f"{self.url} has been silent for too long") from None
            except httpx.HTTPError:
                raise StackError("the answer broke off: the connection was lost") from None

    def _no_endpoint(self) -> StackError:
        return StackError(f"{self.url} is not an OpenAI-compatible endpoint", param="url")


def _lines(response: httpx.Response) -> Iterator[str]:
    """The lines of an event stream; httpx would end one at U+2028, too, which JSON may hold."""
    rest = b""
    for part in response.iter_bytes():
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace")
        if len(rest) > MAX_EVENT_BYTES:
            raise StackError("the answer broke off: an event does not end")
    yield rest.decode("utf-8", "replace")


def _event(data: str) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except ValueError:
        raise StackError("the answer broke off: an event is not JSON") from None
    if not isinstance(event, dict):
        raise StackError("the answer broke off: an event is not an object")
    if "error" in event:
        raise StackError(f"the answer broke off: {_said(data.encode()) or 'an error without text'}")
    return event


def _aliases(card: dict[str, Any]) -> list[Any]:
    aliases = card.get("aliases")
    return aliases if isinstance(aliases, list) else []


def _pieces(event: dict[str, Any], figures: Figures) -> list[Piece]:
    """The text of an event; its other contents go to the figures."""
    usage = event.get("usage")
    if isinstance(usage, dict) and isinstance(count := usage.get("completion_tokens"), int):
        figures.tokens, figures.is_counted = count, True
    pieces: list[Piece] = []
    try:
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            reasoning = delta.get("reasoning_content") or delta.get("reasoning")
            pieces += [Piece("reasoning", str(reasoning))] if reasoning else []
            pieces += [Piece("content", str(delta["content"]))] if delta.get("content") else []
            figures.finish = choice.get("finish_reason") or figures.finish
    except (AttributeError, TypeError):
        raise StackError("the answer broke off: an event is not a chunk of a chat") from None
    if pieces:
        figures.count(len(pieces), time.monotonic())
    return pieces


def _said(body: bytes) -> str:
    """The message in an error's body; empty without one."""
    try:
        error = json.loads(body)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, LookupError, TypeError):
        return ""
