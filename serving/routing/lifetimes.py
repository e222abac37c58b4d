"""Lifetimes: headers and errors for a model or an alias that is deprecated or retired. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from email.utils import format_datetime

from serving.api import MODELS, SEE_MODELS
from serving.config.routing import Lifetime, RoutingConfig
from serving.errors import ModelNotFoundError
from serving.routing.route import Notice, Route


def deprecation_headers(route: Route) -> dict[str, str]:
    """The headers `deprecation` (RFC 9745), `sunset` (RFC 8594) and `link` to the successor (RFC 5829).

    Both dates are sent as soon as they are configured, also when they lie ahead, as the RFCs intend.
    """
    headers: dict[str, str] = {}
    for notice in route.notices[:1]:
        if notice.deprecated_on:
            # An sf-date, RFC 9651, 3.3.7: seconds since 1970 after an @.
            headers["deprecation"] = f"@{int(_midnight(notice.deprecated_on).timestamp())}"
        if notice.retired_on:
            headers["sunset"] = format_datetime(_midnight(notice.retired_on), usegmt=True)
        if notice.successor:
            headers["link"] = f'<{MODELS}/{notice.successor}>; rel="successor-version"'
    return headers


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def notices_of(lifetimes: Mapping[str, Lifetime], *names: str) -> tuple[Notice, ...]:
    """The notice of the first of these names that has a date."""
    for name in names:
        known = lifetimes.get(name)
        if known and (known.deprecated_on or known.retired_on):
            return (Notice(name, known.deprecated_on, known.retired_on, known.successor),)
    return ()


def retired_error(
    config: RoutingConfig, lifetime: Lifetime | None, today: date
) -> ModelNotFoundError:
    """The error for a name that is retired; it names the first successor that is not."""
    when = f" on {lifetime.retired_on}" if lifetime else ""
    successor = lifetime.successor if lifetime else None
    # The successor may be retired by now as well; the configuration has no circles.
    while successor and (then := config.lifetime(successor)) and then.is_retired(today):
        successor = then.successor
    what = f"use '{successor}' instead" if successor else SEE_MODELS
    return ModelNotFoundError(f"this model was retired{when}; {what}", param="model")
