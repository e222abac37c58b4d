"""Reads traces of real traffic: times and lengths of requests, no text.

Mooncake (https://github.com/kvcache-ai/Mooncake): JSON lines with `timestamp` in milliseconds,
`input_length`, `output_length` and `hash_ids` of blocks of 512 tokens. Azure, 2023 and 2024
(https://github.com/Azure/AzurePublicDataset): CSV with `TIMESTAMP`, `ContextTokens`, `GeneratedTokens`.
BurstGPT (https://github.com/HPMLL/BurstGPT): CSV with `Timestamp` in seconds, `Request tokens`,
`Response tokens`; failed requests have no response tokens and are left out.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from serving.errors import ConfigError

BLOCK_TOKENS = 512
_REPAIR = "correct the line or remove it"


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request; `at_s` counts from the first of the trace."""

    at_s: float
    input_tokens: int
    output_tokens: int
    block_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in the order of their times; `left_out` had no answer."""

    requests: tuple[TraceRequest, ...]
    left_out: int = 0


def read_trace(path: Path, form: str, speed: float, until_s: float) -> Trace:
    """Requests of the first `until_s` seconds, played `speed` times as fast.

    Raises:
        ConfigError: the file is not there, or a line of it is not in the format; it names file, line, column.
    """
    read = _READERS.get(form)
    if read is None:
        raise ConfigError(
            f"format: '{form}' is unknown; known: {', '.join(_READERS)}", param="format"
        )
    found: list[TraceRequest] = []
    left_out, first_s = 0, None
    # Traces are in order but for neighbours that were logged together: what lies far behind is not read.
    slack_s = 60.0
    try:
        for one in read(path):
            first_s = one.at_s if first_s is None else min(first_s, one.at_s)
            if (one.at_s - first_s) / speed > until_s + slack_s:
                break
            if one.output_tokens < 1 or one.input_tokens < 1:
                left_out += 1
            else:
                found.append(one)
    except OSError as error:
        raise ConfigError(f"trace: {path}: {error.strerror or error}", param="trace") from None
    except UnicodeDecodeError:
        raise ConfigError(f"trace: {path}: is not UTF-8 text", param="trace") from None
    zero_s = first_s or 0.0
    played = (
        TraceRequest(
            (one.at_s - zero_s) / speed, one.input_tokens, one.output_tokens, one.block_ids
        )
        for one in found
    )
    requests = sorted((one for one in played if one.at_s < until_s), key=lambda one: one.at_s)
    if not requests:
        raise ConfigError(
            f"trace: {path}: there is no request in it that got an answer, in its first "
            f"{until_s * speed:g} s; raise duration_s or name another file",
            param="trace",
        )
    return Trace(tuple(requests), left_out)


def _mooncake(path: Path) -> Iterator[TraceRequest]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = orjson.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise _wrong(path, number, "it is not a JSON object; is arrivals.format right?")
            blocks = row.get("hash_ids", [])
            if not isinstance(blocks, list) or not all(isinstance(one, int) for one in blocks):
                raise _wrong(path, number, f"hash_ids is no list of whole numbers; {_REPAIR}")
            yield TraceRequest(
                _value(path, number, row, "timestamp") / 1000,
                int(_value(path, number, row, "input_length")),
                int(_value(path, number, row, "output_length")),
                tuple(blocks),
            )


def _azure(path: Path) -> Iterator[TraceRequest]:
    for number, row in _rows(path, ("TIMESTAMP", "ContextTokens", "GeneratedTokens")):
        # 2023: seven digits of a second; 2024: six, and a time zone.
        text = row["TIMESTAMP"].strip()
        whole, dot, rest = text.partition(".")
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        try:
            at = datetime.fromisoformat(
                f"{whole}{dot}{digits[:6].ljust(6, '0') if dot else ''}{rest[len(digits) :]}"
            )
        except ValueError:
            raise _wrong(path, number, f"TIMESTAMP '{text[:40]}' is no time; {_REPAIR}") from None
        at_s = (at - datetime(2000, 1, 1, tzinfo=at.tzinfo)).total_seconds()
        yield TraceRequest(
            at_s,
            int(_value(path, number, row, "ContextTokens")),
            int(_value(path, number, row, "GeneratedTokens")),
        )


def _burstgpt(path: Path) -> Iterator[TraceRequest]:
    for number, row in _rows(path, ("Timestamp", "Request tokens", "Response tokens")):
        yield TraceRequest(
            _value(path, number, row, "Timestamp"),
            int(_value(path, number, row, "Request tokens")),
            int(_value(path, number, row, "Response tokens")),
        )


_READERS: Mapping[str, Callable[[Path], Iterator[TraceRequest]]] = {
    "mooncake": _mooncake,
    "azure": _azure,
    "burstgpt": _burstgpt,
}


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Lines by their numbers; columns that are not asked for may be there, in any order."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        try:
            missing = [one for one in columns if one not in (reader.fieldnames or ())]
            if missing:
                needed = ", ".join(columns)
                raise _wrong(
                    path,
                    1,
                    f"the column {missing[0]} is missing, of {needed}; is arrivals.format right?",
                )
            for row in reader:
                if None in row.values():
                    raise _wrong(
                        path, reader.line_num, f"it has fewer columns than the first; {_REPAIR}"
                    )
                yield reader.line_num, row
        except csv.Error as error:
            raise _wrong(path, reader.line_num + 1, f"it is not CSV: {error}; {_REPAIR}") from None


def _value(path: Path, line: int, row: Mapping[str, Any], column: str) -> float:
    if column not in row:
        raise _wrong(path, line, f"there is no {column}; is arrivals.format right?")
    try:
        value = float(row[column])
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    # "nan" and "inf" are numbers to `float`, and would leave out requests without a word.
    if not math.isfinite(value):
        raise _wrong(path, line, f"{column} '{str(row[column])[:40]}' is no number; {_REPAIR}")
    return value


def _wrong(path: Path, line: int, what: str) -> ConfigError:
    return ConfigError(f"trace: {path}, line {line}: {what}", param="trace")
