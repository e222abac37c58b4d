"""The connection from the gateway to a replica: one POST, then bytes, unparsed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import aiohttp

from serving.errors import EngineTimeoutError
from serving.gateway.engine_errors import ENGINE_DEAD
from serving.routing.directory import Replica


class ReplicaGoneError(Exception):
    """The replica has not begun to answer: another may be asked.

    `sent` says that it had the request when it went; such a request may be what broke it.
    """

    def __init__(self, reason: str, *, sent: bool = False) -> None:
        super().__init__(reason)
        self.sent = sent


class ReplicaBrokeError(Exception):
    """The replica began to answer and then stopped: nobody can take over."""


@dataclass
class Answer:
    """A replica's answer: status and first bytes are known, the rest can be read."""

    status: int
    content_type: str
    first: bytes
    _response: aiohttp.ClientResponse

    async def next(self) -> bytes:
        """The next bytes as they arrived; empty at the end.

        Raises:
            ReplicaBrokeError: the connection ended before the answer did.
        """
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            raise ReplicaBrokeError(type(error).__name__) from None

    async def rest(self) -> bytes:
        """Everything, from the first byte on."""
        parts = [self.first]
        while part := await self.next():
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        """Close the connection; if the answer is not complete, the engine aborts the request."""
        self._response.close()


class Upstream:
    """A pool of kept-alive connections to replicas."""

    def __init__(self, *, connect_timeout_s: float, response_timeout_s: float) -> None:
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=connect_timeout_s, sock_read=response_timeout_s
        )
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the pool in the running loop."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            timeout=self._timeout,
            auto_decompress=False,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def stop(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def post(self, replica: Replica, path: str, body: bytes, request_id: str) -> Answer:
        """Send a request and wait for the first bytes of the answer.

        Raises:
            ReplicaGoneError: no answer has begun; it is safe to ask another replica.
            EngineTimeoutError: the engine is silent for too long.
        """
        if self._session is None:
            raise RuntimeError("start() comes first")
        headers = {
            "content-type": "application/json",
            "x-comptoir-token": replica.token,
            "x-request-id": request_id,
        }
        try:
            response = await self._session.post(
                replica.base_url + path, data=body, headers=headers, allow_redirects=False
            )
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
            raise ReplicaGoneError(type(error).__name__, sent=False) from None
        except (TimeoutError, aiohttp.ServerTimeoutError):
            raise EngineTimeoutError(
                "the engine did not answer in time; ask for fewer tokens or stream the answer"
            ) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise ReplicaGoneError(type(error).__name__, sent=True) from None
        try:
            first = await response.content.readany()
        except TimeoutError:
            response.close()
            raise EngineTimeoutError("the engine did not produce a token in time") from None
        except (aiohttp.ClientError, ConnectionError) as error:
            response.close()
            raise ReplicaGoneError(type(error).__name__, sent=True) from None
        except asyncio.CancelledError:
            response.close()
            raise
        died = response.status == 500 and ENGINE_DEAD in first
        if died or response.status in (401, 502, 503):
            # 401: the address now belongs to another replica; 503: the door knows of a dead engine.
            response.close()
            raise ReplicaGoneError(f"status {response.status}", sent=died)
        return Answer(response.status, response.headers.get("content-type", ""), first, response)
