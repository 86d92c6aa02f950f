"""Services, endpoints, ingresses and policies."""

from __future__ import annotations

from kubelore.resource_ops.printers.formats import (
    Cells,
    Object,
    Printer,
    age,
    columns,
    items,
    labels_line,
    name_of,
    part,
    selector_line,
    shortened,
)


def _load_balancer(of: Object) -> list[str]:
    """Addresses of a load balancer, sorted, each once."""
    ingress = items(part(of, "status", "loadBalancer"), "ingress")
    return sorted({entry.get("ip") or entry.get("hostname") or "" for entry in ingress} - {""})


def _external_ip(of: Object) -> str:
    spec = part(of, "spec")
    given = list(items(spec, "externalIPs"))
    match spec.get("type"):
        case "ClusterIP" | "NodePort":
            return ",".join(given) or "<none>"
        case "LoadBalancer":
            return ",".join([*_load_balancer(of), *given]) or "<pending>"
        case "ExternalName":
            return spec.get("externalName", "")
    return "<unknown>"


def _port(port: Object) -> str:
    node_port = port.get("nodePort") or 0
    number = f"{port.get('port', 0)}:{node_port}" if node_port > 0 else f"{port.get('port', 0)}"
    return f"{number}/{port.get('protocol', 'TCP')}"


def _service(of: Object, now: float) -> Cells:
    spec = part(of, "spec")
    # `clusterIPs` came with Kubernetes 1.20; an older server has the single address only.
    address = next(iter(items(spec, "clusterIPs")), spec.get("clusterIP"))
    return [
        name_of(of),
        spec.get("type", ""),
        address or "<none>",
        _external_ip(of),
        ",".join(_port(port) for port in items(spec, "ports")) or "<none>",
        age(of, now),
        labels_line(spec.get("selector")),
    ]


def _host_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _endpoints(of: Object, now: float) -> Cells:
    subsets = items(of, "subsets")
    found: list[str] = []
    for subset in subsets:
        addresses = [address.get("ip", "") for address in items(subset, "addresses")]
        ports = items(subset, "ports")
        if not ports:
            found += addresses
        for port in ports:
            found += [_host_port(address, port.get("port", 0)) for address in addresses]
    return [name_of(of), shortened(found, 3, empty="") if subsets else "<none>", age(of, now)]


def _endpoint_slice(of: Object, now: float) -> Cells:
    ports = [
        str(port["port"]) if port.get("port") is not None else port.get("name") or "*"
        for port in items(of, "ports")
    ]
    addresses = [address for endpoint in items(of, "endpoints") for address in items(endpoint, "addresses")]
    return [
        name_of(of),
        of.get("addressType", ""),
        shortened(ports, 3),
        shortened(addresses, 3),
        age(of, now),
    ]


def _ingress_hosts(rules: list[Object]) -> str:
    """At most three hosts; what lies beyond the third is counted in rules, as the API server does."""
    hosts: list[str] = []
    more = False
    for rule in rules:
        more = more or len(hosts) == 3
        if not more and rule.get("host"):
            hosts.append(rule["host"])
    if not hosts:
        return "*"
    return f"{','.join(hosts)} + {len(rules) - 3} more..." if more else ",".join(hosts)


def _ingress(of: Object, now: float) -> Cells:
    spec = part(of, "spec")
    name = spec.get("ingressClassName")
    return [
        name_of(of),
        "<none>" if name is None else name,
        _ingress_hosts(list(items(spec, "rules"))),
        ",".join(_load_balancer(of)),
        "80, 443" if items(spec, "tls") else "80",
        age(of, now),
    ]


def _ingress_class(of: Object, now: float) -> Cells:
    spec = part(of, "spec")
    parameters = spec.get("parameters")
    text = "<none>"
    if parameters:
        group = parameters.get("apiGroup")
        kind = parameters.get("kind", "")
        text = (
            f"{kind}.{group}/{parameters.get('name', '')}"
            if group
            else f"{kind}/{parameters.get('name', '')}"
        )
    return [name_of(of), spec.get("controller", ""), text, age(of, now)]


def _network_policy(of: Object, now: float) -> Cells:
    return [name_of(of), selector_line(part(of, "spec").get("podSelector")), age(of, now)]


def _service_cidr(of: Object, now: float) -> Cells:
    return [name_of(of), ",".join(items(part(of, "spec"), "cidrs")), age(of, now)]


def _ip_address(of: Object, now: float) -> Cells:
    del now
    reference = part(of, "spec").get("parentRef")
    if not reference:
        return [name_of(of), "<none>"]
    kind = ".".join(filter(None, (reference.get("resource"), reference.get("group")))).lower()
    return [name_of(of), "/".join(filter(None, (kind, reference.get("namespace"), reference.get("name"))))]


NETWORK: dict[str, Printer] = {
    "services": Printer(
        columns("Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age", "Selector+"), _service
    ),
    "endpoints": Printer(columns("Name", "Endpoints", "Age"), _endpoints),
    "endpointslices.discovery.k8s.io": Printer(
        columns("Name", "AddressType", "Ports", "Endpoints", "Age"), _endpoint_slice
    ),
    "ingresses.networking.k8s.io": Printer(
        columns("Name", "Class", "Hosts", "Address", "Ports", "Age"), _ingress
    ),
    "ingressclasses.networking.k8s.io": Printer(
        columns("Name", "Controller", "Parameters", "Age"), _ingress_class
    ),
    "networkpolicies.networking.k8s.io": Printer(columns("Name", "Pod-Selector", "Age"), _network_policy),
    "servicecidrs.networking.k8s.io": Printer(columns("Name", "CIDRs", "Age"), _service_cidr),
    "ipaddresses.networking.k8s.io": Printer(columns("Name", "ParentRef"), _ip_address),
}
