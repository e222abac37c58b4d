"""Bodies as the clients that people use write them, from their code and documentation: several turns, tools,
streamed and not. `NAME` stands for the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from serving import api

Body = dict[str, Any]
NAME = "the-model"
SYSTEM = "You are a helpful assistant."
ASK = "What is the weather in Paris?"
PARAMETERS: Body = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "A city."}},
    "required": ["city"],
    "additionalProperties": False,
}
ARGUMENTS = '{"city": "Paris"}'
CALL = "call_1a2b3c"


@dataclass(frozen=True)
class Case:
    """One request of one client."""

    client: str
    path: str
    body: Body

    @property
    def id(self) -> str:
        """For pytest."""
        return f"{self.client}-{self.path.rpartition('/')[2]}"


# ---- parts ---------------------------------------------------------------------------------------------


def user(text: Any = ASK, **more: Any) -> Body:
    return {"role": "user", "content": text, **more}


def system(text: Any = SYSTEM, **more: Any) -> Body:
    return {"role": "system", "content": text, **more}


def part(text: str = ASK, **more: Any) -> Body:
    return {"type": "text", "text": text, **more}


def tool(parameters: Body = PARAMETERS, *, of_tool: Body | None = None, **more: Any) -> Body:
    function = {"name": "get_weather", "description": "Weather.", "parameters": parameters, **more}
    return {"type": "function", "function": function, **(of_tool or {})}


def called(*, of_call: Body | None = None, of_function: Body | None = None, **more: Any) -> Body:
    """An assistant's message with a call, as an answer holds it and a client sends it back."""
    function = {"name": "get_weather", "arguments": ARGUMENTS, **(of_function or {})}
    call = {"id": CALL, "type": "function", "function": function, **(of_call or {})}
    return {"role": "assistant", "content": None, "tool_calls": [call], **more}


def result(text: Any = "18 °C", **more: Any) -> Body:
    return {"role": "tool", "tool_call_id": CALL, "content": text, **more}


def loop(**more: Any) -> list[Body]:
    """Three turns: a question, a call, its result."""
    return [system(), user(), called(**more), result()]


# ---- chat completions ----------------------------------------------------------------------------------

