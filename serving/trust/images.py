"""Images inside a request: their number, and their size when decoded.

A few kilobytes of PNG can hold a hundred million pixels, and an engine decodes before it counts. So the
size is read from the image's header here, without decoding, and images of no known format are refused.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import core_schema

from serving.trust.checker import Check, Schema, Test, WrongValueError

TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_FORMATS = "PNG, JPEG, GIF or WebP"
# Decoded in one go; a multiple of four.
_PIECE_CHARACTERS = 64 * 1024
# Segments of a JPEG before its size: a camera writes about twenty.
_MAX_SEGMENTS = 512
# The markers that begin a frame of a JPEG, with its size.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _is_inline(value: Any) -> None:
    if not isinstance(value, str):
        raise WrongValueError("'{path}' must be a string")
    if not value.startswith("data:image/"):
        raise WrongValueError("'{path}' must be a data:image/... URL: remote media are not fetched")
    if not value[: value.find(",") + 1].endswith(";base64,"):
        raise WrongValueError("'{path}' must be a data:image/...;base64,... URL")


def _is_text(value: Any) -> None:
    if not isinstance(value, str):
        raise WrongValueError("'{path}' must be a string")


def _image(test: Test, schema: Schema) -> Check:
    """An image's text. What it holds is looked at by `ImageLimits`, for all of a request together.

    pydantic-core's context, a list, gets an item for each: without one, nobody has to search for them.
    """

    def passed(value: Any, info: core_schema.ValidationInfo) -> Any:
        test(value)
        if info.context is not None:
            info.context.append(None)
        return value

    described = {
        "type": "string",
        **schema,
        "description": f"Base64 of a {_FORMATS} image; its pixels count for the limits on images.",
    }
    return Check(described, core_schema.with_info_plain_validator_function(passed), test)


image_url = _image(_is_inline, {"format": "inline-image", "pattern": "^data:image/[^,]*;base64,"})
image_data = _image(_is_text, {"format": "image-base64"})


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Bounds on all images of one request together."""

    images: int
    pixels: int

    def steps(self, body: Mapping[str, Any]) -> Iterator[None]:
        """Look at every image of a checked body.

        Raises:
            WrongValueError: too many, too large, or none of the known formats.
        """
        number = pixels = 0
        for found in _images(body):
            if found is None:
                yield
                continue
            places, data = found
            number += 1
            try:
                if number > self.images:
                    raise WrongValueError(
                        f"'{{path}}' is one image too many: a request may hold {self.images}"
                    )
                width, height = yield from image_size_in_steps(data)
                pixels += width * height
                if pixels > self.pixels:
                    raise WrongValueError(
                        f"'{{path}}' is too large: all images of a request together may have "
                        f"{self.pixels} pixels"
                    )
            except WrongValueError as wrong:
                for place in reversed(places):
                    wrong.within(place)
                raise
            yield


def image_size_in_steps(base64: str) -> Generator[None, None, tuple[int, int]]:
    """Width and height of an image, from its header.

    Raises:
        WrongValueError: it is no base64, or no image of a known format.
    """
    pieces = []
    for start in range(0, len(base64), _PIECE_CHARACTERS):
        piece = base64[start : start + _PIECE_CHARACTERS]
        try:
            pieces.append(binascii.a2b_base64(piece, strict_mode=True))
        except ValueError:
            raise WrongValueError("'{path}' is not valid base64") from None
        # Padding, which shortens a piece, may stand at the end only.
        if len(pieces) > 1 and len(pieces[-2]) < _PIECE_CHARACTERS * 3 // 4:
            raise WrongValueError("'{path}' is not valid base64")
        yield
    data = b"".join(pieces)
    for magic, size in _READERS:
        if data.startswith(magic):
            width, height = size(data)
            if width > 0 and height > 0:
                return width, height
    raise WrongValueError(f"'{{path}}' must hold a {_FORMATS} image")


def _png(data: bytes) -> tuple[int, int]:
    return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])


def _gif(data: bytes) -> tuple[int, int]:
    return int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")


def _jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    for _ in range(_MAX_SEGMENTS):
        if data[at : at + 1] != b"\xff":
            break
        marker = data[at + 1] if at + 1 < len(data) else 0
        if marker in _FRAMES:
            return int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
        # A marker may be preceded by any number of fill bytes.
        at += 1 if marker == 0xFF else 2 + max(2, int.from_bytes(data[at + 2 : at + 4]))
    return 0, 0


def _webp(data: bytes) -> tuple[int, int]:
    kind = data[8:16]
    if kind == b"WEBPVP8X":
        return (
            1 + int.from_bytes(data[24:27], "little"),
            1 + int.from_bytes(data[27:30], "little"),
        )
    if kind == b"WEBPVP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"WEBPVP8 ":
        return (
            int.from_bytes(data[26:28], "little") & 0x3FFF,
            int.from_bytes(data[28:30], "little") & 0x3FFF,
        )
    return 0, 0


_READERS: tuple[tuple[bytes, Callable[[bytes], tuple[int, int]]], ...] = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"\xff\xd8", _jpeg),
    (b"GIF8", _gif),
    (b"RIFF", _webp),
)

# Where images can stand: in content, and in the results of tools, which are content, too.
_ROOTS = ("system", "messages", "input")


# An image's place and base64; None: others may run.
_Found = tuple[tuple[str, ...], str] | None


def _images(body: Mapping[str, Any]) -> Iterator[_Found]:
    for root in _ROOTS:
        found = body.get(root)
        if isinstance(found, list):
            yield from _of_list(found, (f".{root}",))


def _of_list(items: list[Any], places: tuple[str, ...]) -> Iterator[_Found]:
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            # `input` may be texts or token ids: no images.
            return
        content = item.get("content")
        if type(content) is str:
            continue
        kind = item.get("type")
        if kind == "image_url":
            url = item["image_url"]["url"]
            yield (*places, f"[{index}]", ".image_url", ".url"), url[url.index(",") + 1 :]
        elif kind == "input_image":
            url = item["image_url"]
            yield (*places, f"[{index}]", ".image_url"), url[url.index(",") + 1 :]
        elif kind == "image":
            yield (*places, f"[{index}]", ".source", ".data"), item["source"]["data"]
        elif isinstance(content, list):
            yield from _of_list(content, (*places, f"[{index}]", ".content"))
            yield None
        elif isinstance(output := item.get("output"), list):
            yield from _of_list(output, (*places, f"[{index}]", ".output"))
            yield None
