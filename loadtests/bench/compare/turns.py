"""Starts the servers and measures them: one after the other, or each in turns of seconds with the baseline.

A virtual machine's speed can change by half within minutes; within the seconds of two bursts it hardly does.
In pairs, the one that is not measured is frozen (SIGSTOP), so that its idle work disturbs nobody.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from loadtests.bench import output
from loadtests.bench.compare import server, texts
from loadtests.bench.compare.cells import Cell
from loadtests.bench.compare.clients import ClientError, ClientProcess
from loadtests.bench.compare.contenders import BASELINE, COMPTOIR, CONTENDERS, Contender
from loadtests.bench.compare.plan import ComparePlan
from loadtests.bench.compare.results import Results, is_disturbed, with_cpu
from loadtests.bench.compare.server import Server
from loadtests.bench.compare.usage import Usage
from loadtests.processes.child import ProcessError

# What a start leaves to do in the background is over by then.
SETTLE_S = 3.0
IDLE_S = 3.0
# Timers that were due meanwhile go off when a server may go on.
THAW_S = 0.5
# A pair of bursts that was disturbed is repeated.
TRIES = 3
PAUSE_S = 5.0


@dataclass
class Participant:
    """A server that runs, what it uses, how many requests of each cell keep it busy for a burst."""

    contender: Contender
    server: Server
    usage: Usage
    requests: dict[Cell, int] = field(default_factory=dict)


class Turns:
    """One comparison: its state while it runs."""

    def __init__(self, plan: ComparePlan, client: ClientProcess, model: Path) -> None:
        self._plan = plan
        self._client = client
        self._model = model
        self._key = secrets.token_urlsafe(32)
        # Of this round.
        self._texts: dict[str, texts.Texts] = {}
        self._progress = output.Progress(plan.steps)
        self.results = Results()

    def take_all(self) -> None:
        """Round after round; an interruption ends it early, and what there is stays."""
        try:
            self._progress.begin("starting the clients")
            self._client.wait_until_ready()
            for number in range(1, self._plan.rounds + 1):
                self._round(number)
        except ProcessError as error:
            self.results.failures.append(str(error))
        except KeyboardInterrupt:
            self.results.failures.append("interrupted: not everything was measured")

    def _round(self, number: int) -> None:
        prefix = f"round {number} of {self._plan.rounds}"
        self._texts.clear()
        if self._plan.baseline is None:
            for name in self._plan.challengers:
                self._challenge(prefix, CONTENDERS[name], None)
            return
        try:
            with self._running(prefix, CONTENDERS[self._plan.baseline]) as baseline:
                for name in self._plan.challengers:
                    baseline.server.child.freeze()
                    self._challenge(prefix, CONTENDERS[name], baseline)
                baseline.server.child.thaw()
                self._note_memory(baseline)
        except (ProcessError, ClientError) as error:
            failure = f"{prefix}, {CONTENDERS[BASELINE].title}: {error}"
            self.results.failures.append(failure)
            left = len(self._plan.challengers) * (self._plan.bursts + 1) + 1
            self._progress.skip(left, f"FAILED {failure}")

    def _challenge(self, prefix: str, contender: Contender, baseline: Participant | None) -> None:
        """One contender's turn; if it fails, the others go on."""
        done = 0
        try:
            with self._running(prefix, contender) as challenger:
                done = 1
                for cell in self._plan.cells:
                    for client in self._client.for_cell(cell):
                        for turn in range(self._plan.turns):
                            salt = f"{prefix}, {contender.name}, {client}, {cell.name}, {turn}"
                            line = self._pair(baseline, challenger, cell, client, salt, turn)
                            self._progress.done(f"{prefix}, {contender.title}, {line}")
                            done += 1
                self._note_memory(challenger)
        except (ProcessError, ClientError) as error:
            failure = f"{prefix}, {contender.title}: {error}"
            self.results.failures.append(failure)
            self._progress.skip(self._plan.bursts + 1 - done, f"FAILED {failure}")

    @contextmanager
    def _running(self, prefix: str, contender: Contender) -> Iterator[Participant]:
        """Start a server, let it settle, warm it up with some of every cell."""
        self._progress.begin(f"{prefix}, {contender.title}: starting")
        with server.running(contender, self._model, self._key) as running:
            self._progress.done(
                f"{prefix}, {contender.title}: answers after {running.started_in_s:.0f} s"
            )
            participant = Participant(contender, running, Usage(running.child, self._client.child))
            self.results.started_in_s.setdefault(contender.name, []).append(running.started_in_s)
            time.sleep(SETTLE_S)
            idle = participant.usage.idle_cores(IDLE_S)
            self.results.idle_cores.setdefault(contender.name, []).append(idle)
            self._compare_texts(contender, running)
            for cell in self._plan.cells:
                trial = self._client.measure(
                    "own", running.target, cell, f"{prefix}, warm-up", cell.trial_requests
                )
                participant.requests[cell] = cell.requests_for(
                    trial["requests_per_s"], self._plan.burst_s
                )
            yield participant

    def _compare_texts(self, contender: Contender, running: Server) -> None:
        """Collect the texts of the two that must agree; compare when both are there."""
        if contender.name not in (BASELINE, COMPTOIR):
            return
        self._texts[contender.name] = texts.collect(running.target)
        if len(self._texts) == 2:
            found = texts.compare(self._texts[BASELINE], self._texts[COMPTOIR])
            self.results.texts.append(found)

    def _note_memory(self, participant: Participant) -> None:
        sizes = participant.usage.resident_by_role()
        mib = {role: size / 2**20 for role, size in sizes.items()}
        self.results.resident_mib.setdefault(participant.contender.name, []).append(mib)

    def _pair(
        self,
        baseline: Participant | None,
        challenger: Participant,
        cell: Cell,
        client: str,
        salt: str,
        turn: int,
    ) -> str:
        """The baseline's burst and the contender's next to it; the least disturbed of a few tries."""
        pairs: list[tuple[dict[str, float] | None, dict[str, float]]] = []
        while not pairs or (len(pairs) < TRIES and _others(pairs[-1]) > 0):
            if pairs:
                time.sleep(PAUSE_S)
            salt_of_try = f"{salt}, {len(pairs)}"
            if baseline is None:
                pairs.append((None, self._burst(challenger, cell, client, salt_of_try)))
                continue
            # Whoever comes second may find the machine warmer: each comes first as often.
            order = (baseline, challenger) if turn % 2 == 0 else (challenger, baseline)
            found = [self._alone(one, order, cell, client, salt_of_try) for one in order]
            pairs.append((found[order.index(baseline)], found[order.index(challenger)]))
        before, figures = min(pairs, key=_others)
        self.results.add(challenger.contender.name, cell, client, figures, before)
        return f"{cell.name} ({client}): {_line(figures, before)}"

    def _alone(
        self,
        participant: Participant,
        both: Sequence[Participant],
        cell: Cell,
        client: str,
        salt: str,
    ) -> dict[str, float]:
        """A burst while the other one is frozen."""
        for one in both:
            if one is not participant:
                one.server.child.freeze()
        participant.server.child.thaw()
        return self._burst(participant, cell, client, salt)

    def _burst(
        self, participant: Participant, cell: Cell, client: str, salt: str
    ) -> dict[str, float]:
        time.sleep(THAW_S)
        participant.usage.begin()
        figures = self._client.measure(
            client, participant.server.target, cell, salt, participant.requests[cell]
        )
        used, others = participant.usage.end()
        return with_cpu(figures, used) | {"others_cores": others}


def _others(pair: tuple[dict[str, float] | None, dict[str, float]]) -> float:
    """The disturbance of a pair of bursts by other processes; 0 where it is negligible."""
    found = [figures for figures in pair if figures is not None and is_disturbed(figures)]
    return sum(figures["others_cores"] for figures in found)


def _line(figures: dict[str, float], before: dict[str, float] | None) -> str:
    """A pair of bursts in words."""
    rate = figures["requests_per_s"]
    text = f"{rate:.1f} req/s"
    if before is not None and before["requests_per_s"]:
        text += f" ({rate / before['requests_per_s']:.2f} × vLLM's)"
    if "ttft_p50_ms" in figures:
        text += f", TTFT p50 {figures['ttft_p50_ms']:.1f} ms"
        if before is not None:
            text += f" ({figures['ttft_p50_ms'] - before['ttft_p50_ms']:+.1f})"
    if errors := figures["errors"] + (before["errors"] if before is not None else 0):
        text += f", {errors:.0f} ERRORS"
    others = _others((before, figures))
    return text + (f" (other processes took {others:.2f} of a core)" if others else "")
