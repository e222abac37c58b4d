"""Silences the loggers of vLLM that can write down parts of a request, in every process of an engine.

When a step fails, vLLM dumps the scheduler's state: stop strings and JSON schemas among it. The entry
point `vllm.general_plugins` (vLLM's public plugin group) runs `silence` in each of its processes.
"""

from __future__ import annotations

import logging

LOGGERS = ("vllm.logging_utils.dump_input", "vllm.v1.structured_output")


def silence() -> None:
    """Let nothing of these loggers through; may be called any number of times."""
    for name in LOGGERS:
        for logger in [name, *_below(name)]:
            logging.getLogger(logger).disabled = True
            logging.getLogger(logger).setLevel(logging.CRITICAL + 1)


def _below(name: str) -> list[str]:
    return [each for each in logging.root.manager.loggerDict if each.startswith(name + ".")]
