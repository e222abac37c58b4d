"""The output of `comptoir route explain`: the model that answers, the request's features, the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from serving.commands.output import console, show
from serving.routing.router import FAILURES


def print_route(shown: Mapping[str, Any]) -> None:
    """Print it as tables."""
    first = shown["candidates"][0]
    console.print(Text.assemble((first["model"], "bold"), " answers: ", _why(shown)))
    _print_pairs("request", _seen(shown))
    if shown["rules"]:
        rules = _table("rule", "acts", "because")
        for one in shown["rules"]:
            rules.add_row(one["rule"], "yes" if one["acts"] else "no", one["because"])
        _show(rules)
    models = _table("models, in order", "asked", "context", "cost", "can do")
    for one in shown["candidates"]:
        models.add_row(one["model"], _asked(one["takes_over"]), *_columns(one))
    _show(models)
    _print_pairs("not chosen", shown["not_chosen"])
    _print_pairs("the client is told", shown["headers"])
    console.print(
        f"\nAmong the replicas of a model the policy '{shown['replica_policy']}' picks one."
    )


def _why(shown: Mapping[str, Any]) -> str:
    if shown["rule"]:
        return f"the rule '{shown['rule']}' chose it"
    first = shown["candidates"][0]
    if first["reason"] == "fallback":
        return "the model it stands in for is not in this file"
    if shown["alias"]:
        return f"an arm of the alias '{shown['alias']}', its share is {100 * shown['share']:.3g} %"
    return "the request names it"


def _seen(shown: Mapping[str, Any]) -> dict[str, str]:
    seen = shown["features"]
    limit = seen["max_output_tokens"]
    asks = {
        f"{seen['tools']} tool(s)": seen["tools"],
        "JSON": seen["json_schema"],
        f"{seen['images']} image(s) read": seen["images"],
        f"reasoning effort {seen['reasoning_effort']}": seen["reasoning_effort"],
        "a stream": seen["stream"],
    }
    return {
        "endpoint": shown["path"],
        "key may use": ", ".join(shown["key_may_use"]).replace("*", "every model"),
        "input": f"about {seen['input_tokens']} tokens ({seen['input_characters']} characters) in "
        f"{seen['turns']} message(s)",
        "output": f"at most {limit} tokens" if limit else "no limit given",
        "written in": f"{seen['script']} letters, language {seen['language']}, "
        f"{seen['code_share']:.0%} code",
        "asks for": ", ".join(name for name, wanted in asks.items() if wanted) or "text",
    }


def _asked(takes_over: Mapping[str, list[str]]) -> str:
    after = (
        f"after {name}: {'any failure' if FAILURES.issubset(on) else ', '.join(on)}"
        for name, on in takes_over.items()
    )
    return "; ".join(after) or "first"


def _columns(facts: Mapping[str, Any]) -> tuple[str, str, str]:
    context, cost, can = facts["context_tokens"], facts["cost"], facts["capabilities"]
    return (
        "?" if context is None else str(context),
        "-" if cost is None else f"{cost:g}",
        "?" if can is None else ", ".join(can) or "-",
    )


def _table(*titles: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def _print_pairs(title: str, pairs: Mapping[str, str]) -> None:
    table = _table(title, "")
    for name, value in pairs.items():
        table.add_row(name, value)
    if pairs:
        _show(table)


def _show(table: Table) -> None:
    console.print()
    show(table)
