"""`comptoir load`: runs of load, the highest rate that an endpoint holds, reports, comparisons.

Slow imports (numpy, plotly) happen when a command needs them, because every `comptoir` imports this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from loadtests.commands.run_view import (
    ProgressBar,
    arrivals_in_words,
    holds,
    no_answer_in_words,
    show_summary,
)
from loadtests.commands.scenario_options import (
    KEY_VARIABLE,
    SHIPPED,
    Asked,
    adjusted,
    default_folder,
    export_key,
    load,
    one_class,
)
from loadtests.workload.scenario import MOST_TOKENS, Scenario
from serving.commands.output import console, note, say, show
from serving.errors import ConfigError, StackError

EXIT_WORSE, EXIT_INVALID, EXIT_SLO, EXIT_BROKEN = 3, 4, 5, 6

app = typer.Typer(
    no_args_is_help=True,
    help="Load tests of any OpenAI-compatible endpoint, on Locust.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong input, 3 worse (compare), "
    "4 the run is invalid, 5 the SLO is not met (run --require-slo), "
    "6 answers with status 200 were incomplete or malformed.",
)

ScenarioArgument = Annotated[
    str, typer.Argument(metavar="SCENARIO", help="A YAML file, or the name of a shipped scenario.")
]
ClassOption = Annotated[
    str | None, typer.Option("--class", help="The one class of the scenario to send.")
]
PrecisionOption = Annotated[
    float, typer.Option("--precision", min=0.01, max=1, help="Precision of the rate: 0.1 is 10 %.")
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="FOLDER", help="Folder of the result. Default: runs/..."),
]
UrlOption = Annotated[
    str | None, typer.Option("--url", help="The endpoint. Default: what the scenario says.")
]
ProcessesOption = Annotated[
    int, typer.Option("--processes", min=1, help="Generator processes, about one per core.")
]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="The model that all classes ask for.")
]
InputOption = Annotated[
    int | None,
    typer.Option("--input", min=1, max=MOST_TOKENS, help="Prompt tokens, the same for all."),
]
OutputOption = Annotated[
    int | None,
    typer.Option("--output", min=1, max=MOST_TOKENS, help="Completion tokens, the same for all."),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key", envvar=KEY_VARIABLE, help="API key, if the endpoint needs one: for all tenants."
    ),
]
KeyEnvOption = Annotated[
    list[str] | None,
    typer.Option(
        "--key-env",
        metavar="TENANT=VARIABLE",
        help="The environment variable with a tenant's API key; repeatable.",
    ),
]


@app.command("list")
def list_() -> None:
    """List the scenarios that are shipped: names for `run` and `sweep`.

    Example: comptoir load list
    """
    table = Table("scenario", "what it does", box=None, pad_edge=False)
    for path in sorted(SHIPPED.glob("*.yaml")):
        table.add_row(path.stem, escape(" ".join(Scenario.load(path).description.split())))
    show(table)


@app.command()
def run(
    scenario: ScenarioArgument,
    out: OutOption = None,
    url: UrlOption = None,
    model: ModelOption = None,
    input_tokens: InputOption = None,
    output_tokens: OutputOption = None,
    key: KeyOption = None,
    rate: Annotated[
        float | None, typer.Option("--rate", min=1e-6, help="Requests per second.")
    ] = None,
    users: Annotated[
        int | None, typer.Option("--users", min=1, help="Number of users of a closed loop.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option("--duration", min=0.1, help="Duration of sending, in seconds.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Seed of the arrivals and the prompts.")
    ] = None,
    key_env: KeyEnvOption = None,
    processes: ProcessesOption = 1,
    web: Annotated[
        int | None, typer.Option("--web", metavar="PORT", help="Open Locust's web UI on this port.")
    ] = None,
    require_slo: Annotated[
        bool, typer.Option("--require-slo", help="Exit with 5 when a class misses its SLO.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Send a scenario's load, and leave records, a summary and a report.

    Example: comptoir load run chat --url https://llm.example.eu --model NAME --rate 5 --duration 60
    """
    from loadtests.generator.launch import run as run_now

    asked = Asked(model, input_tokens, output_tokens, export_key(key))
    plan = adjusted(load(scenario), url, rate, users, duration, seed, key_env, asked=asked)
    folder = out or default_folder(plan.name)
    _announce(plan, folder, web)
    with ProgressBar(plan.duration_s) as show:
        finished = run_now(plan, folder, processes, web, show)
    if as_json:
        console.print_json(data=finished.summary)
    else:
        show_summary(finished.summary)
        say(f"report: {folder / 'report.html'}")
    _end_run(plan.target.url, finished.summary, require_slo=require_slo)


def _announce(plan: Scenario, folder: Path, web: int | None) -> None:
    """Announce the load, and the folder of the result."""
    note(
        f"{plan.name}: {arrivals_in_words(plan)} at {plan.target.url}, {plan.duration_s:g} s; into {folder}"
    )
    for model in sorted({each.model for each in plan.classes} - {*plan.target.tokenizers}):
        note(
            f"prompts for {model} are as long as asked for only roughly: no target.tokenizers for it"
        )
    if web is not None:
        note(f"Locust's web UI: http://127.0.0.1:{web} (Ctrl-C ends it)")


