"""Runs a stack in a session of its own, behind a foreground process that passes signals on to it.

A signal to the foreground's group (a terminal that closes, `timeout`, Ctrl-C) would otherwise end Ray's own
processes before anybody could stop them in order. So the foreground forks once:

    foreground ──signals──▶ the stack's process ──▶ Ray, gateways, engines      (session of their own)
        │                        │
        └──── a pipe: its end tells that the foreground is gone, whatever ended it

Whichever of the two is killed, the other one cleans up.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from types import FrameType

from serving.commands.output import complain, exit_code, of_a_place
from serving.errors import ComptoirError

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """Whether the stack is to stop, and why."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.signal: int | None = None
        self._ignored = {one for one in STOP_SIGNALS if _is_ignored(one)}

    def listen(self) -> None:
        """Let signals set it. Call it again after code that installs its own handlers."""
        for each in STOP_SIGNALS:
            if each not in self._ignored:
                signal.signal(each, self._take)

    @staticmethod
    def deafen() -> None:
        """Ignore signals from here on: an interrupted cleanup would leave processes for good."""
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_IGN)

    @property
    def status(self) -> int:
        """The exit status of a stack that was stopped before it had started, as a shell would say it."""
        return 128 + (self.signal or signal.SIGTERM)

    def _take(self, signum: int, frame: FrameType | None) -> None:
        if self.event.is_set():
            # The second one: no more waiting for open requests.
            raise KeyboardInterrupt
        self.signal = signum
        self.event.set()


def run_apart(work: Callable[[Stop], int], clean: Callable[[], None]) -> int:
    """Do the work in a session of its own and wait for it; returns its exit status.

    Args:
        work: ends soon after its stop is set, and leaves no process.
        clean: ends the processes that a killed `work` left. Called here after every end of it.
    """
    ours = [each for each in STOP_SIGNALS if not _is_ignored(each)]
    with _blocked():
        gone, alive = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(alive)
            _work(work, gone)
        os.close(gone)
        before = {each: signal.signal(each, _passing_on(child)) for each in ours}
    _, status = os.waitpid(child, 0)
    for each in ours:
        signal.signal(each, signal.SIG_IGN)
    clean()
    for each in ours:
        signal.signal(each, before[each])
    os.close(alive)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _passing_on(child: int) -> Callable[[int, FrameType | None], None]:
    def pass_on(signum: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signum)

    return pass_on


def _work(work: Callable[[Stop], int], gone: int) -> None:
    """In the child: never returns."""
    code, stop = 1, Stop()
    try:
        os.setsid()
        stop.listen()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        threading.Thread(target=_stop_when_alone, args=(gone, stop), daemon=True).start()
        code = work(stop)
    except ComptoirError as error:
        code = exit_code(error)
        with contextlib.suppress(OSError):
            complain(error)
    except OSError as error:
        told = of_a_place(error)
        with contextlib.suppress(OSError):
            complain(told) if told else traceback.print_exc()
    except (KeyboardInterrupt, SystemExit):
        # A second signal of ours, or Ray's own handler while it starts.
        code = stop.status
    except BaseException:  # noqa: BLE001 - the last frame of this process
        with contextlib.suppress(OSError):
            traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def _stop_when_alone(gone: int, stop: Stop) -> None:
    with contextlib.suppress(OSError):
        os.read(gone, 1)
    stop.event.set()


def _is_ignored(signum: signal.Signals) -> bool:
    """Whether `nohup` ignores SIGHUP. Ctrl-C is always heard, because shells ignore it for `&`."""
    return signum == signal.SIGHUP and signal.getsignal(signum) == signal.SIG_IGN


@contextlib.contextmanager
def _blocked() -> Iterator[None]:
    old = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
