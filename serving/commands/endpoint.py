"""Asks an endpoint for one of its own pages: what `status` and `monitoring check` look at."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request

from serving.errors import StackError

TIMEOUT_S = 10.0
MAX_REFUSAL_BYTES = 64 * 1024


def get(url: str, path: str, key: str | None, name: str) -> str:
    """The text of `path` at an endpoint, whose URL may end with /v1.

    Args:
        url: must begin with http:// or https://; the caller says how to mend it otherwise.
        name: what errors call the endpoint.

    Raises:
        StackError: it does not answer, refuses, or answers with something else.
    """
    request = urllib.request.Request(url.rstrip("/").removesuffix("/v1") + path)  # noqa: S310
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
            return str(response.read().decode("utf-8"))
    except urllib.error.HTTPError as error:
        hint = ": give a key with --key or COMPTOIR_API_KEY" if error.code == 401 else ""
        if error.code == 403 and (said := refusal(error)):
            hint = f": {said}"
        raise StackError(f"{name} answers with status {error.code}{hint}") from None
    except (http.client.HTTPException, ValueError):
        raise not_an_endpoint(name) from None
    except OSError:
        raise StackError(f"{name} does not answer") from None


def refusal(error: urllib.error.HTTPError) -> str:
    """What the endpoint says of a refusal: which scope the key lacks, say. Empty when it says nothing."""
    try:
        body = json.loads(error.read(MAX_REFUSAL_BYTES))
        return str(body["error"]["message"])
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return ""


def not_an_endpoint(name: str) -> StackError:
    """Something answers there, and it is not one of ours."""
    return StackError(f"{name} is not a Comptoir endpoint", param="url")
