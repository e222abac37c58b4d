"""`comptoir chat`: reads messages, sends them to the model, shows answers and their figures."""

from __future__ import annotations

import io
import sys
import time
from contextlib import closing
from typing import Annotated, Any

import typer

from serving.commands.chat.endpoint import Endpoint, Figures
from serving.commands.chat.screen import Screen, harmless, read_line, told
from serving.commands.output import complain, console, note
from serving.commands.status import local_stack
from serving.errors import ComptoirError, ConfigError, StackError

HELP = """\
/model [NAME]   show the models, or talk to another; the conversation goes on
/system [TEXT]  set the system prompt; without a text, remove it
/clear          begin a new conversation
/quit           leave, as Ctrl-D does; Ctrl-C ends an answer"""


def chat(
    model: Annotated[
        str | None,
        typer.Argument(help="Name of the model; by default the first chat model that is listed."),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            help="URL of any OpenAI-compatible endpoint; by default the stack on this machine."
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(envvar="COMPTOIR_API_KEY", help="API key, if the endpoint needs one."),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of a stack on this machine.")] = None,
    system: Annotated[str | None, typer.Option(help="The system prompt.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Limit of each answer; by default the endpoint's.")
    ] = None,
) -> None:
    """Talk to a model in the terminal; each answer is followed by its tokens, TTFT and tokens/s.

    Where standard input is no terminal, each line is a message and each answer is one line.
    In it, \\n stands for a line break.

    Example: comptoir chat qwen3
    """
    endpoint = Endpoint(url, key) if url else _local(port, key)
    is_live = sys.stdin.isatty()
    if isinstance(sys.stdin, io.TextIOWrapper):
        # Where the locale is not C, what is no UTF-8 would end the conversation with a traceback.
        sys.stdin.reconfigure(errors="surrogateescape")
    try:
        chosen = _chosen(endpoint, model)
    except ComptoirError as error:
        raise _shown(error) from None
    conversation = Conversation(endpoint, chosen, system, max_tokens)
    if is_live:
        note(f"{harmless(conversation.model)} at {endpoint.url}; /help lists the commands")
    _talk(conversation, is_live=is_live)


def _local(port: int | None, key: str | None) -> Endpoint:
    return Endpoint(local_stack(port).base_url, key, is_inside=True)


def _chosen(endpoint: Endpoint, model: str | None) -> str:
    if model is not None:
        endpoint.require_model(model)
        return model
    if not (listed := endpoint.models()):
        raise StackError(f"{endpoint.url} lists no models")
    return str(listed[0]["id"])


class Conversation:
    """The conversation so far, and its model."""

    def __init__(
        self, endpoint: Endpoint, model: str, system: str | None, max_tokens: int | None
    ) -> None:
        self.endpoint = endpoint
        self.model = model
        self.system = system
        self._limit = {} if max_tokens is None else {"max_tokens": max_tokens}
        self._messages: list[dict[str, str]] = []

    def clear(self) -> None:
        """Begin a new conversation."""
        self._messages.clear()

    def say(self, text: str, screen: Screen) -> Figures:
        """Run one turn. An interrupted answer is kept as far as it came; a broken one is not.

        Raises:
            ComptoirError: there is no answer, or only a part of it.
            KeyboardInterrupt: the user ended it.
        """
        question = {"role": "user", "content": text}
        system = [{"role": "system", "content": self.system}] if self.system else []
        body: dict[str, Any] = {"model": self.model, **self._limit}
        figures, parts = Figures(time.monotonic()), list[str]()
        body |= {"messages": [*system, *self._messages, question]}
        try:
            # Closed at once when it is interrupted, so that the engine stops, too.
            with closing(self.endpoint.answer(body, figures)) as pieces:
                for piece in pieces:
                    screen.show(piece)
                    parts += [piece.text] if piece.kind == "content" else []
        except KeyboardInterrupt:
            self._keep(question, parts)
            raise
        finally:
            screen.end(is_whole=figures.finish is not None)
        self._keep(question, parts)
        return figures

    def _keep(self, question: dict[str, str], parts: list[str]) -> None:
        if parts:
            self._messages += [question, {"role": "assistant", "content": "".join(parts)}]


def _talk(conversation: Conversation, *, is_live: bool) -> None:
    """Run turn after turn, until the input ends or the user leaves."""
    screen = Screen(console, is_live=is_live and console.is_terminal)
    while True:
        try:
            line = read_line("> ", is_live=is_live)
        except KeyboardInterrupt:
            if not is_live:
                raise
            note("\n/quit or Ctrl-D leaves")
            continue
        if line is None:
            return
        # What was typed with a broken encoding cannot be sent as it is.
        line = line.encode("utf-8", "replace").decode("utf-8").strip()
        try:
            if line.startswith("/") and is_live:
                if _obey(line, conversation):
                    return
            elif line:
                note(told(conversation.say(line, screen)))
        except KeyboardInterrupt:
            if not is_live:
                raise
            note("ended")
        except ComptoirError as error:
            shown = _shown(error)
            if not is_live:
                raise shown from None
            complain(shown)


def _shown(error: ComptoirError) -> ComptoirError:
    return type(error)(harmless(error.message), param=error.param)


def _obey(line: str, conversation: Conversation) -> bool:
    """Execute a command; true when it ends the conversation."""
    word, _, rest = line.partition(" ")
    rest = rest.strip()
    if word == "/quit":
        return True
    if word == "/help":
        note(HELP)
    elif word == "/clear":
        conversation.clear()
        note("a new conversation")
    elif word == "/system":
        conversation.system = rest or None
        note("the system prompt is set" if rest else "there is no system prompt")
    elif word == "/model":
        _switch(rest, conversation)
    else:
        raise ConfigError(f"there is no command {word}; /help lists those there are")
    return False


def _switch(name: str, conversation: Conversation) -> None:
    if name:
        conversation.endpoint.require_model(name)
        conversation.model = name
        note(f"now {harmless(name)}")
        return
    for card in conversation.endpoint.models():
        mark = "*" if card["id"] == conversation.model else " "
        note(f"{mark} {harmless(card['id'])}")
