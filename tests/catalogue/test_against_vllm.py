"""The names in the catalogue exist in the installed vLLM, and so do its engine arguments.

Slow only because importing vLLM takes seconds.
"""

from __future__ import annotations

import dataclasses
from typing import get_args

import pytest

from serving.catalogue.catalogue import load_catalogue
from serving.catalogue.spec import ModelSpec
from tests.catalogue.builders import entry

pytestmark = pytest.mark.engine


def unknown_architectures(specs: tuple[ModelSpec, ...]) -> set[str]:
    from vllm.model_executor.models.registry import ModelRegistry

    return {spec.architecture for spec in specs} - set(ModelRegistry.get_supported_archs())


def unknown_reasoning_parsers(specs: tuple[ModelSpec, ...]) -> set[str]:
    from vllm.reasoning import ReasoningParserManager

    named = {spec.reasoning_parser for spec in specs if spec.reasoning_parser}
    return named - set(ReasoningParserManager.list_registered())


def unknown_tool_parsers(specs: tuple[ModelSpec, ...]) -> set[str]:
    from vllm.tool_parsers import ToolParserManager

    named = {spec.tool_parser for spec in specs if spec.tool_parser}
    return named - set(ToolParserManager.list_registered())


def unknown_engine_args(specs: tuple[ModelSpec, ...]) -> set[str]:
    from vllm.engine.arg_utils import AsyncEngineArgs

    known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    named: set[str] = set()
    for spec in specs:
        named |= set(spec.engine_kwargs())
        for layout in spec.layouts:
            named |= set(spec.engine_kwargs(layout))
    return named - known


SHIPPED = load_catalogue().list()
WRONG = (
    entry(
        architecture="LlamaForCausalLm",
        reasoning_parser="longcat",
        tool_parser="minimax",
        engine_args={"kv_cache_type": "fp8"},
    ),
)


def test_every_architecture_is_in_the_registry() -> None:
    assert unknown_architectures(SHIPPED) == set()


def test_every_reasoning_parser_is_registered() -> None:
    assert unknown_reasoning_parsers(SHIPPED) == set()


def test_every_tool_parser_is_registered() -> None:
    assert unknown_tool_parsers(SHIPPED) == set()


def test_every_engine_argument_is_a_field_of_the_engine() -> None:
    assert unknown_engine_args(SHIPPED) == set()


def test_a_wrong_name_would_be_found() -> None:
    assert unknown_architectures(WRONG) == {"LlamaForCausalLm"}
    assert unknown_reasoning_parsers(WRONG) == {"longcat"}
    assert unknown_tool_parsers(WRONG) == {"minimax"}
    assert unknown_engine_args(WRONG) == {"kv_cache_type"}


def test_every_parser_can_be_imported() -> None:
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager

    for spec in SHIPPED:
        if spec.reasoning_parser:
            assert ReasoningParserManager.get_reasoning_parser(spec.reasoning_parser)
        if spec.tool_parser:
            assert ToolParserManager.get_tool_parser(spec.tool_parser)


def test_values_of_engine_arguments_are_ones_vllm_knows() -> None:
    from vllm.config.cache import CacheDType
    from vllm.tokenizers.registry import TokenizerRegistry

    for spec in SHIPPED:
        args = spec.engine_kwargs()
        if mode := args.get("tokenizer_mode"):
            assert mode in TokenizerRegistry.tokenizers, spec.id
        assert args.get("kv_cache_dtype", "auto") in get_args(CacheDType), spec.id
        assert args.get("runner", "auto") in ("auto", "generate", "pooling"), spec.id
