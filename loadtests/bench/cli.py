"""Options of the benchmark; wrong ones are refused in one line."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal, NoReturn

import typer

from loadtests.bench.compare.cells import ALL, QUICK, STANDARD
from loadtests.bench.compare.clients import CLIENTS
from loadtests.bench.compare.contenders import BASELINE, CONTENDERS
from loadtests.bench.compare.picture import SUFFIXES

COMMANDS = ("compare", "null", "idle", "work", "unread", "soak")
EXAMPLES: Mapping[str, str] = {
    "": "everything, beside vLLM and Ray Serve LLM",
    "--quick": "one round of the most telling cells",
    "--contenders vllm,comptoir --rounds 5 --picture data-path.svg": "two servers, and a picture",
    "--paired": "for machines of varying speed",
    "null": "the gateway alone, half a minute",
    "null --streams 400": "more streams side by side",
    "idle": "1,000 streams that wait: memory of the gateway",
    "work": "how long one request of 2 MB holds up all others",
    "unread": "200 clients that never read, beside a good one",
    "soak --minutes 10": "does anything grow under load?",
}
INTERRUPTED = 130


def example(options: str) -> str:
    """The command as it is typed."""
    return f'make bench ARGS="{options}"' if options else "make bench"


app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Measure the data path of Comptoir on this machine. Without a command: compare. "
    "`bench COMMAND --help` lists the options of one.\n\n"
    "Results are written to bench-results/. The exit code is 0 also where a bar is missed, unless "
    "--strict is given; 1 when something could not be measured; 2 for wrong input.",
    epilog="\n\n".join(f"{example(options)}: {what}" for options, what in EXAMPLES.items()),
)


def positive(text: str) -> float:
    """Parse a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise typer.BadParameter(f"{text!r} is not a number above 0")
    return value


StrictOption = Annotated[bool, typer.Option("--strict", help="Exit with 1 when a bar is missed.")]
RoundsOption = Annotated[
    int, typer.Option("--rounds", min=1, help="Number of rounds; medians are printed.")
]


# ---- beside others -----------------------------------------------------------------------------------


@app.command(epilog="Example: " + example("--contenders vllm,ray-direct,comptoir --rounds 5"))
def compare(
    contenders: Annotated[
        str,
        typer.Option(metavar="A,B", help="Servers to measure, in this order. Default: all."),
    ] = ",".join(CONTENDERS),
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Number of rounds. Default: 3, with --quick 1.")
    ] = None,
    paired: Annotated[
        bool,
        typer.Option(
            "--paired",
            help="Alternate each with vLLM's server every few seconds, the other frozen meanwhile.",
        ),
    ] = False,
    seconds: Annotated[
        float | None,
        typer.Option(
            parser=positive, help="Seconds per burst, about. Default: 5, with --paired 3."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One round of the most telling cells.")
    ] = False,
    all_cells: Annotated[
        bool, typer.Option("--all-cells", help="Every combination; takes hours.")
    ] = False,
    client: Annotated[
        Literal["vllm", "own", "both"],
        typer.Option(help="Load generator; only our own measures cells without streaming."),
    ] = "both",
    picture: Annotated[
        Path | None, typer.Option(help=f"File for the picture ({' or '.join(SUFFIXES)}).")
    ] = None,
    strict: StrictOption = False,
) -> int:
    """Compare Comptoir with vLLM's server and Ray Serve LLM.

    Starts each server in turn with the same tiny model and engine arguments, measures it in every cell and
    stops it, round after round; prints medians. About 15 minutes a round. On a machine of varying speed (a
    virtual one), --paired compares measurements close in time.
    """
    from loadtests.bench.compare import mode
    from loadtests.bench.compare.plan import ComparePlan

    if quick and all_cells:
        raise typer.BadParameter("not with --quick", param_hint="--all-cells")
    if picture is not None and picture.suffix not in SUFFIXES:
        wrong = f"{str(picture)!r} does not end in {' or '.join(SUFFIXES)}"
        raise typer.BadParameter(wrong, param_hint="--picture")
    plan = ComparePlan(
        contenders=_contenders(contenders, paired=paired),
        cells=ALL if all_cells else QUICK if quick else STANDARD,
        clients=CLIENTS if client == "both" else (client,),
        rounds=rounds or (1 if quick else 3),
        paired=paired,
        seconds=seconds,
        picture=picture,
    )
    return mode.run(plan, strict=strict)