# By client: what each of its requests has beside the model; all are sent streamed and not.
CHAT: dict[str, list[Body]] = {
    "openai-python": [
        {"messages": [system(), user()]},
        {"messages": [user([part()])], "temperature": 0.2, "max_completion_tokens": 20, "seed": 7},
        # `message.model_dump()` of an answer.
        {
            "messages": [
                *loop(
                    refusal=None, annotations=None, audio=None, function_call=None, reasoning=None
                )
            ],
            "tools": [tool()],
        },
        # `.parse()`, and another turn.
        {
            "messages": [user(), {"role": "assistant", "content": "a", "parsed": None}, user()],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "Weather", "strict": True, "schema": PARAMETERS},
            },
        },
        {
            "messages": loop(of_function={"parsed_arguments": {"city": "Paris"}}, parsed=None),
            "tools": [tool(strict=True)],
        },
        {"messages": [user()], "logprobs": True, "top_logprobs": 2, "n": 2, "stop": ["\n\n"]},
        {"messages": [user()], "verbosity": "low", "reasoning_effort": "minimal"},
        {"messages": [user()], "store": True, "metadata": {"a": "b"}, "service_tier": "flex"},
        {"messages": [user()], "prediction": {"type": "content", "content": "a"}, "user": "u-1"},
        {"messages": [user()], "modalities": ["text"], "logit_bias": {}, "functions": None},
        {"messages": [user()], "prompt_cache_key": "k", "prompt_cache_retention": "24h"},
        {
            "messages": [user()],
            "safety_identifier": "s",
            "parallel_tool_calls": True,
            "tools": [tool()],
        },
        {"messages": [{"role": "developer", "content": SYSTEM}, user(name="ada")]},
    ],
    "openai-js": [
        {"messages": [user()], "tools": [tool()], "tool_choice": "auto"},
        {"messages": loop(refusal=None, parsed=None), "tools": [tool()]},
    ],
    "litellm": [
        {"messages": [user()], "tools": [tool()], "extra_headers": None},
        {
            "messages": loop(
                provider_specific_fields={"refusal": None},
                of_call={"provider_specific_fields": None, "index": 0},
                function_call=None,
            ),
            "tools": [tool()],
        },
        {
            "messages": [
                user(),
                {
                    "role": "assistant",
                    "content": "a",
                    "reasoning_content": "so",
                    "thinking_blocks": [{"type": "thinking", "thinking": "so"}],
                    "provider_specific_fields": {"reasoning": "so"},
                },
                user(),
            ]
        },
        {"messages": [user()], "thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"messages": [user([part(cache_control={"type": "ephemeral"})])]},
        {"messages": [user()], "response_format": {"type": "json_object"}},
    ],
    "langchain": [
        {"messages": [system(), user()], "temperature": 0.7, "n": 1},
        {"messages": loop(content=""), "tools": [tool()], "parallel_tool_calls": False},
        {
            "messages": [user()],
            "tools": [tool()],
            "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
        },
    ],
    "langchain-js": [{"messages": loop(content=""), "tools": [tool()], "top_p": 1, "n": 1}],
    "langgraph": [
        {"messages": [*loop(name="agent"), {"role": "assistant", "content": "b"}, user()]}
    ],
    "llamaindex": [
        {"messages": loop(), "tools": [tool(of_tool={"strict": None})], "tool_choice": "auto"},
        {"messages": [user()], "temperature": 0.1, "reasoning_effort": None},
    ],
    "pydantic-ai": [
        {"messages": loop(), "tools": [tool(strict=False)], "tool_choice": "required", "n": 1}
    ],
    "instructor": [
        {
            "messages": [user()],
            "tools": [tool()],
            "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
        },
        {
            "messages": [user()],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "Weather", "schema": PARAMETERS},
            },
        },
    ],
    "outlines": [
        {"messages": [user()], "structured_outputs": {"choice": ["yes", "no"]}},
        {"messages": [user()], "structured_outputs": {"regex": "[0-9]{1,3}"}},
        {"messages": [user()], "structured_outputs": {"json": PARAMETERS}},
    ],
    "strands": [
        {"messages": [user([part()])], "tools": []},
        {"messages": [user([part()]), called(content=[]), result([part("18")])], "tools": [tool()]},
    ],
    "openai-agents": [
        {"messages": loop(), "tools": [tool(strict=True)], "store": False, "verbosity": "medium"},
        {
            "messages": [user()],
            "parallel_tool_calls": False,
            "tools": [tool()],
            "top_logprobs": None,
        },
    ],
    "mistralai": [
        {"messages": [user(prefix=False)], "random_seed": 3, "safe_prompt": False},
        {"messages": loop(prefix=False), "tools": [tool(strict=False)], "tool_choice": "any"},
        {"messages": [user()], "prompt_mode": None, "guardrails": None, "n": None, "stop": None},
        {
            "messages": [user(), {"role": "assistant", "content": "Sure", "prefix": False}, user()],
            "presence_penalty": 0.0,
        },
    ],
    "semantic-kernel": [
        {"messages": [system(), user(), called(content=""), result()], "tools": [tool()]},
        {"messages": [user()], "max_tokens": 20, "user": "", "logit_bias": {}},
    ],
    "haystack": [{"messages": [system(), user()], "n": 1, "tools": [tool()]}],
    "crewai": [{"messages": loop(), "tools": [tool()], "stop": ["\nObservation:"]}],
    "dspy": [{"messages": [system(), user()], "temperature": 0.0, "max_tokens": 30}],
    "smolagents": [
        {
            "messages": [system([part(SYSTEM)]), user([part()])],
            "stop": ["Observation:", "Calling tools:"],
            "tools": [tool()],
            "tool_choice": "required",
        }
    ],
    "autogen": [{"messages": [system(name="s"), user(name="user")], "tools": [tool()]}],
    "agno": [{"messages": [{"role": "developer", "content": SYSTEM}, user()], "tools": [tool()]}],
    "magentic": [{"messages": [user()], "tools": [tool(strict=True)], "tool_choice": "required"}],
    "mem0": [{"messages": [system(), user()], "response_format": {"type": "json_object"}}],
    "qwen-code": [
        {
            "messages": [system([part(SYSTEM, cache_control={"type": "ephemeral"})]), user()],
            "tools": [tool(of_tool={"cache_control": {"type": "ephemeral"}})],
            "metadata": {"sessionId": "s", "promptId": "p"},
            "vl_high_resolution_images": True,
        },
        {"messages": loop(reasoning_content=""), "tools": [tool()], "enable_thinking": False},
    ],
    "opencode": [{"messages": loop(), "tools": [tool()], "tool_choice": "auto", "top_p": 1}],
    "aider": [{"messages": [system(), user(), {"role": "assistant", "content": "a"}, user()]}],
    "cline": [
        {"messages": [system(), user([part()])], "temperature": 0},
        {"messages": loop(), "tools": [tool()], "reasoning": {"effort": "low"}},
    ],
    "roo-code": [
        {"messages": [user()], "thinking": {"type": "enabled"}, "reasoning_effort": "medium"},
        {"messages": loop(reasoning_content="so"), "tools": [tool()], "max_completion_tokens": 20},
    ],
    "continue": [
        {
            "messages": [user()],
            "stop": ["<fim>", "</code>", "```", "\n\n", "a", "b", "c", "d", "e", "f", "g", "h"],
            "max_tokens": 20,
        },
        {"messages": loop(), "tools": [tool(strict=False, type="function")], "options": {}},
    ],
    "open-webui": [
        {
            "messages": [user()],
            "chat_id": "c",
            "session_id": "s",
            "features": {"web_search": False},
            "variables": {"{{USER_NAME}}": "ada"},
            "background_tasks": {"title_generation": True},
        },
        {"messages": [user()], "params": {}, "tool_servers": [], "files": None, "id": "x"},
    ],
    "dify": [{"messages": [system(), user()], "user": "abc-123", "stop": [], "tools": None}],
    "flowise": [{"messages": [user()], "frequency_penalty": 0, "presence_penalty": 0, "top_p": 1}],
    "n8n": [{"messages": [user()], "tools": [tool()], "response_format": {"type": "text"}}],
    "librechat": [
        {
            "messages": [system(), user()],
            "user": "id",
            "stop": ["||>", "\nUser:", "<|diff_marker|>"],
        },
        {"messages": loop(), "tools": [tool()], "web_search": False},
    ],
    "sillytavern": [
        {
            "messages": [system(), user()],
            "logit_bias": {},
            "stop": [],
            "char_name": "A",
            "user_name": "B",
            "min_p": 0.05,
            "top_k": 40,
            "repetition_penalty": 1.1,
        },
        {
            "messages": [user(), {"role": "assistant", "content": "Once"}],
            "continue_final_message": True,
            "add_generation_prompt": False,
        },
    ],
    "openrouter": [
        {
            "messages": loop(
                reasoning="so",
                reasoning_details=[{"type": "reasoning.text", "text": "so", "index": 0}],
                of_call={"index": 0},
            ),
            "tools": [tool()],
            "provider": {"order": ["x"]},
            "transforms": [],
            "usage": {"include": True},
        },
        {"messages": [user()], "reasoning": {"effort": "high", "exclude": False}, "models": ["a"]},
    ],
    "gemini-compat": [
        {
            "messages": loop(
                of_call={"extra_content": {"google": {"thought_signature": "AA=="}}},
                extra_content=None,
            ),
            "tools": [tool()],
        }
    ],
    "deepseek-sdk": [
        {"messages": [user()], "thinking": {"type": "disabled"}},
        {"messages": [user(), {"role": "assistant", "content": "a", "prefix": True}]},
    ],
    "zai-sdk": [{"messages": [user()], "thinking": {"type": "enabled"}, "do_sample": True}],
    "dashscope": [
        {"messages": [user()], "enable_thinking": False, "enable_search": False, "top_k": 20},
        {"messages": [user()], "chat_template_kwargs": {"enable_thinking": False}},
    ],
    "vercel-ai-sdk": [
        {"messages": loop(), "tools": [tool()], "textVerbosity": "low"},
        {"messages": [user([part()])], "response_format": {"type": "json_object"}, "seed": 0},
    ],
    "vllm-extras": [
        {"messages": [user()], "logit_bias": {"5": -100, "6": 2.5}, "bad_words": ["the"]},
        {"messages": [user()], "allowed_token_ids": [5, 6, 7], "min_tokens": 1, "ignore_eos": True},
        {"messages": [user()], "stop_token_ids": [5], "skip_special_tokens": False},
        {"messages": [user()], "echo": False, "best_of": 1, "use_beam_search": False},
        {"messages": [user()], "chat_template_kwargs": {"thinking": False, "unknown": "x"}},
        {"messages": [user()], "return_tokens_as_token_ids": None, "documents": None},
    ],
}
# ---- other endpoints -----------------------------------------------------------------------------------

