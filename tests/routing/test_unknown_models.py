"""Names in a routing configuration that no model of the site has."""

from __future__ import annotations

from serving.config.routing import RoutingConfig
from serving.routing.unknown_models import unknown_models


def test_names_that_no_model_has_are_reported_with_their_key() -> None:
    config = RoutingConfig.model_validate(
        {
            "aliases": {
                "ok": "m",
                "a": "x1",
                "e": {"arms": [{"model": "m"}], "retired_on": "2026-01-01", "successor": "x2"},
            },
            "models": {
                "m": {"retired_on": "2026-01-01", "successor": "ok"},
                "x3": {"cost": 1},
                "ended": {"retired_on": "2026-01-01", "successor": "auto"},
            },
            "fallbacks": {"m": {"to": ["x4"]}, "x5": {"to": ["m"]}},
            "auto": [{"name": "default", "models": ["x6", "m"]}],
        }
    )
    problems = unknown_models(config, {"m"})
    assert [text.partition(":")[0] for text in problems] == [
        "routing.aliases.a",
        "routing.models.x3",
        "routing.fallbacks.x5",
        "routing.fallbacks.m.to",
        "routing.auto.default",
        "routing.aliases.e.successor",
    ]
    assert all(
        f"'x{number}'" in text for number, text in zip((1, 3, 5, 4, 6, 2), problems, strict=True)
    )
    assert unknown_models(RoutingConfig(), set()) == []
