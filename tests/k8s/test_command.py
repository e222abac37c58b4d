"""`comptoir k8s`: what it writes, compares and finds, and how it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from serving.commands.k8s.cli import app
from serving.errors import ConfigError
from tests.k8s.checking import ROOT, SHIPPED, one, rendered

GPU = ROOT / "deployments" / "node-8xh200.yaml"


def k8s(*words: str | Path, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(map(str, words)), input=stdin, env={"COLUMNS": "400"})


def render(*words: str | Path, overlay: str = "dev", config: Path | None = None) -> Result:
    return k8s("render", "--config", config or SHIPPED[overlay], "--overlay", overlay, *words)


def refused(result: Result) -> ConfigError:
    assert isinstance(result.exception, ConfigError), result.output
    return result.exception


def manifests(result: Result) -> list[Any]:
    assert result.exit_code == 0, result.output
    return list(yaml.safe_load_all(result.stdout))


def write(path: Path, document: Any) -> Path:
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def test_it_prints_one_stream() -> None:
    assert manifests(render()) == rendered("dev")


def test_it_writes_files_and_finds_no_difference_after_that(tmp_path: Path) -> None:
    assert render("--out", tmp_path / "site").exit_code == 0
    assert (tmp_path / "site" / "rayservice.yaml").is_file()
    same = render("--diff", tmp_path / "site")
    assert (same.exit_code, same.stdout) == (0, "")


def test_a_difference_is_shown_and_ends_with_1(tmp_path: Path) -> None:
    render("--out", tmp_path)
    (tmp_path / "extra.yaml").write_text("kind: ConfigMap\n", encoding="utf-8")
    changed = render("--image", "comptoir:2.0", "--diff", tmp_path)
    assert changed.exit_code == 1
    assert "--- a/rayservice.yaml\n+++ b/rayservice.yaml\n" in changed.stdout
    assert "image: comptoir:2.0\n" in changed.stdout
    assert "--- a/extra.yaml\n+++ /dev/null\n" in changed.stdout


def test_what_an_earlier_run_wrote_and_this_one_does_not_is_removed(tmp_path: Path) -> None:
    render("--out", tmp_path, overlay="eu-multi-node")
    (tmp_path / "own.yaml").write_text("kind: ConfigMap\n", encoding="utf-8")
    (tmp_path / "old.yaml").write_text(
        (tmp_path / "route.yaml").read_text(encoding="utf-8"), encoding="utf-8"
    )
    render("--out", tmp_path, overlay="eu-multi-node")
    assert not (tmp_path / "old.yaml").exists()
    assert (tmp_path / "own.yaml").exists()


def test_options_win_over_settings_and_those_over_the_overlay(tmp_path: Path) -> None:
    settings = write(
        tmp_path / "site.yaml",
        {"namespace": "there", "name": "bistro", "edge": {"hostnames": ["llm.example.fr"]}},
    )
    found = manifests(render("--settings", settings, "--namespace", "here", "--region", "fr-par"))
    service = one(found, "RayService")
    assert service["metadata"]["name"] == "bistro"
    assert service["metadata"]["namespace"] == "here"
    assert one(found, "HTTPRoute")["spec"]["hostnames"] == ["llm.example.fr"]
    assert "fr-par" in str(service["spec"]["rayClusterConfig"]["headGroupSpec"])


def test_images_can_be_given_for_both_or_for_one() -> None:
    def images(*words: str) -> set[str]:
        found = one(manifests(render(*words, overlay="eu-multi-node")), "RayService")
        cluster = found["spec"]["rayClusterConfig"]
        return {
            group["template"]["spec"]["containers"][0]["image"]
            for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
        }

    assert images("--image", "a:1") == {"a:1"}
    assert images("--image", "cpu=a:1", "--image", "gpu=b:1") == {"a:1", "b:1"}


def test_a_file_whose_keys_are_in_the_cluster_can_be_rendered(tmp_path: Path) -> None:
    document = yaml.safe_load(GPU.read_text(encoding="utf-8"))
    document["applications"][0]["args"] |= {"host": "0.0.0.0", "keys_file": "/nowhere/keys.yaml"}
    path = write(tmp_path / "production.yaml", document)
    service = one(manifests(render(overlay="eu-single-node", config=path)), "RayService")
    inside = yaml.safe_load(service["spec"]["serveConfigV2"])
    assert inside["applications"][0]["args"]["keys_file"] == "/nowhere/keys.yaml"
    document["applications"][1]["args"]["layuot"] = 1
    wrong = refused(render(overlay="eu-single-node", config=write(path, document)))
    assert wrong.message.startswith(f"{path}: application 'qwen3-235b': model: layuot: unknown key")


def test_the_environment_of_this_machine_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("HOST", "192.0.2.1"), ("PORT", "9000"), ("DEVICE", "cpu")):
        monkeypatch.setenv(f"COMPTOIR_{name}", value)
    assert manifests(render(overlay="eu-single-node")) == rendered("eu-single-node")


def test_a_file_for_a_cluster_may_leave_its_keys_to_the_cluster(tmp_path: Path) -> None:
    document = yaml.safe_load(SHIPPED["dev"].read_text(encoding="utf-8"))
    document["applications"][0]["args"]["host"] = "0.0.0.0"
    service = one(manifests(render(config=write(tmp_path / "site.yaml", document))), "RayService")
    assert "keys_file: /etc/comptoir/keys/keys.yaml" in service["spec"]["serveConfigV2"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: [", "is not YAML (line 1"),
        ("applications: 1", "applications: must be a list"),
        ("applications: [1]", "applications[0]: must be a mapping"),
        (
            "applications: [{name: g, route_prefix: null, import_path: serving.app:build_gateway, args: 1}]",
            "args: must be a mapping",
        ),
        ("[]", "must be a mapping with `applications`"),
    ],
)
def test_what_is_no_deployment_file_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(text, encoding="utf-8")
    error = refused(render(config=path))
    assert error.message.startswith(f"{path}: ")
    assert complaint in error.message


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--diff", "/nowhere", "--out", "there"), "--diff compares and writes nothing"),
        (("--image", "comptoir:latest"), "images.cpu: 'comptoir:latest' is not pinned"),
        (("--gpu", "b200"), "gpu 'b200' is unknown"),
        (("--gpu", "l40s"), "needs h200, and the site has: l40s"),
        (("--settings", "/nowhere.yaml"), "/nowhere.yaml: cannot be read"),
        (("--diff", "/nowhere"), "--diff /nowhere: is not a folder"),
        (("--name", "Bistro"), "name: 'Bistro' is not a name: at most 47 lower-case letters"),
        (("--name", "x" * 48), "is not a name: at most 47"),
        (("--name", ""), "name: '' is not a name"),
        (("--namespace", ""), "namespace: '' is not a name"),
        (("--namespace", "x" * 64), "is not a name: at most 63"),
        (("--region", ""), "regions.0: '' is not a label's value"),
        (("--out", ""), "--out: is empty"),
    ],
)
def test_what_does_not_fit_is_said(words: tuple[str, ...], complaint: str) -> None:
    assert complaint in refused(render(*words, overlay="eu-single-node")).message


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"gateway_pods": -1}, "gateway_pods: must be at least 1"),
        ({"redis": {"cidrs": ["10.0.0.1"]}}, "redis.cidrs.0: '10.0.0.1' is not a network"),
        ({"redis": {"address": "redis://h:99999"}}, "redis: address: 99999 is not a port"),
        ({"neighbours": {"api_server_cidrs": ["10.0.0.1/8"]}}, "'10.0.0.1/8' is not a network"),
        ({"neighbours": {"api_server_ports": [70_000]}}, "must be at most 65535"),
        ({"gpus": {"h200": {"node_selector": {"a": "b c"}}}}, "'b c' is not a label's value"),
        ({"gpus": {"h200": {"gpus_per_pod": 2}}}, "model 'qwen3-235b': an engine has 4 GPUs"),
        ({"edge": {"hostnames": ["LLM_example"]}}, "spec.hostnames[0]: 'LLM_example' does not"),
    ],
)
def test_settings_that_do_not_fit_are_said(
    tmp_path: Path, settings: dict[str, Any], complaint: str
) -> None:
    path = write(tmp_path / "site.yaml", settings)
    assert complaint in refused(render("--settings", path, overlay="eu-single-node")).message


def test_an_unknown_overlay_is_refused_with_the_known_ones() -> None:
    error = refused(k8s("render", "--config", SHIPPED["dev"], "--overlay", "prod"))
    assert "available: dev, eu-single-node, eu-multi-node" in error.message


def test_a_file_that_is_not_there_is_refused() -> None:
    assert "cannot be read" in refused(render(config=Path("/nowhere.yaml"))).message


def test_a_model_that_may_run_anywhere_must_say_where_beside_gpus(tmp_path: Path) -> None:
    document = yaml.safe_load(GPU.read_text(encoding="utf-8"))
    tiny = {
        "name": "qwen3",
        "route_prefix": None,
        "import_path": "serving.app:build_model",
        "args": {"id": "qwen3", "catalogue": "tiny-qwen3"},
    }
    document["applications"].append(tiny)
    path = tmp_path / "site.yaml"
    error = refused(render(config=write(path, document), overlay="eu-single-node"))
    assert "application 'qwen3': device: must be cpu or gpu" in error.message
    tiny["args"]["device"] = "cpu"  # type: ignore[index]
    found = one(
        manifests(render(config=write(path, document), overlay="eu-single-node")), "RayService"
    )
    names = [group["groupName"] for group in found["spec"]["rayClusterConfig"]["workerGroupSpecs"]]
    assert names == ["gateway", "gpu-h200", "cpu"]


# ---- lint --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", SHIPPED)
def test_the_shipped_overlays_pass(overlay: str) -> None:
    result = k8s("lint", ROOT / "k8s" / "overlays" / overlay)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("ok ")
    assert "has no digest" in result.stderr


def test_warnings_fail_when_asked_to_and_digests_calm_them(tmp_path: Path) -> None:
    assert k8s("lint", "--strict", ROOT / "k8s" / "overlays" / "dev").exit_code == 1
    render("--image", "comptoir:1.0@sha256:" + "a" * 64, "--out", tmp_path)
    result = k8s("lint", "--strict", tmp_path)
    assert result.exit_code == 0, result.output


def test_standard_input_is_read() -> None:
    text = yaml.safe_dump_all(rendered("eu-multi-node"))
    assert k8s("lint", "-", stdin=text).exit_code == 0


def test_a_finding_fails_and_names_the_place(tmp_path: Path) -> None:
    found = rendered("eu-multi-node")
    service = one(found, "RayService")
    service["metadata"]["name"] = "x" * 48
    serve = yaml.safe_load(service["spec"]["serveConfigV2"])
    serve["applications"][0]["args"]["host"] = "127.0.0.1"
    serve["applications"][1]["args"]["layuot"] = 1
    service["spec"]["serveConfigV2"] = yaml.safe_dump(serve)
    head = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    head["serviceAccountName"] = "nobody"
    head["hostPID"] = True
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump_all(found), encoding="utf-8")
    result = k8s("lint", path)
    assert result.exit_code == 1
    for rule in ("[host]", "[kuberay]", "[reference]", "[serve]"):
        assert rule in result.stderr
    assert "layuot: unknown key" in result.stderr
    assert "ok " not in result.stdout


def test_a_gateway_that_nobody_reaches_is_found(tmp_path: Path) -> None:
    found = rendered("dev")
    service = one(found, "RayService")
    service["spec"]["serveConfigV2"] = SHIPPED["dev"].read_text(encoding="utf-8")
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump_all(found), encoding="utf-8")
    result = k8s("lint", path)
    assert "host: must be 0.0.0.0" in result.stderr
    assert "gateways run in the gateway pods" in result.stderr


def test_a_folder_without_manifests_is_refused(tmp_path: Path) -> None:
    assert "no YAML files" in refused(k8s("lint", tmp_path)).message


def test_somebody_may_vouch_for_a_region(tmp_path: Path) -> None:
    render("--region", "gra9", "--out", tmp_path, overlay="eu-multi-node")
    assert k8s("lint", tmp_path).exit_code == 1
    assert k8s("lint", tmp_path, "--eu-region", "gra9").exit_code == 0


def test_the_base_can_be_written(tmp_path: Path) -> None:
    assert k8s("base", "--out", tmp_path / "base").exit_code == 0
    written = {path.name for path in (tmp_path / "base").iterdir()}
    assert written == {path.name for path in (ROOT / "k8s" / "base").iterdir()}
