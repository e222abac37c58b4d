"""Images are counted and measured by their headers before an engine decodes them."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from serving.errors import InvalidFieldError, RequestError
from serving.settings import RequestLimits
from serving.trust.checks import WrongValueError
from serving.trust.fields import endpoints
from serving.trust.images import ImageLimits, image_size_in_steps

LIMITS = RequestLimits(max_images=3, max_image_pixels=10_000)
ENDPOINTS = endpoints(LIMITS)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def image_size(text: str) -> tuple[int, int]:
    steps = image_size_in_steps(text)
    while True:
        try:
            next(steps)
        except StopIteration as over:
            return over.value


def picture(width: int, height: int, kind: str = "PNG", **options: Any) -> str:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, kind, **options)
    return encoded(file.getvalue())


def bomb(width: int, height: int) -> str:
    """A PNG of some hundred bytes that says it is so large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b""))
    )
    return encoded(b"\x89PNG\r\n\x1a\n" + chunks)


def chat(*images: str) -> dict[str, Any]:
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{one}"}}
        for one in images
    ]
    return {"model": "m", "messages": [{"role": "user", "content": parts}]}


def messages(*images: str) -> dict[str, Any]:
    blocks = [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": one}}
        for one in images
    ]
    result = {"type": "tool_result", "tool_use_id": "1", "content": blocks}
    return {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": [result]}]}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "comment": b"c" * 60_000}),
        ("GIF", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0" + b"\0" * 20}),
    ],
)
def test_the_size_stands_in_the_header(kind: str, options: dict[str, Any]) -> None:
    assert image_size(picture(37, 21, kind, **options)) == (37, 21)


def test_fill_bytes_of_a_jpeg_are_passed_over() -> None:
    data = base64.b64decode(picture(37, 21, "JPEG"))
    assert image_size(encoded(data[:2] + b"\xff" * 5 + data[2:])) == (37, 21)


@pytest.mark.parametrize(
    ("base64_text", "message"),
    [
        ("", "must hold"),
        ("AAAA", "must hold"),
        ("a", "not valid base64"),
        ("\u00e9\u00e9\u00e9\u00e9", "not valid base64"),
        ("iVBORw0KGgo=\n", "not valid base64"),
        (encoded(b"\x89PNG\r\n\x1a\n"), "must hold"),
        (encoded(b"\xff\xd8\xff\xe0"), "must hold"),
        (encoded(b"\xff\xd8" + b"\xff\xe0\0\2" * 100_000), "must hold"),
        (encoded(b"GIF89a"), "must hold"),
        (encoded(b"RIFF____WEBPxxxx"), "must hold"),
        (encoded(b"<svg width='9'/>"), "must hold"),
        (encoded(b"II*\0"), "must hold"),
    ],
)
def test_what_is_no_image_is_refused(base64_text: str, message: str) -> None:
    with pytest.raises(WrongValueError) as raised:
        image_size(base64_text)
    assert message in raised.value.at("x").message


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/chat/completions", chat), ("/v1/messages", messages)]
)
def test_images_are_bounded_in_number_and_in_pixels_together(path: str, body: Any) -> None:
    endpoint, small = ENDPOINTS[path], picture(50, 50)
    endpoint.check(body(small, small, small))
    with pytest.raises(InvalidFieldError, match="may hold 3"):
        endpoint.check(body(small, small, small, small))
    endpoint.check(body(picture(100, 100)))
    with pytest.raises(InvalidFieldError, match="10000 pixels"):
        endpoint.check(body(picture(100, 99), picture(2, 51)))


def test_a_decompression_bomb_is_refused_at_its_place() -> None:
    with pytest.raises(RequestError) as raised:
        ENDPOINTS["/v1/chat/completions"].check(chat(picture(1, 1), bomb(60_000, 60_000)))
    assert raised.value.param == "messages[0].content[1].image_url.url"
    with pytest.raises(RequestError) as raised:
        ENDPOINTS["/v1/messages"].check(messages(bomb(60_000, 60_000)))
    assert raised.value.param == "messages[0].content[0].content[0].source.data"


def test_images_are_looked_at_in_steps() -> None:
    looks = ImageLimits(images=5, pixels=100)
    assert sum(1 for _ in looks.steps(chat(*[picture(1, 1)] * 4))) >= 4
    large = encoded(base64.b64decode(picture(1, 1, "GIF")) + bytes(10**6))
    assert sum(1 for _ in looks.steps(chat(large))) >= 20


def test_padding_stands_at_the_end_only() -> None:
    half = encoded(b"GIF89a" + bytes(49146))
    assert len(half) == 64 * 1024
    with pytest.raises(WrongValueError, match="base64"):
        image_size(half[:-4] + "AA==" + half)


@pytest.mark.parametrize(
    "url", ["data:image/png,AAAA", "data:image/png;base64", "data:image/svg+xml,<svg>"]
)
def test_only_base64_is_an_inline_image(url: str) -> None:
    body = chat("")
    body["messages"][0]["content"][0]["image_url"]["url"] = url
    with pytest.raises(InvalidFieldError, match="base64"):
        ENDPOINTS["/v1/chat/completions"].check(body)
