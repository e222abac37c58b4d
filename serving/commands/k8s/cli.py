"""`comptoir k8s`: manifests for Kubernetes from a deployment file, and the policy lint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serving.commands.k8s.document import cluster_settings, load_for_cluster
from serving.commands.k8s.files import read_folder, read_manifests, write_folder
from serving.commands.k8s.findings import findings
from serving.commands.k8s.needs import model_needs
from serving.commands.output import errors, say
from serving.config.yaml_file import read_mapping
from serving.errors import ConfigError
from serving.kubernetes.config import KubernetesConfig
from serving.kubernetes.overlays import site_config
from serving.kubernetes.render import as_files, as_yaml, base_files, differences, overlay_files
from serving.kubernetes.render import render as render_manifests

app = typer.Typer(
    no_args_is_help=True, help="Run on Kubernetes with KubeRay: render manifests, check them."
)

Config = Annotated[Path, typer.Option(help="A deployment file, as in deployments/.")]
Overlay = Annotated[str, typer.Option(help="dev, eu-single-node or eu-multi-node.")]


@app.command()
def render(
    config: Config,
    overlay: Overlay,
    out: Annotated[
        str,
        typer.Option(help="A folder to write files to, or - for one stream on standard output."),
    ] = "-",
    diff: Annotated[
        Path | None,
        typer.Option(help="Compare with a folder of earlier output; exit code 1 when it differs."),
    ] = None,
    settings: Annotated[
        Path | None, typer.Option(help="YAML with the site's changes to the overlay's defaults.")
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(help="Image for all pods; or cpu=REF, gpu=REF. Best with @sha256:DIGEST."),
    ] = None,
    gpu: Annotated[
        list[str] | None,
        typer.Option(help="A type of GPU that the site has; repeat. Default: any."),
    ] = None,
    region: Annotated[
        list[str] | None, typer.Option(help="A region in which pods may run; repeat.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the RayService.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Namespace of the RayService.")] = None,
    kustomize_layout: Annotated[
        bool, typer.Option("--kustomize", help="Omit what k8s/base contains.")
    ] = False,
) -> None:
    """Write the manifests of a site; the same input always gives the same text.

    Example: comptoir k8s render --config deployments/node-8xh200.yaml --overlay eu-single-node
    """
    site = _site(overlay, settings, image, gpu, region, name, namespace)
    if diff is not None and out != "-":
        raise ConfigError("--diff compares and writes nothing: omit --out", param="out")
    if not out:
        raise ConfigError("--out: is empty: name a folder, or - for standard output", param="out")
    process = cluster_settings()
    file = load_for_cluster(config, process)
    manifests = render_manifests(file, site, model_needs(file, process, gpu or ()))
    files = overlay_files(manifests, site) if kustomize_layout else as_files(manifests)
    if diff is not None:
        changes = differences(read_folder(diff), files)
        typer.echo(changes, nl=False)
        if changes:
            raise typer.Exit(1)
        return
    if out == "-":
        typer.echo(as_yaml(manifests), nl=False)
        return
    write_folder(Path(out), files)


@app.command("base")
def write_base(
    out: Annotated[Path, typer.Option(help="The folder; k8s/base of a checkout.")],
) -> None:
    """Write k8s/base, which the overlays of --kustomize refer to.

    Example: comptoir k8s base --out k8s/base
    """
    write_folder(out, base_files())


@app.command("lint")
def lint_files(
    paths: Annotated[
        list[str], typer.Argument(help="Folders and files with manifests; - for standard input.")
    ],
    eu_region: Annotated[
        list[str] | None, typer.Option(help="A region that lies in the EU; repeat.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings, too.")] = False,
) -> None:
    """Check manifests: images, privileges, secrets, resources, region, network, and what KubeRay refuses.

    Example: comptoir k8s lint k8s/overlays/eu-multi-node
    """
    failed = warned = False
    for path in paths:
        manifests = read_manifests(path)
        if not manifests:
            raise ConfigError(f"{path}: there are no manifests in it", param="paths")
        found = findings(manifests, frozenset(eu_region or ()))
        for one in found:
            colour = "red" if one.level == "error" else "yellow"
            errors.print(f"[bold {colour}]{one.level}[/]", end=" ")
            errors.print(str(one), markup=False, soft_wrap=True)
        failed |= any(one.level == "error" for one in found)
        warned |= any(one.level == "warning" for one in found)
        if not any(one.level == "error" for one in found):
            say(f"[bold green]ok[/bold green] {path}: {len(manifests)} manifests")
    if failed or (strict and warned):
        raise typer.Exit(1)


def _site(
    overlay: str,
    settings: Path | None,
    image: list[str] | None,
    gpu: list[str] | None,
    region: list[str] | None,
    name: str | None,
    namespace: str | None,
) -> KubernetesConfig:
    chosen = {} if settings is None else read_mapping(settings, "settings")
    if gpu:
        known = chosen.get("gpus") or {}
        chosen["gpus"] = {kind.lower(): known.get(kind.lower(), {}) for kind in gpu}
    return site_config(
        overlay,
        chosen,
        name=name,
        namespace=namespace,
        images=image or (),
        regions=region or (),
    )
