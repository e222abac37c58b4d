"""Reads traces of real traffic: times and lengths of requests, no text.

Mooncake (https://github.com/kvcache-ai/Mooncake): JSON lines with `timestamp` in milliseconds,
`input_length`, `output_length` and `hash_ids` of blocks of 512 tokens. Azure, 2023 and 2024
(https://github.com/Azure/AzurePublicDataset): CSV with `TIMESTAMP`, `ContextTokens`, `GeneratedTokens`.
BurstGPT (https://github.com/HPMLL/BurstGPT): CSV with `Timestamp` in seconds, `Request tokens`,
`Response tokens`; failed requests have no response tokens and are left out.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import orjson

from serving.errors import ConfigError

BLOCK_TOKENS = 512


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
        ConfigError: the file is not there, or a line of it is not in the format; it names file and line.
    """
    read = _READERS.get(form)
    if read is None:
        raise ConfigError(
            f"format: '{form}' is unknown; known are: {', '.join(_READERS)}", param="format"
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
        raise ConfigError(f"trace: {path}: there is no request in it", param="trace")
    return Trace(tuple(requests), left_out)


def _mooncake(path: Path) -> Iterator[TraceRequest]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = orjson.loads(line)
                yield TraceRequest(
                    float(row["timestamp"]) / 1000,
                    int(row["input_length"]),
                    int(row["output_length"]),
                    tuple(int(one) for one in row.get("hash_ids", ())),
                )
            except KeyError as error:
                raise _wrong(path, number, f"there is no {error}") from None
            except (ValueError, TypeError, AttributeError):
                raise _wrong(path, number, "it is not a JSON object of a Mooncake trace") from None


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
            raise _wrong(path, number, f"TIMESTAMP '{text[:40]}' is no time") from None
        at_s = (at - datetime(2000, 1, 1, tzinfo=at.tzinfo)).total_seconds()
        yield TraceRequest(
            at_s,
            _whole(path, number, row, "ContextTokens"),
            _whole(path, number, row, "GeneratedTokens"),
        )


def _burstgpt(path: Path) -> Iterator[TraceRequest]:
    for number, row in _rows(path, ("Timestamp", "Request tokens", "Response tokens")):
        try:
            at_s = float(row["Timestamp"])
        except ValueError:
            raise _wrong(path, number, "Timestamp is no number of seconds") from None
        yield TraceRequest(
            at_s,
            _whole(path, number, row, "Request tokens"),
            _whole(path, number, row, "Response tokens"),
        )


_READERS: Mapping[str, Callable[[Path], Iterator[TraceRequest]]] = {
    "mooncake": _mooncake,
    "azure": _azure,
    "burstgpt": _burstgpt,
}


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = [one for one in columns if one not in (reader.fieldnames or ())]
        if missing:
            raise _wrong(
                path, 1, f"the column {missing[0]} is missing; it needs {', '.join(columns)}"
            )
        for row in reader:
            if None in row.values():
                raise _wrong(path, reader.line_num, "it has fewer columns than the first")
            yield reader.line_num, row


def _whole(path: Path, number: int, row: Mapping[str, str], column: str) -> int:
    try:
        return int(float(row[column]))
    except (ValueError, OverflowError):
        raise _wrong(path, number, f"{column} is no number of tokens") from None


def _wrong(path: Path, line: int, what: str) -> ConfigError:
    return ConfigError(f"trace: {path}, line {line}: {what}", param="trace")
