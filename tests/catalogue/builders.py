"""Smallest valid entry and licence, with what a test wants different."""

from __future__ import annotations

from typing import Any

from serving.catalogue.licences import Licence
from serving.catalogue.spec import ModelSpec

ENTRY: dict[str, Any] = {
    "id": "example-7b",
    "name": "Example 7B",
    "family": "Example",
    "vendor": "Example AI",
    "vendor_jurisdiction": "FR",
    "hf_repo": "example/Example-7B",
    "architecture": "LlamaForCausalLM",
    "parameters_total_b": 7,
    "parameters_active_b": 7,
    "context_tokens": 32768,
    "native_dtype": "bf16",
    "licence": "example",
    "verified": True,
    "sources": ["a test"],
}

LICENCE: dict[str, Any] = {
    "id": "example",
    "name": "Example License",
    "verdict": "ok",
    "source": "a test",
    "verified": True,
}


def entry(**changes: Any) -> ModelSpec:
    return ModelSpec.model_validate(ENTRY | changes)


def licence(**changes: Any) -> Licence:
    return Licence.model_validate(LICENCE | changes)
