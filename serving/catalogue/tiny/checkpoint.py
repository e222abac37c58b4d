"""Write a tiny model's checkpoint folder, once for each version of what it is made from."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from serving.catalogue.tiny.architectures import TinyFamily
from serving.catalogue.tiny.tokenizer import PAD_ID, TURN_END_ID, read_data

# Raise it when something the hash does not cover changes what is written.
GENERATOR_VERSION = 1
# The hash covers these: a change of the weights gives a new folder, and old ones stay as they were.
_SOURCES = ("attention", "layout", "stream", "tokenizer", "weights")
Progress = Callable[[str], None]


def built_path(model: TinyFamily, cache_dir: Path) -> Path:
    """The folder of this model: its name carries a hash of everything it is made from."""
    digest = hashlib.sha256()
    sources = [resources.files(__package__).joinpath(f"{name}.py") for name in _SOURCES]
    for part in (
        str(GENERATOR_VERSION),
        *(source.read_text("utf-8") for source in sources),
        json.dumps(model.config, sort_keys=True),
        model.layout.model_dump_json(),
        read_data("corpus.txt"),
        read_data("chat_template.jinja"),
    ):
        digest.update(part.encode() + b"\0")
    return cache_dir / "tiny" / f"{model.name}-{digest.hexdigest()[:12]}"


def build(
    model: TinyFamily, cache_dir: Path, *, force: bool = False, progress: Progress | None = None
) -> Path:
    """Return the checkpoint's folder, building it first if it is not there.

    The folder appears complete or not at all; several processes may build the same one at once.
    """
    target = built_path(model, cache_dir)
    if target.is_dir() and not force:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(target.parent / f".{target.name}.lock"):
        if target.is_dir() and not force:
            return target
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            _write(model, work, progress or (lambda _: None))
            work.chmod(0o755)
            if target.is_dir():
                _discard(target)
            work.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return target


def remove(model: TinyFamily, cache_dir: Path) -> list[Path]:
    """Delete the folders of this model, of this version and earlier ones; return them."""
    pattern = re.compile(rf"{re.escape(model.name)}-[0-9a-f]{{12}}")
    found = [path for path in (cache_dir / "tiny").glob("*") if pattern.fullmatch(path.name)]
    for path in found:
        with _lock(path.parent / f".{path.name}.lock"):
            _discard(path)
    return sorted(found)


def _discard(folder: Path) -> None:
    # Out of sight first: nobody meets a folder that is half gone.
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        folder.rename(aside / "old")
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _write(model: TinyFamily, folder: Path, progress: Progress) -> None:
    # Imported late: a model that is already built must not cost these imports.
    from serving.catalogue.tiny.tokenizer import code_words, tokenizer_config, train
    from serving.catalogue.tiny.weights import tensors

    config = model.config
    progress(f"{model.id}: training the tokenizer")
    tokenizer = train(read_data("corpus.txt"), append_end=model.task == "embed")
    (folder / "tokenizer.json").write_text(tokenizer, "utf-8")
    _write_json(
        folder / "tokenizer_config.json", tokenizer_config(int(config["max_position_embeddings"]))
    )
    _write_json(folder / "config.json", config)
    if model.task == "chat":
        (folder / "chat_template.jinja").write_text(read_data("chat_template.jinja"), "utf-8")
        ends = {"eos_token_id": [TURN_END_ID, PAD_ID], "pad_token_id": PAD_ID}
        _write_json(folder / "generation_config.json", ends)
    if model.task == "embed":
        _write_pooling(folder, int(config["hidden_size"]))
    progress(f"{model.id}: computing the weights")
    values = tensors(model.name, config, model.layout, code_words(tokenizer))
    _write_safetensors(folder / "model.safetensors", values)


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _write_pooling(folder: Path, width: int) -> None:
    """The sentence-transformers files that Qwen3-Embedding has: last token, then unit length."""
    modules = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")
    _write_json(
        folder / "modules.json",
        [
            {
                "idx": index,
                "name": str(index),
                "path": path,
                "type": f"sentence_transformers.models.{kind}",
            }
            for index, (kind, path) in enumerate(modules)
        ],
    )
    (folder / "1_Pooling").mkdir()
    _write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": width, "pooling_mode_lasttoken": True},
    )


def _write_safetensors(path: Path, tensors: Iterator[tuple[str, Any]]) -> None:
    """Write bfloat16 tensors; numpy has no such type, so the rounding is done on the bits.

    By hand: the library's side for numpy has no bfloat16 either, and what is below it takes memory addresses,
    in another form in each release. https://huggingface.co/docs/safetensors/index#format
    """
    import numpy as np

    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    chunks: list[bytes] = []
    offset = 0
    for name, values in tensors:
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        even = (bits >> 16) & 1
        data = ((bits + 0x7FFF + even) >> 16).astype("<u2").tobytes()
        header[name] = {
            "dtype": "BF16",
            "shape": list(values.shape),
            "data_offsets": [offset, offset + len(data)],
        }
        offset += len(data)
        chunks.append(data)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little"))
        file.write(head)
        file.writelines(chunks)
        file.flush()
        os.fsync(file.fileno())
