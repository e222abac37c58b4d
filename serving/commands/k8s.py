"""`comptoir k8s`: manifests for Kubernetes from a deployment file, and the policy lint."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import typer
import yaml

from serving.commands.k8s_needs import model_needs
from serving.commands.output import errors, note, say
from serving.config.yaml_file import read_mapping
from serving.deployment_file import GATEWAY_BUILDER, DeploymentFile, load_deployment_file
from serving.errors import ConfigError
from serving.kubernetes import kustomize
from serving.kubernetes.config import KubernetesConfig
from serving.kubernetes.kuberay_rules import rayservice_problems
from serving.kubernetes.names import Manifest
from serving.kubernetes.overlays import site_config
from serving.kubernetes.policy import Finding, lint
from serving.kubernetes.references import dangling
from serving.kubernetes.render import (
    HEADER,
    as_files,
    as_yaml,
    base_files,
    differences,
    overlay_files,
)
from serving.kubernetes.render import render as render_manifests
from serving.kubernetes.serve_config import serve_problems
from serving.settings import ProcessSettings

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
        typer.Option(help="Compare with a folder of earlier output; 1 when it differs."),
    ] = None,
    settings: Annotated[
        Path | None, typer.Option(help="YAML with what the site changes of the overlay's defaults.")
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
    namespace: Annotated[str | None, typer.Option(help="Where it runs.")] = None,
    kustomize_layout: Annotated[
        bool, typer.Option("--kustomize", help="Leave out what k8s/base holds.")
    ] = False,
) -> None:
    """Write the manifests of a site; the same input always gives the same text.

    Example: comptoir k8s render --config deployments/node-8xh200.yaml --overlay eu-single-node
    """
    site = _site(overlay, settings, image, gpu, region, name, namespace)
    if diff is not None and out != "-":
        raise ConfigError("--diff compares and writes nothing: leave --out out", param="out")
    process = _settings()
    file = _load(config, process)
    manifests = render_manifests(file, site, model_needs(file, process, gpu or ()))
    files = overlay_files(manifests, site) if kustomize_layout else as_files(manifests)
    if diff is not None:
        changes = differences(_read_folder(diff), files)
        typer.echo(changes, nl=False)
        if changes:
            raise typer.Exit(1)
        return
    if out == "-":
        typer.echo(as_yaml(manifests), nl=False)
        return
    _write_folder(Path(out), files)


@app.command("base")
def write_base(
    out: Annotated[Path, typer.Option(help="The folder; k8s/base of a checkout.")],
) -> None:
    """Write k8s/base, which the overlays of --kustomize refer to."""
    _write_folder(out, base_files())


@app.command("lint")
def lint_files(
    paths: Annotated[
        list[str], typer.Argument(help="Folders and files with manifests; - for standard input.")
    ],
    eu_region: Annotated[
        list[str] | None, typer.Option(help="A region that lies in the EU; repeat.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail too.")] = False,
) -> None:
    """Check manifests: images, privileges, secrets, resources, region, network, and what KubeRay refuses.

    Example: comptoir k8s lint k8s/overlays/eu-multi-node
    """
    failed = warned = False
    for path in paths:
        manifests = _read_manifests(path)
        found = lint(manifests, frozenset(eu_region or ()))
        found += _misfits(manifests)
        for one in found:
            colour = "red" if one.level == "error" else "yellow"
            errors.print(f"[bold {colour}]{one.level}[/]", end=" ")
            errors.print(str(one), markup=False, soft_wrap=True)
        failed |= any(one.level == "error" for one in found)
        warned |= any(one.level == "warning" for one in found)
        if not any(one.level == "error" for one in found):
            say(f"[bold green]right[/bold green] {path}: {len(manifests)} manifests")
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
    chosen = _read_settings(settings)
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


def _misfits(manifests: list[Manifest]) -> list[Finding]:
    """What the operator refuses, what leads nowhere, and Serve configs that are wrong."""
    found = []
    for manifest, path, problem in dangling(manifests):
        found.append(_finding("reference", manifest, path, problem, "correct the name"))
    for manifest in manifests:
        if manifest["kind"] != "RayService":
            continue
        for problem in rayservice_problems(manifest):
            path, _, text = problem.partition(": ")
            found.append(_finding("kuberay", manifest, path, text, "the operator would refuse it"))
        try:
            serve = _parsed(str((manifest.get("spec") or {}).get("serveConfigV2") or ""), "it")
            load_document(serve, _settings(), Path("serveConfigV2"))
            wrong = list(serve_problems(serve))
        except ConfigError as error:
            wrong = [error.message]
        fix = "change the deployment file, and render again"
        for problem in wrong:
            found.append(_finding("serve", manifest, "spec.serveConfigV2", problem, fix))
    return found


def _finding(rule: str, manifest: Mapping[str, Any], path: str, problem: str, fix: str) -> Finding:
    name = str((manifest.get("metadata") or {}).get("name"))
    return Finding(rule, str(manifest["kind"]), name, path, problem, fix)


def _load(path: Path, process: ProcessSettings) -> DeploymentFile:
    try:
        document = yaml.safe_load(_read(path))
    except (yaml.YAMLError, ValueError):
        # It says in which line.
        return load_deployment_file(path, process)
    return load_document(document, process, path)


def _settings() -> ProcessSettings:
    """The environment of this machine decides nothing about a cluster."""
    here = {"host": None, "port": None, "device": "auto"}
    return ProcessSettings.load().model_copy(update=here)


def load_document(document: Any, process: ProcessSettings, path: Path) -> DeploymentFile:
    """Check a deployment file whose keys are in the cluster, and not on this machine.

    Raises:
        ConfigError: as for `load_deployment_file`; messages name `path`.
    """
    if not isinstance(document, dict) or not isinstance(document.get("applications"), list):
        raise ConfigError(f"{path}: applications: must be a list", param="applications")
    local = [_reachable_by_nobody(one) for one in document["applications"]]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "deployment.yaml")
        copy.write_text(yaml.safe_dump({**document, "applications": local}), encoding="utf-8")
        try:
            file = load_deployment_file(copy, process)
        except ConfigError as error:
            message = error.message.replace(str(copy), str(path))
            raise type(error)(message, param=error.param) from None
    return DeploymentFile(path, document, file.gateway, file.models)


def _reachable_by_nobody(application: Any) -> Any:
    """The gateway without its file of keys, and then nothing but loopback is allowed."""
    if not isinstance(application, dict) or application.get("import_path") != GATEWAY_BUILDER:
        return application
    if not isinstance(application.get("args"), dict):
        return application
    args = {key: value for key, value in application["args"].items() if key != "keys_file"}
    return {**application, "args": {**args, "host": "127.0.0.1"}}


def _parsed(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        raise ConfigError(f"{where}: is not YAML", param=where) from None


def _read_settings(path: Path | None) -> dict[str, Any]:
    return {} if path is None else read_mapping(path, "settings")


def _read(path: Path | PurePosixPath) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}", param=str(path)) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not text", param=str(path)) from None


def _read_manifests(path: str) -> list[Manifest]:
    if path == "-":
        return kustomize.documents(sys.stdin.read(), "standard input")
    place = Path(path)
    if not place.is_dir():
        return kustomize.documents(_read(place), path)
    if (place / kustomize.KUSTOMIZATION).is_file():
        return kustomize.build(PurePosixPath(place), _read)
    files = sorted(one for one in place.rglob("*") if one.suffix in (".yaml", ".yml"))
    if not files:
        raise ConfigError(f"{path}: there are no YAML files in it", param="paths")
    return [one for file in files for one in kustomize.documents(_read(file), str(file))]


def _read_folder(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        raise ConfigError(f"--diff {folder}: is not a folder", param="diff")
    return {path.name: _read(path) for path in sorted(folder.glob("*.yaml"))}


def _write_folder(folder: Path, files: dict[str, str]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        for path in folder.glob("*.yaml"):
            # What an earlier run wrote and this one does not would be applied with the rest.
            if path.name not in files and path.read_text(encoding="utf-8").startswith(HEADER):
                path.unlink()
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {error.strerror}", param="out") from None
    note(f"{len(files)} files in {folder}")
