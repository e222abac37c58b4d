"""Describes the API in OpenAPI 3.1, out of the very tables by which requests are checked. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from serving import __version__, api, errors
from serving.config.keys import SCOPES
from serving.errors import ComptoirError
from serving.gateway.dropped import DROPPED_HEADER
from serving.replica_protocol import REQUEST_ID_HEADER
from serving.settings import GatewayConfig
from serving.trust.endpoint import Endpoint
from serving.trust.endpoint_schema import schema_of

Json = dict[str, Any]

_NOT_FOR_CLIENTS = (errors.ConfigError, errors.StackError)
# What can come of a request only because of its body, of the name of a model, or of an engine.
_OF_BODIES = frozenset({413, 415, 417})
_OF_ENGINES = frozenset({502, 504})
_SUMMARIES: Mapping[api.Kind, str] = {
    "chat": "Answer a conversation (OpenAI)",
    "completions": "Continue a text (OpenAI)",
    "responses": "Answer a conversation (OpenAI's Responses)",
    "messages": "Answer a conversation (Anthropic)",
    "embeddings": "Embed texts (OpenAI)",
    "rerank": "Order documents by a query",
    "score": "Score pairs of texts",
    "count_tokens": "Count a conversation's tokens (Anthropic)",
    "tokenize": "Tokens of a text or a conversation",
    "detokenize": "Text of tokens",
}
# Of answers from models, beside the request's id.
HEADERS: Mapping[str, str] = {
    "x-comptoir-model": "The id of the model that answered.",
    "x-comptoir-route": "Why it was this one, if it was not named: alias, rule or fallback.",
    DROPPED_HEADER: "What was left out of the request, because no engine knows it.",
    "deprecation": "The name of the model is deprecated since, or will be at (RFC 9745).",
    "sunset": "The name of the model stops working at (RFC 8594).",
    "link": "What follows a deprecated name (RFC 5829).",
}


def document(config: GatewayConfig, endpoints: Mapping[str, Endpoint]) -> Json:
    """The whole description: it depends on the limits, and on whether there are keys, but names no model."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Comptoir",
            "version": __version__,
            "description": "Open-weight models behind one endpoint, in the forms of OpenAI's and Anthropic's "
            "clients. JSON null counts as absent in every field.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            **{path: _inference(endpoint, config) for path, endpoint in endpoints.items()},
            **_others(config),
        },
        "components": {
            "schemas": {
                "Error": _openai_error(),
                "AnthropicError": _anthropic_error(),
                "Model": _MODEL,
            },
            "headers": {
                REQUEST_ID_HEADER: _header("An id of the request's own, whatever the client sent."),
                "retry-after": _header("Seconds to wait.", {"type": "integer", "minimum": 0}),
                **{name: _header(text) for name, text in HEADERS.items()},
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


# ---- inference -----------------------------------------------------------------------------------------


def _inference(endpoint: Endpoint, config: GatewayConfig) -> Json:
    longest_ms = int(config.admission.max_deadline_s * 1000)
    answer: Json = {"application/json": {"schema": {"type": "object"}}}
    if endpoint.streams:
        # Each event's `data` is JSON of the dialect, or `[DONE]`; OpenAPI 3.1 has no words for that.
        answer["text/event-stream"] = {}
    return {
        "post": {
            "operationId": endpoint.path.removeprefix("/v1").strip("/").replace("/", "_"),
            "summary": _SUMMARIES[api.ENDPOINTS[endpoint.path].kind],
            "description": f"For models whose task is {' or '.join(sorted(endpoint.tasks))}.",
            "security": _security(config, "inference"),
            "parameters": [
                _parameter(
                    "x-comptoir-session",
                    "Requests with the same id belong together: they get the same arm of an alias.",
                    {"type": "string"},
                ),
                _parameter(
                    "x-comptoir-deadline-ms",
                    "How long the request may wait before its answer begins.",
                    {"type": "integer", "minimum": 1, "maximum": longest_ms},
                ),
            ],
            "requestBody": {
                "required": True,
                "description": f"At most {config.limits.max_body_bytes} bytes, and "
                f"{config.limits.max_objects} lists and objects.",
                "content": {"application/json": {"schema": schema_of(endpoint)}},
            },
            "responses": {
                "200": {
                    "description": "The engine's answer, byte by byte"
                    + ("; with `stream`, its events." if endpoint.streams else "."),
                    "headers": _refs(REQUEST_ID_HEADER, *HEADERS),
                    "content": answer,
                },
                **_failures(endpoint.dialect),
            },
        }
    }


# ---- what the gateway itself answers -------------------------------------------------------------------

_STRINGS = {"type": "array", "items": {"type": "string"}}
_OPTIONAL = {"type": ["string", "null"]}
_MODEL: Json = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "owned_by": {"type": "string"},
        "max_model_len": {"type": ["integer", "null"]},
        "task": {"enum": ["chat", "embed", "rerank", "guard", None]},
        "licence": _OPTIONAL,
        "vendor_jurisdiction": _OPTIONAL,
        "repository": _OPTIONAL,
        "revision": _OPTIONAL,
        "aliases": _STRINGS,
        "parent": _OPTIONAL,
        "capabilities": _STRINGS,
        "notices": _STRINGS,
        "deprecated_on": _OPTIONAL,
        "retired_on": _OPTIONAL,
        "successor": _OPTIONAL,
    },
    "required": ["id", "object", "created", "owned_by"],
}
_OBJECT = {"type": "object"}
_READY = {
    "type": "object",
    "properties": {
        "ready": {"type": "boolean"},
        "leaving": {"type": "boolean"},
        "models": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "required": ["ready"],
}


def _others(config: GatewayConfig) -> Json:
    card = {"$ref": "#/components/schemas/Model"}
    cards = {
        "type": "object",
        "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": card}},
        "required": ["object", "data"],
    }
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    everyone = _parameter("all", "Whether every model must answer.", {"type": "string"}, "query")
    health = _get("health", "Whether this gateway lives", _OBJECT)
    ready = _get("ready", "Whether a model answers", _READY, parameters=[everyone])
    ready["get"]["responses"]["503"] = {
        "description": "None does, or this gateway is shutting down.",
        "content": {"application/json": {"schema": _READY}},
    }
    sees = _security(config, "inference", "operator")
    one = _get("model", "One model", card, sees, [name], not_found=True)
    return {
        api.MODELS: _get("models", "The models that the key may use", cards, sees),
        api.MODELS + "/{name}": one,
        api.HEALTH: health,
        api.HEALTHZ: {"get": health["get"] | {"operationId": "healthz"}},
        api.READY: ready,
        api.STATUS: _get("status", "The state of the key's models, or of all", _OBJECT, sees),
        api.METRICS: _get(
            "metrics",
            "For Prometheus",
            {"type": "string"},
            _security(config, *SCOPES),
            media="text/plain",
        ),
        api.OPENAPI: _get("openapi", "This description", _OBJECT),
    }


