"""Which web pages may call the endpoint from a browser (CORS)."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from serving.config.base import FrozenConfig

_ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?")


def _origin(value: str) -> str:
    if value != "*" and _ORIGIN.fullmatch(value) is None:
        raise ValueError(
            "give 'https://HOST' or 'https://HOST:PORT' without a path, or '*' for all pages"
        )
    return value


class CorsConfig(FrozenConfig):
    """Cross-origin requests (https://fetch.spec.whatwg.org/#http-cors-protocol); none by default.

    A page's JavaScript holds the key that it sends, and so does everybody who opens the page: give it a key
    of its own with few models, or let the page's server hold the key.
    """

    origins: tuple[Annotated[str, AfterValidator(_origin)], ...] = ()
    # How long a browser may remember the answer to a preflight.
    max_age_s: int = Field(default=600, ge=0, le=86_400)
