"""Asks the installed vLLM about engine arguments: questions on stdin, findings on the last line of stdout.

Run by `serving.engine_plan.arguments`. No weights, no GPU: vLLM builds its configuration from a config.json.
Where the model's own is not on this machine, one of a tiny model of the same architecture stands in, with
the real numbers of heads, layers and experts.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic

from serving.catalogue import tiny
from serving.engine import quiet
from serving.engine_plan.arguments import Finding, Question

# How config.json names what `Shape` holds. Wrong names are read by nobody.
_SHAPE_KEYS: Mapping[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers",),
    "heads": ("num_attention_heads",),
    "kv_heads": ("num_key_value_heads",),
    "experts": ("n_routed_experts", "num_experts", "moe_num_experts"),
    "expert_width": ("moe_intermediate_size",),
}
# Decided when the engine starts, or about files that are not here: a reasoning parser reads the tokenizer.
_NOT_NOW = frozenset(
    {"revision", "tokenizer_revision", "distributed_executor_backend", "reasoning_parser"}
)
# A GPU's arguments are also checked on machines without one.
_ABOUT_THIS_MACHINE = re.compile(r"\b(CUDA|ROCm|CPU|GPUs?)\b")


def main() -> None:
    """Answer the questions on stdin."""
    # No request ever comes here, and what is printed is the answer.
    quiet.starting()
    questions = [Question(**one) for one in json.load(sys.stdin)]
    findings = [dataclasses.asdict(judge(one)) for one in questions]
    print(json.dumps(findings))  # noqa: T201  # read by the parent


def judge(question: Question) -> Finding:
    """Check types first, then vLLM's whole configuration where a config.json is available."""
    for key, value in question.engine_args.items():
        if problem := wrong_type(key, value) or unknown_parser(key, value):
            return Finding(question.model_id, "types", key, problem)
    with tempfile.TemporaryDirectory() as scratch:
        folder = _folder(question, Path(scratch))
        if folder is None:
            return Finding(question.model_id, "types")
        return _configure(question, folder)


def wrong_type(key: str, value: Any) -> str | None:
    """The problem with a value, by the type that vLLM declares. Nothing converts it later."""
    adapter = _adapter(key)
    if adapter is None or value is None:
        return None
    try:
        # Lists and mappings of YAML become sets, tuples and configuration objects; text stays text.
        adapter.validate_python(value, strict=not isinstance(value, (list, dict)))
    except pydantic.ValidationError as error:
        return _first(error)[1]
    return None


def _adapter(key: str) -> Any:
    """The adapter that checks and converts values of this argument; None where its type does not allow it."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.cli_args import FrontendArgs

    fields = {one.name: one for cls in (AsyncEngineArgs, FrontendArgs) for one in _fields(cls)}
    if key not in fields or isinstance(fields[key].type, str):
        return None
    kind = fields[key].type
    try:
        return pydantic.TypeAdapter(kind, config=pydantic.ConfigDict(arbitrary_types_allowed=True))
    except pydantic.PydanticSchemaGenerationError:
        return None
    except pydantic.PydanticUserError:  # a configuration class, which has a config of its own
        return pydantic.TypeAdapter(kind)


def unknown_parser(key: str, value: Any) -> str | None:
    """The problem with a parser that vLLM does not have, which would otherwise show at the first request."""
    if key not in ("tool_call_parser", "reasoning_parser") or not isinstance(value, str):
        return None
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager

    manager = ToolParserManager if key == "tool_call_parser" else ReasoningParserManager
    known = sorted(manager.list_registered())
    return None if not value or value in known else f"{value!r} is none of {', '.join(known)}"


def _fields(cls: Any) -> tuple[Any, ...]:
    return dataclasses.fields(cls)


def _folder(question: Question, scratch: Path) -> Path | None:
    """A folder with a config.json for this model, written here where there is none."""
    if question.folder is not None:
        return Path(question.folder)
    if question.tiny is not None:
        families = [tiny.family(question.tiny)]
    else:
        families = [one for one in tiny.families() if one.architecture == question.architecture]
    if not families or (question.tiny is None and question.shape is None):
        return None
    config = families[0].config
    if question.context_tokens is not None:
        config["max_position_embeddings"] = question.context_tokens
    for name, keys in _SHAPE_KEYS.items():
        for key in keys:
            if question.shape and key in config:
                config[key] = question.shape[name]
    if "num_nextn_predict_layers" in config and question.tiny is None:
        config["num_nextn_predict_layers"] = 1
    (scratch / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return scratch


def _configure(question: Question, folder: Path) -> Finding:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform

    names = {one.name for one in _fields(AsyncEngineArgs)}
    args = {
        # Ray Serve LLM, too, makes configuration objects of mappings.
        key: _adapter(key).validate_python(value)
        if isinstance(value, dict) and _adapter(key)
        else value
        for key, value in question.engine_args.items()
        if key in names and key not in _NOT_NOW
    }
    if question.device == "gpu":
        # This process may have no GPU; what the platform of the machine can do is not the question.
        type(current_platform).verify_quantization = classmethod(lambda cls, name: None)
        args["distributed_executor_backend"] = "mp"
    try:
        AsyncEngineArgs(model=str(folder), **args).create_engine_config()
    except (ValueError, NotImplementedError, AssertionError) as error:
        key, problem = _explain(error, question)
        if question.device == "gpu" and _ABOUT_THIS_MACHINE.search(problem):
            return Finding(question.model_id, "types")
        return Finding(question.model_id, "config", key, problem)
    # What stands in for a config.json need not hold what every feature reads; that refuses nothing.
    except Exception:
        if question.folder is not None:
            raise
        return Finding(question.model_id, "types")
    return Finding(question.model_id, "config")


def _explain(error: Exception, question: Question) -> tuple[str | None, str]:
    """The argument of an error, as far as it is named, and the error's first line."""
    if isinstance(error, pydantic.ValidationError):
        place, message = _first(error)
    else:
        lines = str(error).strip().splitlines()
        place, message = "", lines[0] if lines else type(error).__name__
    text = message.lower().replace("-", "_")
    given = question.engine_args
    named = [key for key in given if key == place or key in text]
    # "expert parallelism is enabled", "tensor parallel size"
    named = named or [
        key
        for key in given
        if key.removeprefix("enable_").removesuffix("_size").replace("_", " ") in text
    ]
    return (max(named, key=len) if named else None), message


def _first(error: pydantic.ValidationError) -> tuple[str, str]:
    problem = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    return where, str(problem["msg"]).strip().partition("\n")[0].removeprefix("Value error, ")


if __name__ == "__main__":
    main()
