"""`comptoir catalogue`: list the models, show one, and see what fits on your GPUs.

Imports neither ray, vllm nor torch: it answers at once, on a laptop too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from serving.catalogue.catalogue import Catalogue, load_catalogue
from serving.catalogue.fit import FitRow, fit
from serving.catalogue.jurisdictions import normalise
from serving.catalogue.layouts import GpuLayout
from serving.catalogue.licences import Licence, Standing
from serving.catalogue.spec import ModelSpec, Task
from serving.errors import ComptoirError, ConfigError

app = typer.Typer(
    name="catalogue",
    help="Models that can be hosted, their licences, and the GPUs they fit on.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

WIDE_COLUMNS = 110
_STYLE: dict[Standing, str] = {"ok": "green", "duty": "yellow", "gate": "magenta", "no": "red"}
_LEGEND = (
    "licence: ok = free to offer; duty = acknowledge its duties; gate = needs an agreement or "
    "permits no commercial use; no = grants no rights here; ? = its text was not read. "
    "starts: no = its repository needs Python of its own to load, which is never run"
)

Files = Annotated[
    list[Path] | None,
    typer.Option(
        "--file", help="A catalogue file of your own, in addition; repeatable.", metavar="YAML"
    ),
]
Jurisdiction = Annotated[
    str, typer.Option(help="Law the site is under: EU, UK, or a country code such as DE.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


@app.command("list")
def list_models(
    vendor: Annotated[str | None, typer.Option(help="Show only vendors with this word.")] = None,
    task: Annotated[str | None, typer.Option(help="chat, embed, rerank or guard.")] = None,
    eu_ok: Annotated[
        bool, typer.Option("--eu-ok", help="Show only what an EU site may offer: ok and duty.")
    ] = False,
    as_json: AsJson = False,
    file: Files = None,
) -> None:
    """List the models of the catalogue.

    Example: comptoir catalogue list --vendor qwen --eu-ok
    """
    with _errors_exit():
        catalogue = load_catalogue(file or ())
        if vendor is not None and not catalogue.filter(vendor=vendor):
            known = sorted({spec.vendor for spec in catalogue})
            raise ConfigError(
                f"vendor {vendor!r} is unknown; known: {', '.join(known)}", param="vendor"
            )
        specs = [
            spec
            for spec in catalogue.filter(vendor=vendor, task=_task(task))
            if not eu_ok or catalogue.licence_of(spec).standing("EU") in ("ok", "duty")
        ]
        if as_json:
            _print_json([_as_dict(catalogue, spec, "EU") for spec in specs])
            return
        _print_list(catalogue, specs)


@app.command("show")
def show_model(
    model_id: Annotated[str, typer.Argument(metavar="ID", help="Identifier that `list` shows.")],
    jurisdiction: Jurisdiction = "EU",
    as_json: AsJson = False,
    file: Files = None,
) -> None:
    """Show one model: weights, layouts, licence with its clause, engine arguments.

    Example: comptoir catalogue show qwen3-32b
    """
    with _errors_exit():
        catalogue = load_catalogue(file or ())
        spec = catalogue.get(model_id)
        if as_json:
            _print_json(_as_dict(catalogue, spec, jurisdiction))
            return
        _print_model(spec, catalogue.licence_of(spec), jurisdiction)


@app.command("fit")
def fit_models(
    gpu: Annotated[str, typer.Option(help="Kind of GPU: l40s, h100 or h200.")],
    count: Annotated[int, typer.Option(help="Number of GPUs.")] = 1,
    jurisdiction: Jurisdiction = "EU",
    every: Annotated[
        bool,
        typer.Option(
            "--all", help="Also show models that do not fit or that their licence excludes."
        ),
    ] = False,
    as_json: AsJson = False,
    file: Files = None,
) -> None:
    """Show which models fit on your GPUs, and how.

    A replica takes tensor-parallel (tp) times pipeline-parallel (pp) GPUs; `x` is the number of
    replicas that the GPUs carry when one model has them all. `recipe` and `publisher` layouts were
    run by someone, `computed` ones are arithmetic: weights times 1.2 within the memory.

    Example: comptoir catalogue fit --gpu h200 --count 8
    """
    with _errors_exit():
        rows = fit(load_catalogue(file or ()), gpu, count, jurisdiction)
        if as_json:
            _print_json([row.model_dump(mode="json") | {"usable": row.usable} for row in rows])
            return
        where = normalise(jurisdiction)
        _print_fit(rows, f"{count} x {gpu.lower()}, {where}", where, every=every)


# ---- rendering ---------------------------------------------------------------------------------


def _print_list(catalogue: Catalogue, specs: list[ModelSpec]) -> None:
    console = Console()
    wide = console.width >= WIDE_COLUMNS
    table = _table(f"{len(specs)} model{'' if len(specs) == 1 else 's'}", _LEGEND)
    table.add_column("model", no_wrap=True)
    if wide:
        table.add_column("vendor", no_wrap=True)
    table.add_column("task", no_wrap=True)
    table.add_column("billion", justify="right", no_wrap=True)
    table.add_column("context", justify="right", no_wrap=True)
    table.add_column("EU", no_wrap=True)
    table.add_column("starts", no_wrap=True)
    if wide:
        table.add_column("licence")
    for spec in specs:
        licence = catalogue.licence_of(spec)
        cells: list[str | Text] = [spec.id]
        cells += [spec.vendor] if wide else []
        cells += [spec.task, _parameters(spec), _tokens(spec.context_tokens)]
        cells += [_standing(licence.standing("EU"), licence.verified)]
        cells += [_starts(spec.needs_remote_code)]
        table.add_row(*cells, *([licence.name] if wide else []))
    console.print(table)


def _print_fit(rows: list[FitRow], title: str, jurisdiction: str, *, every: bool) -> None:
    console = Console()
    wide = console.width >= WIDE_COLUMNS
    table = _table(title, "* computed: arithmetic, nobody ran it. " + _LEGEND)
    table.add_column("model", no_wrap=True)
    table.add_column("layout", no_wrap=True)
    table.add_column("x", justify="right", no_wrap=True)
    table.add_column("weights GiB" if wide else "GiB", justify="right", no_wrap=True)
    table.add_column("KV cache GiB" if wide else "KV", justify="right", no_wrap=True)
    table.add_column(jurisdiction, no_wrap=True)
    table.add_column("starts", no_wrap=True)
    if wide:
        table.add_column("source", no_wrap=True)
    for row in rows:
        if row.layout is None or (row.licence == "no" and not every):
            continue
        star = "" if row.layout.tested else " *"
        cells: list[str | Text] = [row.model_id, _layout(row.layout) + star, str(row.replicas)]
        cells += [f"{row.weights_gib:.0f}", f"{row.kv_cache_gib:.0f}"]
        cells += [_standing(row.licence, row.licence_verified), _starts(row.needs_remote_code)]
        table.add_row(*cells, *([row.layout.source] if wide else []))
    console.print(table)
    left_out = [row for row in rows if not row.fits]
    if not every:
        excluded = sum(row.fits and row.licence == "no" for row in rows)
        console.print(
            f"{len(left_out)} do not fit and {excluded} fit but are excluded by their licence: "
            "--all lists them."
        )
        return
    for row in left_out:
        console.print(f"[bold]{row.model_id}[/bold]: {escape(row.reason)}", highlight=False)


def _table(title: str, caption: str) -> Table:
    return Table(
        title=title,
        caption=caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )


def _print_model(spec: ModelSpec, licence: Licence, jurisdiction: str) -> None:
    console = Console()
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    for key, value in _facts(spec, licence, jurisdiction):
        facts.add_row(key, value if isinstance(value, Text) else Text(value))
    console.print(Text(f"{spec.id} - {spec.name}", style="bold underline"))
    console.print(facts)


def _facts(spec: ModelSpec, licence: Licence, jurisdiction: str) -> list[tuple[str, str | Text]]:
    """What `show` says of a model, line by line."""
    standing = licence.standing(jurisdiction)
    pairs: list[tuple[str, str | Text]] = [
        ("vendor", f"{spec.vendor} ({spec.vendor_jurisdiction})"),
        ("weights", f"{spec.hf_repo} at {spec.revision or 'no pinned commit'}"),
        ("size", f"{_parameters(spec)} billion, {spec.weight_gib():.0f} GiB {spec.native_dtype}"),
        ("context", f"{spec.context_tokens} tokens"),
        ("serves", f"{spec.task}; takes {', '.join(spec.modalities)}"),
        ("architecture", spec.architecture),
        ("parsers", f"reasoning {spec.reasoning_parser or '-'}, tools {spec.tool_parser or '-'}"),
    ]
    if spec.chat_template:
        pairs.append(("chat template", spec.chat_template))
    pairs += [(f"weights, {name}", one.repo) for name, one in spec.checkpoints.items()]
    if spec.engine_args:
        pairs.append(("engine args", json.dumps(spec.engine_kwargs())))
    where = normalise(jurisdiction)
    pairs.append((f"licence, {where}", _standing(standing, licence.verified)))
    pairs.append(("", licence.name))
    if licence.clause:
        pairs.append(("clause", licence.clause_text))
        pairs.append(("source", licence.source))
    pairs += [("duty", f"{duty.name}: {duty.text}") for duty in licence.duties]
    pairs.append(("starts", spec.start_refusal or "yes, without remote code"))
    pairs += [("layout", f"{_layout(one)} on {one.gpu} ({one.source})") for one in spec.layouts]
    pairs.append(
        ("evidence", ("verified: " if spec.verified else "in part: ") + _join(spec.sources))
    )
    pairs += [("note", note) for note in spec.notes]
    return pairs


def _layout(layout: GpuLayout) -> str:
    pipeline = f" pp{layout.pipeline_parallel}" if layout.pipeline_parallel > 1 else ""
    return f"tp{layout.tensor_parallel}{pipeline} {layout.quantisation}"


def _standing(standing: Standing, verified: bool = True) -> Text:
    return Text(standing + ("" if verified else "?"), style=_STYLE[standing])


def _starts(needs_remote_code: bool) -> Text:
    return Text("no", style="red") if needs_remote_code else Text("yes", style="green")


def _parameters(spec: ModelSpec) -> str:
    total = f"{spec.parameters_total_b:g}"
    return f"{total}/{spec.parameters_active_b:g}" if spec.is_mixture else total


def _tokens(count: int) -> str:
    return f"{count / 2**20:.3g}M" if count >= 10**6 else f"{count // 1024}k"


def _join(words: tuple[str, ...]) -> str:
    return "; ".join(words)


def _task(task: str | None) -> Task | None:
    match task:
        case None | "chat" | "embed" | "rerank" | "guard":
            return task
    raise ConfigError(f"task {task!r} is unknown; known: chat, embed, rerank, guard", param="task")


def _as_dict(catalogue: Catalogue, spec: ModelSpec, jurisdiction: str) -> dict[str, Any]:
    licence = catalogue.licence_of(spec)
    return spec.model_dump(mode="json") | {
        "weight_bytes": spec.weight_bytes,
        "licence": licence.model_dump(mode="json"),
        "standing": licence.standing(jurisdiction),
        "start_refusal": spec.start_refusal,
    }


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))


@contextmanager
def _errors_exit() -> Iterator[None]:
    try:
        yield
    except ComptoirError as error:
        typer.echo(f"error: {error.message}", err=True)
        raise typer.Exit(2) from None
