"""Our list of what xgrammar cannot hold an answer to is vLLM's own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.trust.json_schemas import _FORMATS, unsupported

pytestmark = pytest.mark.engine

KINDS = st.sampled_from(["string", "number", "integer", "array", "object", "null", "boolean"])
WORDS = st.sampled_from(
    [
        *("multipleOf", "uniqueItems", "contains", "minContains", "maxContains", "minLength"),
        *("maxLength", "pattern", "items", "properties", "patternProperties", "propertyNames"),
        *("unevaluatedProperties", "allOf", "anyOf", "additionalProperties", "enum", "$ref"),
    ]
)
SCALARS = st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["email", "colour", "a"])


def _schemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    members = (
        SCALARS | inner | st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=2)
    )
    return st.dictionaries(WORDS, members, max_size=4).flatmap(
        lambda some: st.fixed_dictionaries(
            {},
            optional={
                "type": KINDS | st.lists(KINDS | st.integers(), max_size=2),
                "format": st.sampled_from(["email", "uuid", "colour", "iri"]),
            },
        ).map(lambda kind: some | kind)
    )


SCHEMAS = st.recursive(st.just({}) | _schemas(SCALARS), _schemas, max_leaves=8)


def test_the_known_formats_are_the_same() -> None:
    from vllm.v1.structured_output.backend_xgrammar import STRING_SUPPORTED_FORMATS

    assert set(STRING_SUPPORTED_FORMATS) == _FORMATS


@settings(deadline=None, max_examples=400)
@given(SCHEMAS)
def test_both_say_the_same_of_any_schema(schema: dict[str, Any]) -> None:
    from vllm.v1.structured_output.backend_xgrammar import has_xgrammar_unsupported_json_features

    assert (unsupported(schema) is not None) == has_xgrammar_unsupported_json_features(schema)