TEXT = {"prompt": "Once upon a time", "max_tokens": 5}
COMPLETIONS: dict[str, list[Body]] = {
    "openai-python": [TEXT, TEXT | {"logprobs": 1, "n": 2, "suffix": None, "best_of": None}],
    "lm-eval": [
        TEXT | {"prompt": [[5, 6, 7]], "echo": True, "temperature": 0, "seed": 1234},
        TEXT | {"prompt": ["a", "b"], "logprobs": 1, "stop": ["\n"], "temperature": 0},
    ],
    "continue-autocomplete": [
        TEXT | {"stop": ["<fim_prefix>", *[f"s{n}" for n in range(11)]], "suffix": ""}
    ],
    "sillytavern-text": [
        TEXT | {"min_p": 0.1, "tfs_z": 1, "mirostat_mode": 0, "add_bos_token": True, "top_k": -1}
    ],
    "litellm": [TEXT | {"extra_body": None, "user": "u"}],
    "outlines": [TEXT | {"structured_outputs": {"choice": ["yes", "no"]}}],
}
FUNCTION: Body = {
    "type": "function",
    "name": "get_weather",
    "description": "Weather.",
    "parameters": PARAMETERS,
    "strict": True,
}
OUTPUT: list[Body] = [
    {
        "type": "function_call",
        "id": "fc_1",
        "call_id": CALL,
        "name": "get_weather",
        "arguments": ARGUMENTS,
        "status": "completed",
    },
    {"type": "function_call_output", "call_id": CALL, "output": "18 °C"},
]
ECHOED = [OUTPUT[0] | {"caller": None, "namespace": None, "async": None}, OUTPUT[1]]
SAID: Body = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "a", "annotations": [], "logprobs": None}],
}
RESPONSES: dict[str, list[Body]] = {
    "openai-python": [
        {"input": ASK},
        {"input": [user()], "instructions": SYSTEM, "store": False, "background": False},
        {"input": [user(), *ECHOED], "tools": [FUNCTION]},
        {
            "input": [user(), SAID | {"phase": None}, user()],
            "metadata": {},
            "truncation": "disabled",
        },
        {"input": ASK, "text": {"format": {"type": "text"}, "verbosity": "low"}},
        {
            "input": ASK,
            "text": {
                "format": {
                    "type": "json_schema",
                    "name": "Weather",
                    "strict": True,
                    "schema": PARAMETERS,
                }
            },
        },
        {"input": ASK, "include": ["message.output_text.logprobs"], "top_logprobs": 1},
        {"input": ASK, "max_tool_calls": 3, "prompt_cache_key": "k", "conversation": None},
    ],
    "openai-js": [{"input": [user(), *ECHOED], "tools": [FUNCTION], "previous_response_id": None}],
    "openai-agents": [
        {
            "input": [user(), *OUTPUT],
            "tools": [FUNCTION],
            "include": [],
            "instructions": SYSTEM,
            "parallel_tool_calls": None,
            "previous_response_id": None,
            "prompt_cache_retention": None,
            "text": {"verbosity": "medium"},
        },
        {"input": [user()], "tools": [{"type": "web_search"}, FUNCTION], "tool_choice": "auto"},
    ],
    "codex": [
        {
            "instructions": SYSTEM,
            "input": [
                {
                    "type": "message",
                    "role": "developer",
                    "content": [{"type": "input_text", "text": "a"}],
                },
                {
                    "type": "message",
                    "role": "user",
                    "content": [{"type": "input_text", "text": ASK}],
                },
                *OUTPUT,
            ],
            "tools": [
                FUNCTION | {"strict": False},
                {"type": "namespace", "name": "mcp", "description": "x", "tools": [FUNCTION]},
                {"type": "web_search", "external_web_access": False},
            ],
            "tool_choice": "auto",
            "parallel_tool_calls": False,
            "reasoning": {"effort": "medium", "summary": "auto"},
            "store": False,
            "include": ["reasoning.encrypted_content"],
            "prompt_cache_key": "c",
            "client_metadata": {"x": "y"},
        }
    ],
    "llamaindex": [{"input": [user()], "previous_response_id": None, "store": False, "tools": []}],
    "semantic-kernel": [{"input": [user()], "previous_response_id": None, "metadata": {}}],
    "vercel-ai-sdk": [
        {"input": [user([{"type": "input_text", "text": ASK}]), *OUTPUT], "tools": [FUNCTION]},
        {"input": [user([{"type": "input_text", "text": ASK}])], "text": {"verbosity": "low"}},
    ],
    "vllm-extras": [
        {
            "input": ASK,
            "top_k": 5,
            "chat_template_kwargs": {"enable_thinking": False},
            "min_p": 0.1,
        },
        {"input": ASK, "stream_options": {"include_obfuscation": False}, "stop": ["\n"]},
    ],
}
CUSTOM: Body = {"name": "get_weather", "description": "Weather.", "input_schema": PARAMETERS}
USE: list[Body] = [
    user(),
    {
        "role": "assistant",
        "content": [
            part("Let me look."),
            {"type": "tool_use", "id": CALL, "name": "get_weather", "input": {"city": "Paris"}},
        ],
    },
    user([{"type": "tool_result", "tool_use_id": CALL, "content": "18 °C", "is_error": False}]),
]
CACHED = {"type": "ephemeral"}
MESSAGES: dict[str, list[Body]] = {
    "claude-code": [
        {
            "messages": [user([part("hi", cache_control=CACHED)]), system("A reminder.")],
            "system": [part("x-anthropic-billing-header: a"), part(SYSTEM, cache_control=CACHED)],
            "tools": [CUSTOM | {"eager_input_streaming": True}],
            "metadata": {"user_id": "u"},
            "max_tokens": 32_000,
            "thinking": {"type": "enabled", "budget_tokens": 31_999},
            "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
            "output_config": {"effort": "medium"},
        },
        {
            "messages": [
                *USE[:1],
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "so", "signature": "sig"},
                        USE[1]["content"][1]
                        | {"caller": {"type": "direct"}, "cache_control": CACHED},
                    ],
                },
                user(
                    [
                        {
                            "type": "tool_result",
                            "tool_use_id": CALL,
                            "content": [part("18")],
                            "cache_control": CACHED,
                        }
                    ]
                ),
            ],
            "tools": [CUSTOM | {"defer_loading": False, "input_examples": []}],
            "max_tokens": 32_000,
            "temperature": 1,
        },
    ],
    "anthropic-python": [
        {"messages": [user()], "system": SYSTEM},
        {"messages": USE, "tools": [CUSTOM | {"type": "custom", "strict": None}]},
        # `model_dump()` of an answer's blocks.
        {
            "messages": [
                user(),
                {
                    "role": "assistant",
                    "content": [
                        part("a", citations=None, parsed_output=None),
                        USE[1]["content"][1] | {"caller": None, "toolset_name": None},
                    ],
                },
                USE[2],
            ],
            "tools": [CUSTOM],
        },
        {
            "messages": [user()],
            "output_config": {"format": {"type": "json_schema", "schema": PARAMETERS}},
        },
        {"messages": [user()], "thread": {"id": "t"}, "service_tier": "auto", "container": None},
        {"messages": [user()], "tools": [CUSTOM], "tool_choice": {"type": "any"}},
        {
            "messages": [user()],
            "tools": [CUSTOM],
            "tool_choice": {
                "type": "tool",
                "name": "get_weather",
                "disable_parallel_tool_use": True,
            },
        },
        {"messages": [user()], "stop_sequences": ["\n\nHuman:"], "top_k": 5, "top_p": 0.9},
        {"messages": [user()], "mcp_servers": [], "inference_geo": None},
    ],
    "anthropic-js": [
        {"messages": USE, "tools": [CUSTOM | {"cache_control": CACHED}], "betas": None}
    ],
    "langchain-anthropic": [
        {
            "messages": USE,
            "tools": [CUSTOM],
            "tool_choice": {"type": "auto"},
            "stop_sequences": None,
        },
        {
            "messages": [user()],
            "output_config": {"format": {"type": "json_schema", "schema": PARAMETERS}},
        },
    ],
    "litellm": [
        {"messages": [user()], "output_format": {"type": "json_schema", "schema": PARAMETERS}},
        {"messages": USE, "tools": [CUSTOM | {"type": "custom"}], "metadata": {}},
    ],
    "vercel-ai-sdk": [
        {
            "messages": [user([part()])],
            "system": [part(SYSTEM)],
            "tools": [CUSTOM | {"eager_input_streaming": True}],
            "tool_choice": {"type": "auto"},
        }
    ],
    "cline": [{"messages": [user([part(cache_control=CACHED)])], "system": [part(SYSTEM)]}],
    "strands": [
        {"messages": USE, "tools": [CUSTOM], "system": SYSTEM, "tool_choice": {"type": "auto"}}
    ],
}
COUNTED = ("messages", "system", "tools", "tool_choice", "thinking")
STREAMED: dict[str, Body] = {
    api.CHAT: {"stream": True, "stream_options": {"include_usage": True}},
    api.COMPLETIONS: {"stream": True},
    api.RESPONSES: {"stream": True},
    api.MESSAGES: {"stream": True},
}
LIMITS: dict[str, Body] = {
    api.CHAT: {"max_tokens": 4},
    api.COMPLETIONS: {"max_tokens": 4},
    api.RESPONSES: {"max_output_tokens": 4},
    api.MESSAGES: {"max_tokens": 4},
}


def cases() -> Iterator[Case]:
    """All of them."""
    tables = {
        api.CHAT: CHAT,
        api.COMPLETIONS: COMPLETIONS,
        api.RESPONSES: RESPONSES,
        api.MESSAGES: MESSAGES,
    }
    for path, table in tables.items():
        for client, bodies in table.items():
            for body in bodies:
                whole = {"model": NAME, **LIMITS[path], **body}
                yield Case(client, path, whole)
                yield Case(f"{client}, streamed", path, whole | STREAMED[path])
    for client, bodies in MESSAGES.items():
        counted = {name: value for name, value in bodies[0].items() if name in COUNTED}
        yield Case(client, api.COUNT_TOKENS, {"model": NAME, **counted})
