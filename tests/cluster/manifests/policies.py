"""What NetworkPolicies say, by the rules of networking.k8s.io/v1, for want of a network that enforces them.

Covers what we use: pod and namespace selectors by labels and expressions, ipBlock, ports by number. Policies add up;
a Pod that none selects in a direction is open in that direction; both ends must agree.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.cluster.manifests.rendering import Object


@dataclass(frozen=True)
class Place:
    """A Pod, or (without labels) something outside of the cluster."""

    namespace: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    namespace_labels: dict[str, str] = field(default_factory=dict)
    ip: str = "10.9.9.9"

    @property
    def is_pod(self) -> bool:
        return bool(self.namespace)


def allowed(policies: Sequence[Object], source: Place, target: Place, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection is admitted by both ends."""
    return _admits(policies, "Egress", source, target, port, protocol) and _admits(
        policies, "Ingress", target, source, port, protocol
    )


def _admits(policies: Iterable[Object], direction: str, subject: Place, peer: Place, port: int, protocol: str) -> bool:
    if not subject.is_pod:
        return True
    mine = [
        policy["spec"]
        for policy in policies
        if policy["metadata"]["namespace"] == subject.namespace
        and direction in policy["spec"]["policyTypes"]
        and selects(policy["spec"]["podSelector"], subject.labels)
    ]
    peers, key = ("from", "ingress") if direction == "Ingress" else ("to", "egress")
    return not mine or any(
        _port(rule, port, protocol) and _peer(rule.get(peers), subject.namespace, peer)
        for spec in mine
        for rule in spec.get(key) or []
    )


def _port(rule: dict[str, Any], port: int, protocol: str) -> bool:
    ports = rule.get("ports")
    return not ports or any((entry["port"], entry.get("protocol", "TCP")) == (port, protocol) for entry in ports)


def _peer(entries: list[dict[str, Any]] | None, own: str, peer: Place) -> bool:
    return not entries or any(_matches(entry, own, peer) for entry in entries)


def _matches(entry: dict[str, Any], own: str, peer: Place) -> bool:
    if "ipBlock" in entry:
        block, address = entry["ipBlock"], ipaddress.ip_address(peer.ip)
        inside = address in ipaddress.ip_network(block["cidr"])
        return inside and not any(address in ipaddress.ip_network(each) for each in block.get("except", []))
    if not peer.is_pod:
        return False
    there = selects(entry["namespaceSelector"], peer.namespace_labels) if "namespaceSelector" in entry else None
    return (peer.namespace == own if there is None else there) and selects(entry.get("podSelector", {}), peer.labels)


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """A LabelSelector; an empty one selects everything."""
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    for entry in selector.get("matchExpressions", []):
        assert entry["operator"] == "In", "the evaluator knows no other"
        if labels.get(entry["key"]) not in entry["values"]:
            return False
    return True
