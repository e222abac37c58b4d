"""Serve configs as a cluster reports them, drawn and made."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

Document = dict[str, Any]
MODELS = ("qwen3", "glm", "yi")


def model(name: str, **args: Any) -> Document:
    return {
        "name": name,
        "route_prefix": None,
        "import_path": "serving.app:build_model",
        "args": {"id": name, "catalogue": f"tiny-{name}"} | args,
    }


def site(*models: Document, routing: Any = None, **gateway: Any) -> Document:
    args: dict[str, Any] = {"host": "127.0.0.1", "port": 8000}
    if routing is not None:
        args["routing"] = routing
    application = {
        "name": "gateway",
        "route_prefix": None,
        "import_path": "serving.app:build_gateway",
        "args": args,
    }
    return {
        "proxy_location": "Disabled",
        "applications": [application | gateway, *(models or [model("qwen3"), model("glm")])],
    }


def application(document: Document, name: str) -> Document:
    (found,) = (one for one in document["applications"] if one["name"] == name)
    return dict(found)


# ---- drawn ---------------------------------------------------------------------------------------------

_weights = st.one_of(st.integers(1, 1000), st.integers(1, 99_999).map(lambda n: n / 100))
_names = st.sampled_from([*MODELS, "law", "said"])


@st.composite
def _arms(draw: st.DrawFn) -> list[Document]:
    models = draw(st.lists(_names, min_size=1, max_size=3, unique=True))
    return [{"model": name, "weight": draw(_weights)} for name in models]


@st.composite
def routings(draw: st.DrawFn) -> Document:
    """Routing with everything that can name a model; aliases, too, that have a model's own name."""
    routing: Document = {}
    aliases: Document = {}
    for name in draw(st.lists(st.sampled_from(["fast", "chat"]), unique=True)):
        aliases[name] = draw(st.one_of(_names, _arms()))
    if draw(st.booleans()):
        # One that says what is true without it would be gone after a rollout.
        aliases["qwen3"] = [{"model": "qwen3", "weight": draw(_weights)}, {"model": "yi"}]
    routing["aliases"] = aliases
    if draw(st.booleans()):
        routing["models"] = {"qwen3": {"cost": 0.5, "deprecated_on": "2026-09-01"}, "glm": {}}
        routing["auto"] = [
            {"name": "code", "when": {"min_code_share": 0.3}, "models": ["glm", "qwen3"]},
            {"name": "rest", "choose": {}},
        ]
    if draw(st.booleans()):
        routing["fallbacks"] = {"qwen3": {"to": ["glm"], "after": ["saturated", "context"]}}
    elif draw(st.booleans()):
        routing["fallbacks"] = {"glm": {"to": ["qwen3"]}}
    return routing


@st.composite
def sites(draw: st.DrawFn) -> Document:
    """A site that hosts `qwen3`, with or without names of its own, overrides, and a gateway's options."""
    args: Document = {}
    if draw(st.booleans()):
        args["adapters"] = {"law": "/adapters/law"}
    if draw(st.booleans()):
        args["aliases"] = ["said"]
    extra: Document = {}
    if draw(st.booleans()):
        extra["deployments"] = [{"name": "GatewayReplica", "ray_actor_options": {"num_cpus": 1}}]
    if draw(st.booleans()):
        extra["logging_config"] = {"enable_access_log": False}
    routing = draw(st.one_of(st.none(), routings()))
    models = [model("qwen3", **args), model("glm"), model("yi")]
    document = site(*draw(st.permutations(models)), routing=routing, **extra)
    return copy.deepcopy(document)
