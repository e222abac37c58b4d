"""Shows a conversation: streamed and coloured in a terminal, one line for each answer elsewhere."""

from __future__ import annotations

import re
import sys

from rich.console import Console

from serving.commands.chat.endpoint import Figures, Piece

# What moves the cursor, talks to the terminal, or turns the direction of writing around.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """Text of a model or an endpoint without terminal control sequences."""
    # Halves of a surrogate pair that came apart are joined; one alone cannot be written.
    text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return _CONTROLS.sub(lambda found: _visible(found.group()), text)


def _visible(character: str) -> str:
    return "" if character == "\r" else character.encode("unicode_escape").decode("ascii")


class Screen:
    """The output of answers: streamed for people, whole for programs."""

    def __init__(self, console: Console, *, is_live: bool) -> None:
        """Args:
        is_live: somebody watches; otherwise each answer is one line, and reasoning is left out.
        """
        self._console = console
        self._is_live = is_live
        self._kind = ""
        self._held: list[str] = []

    def show(self, piece: Piece) -> None:
        """Show the next piece of an answer."""
        if not self._is_live:
            self._held += [piece.text] if piece.kind == "content" else []
            return
        text = harmless(piece.text)
        if self._kind == "reasoning" and piece.kind == "content":
            text = "\n\n" + text.lstrip("\n")
        self._kind = piece.kind
        self._console.print(
            text,
            end="",
            style="dim italic" if piece.kind == "reasoning" else None,
            markup=False,
            emoji=False,
            highlight=False,
            soft_wrap=True,
        )
        self._console.file.flush()

    def end(self, *, is_whole: bool) -> None:
        """End the answer, complete or not; a complete one is a line even when it is empty."""
        if self._is_live:
            self._console.print()
        elif self._held or is_whole:
            # A program reads lines; `printf %b` gives it the line breaks back.
            line = "".join(self._held).replace("\\", "\\\\").replace("\n", "\\n")
            self._console.file.write(harmless(line) + "\n")
        self._kind = ""
        self._held.clear()
        self._console.file.flush()


def told(figures: Figures) -> str:
    """One line with an answer's figures."""
    about = "" if figures.is_counted else "about "
    parts = [f"{about}{figures.tokens} token{'' if figures.tokens == 1 else 's'}"]
    if figures.ttft_s is not None:
        parts.append(f"TTFT {1000 * figures.ttft_s:.0f} ms")
    if figures.tokens_per_s is not None:
        parts.append(f"{figures.tokens_per_s:.1f} tokens/s")
    if figures.finish == "length":
        parts.append("cut at the limit of tokens")
    return " · ".join(parts)


def read_line(prompt: str, *, is_live: bool) -> str | None:
    """The next line that is typed or piped in; None at the end."""
    try:
        if is_live and sys.stdout.isatty():
            # Gives `input` a line that can be edited, and a history that no file keeps.
            import readline  # noqa: F401

            return input(prompt)
        if is_live:
            sys.stderr.write(prompt)
            sys.stderr.flush()
        line = sys.stdin.readline()
    except EOFError:
        return None
    return line.rstrip("\n") if line else None