def _get(
    name: str,
    summary: str,
    schema: Json,
    security: Sequence[Json] = (),
    parameters: Sequence[Json] = (),
    *,
    media: str = "application/json",
    not_found: bool = False,
) -> Json:
    without = _OF_BODIES | _OF_ENGINES
    without |= frozenset() if security else {401, 403}
    without |= frozenset() if not_found else {404}
    operation: Json = {
        "operationId": name,
        "summary": summary,
        "security": list(security),
        "responses": {
            "200": {"description": summary + ".", "content": {media: {"schema": schema}}},
            **_failures("openai", without),
        },
    }
    return {"get": operation | ({"parameters": list(parameters)} if parameters else {})}


# ---- errors --------------------------------------------------------------------------------------------


def client_errors(base: type[ComptoirError] = ComptoirError) -> Iterator[type[ComptoirError]]:
    """Every error that has a code and reaches clients."""
    if issubclass(base, _NOT_FOR_CLIENTS):
        return
    if base.code:
        yield base
    for child in base.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from client_errors(child)


def _failures(dialect: str, without: frozenset[int] = frozenset()) -> Json:
    codes: dict[int, list[str]] = {}
    for error in client_errors():
        if error.status not in without and error.status != 405:
            codes.setdefault(error.status, []).append(str(error.code))
    name = "AnthropicError" if dialect == "anthropic" else "Error"
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    return {
        str(status): {
            "description": ", ".join(f"`{code}`" for code in sorted(set(found))) + ".",
            "content": content,
            "headers": _refs(REQUEST_ID_HEADER, "retry-after"),
        }
        for status, found in sorted(codes.items())
    }


def _openai_error() -> Json:
    known = list(client_errors())
    return {
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string", "enum": sorted({error.type for error in known})},
                    "param": {**_OPTIONAL, "description": "The field, as in `messages[0].role`."},
                    "code": {"enum": [*sorted({str(error.code) for error in known}), None]},
                },
                "required": ["message", "type", "param", "code"],
            }
        },
        "required": ["error"],
    }


def _anthropic_error() -> Json:
    return {
        "type": "object",
        "properties": {
            "type": {"const": "error"},
            "error": {
                "type": "object",
                "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
                "required": ["type", "message"],
            },
        },
        "required": ["type", "error"],
    }


# ---- parts ---------------------------------------------------------------------------------------------


def _security(config: GatewayConfig, *scopes: str) -> list[Json]:
    """A key with one of these scopes; none is asked for where there are no keys."""
    if not config.keys:
        return []
    return [{scheme: list(scopes)} for scheme in ("bearer", "apiKey")]


def _header(text: str, schema: Json | None = None) -> Json:
    return {"description": text, "schema": schema or {"type": "string"}}


def _refs(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _parameter(name: str, text: str, schema: Json, place: str = "header") -> Json:
    return {"name": name, "in": place, "description": text, "schema": schema}
