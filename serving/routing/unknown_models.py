"""Names in a routing configuration that no model of the site has. Pure."""

from __future__ import annotations

from collections.abc import Collection

from serving.config.routing import RoutingConfig


def unknown_models(config: RoutingConfig, known: Collection[str]) -> list[str]:
    """A sentence for `comptoir check` on each name in the configuration that no model of the site has.

    Args:
        known: ids, aliases and adapters of the site's models.
    """
    named = [
        *(
            (f"aliases.{name}", arm.model)
            for name, alias in config.aliases.items()
            for arm in alias.arms
        ),
        *(
            (f"models.{name}", name)
            for name, facts in config.models.items()
            if not facts.retired_on
        ),
        *((f"fallbacks.{name}", name) for name in config.fallbacks),
        *(
            (f"fallbacks.{name}.to", to)
            for name, fallback in config.fallbacks.items()
            for to in fallback.to
        ),
        *((f"auto.{rule.name}", name) for rule in config.auto for name in rule.models),
    ]
    answering = {*known, *config.aliases, *((config.auto_name,) if config.auto else ())}
    successors = [
        (f"{key}.{name}.successor", lifetime.successor)
        for key, lifetimes in (("aliases", config.aliases), ("models", config.models))
        for name, lifetime in lifetimes.items()
        if lifetime.successor
    ]
    names = ", ".join(sorted(known)) or "none"
    return [
        f"routing.{key}: there is no model {name!r} in this file; available: {names}"
        for key, name in named
        if name not in known
    ] + [
        f"routing.{key}: {name!r} is neither a model of this file nor an alias"
        for key, name in successors
        if name not in answering
    ]