def _contenders(text: str, *, paired: bool) -> list[str]:
    """The named contenders, each known, none twice."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in CONTENDERS:
            known = ", ".join(CONTENDERS)
            raise typer.BadParameter(
                f"there is no contender {name!r}; available: {known}", param_hint="--contenders"
            )
    if paired and BASELINE not in names:
        raise typer.BadParameter(
            f"compares with {BASELINE}; add it to --contenders", param_hint="--paired"
        )
    return names


@app.command(epilog="Example: " + example("soak --minutes 30 --strict"))
def soak(
    minutes: Annotated[float, typer.Option(parser=positive, help="Duration.")] = 10.0,
    streams: Annotated[int, typer.Option(min=1, help="Concurrent streams.")] = 64,
    strict: StrictOption = False,
) -> int:
    """Put Comptoir under load for minutes: does its memory grow?

    Prints the resident memory of every process after a minute and at the end.
    """
    from loadtests.bench.compare import soak as mode

    return mode.run(mode.SoakPlan(minutes=minutes, streams=streams), strict=strict)


# ---- the gateway alone -------------------------------------------------------------------------------


@app.command(epilog="Example: " + example("null --streams 400 --interval-ms 40"))
def null(
    rounds: RoundsOption = 3,
    requests: Annotated[int, typer.Option(min=500, help="Requests for the added latency.")] = 1000,
    parallel: Annotated[int, typer.Option(min=1, help="Concurrent requests.")] = 64,
    streams: Annotated[int, typer.Option(min=1, help="Concurrent streams.")] = 200,
    chunks: Annotated[int, typer.Option(min=50, help="Chunks per stream.")] = 150,
    interval_ms: Annotated[
        float, typer.Option(parser=positive, help="Milliseconds between two chunks.")
    ] = 20.0,
    strict: StrictOption = False,
) -> int:
    """Measure the gateway alone, in front of an engine that does nothing.

    Prints added latency, requests and SSE chunks per second of the gateway's CPU. Half a minute.
    """
    from loadtests.bench.null import mode
    from loadtests.bench.null.measure import NullPlan

    plan = NullPlan(
        latency_requests=requests,
        parallel=parallel,
        streams=streams,
        chunks=chunks,
        interval_ms=interval_ms,
    )
    return mode.run(plan, rounds, strict=strict)


@app.command(epilog="Example: " + example("idle --streams 2000 --hold 30"))
def idle(
    rounds: RoundsOption = 3,
    streams: Annotated[int, typer.Option(min=10, help="Concurrent streams.")] = 1000,
    hold: Annotated[
        float, typer.Option(parser=positive, help="Seconds for which they wait.")
    ] = 10.0,
    strict: StrictOption = False,
) -> int:
    """Measure the memory of the gateway per waiting stream.

    Opens streams that wait, twice, and looks at the gateway's memory. Two minutes.
    """
    from loadtests.bench.null.idle import IdlePlan, run_mode

    return run_mode(IdlePlan(streams=streams, hold_s=hold), rounds, strict=strict)


@app.command(epilog="Example: " + example("work --rounds 10 --strict"))
def work(
    rounds: Annotated[int, typer.Option(min=1, help="Number of rounds; the best counts.")] = 5,
    strict: StrictOption = False,
) -> int:
    """Measure how long one request holds up all others.

    Sends the heaviest bodies of the largest size, one at a time, and watches the event loop. A minute.
    """
    from loadtests.bench.work import mode

    return mode.run(mode.WorkPlan(rounds=rounds), strict=strict)


@app.command(epilog="Example: " + example("unread --clients 1000"))
def unread(
    rounds: RoundsOption = 1,
    clients: Annotated[int, typer.Option(min=1, help="Clients that never read.")] = 200,
    strict: StrictOption = False,
) -> int:
    """Put clients that never read beside one that does.

    One tenant opens streams and reads none of them; another keeps sending requests. Measures when the slots
    are free, and what the other tenant notices. A minute a round.
    """
    from loadtests.bench.null.unread import UnreadPlan, run_mode

    return run_mode(UnreadPlan(clients=clients), rounds, strict=strict)


# ---- the command line --------------------------------------------------------------------------------


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _refuse(message: str) -> int:
    print(f"bench: {message.rstrip('.')}; see --help", file=sys.stderr)
    return 2


def main(arguments: Sequence[str]) -> int:
    """Parse and run; the exit code. Without a command, `compare`."""
    words = list(arguments)
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        return _refuse(f"there is no command {words[0]!r}; available: {', '.join(COMMANDS)}")
    if not words or (words[0] not in COMMANDS and words[0] not in ("-h", "--help")):
        words.insert(0, "compare")
    # Ended from outside, everything that was started is stopped too.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = int(app(words, prog_name="bench", standalone_mode=False))
    except typer.BadParameter as error:
        return _refuse(error.format_message())
    except typer.TyperException as error:
        return _refuse(str(error))
    if code == INTERRUPTED:
        print("\nbench: interrupted", file=sys.stderr)
    return code
