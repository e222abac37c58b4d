"""The policy lint: pods stay in the European Union."""

from __future__ import annotations

import pytest

from serving.kubernetes.policy import Finding
from serving.kubernetes.policy_places import european_problem
from tests.k8s.breaking import errors, head, site
from tests.k8s.checking import one, rendered


def in_regions(*terms: list[str], operator: str = "In") -> list[Finding]:
    manifests = site()
    required = {
        "nodeSelectorTerms": [
            {
                "matchExpressions": [
                    {"key": "topology.kubernetes.io/region", "operator": operator, "values": values}
                ]
            }
            for values in terms
        ]
    }
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    head(manifests)["spec"]["affinity"] = affinity
    return errors(manifests)


def test_regions_in_the_eu_are_fine() -> None:
    assert in_regions(["eu-central-1", "fr-par"], ["europe-west1"]) == []


def test_a_region_that_only_sounds_european_is_found() -> None:
    (found,) = in_regions(["eu-central-1", "eu-west-2"])
    assert found.problem == "'eu-west-2' is London, outside the EU"


def test_one_alternative_without_a_region_lets_pods_out() -> None:
    assert [one.rule for one in in_regions(["eu-central-1"], [])] == ["region"]
    assert [one.rule for one in in_regions(["us-east-1"], operator="NotIn")] == ["region"]


def test_a_preferred_region_is_not_a_required_one() -> None:
    manifests = site()
    node = head(manifests)["spec"]["affinity"]["nodeAffinity"]
    node["preferredDuringSchedulingIgnoredDuringExecution"] = node.pop(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    assert [one.rule for one in errors(manifests)] == ["region"]


def test_somebody_may_vouch_for_a_region() -> None:
    assert european_problem("gra9") == "'gra9' is not known to be in the EU"
    assert european_problem("gra9", frozenset({"gra9"})) is None


@pytest.mark.parametrize(
    "region",
    ["eu-central-1", "europe-west4", "de/fra", "nl-ams", "germanywestcentral", "westeurope", "pl"],
)
def test_providers_names_of_places_in_the_eu_are_known(region: str) -> None:
    assert european_problem(region) is None


@pytest.mark.parametrize(
    "region",
    [
        "us-east-1",
        "uksouth",
        "europe-west6",
        "eu-central-2",
        "ch-gva-2",
        "itxyz",
        "desert-1",
        "eu"[:1],
    ],
)
def test_others_are_not(region: str) -> None:
    assert european_problem(region) is not None


def test_development_may_run_anywhere_and_nothing_else_may() -> None:
    manifests = rendered("dev")
    assert errors(manifests) == []
    service = one(manifests, "RayService")
    del service["metadata"]["labels"]["comptoir-overlay"]
    for group in (
        service["spec"]["rayClusterConfig"]["headGroupSpec"],
        *service["spec"]["rayClusterConfig"]["workerGroupSpecs"],
    ):
        del group["template"]["metadata"]["labels"]["comptoir-overlay"]
    assert {one.rule for one in errors(manifests)} == {"region"}
