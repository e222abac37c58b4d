"""Options of the benchmark; wrong ones are answered in one line."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypeAlias

from loadtests.bench.compare.cells import ALL, QUICK, STANDARD
from loadtests.bench.compare.clients import CLIENTS
from loadtests.bench.compare.contenders import BASELINE, CONTENDERS
from loadtests.bench.compare.picture import SUFFIXES

COMMANDS = ("compare", "null", "idle", "work", "unread", "soak")
EXAMPLES = """\
examples:
  make bench                                    everything, beside vLLM and Ray Serve LLM
  make bench ARGS="--quick"                     one round of the cells that tell most
  make bench ARGS="--contenders vllm,comptoir --rounds 5 --picture data-path.svg"
  make bench ARGS="--paired"                    for machines whose speed changes
  make bench ARGS="null"                        the gateway alone, half a minute
  make bench ARGS="null --streams 400"          more streams side by side
  make bench ARGS="idle"                        1,000 streams that wait: memory of the gateway
  make bench ARGS="work"                        how long one request of 2 MB holds up all others
  make bench ARGS="unread"                      200 clients that never read, beside a good one
  make bench ARGS="soak --minutes 10"           does anything grow under load?

Without a command: compare. `bench COMMAND --help` lists the options of one.
Results are written to bench-results/. The exit code is 0 also where a bar is missed, unless
--strict is given; 1 when something could not be measured; 2 for wrong input.
"""


MORE = {
    "compare": "Each server in turn is started with the same tiny model and engine arguments, measured "
    "in every cell and stopped, round after round; medians are printed. About 15 minutes a round. On a "
    "machine whose speed changes (a virtual one), --paired compares neighbours in time.",
    "null": "Added latency, requests and SSE chunks per second of the gateway's CPU. Half a minute.",
    "idle": "Opens streams that wait, twice, and looks at the gateway's memory. Two minutes.",
    "work": "Sends the heaviest bodies of the largest size, one at a time, and watches the event loop. "
    "A minute.",
    "unread": "One tenant opens streams and reads none of them; another one goes on asking. When are the "
    "slots free, and what does the other one notice? A minute a round.",
    "soak": "Resident memory of every process after a minute and at the end.",
}
EXAMPLE_OPTIONS = {
    "compare": "--contenders vllm,ray-direct,comptoir --rounds 5 --picture data-path.svg",
    "null": "--streams 400 --interval-ms 40",
    "idle": "--streams 2000 --hold 30",
    "work": "--rounds 10 --strict",
    "unread": "--clients 1000",
    "soak": "--minutes 30 --strict",
}


Commands: TypeAlias = "argparse._SubParsersAction[OneLineParser]"


class UsageError(Exception):
    """Options that do not go together; the message names them."""


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong and where to look, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"bench: {message.removeprefix('argument ')}; see --help\n")


def whole(least: int) -> Callable[[str], int]:
    """A whole number of at least so much."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
        return int(text)

    return parse


def among(known: Iterable[str], what: str) -> Callable[[str], list[str]]:
    """A list, separated by commas, of names that exist, none twice."""
    names = list(known)

    def parse(text: str) -> list[str]:
        chosen = [name.strip() for name in text.split(",")]
        for name in chosen:
            if name not in names:
                raise argparse.ArgumentTypeError(
                    f"there is no {what} {name!r}; there are: {', '.join(names)}"
                )
        return list(dict.fromkeys(chosen))

    return parse


def picture_path(text: str) -> Path:
    """A file that a picture can be copied to."""
    path = Path(text)
    if path.suffix not in SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text!r} does not end in {' or '.join(SUFFIXES)}")
    return path


