"""Draws the path of a request for README.md (`docs/request-path.svg`), from the steps below."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
# What the gateway does with a request, in order: the step, and what it decides.
STEPS = (
    ("key", "who asks, what they may do"),
    ("check", "allow-list of fields, bounds"),
    ("model", "alias, canary, fallback, auto"),
    ("queue", "fair shares, deadlines"),
    ("replica", "cached prefix, load, breaker"),
)
WIDTH, HEIGHT = 900, 300
INK, FAINT, BLUE, SAND = "#22262b", "#5c636c", "#e8f0fb", "#fbf3e4"


def _box(x: int, y: int, width: int, height: int, colour: str) -> str:
    place = f'x="{x}" y="{y}" width="{width}" height="{height}"'
    return f'<rect {place} rx="6" fill="{colour}" stroke="#b5bac1"/>'


def _text(x: float, y: float, text: str, size: int = 13, how: str = "") -> str:
    colour = FAINT if "faint" in how else INK
    weight = ' font-weight="600"' if "bold" in how else ""
    anchor = ' text-anchor="middle"' if "middle" in how else ""
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}"{weight}{anchor}>{text}</text>'


def _arrow(x1: int, y1: int, x2: int, y2: int, dashes: bool = False) -> str:
    style = ' stroke-dasharray="4 3"' if dashes else ""
    return (
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{INK}" stroke-width="1.4"'
        f' marker-end="url(#tip)"{style}/>'
    )


def request_path() -> str:
    """The way of a request to an engine, and of the answer back, as SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"',
        ' font-family="system-ui, sans-serif"><title>The path of a request</title>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"',
        f' orient="auto"><path d="M0 0 8 4 0 8z" fill="{INK}"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _box(10, 110, 90, 60, "#ffffff"),
        _text(55, 145, "client", 14, "bold middle"),
        _box(170, 60, 360, 170, BLUE),
        _text(186, 84, "gateway", 14, "bold"),
        _text(258, 84, "several on a node share its port", 11, "faint"),
    ]
    for row, (name, what) in enumerate(STEPS):
        y = 108 + 23 * row
        parts += [_text(190, y, f"{row + 1}  {name}", 13, "bold"), _text(284, y, what, 12, "faint")]
    parts += [_box(640, y, 250, 66, SAND) for y in (56, 134, 212)]
    parts += [
        _text(656, 81, "replica of a model", 14, "bold"),
        _text(656, 104, "door: a token · vLLM's own server", 12, "faint"),
        _text(656, 159, "replica of that model", 14, "bold"),
        _text(656, 182, "on this node or another", 12, "faint"),
        _text(656, 237, "replica of another model", 14, "bold"),
        _text(656, 260, "its own application: comes and goes", 12, "faint"),
        _arrow(100, 132, 168, 132),
        _arrow(168, 150, 102, 150),
        _text(135, 122, "HTTP", 11, "faint middle"),
        _text(135, 168, "bytes as", 11, "faint middle"),
        _text(135, 182, "they come", 11, "faint middle"),
        _arrow(530, 130, 638, 86),
        _arrow(638, 104, 532, 148),
        _arrow(530, 165, 638, 167, dashes=True),
        _text(584, 186, "if the first fails", 11, "faint middle"),
        _box(170, 12, 720, 28, "#f4f5f7"),
        _text(
            530, 31, "Ray Serve: places, replaces and scales both; no token passes it", 12, "middle"
        ),
        _text(
            186,
            256,
            "gateway to replica: plain HTTP, a kept-alive connection, parsed once",
            12,
            "faint",
        ),
        _text(
            186, 276, "usage is counted in the engine and comes back with the answer", 12, "faint"
        ),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def main() -> None:
    """Write the picture."""
    (DOCS / "request-path.svg").write_text(request_path(), encoding="utf-8")


if __name__ == "__main__":
    main()
