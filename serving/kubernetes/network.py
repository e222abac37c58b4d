"""Network policies: deny everything, then allow the traffic that the cluster needs, by name."""

from __future__ import annotations

from collections.abc import Sequence

from serving.kubernetes import names
from serving.kubernetes.config import KubernetesConfig
from serving.kubernetes.names import Manifest
from serving.kubernetes.needs import Group
from serving.kubernetes.serve_config import ClusterServe

_GATEWAY_LABEL = "gateway.networking.k8s.io/gateway-name"
_UPGRADE_PORT = 80
# Private networks, and the address where clouds hand out credentials.
_INSIDE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16")


def default_deny(name: str, namespace: str | None) -> Manifest:
    """Deny all traffic of the namespace's pods that no other policy allows."""
    return _policy(f"{name}-default-deny", name, namespace, {}, ingress=[], egress=[])


def within(name: str, namespace: str | None) -> Manifest:
    """Let Ray's nodes, and nobody else, talk to each other on many ports."""
    ours = {"podSelector": {"matchLabels": {names.INSTANCE: name}}}
    return _policy(
        f"{name}-within",
        name,
        namespace,
        {names.INSTANCE: name},
        ingress=[{"from": [ours]}],
        egress=[{"to": [ours]}],
    )


def dns(name: str, namespace: str | None, dns_namespace: str) -> Manifest:
    """Allow look-ups in the cluster's own DNS."""
    server = {**_namespace(dns_namespace), "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}
    ports = [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]
    return _policy(
        f"{name}-dns",
        name,
        namespace,
        {names.INSTANCE: name},
        egress=[{"to": [server], "ports": ports}],
    )


def site_policies(
    config: KubernetesConfig, serve: ClusterServe, groups: Sequence[Group]
) -> list[Manifest]:
    """The policies that depend on the site and the deployment file."""
    near, name = config.neighbours, config.name
    operator = {
        **_namespace(near.operator),
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}},
    }
    found = [
        _named(
            config,
            "api-server",
            names.HEAD,
            egress=[_to(near.api_server_cidrs, near.api_server_ports)],
        ),
        _named(config, "operator", names.HEAD, ingress=[_from([operator], names.DASHBOARD_PORT)]),
        _named(
            config,
            "clients",
            names.GATEWAY,
            ingress=[_from(_clients(config), serve.port)],
        ),
        _policy(
            f"{name}-metrics",
            name,
            config.namespace,
            {names.INSTANCE: name},
            ingress=[_from([_namespace(near.monitoring)], names.METRICS_PORT)],
        ),
    ]
    if config.redis is not None:
        peers: list[Manifest] = [{"ipBlock": {"cidr": cidr}} for cidr in config.redis.cidrs]
        if config.redis.namespace is not None:
            peers.append(_namespace(config.redis.namespace))
        rule = {"to": peers, "ports": [_tcp(config.redis.port)]}
        found.append(_named(config, "state", names.HEAD, egress=[rule]))
    outside = _weights_egress(config)
    if outside is not None:
        found += [
            _named(config, f"weights-{group.name}", group.name, egress=[outside])
            for group in groups
        ]
    if names.is_incremental(config):
        found.append(_upgrade_gateway(config, serve))
    return found


def service(config: KubernetesConfig, serve: ClusterServe) -> Manifest:
    """The gateways' own port. They listen for themselves, so Serve's proxy is not behind it."""
    selector = {names.INSTANCE: config.name, names.COMPONENT: names.GATEWAY}
    port = {
        "name": "http",
        "port": serve.port,
        "targetPort": "serve",
        "protocol": "TCP",
        "appProtocol": "http",
    }
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": names.metadata(names.api_service(config.name), config.name, config.namespace),
        "spec": {"type": "ClusterIP", "selector": selector, "ports": [port]},
    }


