"""Names of fields that clients are known to send and no engine needs: what may be a metric's label."""

from __future__ import annotations

from serving.trust.common_fields import EVERYWHERE

# Inside messages, items, calls, parts, blocks and tools: mostly what an answer held and a client sends back.
ECHOES = (
    *("provider_specific_fields", "parsed", "parsed_arguments", "parsed_output", "prefix"),
    *("caller", "namespace", "async", "toolset_name", "eager_input_streaming", "defer_loading"),
    *("input_examples", "cache_control", "reasoning_details", "extra_content", "is_error", "id"),
    *("annotations", "audio", "refusal", "thought_signature", "logprobs", "status", "name"),
    *("verbosity", "generate_summary", "summary", "max_tokens", "exclude", "citations"),
)
# Of whole requests, beside those of the table.
EXTRAS = (
    *("stream_options", "thinking", "enable_thinking", "context_management", "betas"),
    *("provider", "transforms", "route", "models", "plugins", "usage", "extra_headers"),
    *("repeat_penalty", "num_ctx", "keep_alive", "options", "format", "top_a", "tfs_z", "mirostat"),
    *(
        "return_token_ids",
        "max_tokens_per_doc",
        "rank_fields",
        "task",
        "normalized",
        "late_chunking",
    ),
)
# Types of tools that other services run.
TOOLS = (
    *("web_search", "web_search_preview", "file_search", "code_interpreter", "mcp", "namespace"),
    *("computer_use_preview", "image_generation", "local_shell", "shell", "apply_patch", "custom"),
    *("retrieval", "web_fetch", "tool_search"),
)
KNOWN = frozenset((*ECHOES, *EXTRAS, *TOOLS, *(row.name for row in EVERYWHERE)))
