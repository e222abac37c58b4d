"""The table of the API: each path, its kind of endpoint, and the roles of fields in its bodies. Pure.

Everything that depends on a path asks here, and no other module spells one out. A new endpoint of models is
a kind in `Kind`, a row of `_TABLE`, the rules of its fields (`serving.trust.fields`), a line in
`serving.gateway.openapi` and a section of docs/api.md; one that the gateway answers itself is a path, and its
handler in `serving.gateway.routes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "chat",
    "completions",
    "responses",
    "messages",
    "embeddings",
    "rerank",
    "score",
    "count_tokens",
    "tokenize",
    "detokenize",
]
Dialect = Literal["openai", "anthropic"]
Task = Literal["chat", "embed", "rerank", "guard"]

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
EMBEDDINGS = "/v1/embeddings"
RERANK = "/v1/rerank"
SCORE = "/v1/score"
COUNT_TOKENS = "/v1/messages/count_tokens"
# As vLLM has them.
TOKENIZE = "/tokenize"
DETOKENIZE = "/detokenize"

# What a gateway answers itself; engines have the first two as well, and Ray's exporter has the second.
HEALTH = "/health"
METRICS = "/metrics"
MODELS = "/v1/models"
READY = "/ready"
STATUS = "/status"
OPENAPI = "/openapi.json"
# The name that Ray Serve's own proxies have for `HEALTH`.
HEALTHZ = "/-/healthz"


@dataclass(frozen=True)
class ApiEndpoint:
    """One path that a model answers, by POST.

    Attributes:
        tasks: the tasks of the models that it is for.
        prompt_roots: the fields that hold the prompt, in the order in which a model reads them. Some
            templates put the first system prompt before the tools; the two nearly always come together.
        output_limits: the fields that limit the tokens of an answer; the first that is given counts. Empty:
            the endpoint generates nothing.
        dialect: the format of events and errors.
    """

    path: str
    kind: Kind
    tasks: frozenset[Task]
    prompt_roots: tuple[str, ...]
    output_limits: tuple[str, ...] = ()
    dialect: Dialect = "openai"

    @property
    def generates(self) -> bool:
        """Whether its answers are generated token by token, and can be streamed."""
        return bool(self.output_limits)


_GENERATE = frozenset[Task]({"chat", "guard"})
_EMBED = frozenset[Task]({"embed"})
_POOLED = frozenset[Task]({"embed", "rerank"})
_ALL = _GENERATE | _POOLED
# The names that vLLM takes for the two sides of a score, the left one first.
SCORE_PAIRS = (
    ("text_1", "text_2"),
    ("queries", "documents"),
    ("data_1", "data_2"),
    ("queries", "items"),
)
_OF_PAIRS = ("queries", "documents", "text_1", "data_1", "text_2", "data_2", "items")

_TABLE = (
    ApiEndpoint(
        *(CHAT, "chat", _GENERATE),
        prompt_roots=("tools", "messages"),
        output_limits=("max_completion_tokens", "max_tokens"),
    ),
    ApiEndpoint(
        *(COMPLETIONS, "completions", _GENERATE),
        prompt_roots=("prompt",),
        output_limits=("max_tokens",),
    ),
    ApiEndpoint(
        *(RESPONSES, "responses", _GENERATE),
        prompt_roots=("tools", "instructions", "input"),
        output_limits=("max_output_tokens",),
    ),
    ApiEndpoint(
        *(MESSAGES, "messages", _GENERATE),
        prompt_roots=("tools", "system", "messages"),
        output_limits=("max_tokens",),
        dialect="anthropic",
    ),
    ApiEndpoint(EMBEDDINGS, "embeddings", _EMBED, prompt_roots=("input",)),
    ApiEndpoint(RERANK, "rerank", _POOLED, prompt_roots=("query", "documents")),
    ApiEndpoint(SCORE, "score", _POOLED, prompt_roots=_OF_PAIRS),
    ApiEndpoint(
        *(COUNT_TOKENS, "count_tokens", _GENERATE),
        prompt_roots=("tools", "system", "messages"),
        dialect="anthropic",
    ),
    ApiEndpoint(TOKENIZE, "tokenize", _ALL, prompt_roots=("tools", "messages", "prompt")),
    ApiEndpoint(DETOKENIZE, "detokenize", _ALL, prompt_roots=("tokens",)),
)
ENDPOINTS: Mapping[str, ApiEndpoint] = {row.path: row for row in _TABLE}
# Those that write an answer token by token.
GENERATING: Mapping[str, ApiEndpoint] = {row.path: row for row in _TABLE if row.generates}

# Every name that the limit of an answer has, in the order in which they count where one body has several.
OUTPUT_LIMITS = tuple(dict.fromkeys(name for row in _TABLE for name in row.output_limits))
# How paths of Anthropic's form begin: what lies below them and does not exist is refused in that form, too.
ANTHROPIC_PATHS = tuple(row.path for row in _TABLE if row.dialect == "anthropic")

# All that clients may ask.
PATHS = (*ENDPOINTS, MODELS, HEALTH, READY, STATUS, METRICS, OPENAPI)

# The remedy for an unknown name of a model.
SEE_MODELS = f"GET {MODELS} lists those that exist"
# What a client is told of a name that no model has; the name is not repeated.
NO_SUCH_MODEL = f"there is no such model; {SEE_MODELS}"
