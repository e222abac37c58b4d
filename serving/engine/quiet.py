"""Keeps the contents of requests and answers out of every log of an engine's processes: only records that
are known to be free of them pass.

vLLM and its libraries log text that they fail on: an answer that a tool parser could not read, tokens that
a grammar refused, the scheduler's state when a step fails. Of a record, therefore, only place, level and
kind of exception are written, unless its logger or its exact message is on a list here. The same applies
to uncaught exceptions and warnings, and printed output is dropped.

A starting replica has no requests, and everything is written: see `starting`. The entry point
`vllm.general_plugins` (vLLM's public plugin group) runs `silence` in each of vLLM's processes.
"""

from __future__ import annotations

import faulthandler
import io
import logging
import os
import sys
import threading
import traceback
import types
import warnings
from collections.abc import Mapping
from typing import Any, TextIO

# Ours write no content, and Ray's see none: requests do not pass Ray.
TRUSTED = ("serving", "ray")
# Start-up only: also what they raise is the operator's own.
WHOLE = frozenset(
    {
        ("vllm.v1.engine.core", "EngineCore failed to start."),
        ("vllm.v1.executor.multiproc_executor", "WorkerProc failed to start."),
    }
)
# Their messages hold names of processes and numbers; of what they raise only the kind is written.
MESSAGES = frozenset(
    {
        ("vllm.v1.engine.core", "EngineCore encountered a fatal error."),
        ("vllm.v1.engine.async_llm", "AsyncLLM output_handler failed."),
        ("vllm.v1.executor.multiproc_executor", "WorkerProc failed."),
        ("vllm.v1.executor.multiproc_executor", "WorkerProc hit an exception."),
        (
            "vllm.v1.executor.multiproc_executor",
            "Worker proc %s died unexpectedly (exit code: %s), shutting down executor.",
        ),
        (
            "vllm.v1.executor.ray_executor_v2",
            "RayWorkerProc rank=%s died unexpectedly, shutting down executor.",
        ),
    }
)
# Exceptions of the device, whose messages hold sizes and names of kernels.
DEVICE_ERRORS = ("torch.OutOfMemoryError", "torch.AcceleratorError")
# Places of an exception that are written, the innermost first.
MAX_PLACES = 8

# The process that is starting, if any. Its children, forked meanwhile, are not.
_starting_in: int | None = None
_make_record = logging.Logger.makeRecord


def starting() -> None:
    """Let this process write everything until `silence` and `serving`, because it has no requests yet."""
    global _starting_in
    _starting_in = os.getpid()


def serving() -> None:
    """Write only records known to be free of requests from now on, because requests come."""
    global _starting_in
    _starting_in = None
    silence()


def silence() -> None:
    """Install this in the process; may be called any number of times."""
    # An error while a record is written would print its arguments.
    logging.raiseExceptions = False
    logging.Logger.makeRecord = _record  # type: ignore[method-assign]
    if _starting_in == os.getpid():
        return
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable
    warnings.showwarning = _warn
    if not isinstance(sys.stderr, Nowhere):
        _divert()


def _divert() -> None:
    """Let log handlers keep their output, and drop all other: libraries in C print, too (xgrammar does)."""
    real = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    if not logging.root.handlers:
        # What `logging.lastResort` did, which writes to whatever `sys.stderr` is.
        handler = logging.StreamHandler(real)
        handler.setLevel(logging.WARNING)
        logging.root.addHandler(handler)
    for logger, handler in _stream_handlers():
        if _descriptor(handler.stream) in (1, 2):
            # A new one: those that follow `sys.stderr` cannot be given another stream.
            other = logging.StreamHandler(real)
            other.setLevel(handler.level)
            other.setFormatter(handler.formatter)
            for one in handler.filters:
                other.addFilter(one)
            logger.removeHandler(handler)
            logger.addHandler(other)
    faulthandler.enable(file=real)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        if stream is not None:
            stream.flush()
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    sys.stdout, sys.stderr = Nowhere(1), Nowhere(2)


def _stream_handlers() -> list[tuple[logging.Logger, logging.StreamHandler[Any]]]:
    known = logging.root.manager.loggerDict.values()
    return [
        (logger, handler)
        for logger in (logging.root, *(one for one in known if isinstance(one, logging.Logger)))
        for handler in logger.handlers
        if isinstance(handler, logging.StreamHandler)
    ]


def _descriptor(stream: Any) -> int | None:
    try:
        return int(stream.fileno())
    except (AttributeError, OSError, ValueError):
        return None


class Nowhere(io.TextIOBase):
    """A stream that drops printed output."""

    encoding = "utf-8"

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)

    def fileno(self) -> int:
        return self._descriptor


def _record(
    self: logging.Logger,
    name: str,
    level: int,
    fn: str,
    lno: int,
    msg: object,
    args: Any,
    exc_info: Any,
    func: str | None = None,
    extra: Mapping[str, object] | None = None,
    sinfo: str | None = None,
) -> logging.LogRecord:
    """Replaces `Logger.makeRecord`, which makes every record, whatever its handlers and filters."""
    error = exc_info[1] if exc_info else None
    known = (name, msg) if isinstance(msg, str) else None
    is_trusted = name.partition(".")[0] in TRUSTED
    if _starting_in == os.getpid() or known in WHOLE:
        pass
    else:
        if not is_trusted:
            extra = None
        if not is_trusted and known not in MESSAGES:
            msg, args = f"[withheld] {os.path.basename(fn)}:{lno}", ()
        if error is not None:
            kind = " " + described(error)
            msg = str(msg) + (kind.replace("%", "%%") if args else kind)
        exc_info = sinfo = None
    return _make_record(self, name, level, fn, lno, msg, args, exc_info, func, extra, sinfo)


def described(error: BaseException) -> str:
    """The kind and origin of an exception; its message only for errors of the device."""
    kind = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    places = [
        f"{os.path.basename(frame.f_code.co_filename)}:{line} {frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    said = f": {error}" if kind in DEVICE_ERRORS else ""
    where = " < ".join(reversed(places[-MAX_PLACES:]))
    return f"{kind}{said}" + (f" at {where}" if where else "")


_logger = logging.getLogger("serving.engine.quiet")


def _uncaught(
    kind: type[BaseException], error: BaseException, trace: types.TracebackType | None
) -> None:
    _logger.error("uncaught %s", described(error))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and args.exc_type is not SystemExit:
        _logger.error("uncaught in a thread: %s", described(args.exc_value))


def _unraisable(args: Any) -> None:
    if args.exc_value is not None:
        _logger.error("ignored: %s", described(args.exc_value))


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    _logger.warning("%s at %s:%s", category.__name__, os.path.basename(filename), lineno)
