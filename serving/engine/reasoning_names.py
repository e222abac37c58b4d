"""Gives reasoning under both names that clients look for, `reasoning` and `reasoning_content`. Pure.

vLLM renamed the field (vllm#27755), DeepSeek's API and the clients written for it keep the old name, and a
client that looks for the other one loses the reasoning without a word.
"""

from __future__ import annotations

import re

# Inside a string of JSON, every quotation mark has a backslash before it: this can only be the member.
_KEY = '"reasoning":"'
_MEMBER = re.compile(r'"reasoning":("(?:[^"\\]|\\.)*")')


def with_both_names(text: str) -> str:
    """An answer or an event of chat completions, as vLLM rendered it; the same text without reasoning."""
    if _KEY not in text:
        return text
    return _MEMBER.sub(r'"reasoning":\1,"reasoning_content":\1', text)
