"""Rows of the table of fields that hold on every endpoint which has none of its own for the field.

What is not sent on may be personal data. A value that asks for nothing is no reason to refuse a request:
many clients write all defaults down.
"""

from __future__ import annotations

from collections.abc import Mapping

from serving import api
from serving.trust.endpoint import Fate, Field

_NOTHING_STORED = "nothing is stored"
_NO_TOOLS_HERE = "the tools of other services are not run here"
_GUIDED = "use 'structured_outputs' or 'response_format'"

EVERYWHERE = (
    Field.honoured("user", "its hash tells sessions apart"),
    Field.honoured("prompt_cache_key", "its hash tells sessions apart"),
    # ---- without effect here ----
    Field.dropped("metadata", _NOTHING_STORED, absent=({},)),
    Field.dropped("store", _NOTHING_STORED, absent=(False,)),
    Field.dropped("service_tier", "priorities belong to the API key", absent=("auto", "default")),
    Field.dropped("safety_identifier", "nothing is reported by it"),
    Field.dropped("verbosity", "no model here takes it", absent=("medium",)),
    Field.dropped("prompt_cache_retention", "the prefix cache keeps what is asked for often"),
    Field.dropped("prompt_cache_options", "the prefix cache keeps what is asked for often"),
    Field.dropped("cache_control", "the prefix cache needs no marks"),
    Field.dropped("prediction", "it changes the speed only"),
    Field.dropped("max_tool_calls", "tools are run by the client"),
    Field.dropped("context_management", "the client's conversation is left as it is"),
    Field.dropped("inference_geo", "the host's place is the contract's, not the request's"),
    Field.dropped("return_documents", "answers hold them"),
    Field.dropped("input_type", "no model here takes it"),
    Field.dropped("safe_prompt", "no prompt is added"),
    Field.dropped("client_metadata", _NOTHING_STORED),
    Field.dropped("chat_id", _NOTHING_STORED),
    Field.dropped("session_id", _NOTHING_STORED),
    Field.dropped("thread", _NOTHING_STORED),
    # ---- controls of the engine ----
    Field.refused("chat_template", "templates come with the model"),
    Field.refused("mm_processor_kwargs", "it changes how the engine reads media", absent=({},)),
    Field.refused("media_io_kwargs", "it changes how the engine reads media", absent=({},)),
    Field.refused("kv_transfer_params", "it is internal to the engine", absent=({},)),
    Field.refused("ec_transfer_params", "it is internal to the engine", absent=({},)),
    Field.refused("vllm_xargs", "it is internal to the engine", absent=({},)),
    Field.refused("priority", "priorities belong to the API key", absent=(0,)),
    Field.refused("prompt_logprobs", "it would recompute cached prompts"),
    Field.refused("use_beam_search", "beam search is not offered", absent=(False,)),
    Field.refused("prompt_embeds", "embeddings as prompts are not offered"),
    Field.refused("watermarking", "marking is the host's decision"),
    Field.refused("cache_salt", "the prefix cache is separated per tenant by the gateway"),
    Field.refused("request_id", "the gateway assigns request ids"),
    # ---- what would have to be stored ----
    Field.refused("background", "background responses would have to be stored", absent=(False,)),
    Field.refused("previous_response_id", "nothing is stored: send the earlier turns in 'input'"),
    Field.refused("conversation", "nothing is stored: send the earlier turns in 'input'"),
    # ---- what is not offered, and would be missed ----
    Field.refused("echo", "echoing prompts is not offered here", absent=(False,)),
    Field.refused("documents", "put documents into the messages", absent=([],)),
    Field.refused("logit_bias", "token biases are not offered here", absent=({},)),
    Field.refused("audio", "audio is not offered"),
    Field.refused("modalities", "only text is generated", absent=(["text"], [])),
    Field.refused("web_search_options", _NO_TOOLS_HERE),
    Field.refused("mcp_servers", _NO_TOOLS_HERE, absent=([],)),
    Field.refused("container", _NO_TOOLS_HERE),
    Field.refused("functions", "use 'tools'", absent=([],)),
    Field.refused("function_call", "use 'tool_choice'", absent=("none", "auto")),
    Field.refused("best_of", "it is not offered", absent=(1,)),
    Field.refused("suffix", "it is not offered", absent=("",)),
    Field.refused("truncation_side", "it is not offered"),
    Field.refused("length_penalty", "beam search is not offered", absent=(1, 1.0)),
    *(
        Field.refused(f"guided_{kind}", _GUIDED)
        for kind in ("json", "regex", "choice", "grammar", "json_object")
    ),
    # ---- fields of another endpoint ----
    Field.refused("prompt", f"it belongs to {api.COMPLETIONS}"),
    Field.refused("messages", f"it belongs to {api.CHAT} and {api.MESSAGES}"),
    Field.refused("input", f"it belongs to {api.RESPONSES} and {api.EMBEDDINGS}"),
)
# By name, what is not sent on, and what is refused with which reason.
DROPPED = frozenset(row.name for row in EVERYWHERE if row.fate is not Fate.REFUSED)
REFUSED: Mapping[str, str] = {row.name: row.why for row in EVERYWHERE if row.name not in DROPPED}