def http_route(config: KubernetesConfig, serve: ClusterServe) -> Manifest:
    """The route from the edge's TLS listener to the gateways, with enough time for a stream."""
    edge, upgrade = config.edge, config.upgrade
    if names.is_incremental(config):
        # KubeRay divides traffic between the old and the new cluster, behind its own Gateway.
        default = f"{names.upgrade_gateway(config.name)}-{upgrade.gateway_class}"
        backend = {"name": upgrade.gateway_service or default, "port": _UPGRADE_PORT}
    else:
        backend = {"name": names.api_service(config.name), "port": serve.port}
    limit = f"{edge.stream_timeout_s}s"
    # Only the API: status and metrics stay inside.
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": "/v1"}}],
        "backendRefs": [backend],
        "timeouts": {"request": limit, "backendRequest": limit},
    }
    parent = {"name": edge.gateway, "namespace": edge.namespace, "sectionName": edge.listener}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": names.metadata(names.api_service(config.name), config.name, config.namespace),
        "spec": {"parentRefs": [parent], "hostnames": list(edge.hostnames), "rules": [rule]},
    }


def _clients(config: KubernetesConfig) -> list[Manifest]:
    direct = [_namespace(name) for name in config.neighbours.clients]
    if not names.is_incremental(config):
        return [_namespace(config.edge.namespace), *direct]
    # Pods of KubeRay's Gateway run beside ours; the edge talks to them.
    label = {_GATEWAY_LABEL: names.upgrade_gateway(config.name)}
    return [{"podSelector": {"matchLabels": label}}, *direct]


def _upgrade_gateway(config: KubernetesConfig, serve: ClusterServe) -> Manifest:
    upgrade = config.upgrade
    gateways = {names.INSTANCE: config.name, names.COMPONENT: names.GATEWAY}
    server = {
        **_namespace(config.neighbours.dns),
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    return _policy(
        f"{config.name}-upgrade-gateway",
        config.name,
        config.namespace,
        {_GATEWAY_LABEL: names.upgrade_gateway(config.name)},
        ingress=[_from([_namespace(config.edge.namespace)], _UPGRADE_PORT)],
        egress=[
            {
                "to": [{"podSelector": {"matchLabels": gateways}}],
                "ports": [_tcp(serve.port)],
            },
            {
                "to": [_namespace(upgrade.control_plane_namespace)],
                "ports": [_tcp(port) for port in upgrade.control_plane_ports],
            },
            {"to": [server], "ports": [{"protocol": "UDP", "port": 53}, _tcp(53)]},
        ],
    )


def _weights_egress(config: KubernetesConfig) -> Manifest | None:
    if config.weights.source == "hub":
        outside = {"cidr": "0.0.0.0/0", "except": list(_INSIDE)}
        return {"to": [{"ipBlock": outside}], "ports": [_tcp(443)]}
    if config.weights.source == "s3" and config.weights.s3 is not None:
        port = config.weights.s3.endpoint.removeprefix("https://").partition(":")[2] or "443"
        return _to(config.weights.s3.cidrs, (int(port),))
    return None


def _named(
    config: KubernetesConfig, suffix: str, component: str, **rules: list[Manifest]
) -> Manifest:
    return _policy(
        f"{config.name}-{suffix}",
        config.name,
        config.namespace,
        {names.INSTANCE: config.name, names.COMPONENT: component},
        **rules,
    )


def _policy(
    name: str,
    instance: str,
    namespace: str | None,
    pods: dict[str, str],
    **rules: list[Manifest],
) -> Manifest:
    """A policy for the directions that `rules` (ingress, egress) name."""
    selector: Manifest = {"matchLabels": pods} if pods else {}
    spec: Manifest = {
        "podSelector": selector,
        "policyTypes": [direction.capitalize() for direction in rules],
    }
    spec |= {direction: allowed for direction, allowed in rules.items() if allowed}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": names.metadata(name, instance, namespace),
        "spec": spec,
    }


def _from(peers: list[Manifest], port: int) -> Manifest:
    return {"from": peers, "ports": [_tcp(port)]}


def _to(cidrs: Sequence[str], ports: Sequence[int]) -> Manifest:
    peers = [{"ipBlock": {"cidr": cidr}} for cidr in cidrs]
    return {"to": peers, "ports": [_tcp(port) for port in ports]}


def _tcp(port: int) -> Manifest:
    return {"protocol": "TCP", "port": port}


def _namespace(name: str) -> Manifest:
    return {"namespaceSelector": {"matchLabels": {names.NAMESPACE: name}}}
