"""Fetches one of an endpoint's own pages, for `status` and `monitoring check`."""

from __future__ import annotations

import json

from serving import http_client
from serving.errors import StackError

TIMEOUT_S = 10.0


def get(url: str, path: str, key: str | None, name: str, *, is_inside: bool = False) -> str:
    """The text of `path` at an endpoint, whose URL may end with /v1.

    Args:
        url: must begin with http:// or https://; the caller reports it otherwise.
        name: what errors call the endpoint.
        is_inside: it is a stack of this machine, reached without a proxy.

    Raises:
        StackError: the endpoint does not answer, refuses, or is something else.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    where = url.rstrip("/").removesuffix("/v1") + path
    try:
        answer = http_client.ask(where, timeout_s=TIMEOUT_S, headers=headers, is_inside=is_inside)
        if answer.is_good:
            return answer.body.decode("utf-8")
    except (http_client.NotHttp, ValueError):
        raise not_an_endpoint(name) from None
    except http_client.Unreachable:
        proxy = None if is_inside else http_client.proxy_for(where)
        through = (
            " through the proxy that the environment names; NO_PROXY spares a host" if proxy else ""
        )
        raise StackError(f"{name} does not answer{through}") from None
    if answer.status == 404:
        raise not_an_endpoint(name)
    raise StackError(f"{name} answers with status {answer.status}{_hint(answer, key)}")


def _hint(answer: http_client.Answer, key: str | None) -> str:
    """What to do about an answer that is an error."""
    if answer.status == 401:
        lack = "the endpoint does not know this key" if key else "an API key is required"
        return f": {lack}; give one with --key or COMPTOIR_API_KEY"
    if answer.status == 403 and (said := refusal(answer.body)):
        return f": {said}"
    return f": it refers to {answer.location}; give that address" if answer.location else ""


def refusal(body: bytes) -> str:
    """The endpoint's message in a refusal, such as the scope that the key lacks; empty without one."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return ""


def not_an_endpoint(name: str) -> StackError:
    """The error for an address where something other than Comptoir answers."""
    return StackError(f"{name} is not a Comptoir endpoint", param="url")