def _end_run(url: str, summary: dict[str, Any], *, require_slo: bool) -> None:
    """The exit code of a run that has been shown."""
    if not summary["valid"]:
        raise typer.Exit(EXIT_INVALID)
    if summary["broken"]:
        raise typer.Exit(EXIT_BROKEN)
    if require_slo and any(not holds(one) for one in summary["groups"]):
        raise typer.Exit(EXIT_SLO)
    if summary["requests"] and not summary["ok"]:
        raise StackError(no_answer_in_words(url, summary))


@app.command()
def sweep(
    scenario: ScenarioArgument,
    out: OutOption = None,
    url: UrlOption = None,
    model: ModelOption = None,
    class_name: ClassOption = None,
    input_tokens: InputOption = None,
    output_tokens: OutputOption = None,
    key: KeyOption = None,
    low: Annotated[float, typer.Option("--from", min=1e-3, help="The first rate, per second.")] = 1,
    high: Annotated[float, typer.Option("--to", min=1e-3, help="The highest rate.")] = 1000,
    duration: Annotated[
        float, typer.Option("--duration", min=2, help="Seconds per rate, more for low ones.")
    ] = 60,
    precision: PrecisionOption = 0.1,
    max_points: Annotated[
        int, typer.Option("--max-points", min=1, help="Runs at most, repetitions included.")
    ] = 20,
    replicas: Annotated[
        int, typer.Option("--replicas", min=1, help="Replicas of the model while it is measured.")
    ] = 1,
    gpu: Annotated[str | None, typer.Option("--gpu", help="Kind of GPU, for the plan.")] = None,
    gpus_per_replica: Annotated[
        int, typer.Option("--gpus-per-replica", min=0, help="GPUs of a replica, for the plan.")
    ] = 1,
    key_env: KeyEnvOption = None,
    processes: ProcessesOption = 1,
) -> None:
    """Find the highest rate at which the SLO holds: double, bisect, confirm; close rates are run again.

    Leaves sweep.json, which `comptoir plan` reads, a report, and every run.

    Example: comptoir load sweep chat --class chat --from 2 --duration 30 --gpu h100
    """
    from loadtests.analysis.rate_search import Search
    from loadtests.commands.run_sweep import Hardware
    from loadtests.commands.run_sweep import sweep as sweep_now
    from loadtests.commands.sweep_view import show_found, show_rates

    asked = Asked(model, has_key=export_key(key))
    plan = adjusted(load(scenario), url, None, None, duration, None, key_env, asked=asked)
    plan = one_class(plan, class_name, input_tokens, output_tokens)
    folder = out or default_folder(f"sweep-{plan.name}")
    hardware = Hardware(gpu, gpus_per_replica if gpu else 0, replicas)
    if high < low:
        raise ConfigError(f"--to: {high:g} is below --from, {low:g}", param="--to")
    search = Search(low, high, precision, max_points)
    document = sweep_now(plan, folder, search, hardware, processes, note)
    show_rates(document, plan.classes[0].slo.target)
    _refuse_unconfirmed(document)
    show_found(document, folder)


def _refuse_unconfirmed(document: Mapping[str, Any]) -> None:
    """The exit code of a sweep that found no rate, and why it did not."""
    if document["confirmed"]:
        return
    if any(one["broken"] for one in document["points"]):
        say(
            "answers with status 200 were incomplete or malformed: no rate holds until they are not"
        )
        raise typer.Exit(EXIT_BROKEN)
    say("no rate was confirmed to hold: lower --from, or look at the report")
    raise typer.Exit(EXIT_SLO)


@app.command()
def report(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder of a run or of a sweep.")
    ],
) -> None:
    """Make the summary and the report of a run anew, from its records.

    Example: comptoir load report runs/a
    """
    from loadtests import report as reports
    from loadtests.generator.finish import finish

    if (folder / "sweep.json").exists():
        say(f"report: {reports.build_sweep(folder)}")
        return
    if not (folder / "records.jsonl").exists():
        raise ConfigError(f"{folder}: there is no run and no sweep in it", param="FOLDER")
    show_summary(finish(folder))
    say(f"report: {folder / 'report.html'}")


@app.command()
def compare(
    baseline: Annotated[Path, typer.Argument(metavar="BASELINE", help="Folder of a run.")],
    candidate: Annotated[Path, typer.Argument(metavar="CANDIDATE", help="Folder of another run.")],
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance", min=0, max=10, help="Tolerance: 0.05 takes five per cent for equal."
        ),
    ] = 0.05,
    force: Annotated[
        bool, typer.Option("--force", help="Also compare different workloads and invalid runs.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Compare two runs, with confidence intervals; exits with 3 when the second is worse.

    Example: comptoir load compare runs/before runs/after
    """
    from loadtests.commands.comparison_view import show_comparison

    if show_comparison(baseline, candidate, tolerance, force=force, as_json=as_json):
        raise typer.Exit(EXIT_WORSE)