def positive(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = OneLineParser(
        prog="bench",
        description="Measure the data path of Comptoir on this machine.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_compare(commands)
    _add_null(commands)
    _add_idle(commands)
    _add_work(commands)
    _add_unread(commands)
    _add_soak(commands)
    return parser


def _command(commands: Commands, name: str, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=text,
        description=f"{text}. {MORE[name]}",
        epilog=f'example: make bench ARGS="{name} {EXAMPLE_OPTIONS[name]}"',
    )
    parser.add_argument("--strict", action="store_true", help="fail when a bar is missed")
    return parser


def _add_compare(commands: Commands) -> None:
    parser = _command(commands, "compare", "Comptoir beside vLLM's server and Ray Serve LLM")
    names = ", ".join(CONTENDERS)
    parser.add_argument(
        "--contenders",
        type=among(CONTENDERS, "contender"),
        default=list(CONTENDERS),
        metavar="A,B",
        help=f"who, in this order (all): {names}",
    )
    parser.add_argument("--rounds", type=whole(1), help="turns of each server (3; with --quick 1)")
    parser.add_argument(
        "--paired",
        action="store_true",
        help="measure each beside vLLM's server, in turns of seconds, the other frozen meanwhile",
    )
    parser.add_argument(
        "--seconds", type=positive, help="of each burst, about (5; with --paired 3)"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_true", help="one round of the cells that tell most")
    which.add_argument("--all-cells", action="store_true", help="every combination, hours")
    parser.add_argument(
        "--client",
        choices=[*CLIENTS, "both"],
        default="both",
        help="who measures (%(default)s); what is not streamed only our own can",
    )
    parser.add_argument(
        "--picture", type=picture_path, help="copy the picture there (.svg or .png)"
    )
    parser.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> int:
    from loadtests.bench.compare import mode
    from loadtests.bench.compare.plan import ComparePlan

    if options.paired and BASELINE not in options.contenders:
        raise UsageError(f"--paired: nobody is measured beside {BASELINE}; add it to --contenders")
    cells = ALL if options.all_cells else QUICK if options.quick else STANDARD
    plan = ComparePlan(
        contenders=options.contenders,
        cells=cells,
        clients=CLIENTS if options.client == "both" else (options.client,),
        rounds=options.rounds or (1 if options.quick else 3),
        paired=options.paired,
        seconds=options.seconds,
        picture=options.picture,
    )
    return mode.run(plan, strict=options.strict)


def _add_null(commands: Commands) -> None:
    parser = _command(commands, "null", "the gateway alone, before an engine that does nothing")
    parser.add_argument(
        "--rounds", type=whole(1), default=3, help="times; medians are printed (%(default)s)"
    )
    parser.add_argument(
        "--requests", type=whole(500), default=1000, help="for added latency (%(default)s)"
    )
    parser.add_argument(
        "--parallel", type=whole(1), default=64, help="requests at once (%(default)s)"
    )
    parser.add_argument(
        "--streams", type=whole(1), default=200, help="streams at once (%(default)s)"
    )
    parser.add_argument(
        "--chunks", type=whole(50), default=150, help="chunks of each stream (%(default)s)"
    )
    parser.add_argument(
        "--interval-ms", type=positive, default=20.0, help="between two chunks (%(default)s)"
    )
    parser.set_defaults(run=_null)


def _null(options: argparse.Namespace) -> int:
    from loadtests.bench.null import mode
    from loadtests.bench.null.measure import NullPlan

    plan = NullPlan(
        latency_requests=options.requests,
        parallel=options.parallel,
        streams=options.streams,
        chunks=options.chunks,
        interval_ms=options.interval_ms,
    )
    return mode.run(plan, options.rounds, strict=options.strict)


def _add_idle(commands: Commands) -> None:
    parser = _command(commands, "idle", "memory of the gateway per stream that waits")
    parser.add_argument(
        "--rounds", type=whole(1), default=3, help="times; medians are printed (%(default)s)"
    )
    parser.add_argument(
        "--streams", type=whole(10), default=1000, help="streams at once (%(default)s)"
    )
    parser.add_argument(
        "--hold", type=positive, default=10.0, help="seconds that they wait (%(default)s)"
    )
    parser.set_defaults(run=_idle)


def _idle(options: argparse.Namespace) -> int:
    from loadtests.bench.null.idle import IdlePlan, run_mode

    plan = IdlePlan(streams=options.streams, hold_s=options.hold)
    return run_mode(plan, options.rounds, strict=options.strict)


def _add_work(commands: Commands) -> None:
    parser = _command(commands, "work", "how long one request holds up all others")
    parser.add_argument(
        "--rounds", type=whole(1), default=5, help="times; the best counts (%(default)s)"
    )
    parser.set_defaults(run=_work)


def _work(options: argparse.Namespace) -> int:
    from loadtests.bench.work import mode

    return mode.run(mode.WorkPlan(rounds=options.rounds), strict=options.strict)


def _add_unread(commands: Commands) -> None:
    parser = _command(commands, "unread", "clients that never read, beside one that does")
    parser.add_argument(
        "--rounds", type=whole(1), default=1, help="times; medians are printed (%(default)s)"
    )
    parser.add_argument(
        "--clients", type=whole(1), default=200, help="that never read (%(default)s)"
    )
    parser.set_defaults(run=_unread)


def _unread(options: argparse.Namespace) -> int:
    from loadtests.bench.null.unread import UnreadPlan, run_mode

    return run_mode(UnreadPlan(clients=options.clients), options.rounds, strict=options.strict)


def _add_soak(commands: Commands) -> None:
    parser = _command(commands, "soak", "Comptoir under load for minutes: does it grow?")
    parser.add_argument("--minutes", type=positive, default=10.0, help="how long (%(default)s)")
    parser.add_argument(
        "--streams", type=whole(1), default=64, help="streams at once (%(default)s)"
    )
    parser.set_defaults(run=_soak)


def _soak(options: argparse.Namespace) -> int:
    from loadtests.bench.compare import soak

    plan = soak.SoakPlan(minutes=options.minutes, streams=options.streams)
    return soak.run(plan, strict=options.strict)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    """Parse and run; the exit code. Without a command, `compare`."""
    words = list(arguments)
    parser = build_parser()
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        parser.error(f"there is no command {words[0]!r}; there are: {', '.join(COMMANDS)}")
    if not words or (words[0] not in COMMANDS and words[0] not in ("-h", "--help")):
        words.insert(0, "compare")
    options = parser.parse_args(words)
    # Ended from outside, everything that was started is stopped too.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return int(options.run(options))
    except UsageError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("\nbench: interrupted", file=sys.stderr)
        return 130
