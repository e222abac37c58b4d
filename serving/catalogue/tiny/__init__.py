"""Tiny random models of real architectures, so that the real engine runs on a CPU offline.

`build` writes an ordinary checkpoint folder (safetensors, tokenizer, chat template) in a second;
docs/tiny-models.md describes the families. Nothing here imports torch, transformers or vllm.
"""

from serving.catalogue.tiny.architectures import ID_PREFIX, TinyFamily, families, family
from serving.catalogue.tiny.checkpoint import build, built_path, remove

__all__ = ["ID_PREFIX", "TinyFamily", "build", "built_path", "families", "family", "remove"]
