"""The policy lint: no secret stands in a manifest."""

from __future__ import annotations

import pytest

from tests.k8s.breaking import RAY, errors, head, site
from tests.k8s.checking import one


@pytest.mark.parametrize(
    "variable",
    [
        {"name": "HF_TOKEN", "value": "x"},
        {"name": "AWS_SECRET_ACCESS_KEY", "value": "x"},
        {"name": "DB_PASSWORD", "value": "x"},
        {"name": "SETTING", "value": "hf_" + "a" * 34},
        {"name": "SETTING", "value": "sk-comptoir-" + "a" * 32},
        {"name": "SETTING", "value": "AKIA" + "A" * 16},
        {"name": "SETTING", "value": "redis://user:word@host:6379"},
        {"name": "SETTING", "value": "-----BEGIN PRIVATE KEY-----"},
        {"name": "SETTING", "value": "eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.abcdefghijkl"},
    ],
    ids=lambda variable: variable["value"][:12],
)
def test_a_secret_value_is_found_and_not_repeated(variable: dict[str, str]) -> None:
    manifests = site()
    head(manifests)["spec"]["containers"][0]["env"].append(variable)
    (found,) = errors(manifests)
    assert found.rule == "secret"
    assert found.path.startswith(f"{RAY}.env[")
    assert len(variable["value"]) < 3 or variable["value"] not in str(found)


def test_a_password_in_place_of_its_reference_is_found() -> None:
    manifests = site()
    options = one(manifests, "RayService")["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    options["redisPassword"] = {"value": "swordfish"}
    (found,) = errors(manifests)
    assert found.path.endswith("redisPassword.value")
    assert "swordfish" not in str(found)


def test_a_secret_with_its_values_is_found_and_one_without_is_not() -> None:
    secret = {"kind": "Secret", "metadata": {"name": "a"}}
    assert [one.path for one in errors([{**secret, "stringData": {"a": "b"}}])] == ["stringData"]
    assert [one.path for one in errors([{**secret, "data": {"a": "Yg=="}}])] == ["data"]
    assert errors([secret]) == []


def test_a_key_inside_the_serve_config_is_found() -> None:
    manifests = site()
    service = one(manifests, "RayService")
    service["spec"]["serveConfigV2"] += "# sk-comptoir-" + "a" * 32 + "\n"
    assert [one.path for one in errors(manifests)] == ["spec.serveConfigV2"]


def test_hashes_of_keys_and_names_of_secrets_are_no_secrets() -> None:
    manifests = site()
    service = one(manifests, "RayService")
    service["spec"]["serveConfigV2"] += "# hash: sha256:" + "a" * 64 + "\n"
    assert errors(manifests) == []
