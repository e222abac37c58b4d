"""Clients that never rest, and what they noticed: who answered, what failed, how long nothing came."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from loadtests.answers.dialects import reading
from loadtests.answers.reading import Expected
from tests.lazily import lazily
from tests.stack.conftest import Stack

openai = lazily("openai")

MESSAGES: list[Any] = [{"role": "user", "content": "Tell me something long"}]
# After an error: a client that is refused must not take the machine from those that are served.
BREATH_S = 0.1
# Answers to count, on a machine that has other things to do.
ENOUGH_WITHIN_S = 120.0


@dataclass(frozen=True)
class Failure:
    """A request without a whole answer; `status` is None where an answer began."""

    at_s: float
    status: int | None
    text: str


class Load:
    """Clients of one model: streams and whole answers, each in a session of its own.

    Args:
        streams, whole: how many clients want their answers so.
        tokens: how long every answer is.
        pace_s: how long a client rests between two requests.
        key: the API key that they send.
        fresh: whether every request has a connection of its own.
    """

    def __init__(
        self,
        stack: Stack,
        model: str = "qwen3",
        *,
        streams: int = 3,
        whole: int = 0,
        tokens: int = 150,
        pace_s: float = 0.0,
        key: str = "none",
        fresh: bool = False,
    ) -> None:
        self._url = f"{stack.url}/v1"
        self._model, self._tokens, self._pace_s = model, tokens, pace_s
        self._key, self._fresh = key, fresh
        self._stop = threading.Event()
        self.answers: Counter[str] = Counter()
        self.failures: list[Failure] = []
        self.longest_wait_s = 0.0
        self._threads = [
            threading.Thread(target=self._work, args=(number, number < streams))
            for number in range(streams + whole)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.begin_no_more()
        for thread in self._threads:
            thread.join(timeout=60)

    def begin_no_more(self) -> None:
        """What was asked goes on to its end."""
        self._stop.set()

    def counted_over(self, seconds: float, at_least: int = 1) -> Counter[str]:
        """Who answers during the next seconds; longer, until so many answers have come."""
        before = Counter(self.answers)
        began = time.monotonic()
        while time.monotonic() - began < ENOUGH_WITHIN_S:
            time.sleep(seconds)
            if (counted := self.answers - before).total() >= at_least:
                break
        return counted

    def _work(self, number: int, streamed: bool) -> None:
        client = self._client()
        turn = 0
        while not self._stop.is_set():
            turn += 1
            if self._fresh:
                client.close()
                client = self._client()
            self._stop.wait(self._pace_s)
            try:
                self._ask(client, f"{number}-{turn}", streamed)
            except openai.OpenAIError as error:
                status = error.status_code if isinstance(error, openai.APIStatusError) else None
                self.failures.append(Failure(time.monotonic(), status, repr(error)))
                time.sleep(BREATH_S)

    def _client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self._url, api_key=self._key, max_retries=0)

    def _ask(self, client: openai.OpenAI, session: str, streamed: bool) -> None:
        more = {"stream": True, "stream_options": {"include_usage": True}} if streamed else {}
        answer = reading(Expected(stream=streamed, tokens=self._tokens))
        heard_s = time.monotonic()
        with client.chat.completions.with_streaming_response.create(
            model=self._model,
            messages=MESSAGES,
            max_tokens=self._tokens,
            temperature=0,
            extra_headers={"x-comptoir-session": session},
            extra_body={"ignore_eos": True, **more},
        ) as response:
            answer.begin(response.headers["content-type"])
            for piece in response.iter_bytes():
                now = time.monotonic()
                self.longest_wait_s = max(self.longest_wait_s, now - heard_s)
                heard_s = now
                answer.feed(piece)
            model = response.headers["x-comptoir-model"]
        if (end := answer.finish()) or answer.output_tokens != self._tokens:
            text = f"{model}: {answer.output_tokens} of {self._tokens} tokens, {end or 'ended so'}"
            self.failures.append(Failure(time.monotonic(), None, text))
        self.answers[model] += 1
