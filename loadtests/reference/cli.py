"""The command line of the reference server, made from its configuration."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from loadtests.processes.child import raise_open_files_limit
from loadtests.reference.config import ReferenceConfig
from loadtests.reference.server import serve
from serving.api import METRICS
from serving.config.base import validated
from serving.errors import ConfigError

EXAMPLES = f"""\
modes: fixed (tokens at ttft-ms, then every itl-ms), jitter (the same, drawn around it), stalls (with a pause
before every N-th token), queue (replicas with slots and a batch knee, see loadtests/simulation/queueing.py).

examples:
  python -m loadtests.reference --port 8100 --ttft-ms 200 --itl-ms 20
  python -m loadtests.reference --mode stalls --stall-every 20 --stall-ms 300
  python -m loadtests.reference --mode queue --replicas 2 --slots 32 --knee 8 --prefill-ms-per-token 0.2
  python -m loadtests.reference --freeze-at 10 --freeze-for 2

Addresses beside OpenAI's: {METRICS}, /truth (JSON lines; DELETE forgets them), /freezes, and
POST /freeze {{"in_s": 1, "for_s": 2}}. The first line it prints is JSON with its url, port and pid.
The exit code is 2 for wrong input.
"""


def flag(name: str) -> str:
    """The option of a configuration key."""
    return "--" + name.removesuffix("_s").replace("_", "-")


def parser() -> argparse.ArgumentParser:
    """All options; those that are not given are not in the namespace."""
    made = argparse.ArgumentParser(
        prog="python -m loadtests.reference",
        description="An OpenAI-compatible server that answers at times known in advance.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    for name, field in ReferenceConfig.model_fields.items():
        text = f"{field.description} (default: {field.default})"
        if field.annotation is bool:
            made.add_argument(flag(name), dest=name, action="store_true", help=field.description)
        else:
            made.add_argument(
                flag(name),
                dest=name,
                metavar="|".join(map(str, get_args(field.annotation))) if name == "mode" else "X",
                help=text,
            )
    return made


def arguments(options: Mapping[str, Any]) -> list[str]:
    """The command line that stands for these keys.

    Raises:
        ConfigError: naming the key that does not fit.
    """
    config = validated(ReferenceConfig, options, "options of the reference server")
    line: list[str] = []
    for name in options:
        value = getattr(config, name)
        if value is True:
            line.append(flag(name))
        elif value is not None and value is not False:
            line += [flag(name), str(value)]
    return line


def main(argv: Sequence[str]) -> int:
    """Serve until the process is ended."""
    try:
        config = validated(ReferenceConfig, vars(parser().parse_args(argv)), "options")
    except ConfigError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 2

    def announce(port: int) -> None:
        # Nothing here makes cycles for long, and a collection would delay every stream.
        gc.freeze()
        gc.disable()
        url = f"http://{config.host}:{port}"
        print(json.dumps({"url": url, "port": port, "pid": os.getpid()}), flush=True)

    raise_open_files_limit(65_536)
    try:
        asyncio.run(serve(config, announce))
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        print(f"error: host, port: cannot listen: {error.strerror}", file=sys.stderr)
        return 2
    return 0
