"""The Serve config of a running site: its models, its routing, and the next config. Pure."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from serving.config.rerouting import (
    GATEWAY_DEPLOYMENT,
    routing_from,
    user_config,
    user_config_in,
)
from serving.config.revisions import public_name, revision_number
from serving.deployment_file import GATEWAY_BUILDER, MODEL_BUILDER
from serving.errors import ConfigError

Document = dict[str, Any]
# What Serve reports of itself and takes back; the rest of a file it keeps in the applications.
_SITE_KEYS = ("proxy_location", "http_options", "grpc_options", "target_capacity")


@dataclass(frozen=True)
class Site:
    """A Serve config, read: the gateway's application, and the models' by their names."""

    document: Mapping[str, Any]
    gateway: Mapping[str, Any]
    models: Mapping[str, Mapping[str, Any]]

    @property
    def routing(self) -> dict[str, Any]:
        """As it takes effect, normalised."""
        found = user_config_in(self.gateway) or {}
        if found.get("routing") is None:
            found = {"routing": _args(self.gateway).get("routing") or {}}
        return dict(user_config(routing_from(found))["routing"])

    def revisions(self, public: str) -> list[str]:
        """The applications of a model, oldest first."""
        return sorted(
            (name for name in self.models if public_name(name) == public), key=revision_number
        )


def running_document(details: Mapping[str, Any]) -> Document:
    """The config that the cluster runs, from Serve's answer to GET /api/serve/applications/."""
    site = {key: details[key] for key in _SITE_KEYS if details.get(key) is not None}
    applications = [
        application["deployed_app_config"]
        for application in (details.get("applications") or {}).values()
        # None: it is being deleted, or was started by a program and is not ours to touch.
        if application.get("deployed_app_config")
    ]
    return copy.deepcopy(site | {"applications": applications})


def read_site(document: Mapping[str, Any]) -> Site:
    """Find the gateway and the models.

    Raises:
        ConfigError: there is no gateway, or more than one.
    """
    applications: list[Mapping[str, Any]] = list(document.get("applications") or ())
    gateways = [one for one in applications if one.get("import_path") == GATEWAY_BUILDER]
    if len(gateways) != 1:
        raise ConfigError(
            f"the cluster runs {len(gateways)} applications with import_path {GATEWAY_BUILDER}, and "
            "a rollout needs one: deploy a file first (`serve deploy FILE`)",
            param="applications",
        )
    models = {one["name"]: one for one in applications if one.get("import_path") == MODEL_BUILDER}
    return Site(document, gateways[0], models)


def with_application(document: Mapping[str, Any], application: Mapping[str, Any]) -> Document:
    """The document and one more application."""
    return {**document, "applications": [*document["applications"], dict(application)]}


def without_application(document: Mapping[str, Any], name: str) -> Document:
    """The document less one application."""
    rest = [one for one in document["applications"] if one["name"] != name]
    return {**document, "applications": rest}


def with_routing(document: Mapping[str, Any], routing: Mapping[str, Any]) -> Document:
    """The document with this routing, in the `user_config` of the gateway; `args` stay as they are.

    Where `args` say the same already, it is taken out of the `user_config`. What else stands there stays.

    Raises:
        ConfigError: the routing is invalid.
    """
    config = user_config(routing_from({"routing": routing}))
    gateway = dict(read_site(document).gateway)
    in_args = user_config(routing_from({"routing": _args(gateway).get("routing") or {}}))
    deployments = [dict(one) for one in gateway.get("deployments") or ()]
    entry = next((one for one in deployments if one.get("name") == GATEWAY_DEPLOYMENT), None)
    if entry is None:
        entry = {"name": GATEWAY_DEPLOYMENT}
        deployments.append(entry)
    live = dict(entry.pop("user_config", None) or {})
    live.pop("routing", None)
    if config != in_args:
        live |= config
    if live:
        entry["user_config"] = live
    elif set(entry) == {"name"}:
        deployments.remove(entry)
    gateway.pop("deployments", None)
    if deployments:
        gateway["deployments"] = deployments
    applications = [
        gateway if one.get("import_path") == GATEWAY_BUILDER else one
        for one in document["applications"]
    ]
    return {**document, "applications": applications}


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two documents are equal; the order of applications is the cluster's own."""
    return _ordered(one) == _ordered(other)


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """A unified diff of two documents, as YAML; empty when they say the same."""
    old, new = (as_yaml(one).splitlines() for one in (before, after))
    return "\n".join(difflib.unified_diff(old, new, "running", "next", lineterm=""))


def as_yaml(document: Mapping[str, Any]) -> str:
    """The document as a deployment file."""
    return yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True)


def _ordered(document: Mapping[str, Any]) -> dict[str, Any]:
    return {**document, "applications": {one["name"]: one for one in document["applications"]}}


def _args(application: Mapping[str, Any]) -> Mapping[str, Any]:
    return application.get("args") or {}
