"""What a component asks of an API server, from its audit log, against what it is granted."""

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.cluster.manifests.rendering import COMPONENTS, OVERLAYS, Object, kustomize

from gpudiag_cli.controlplane import Binaries, Kubectl, find_binaries

POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


ONLY_WHERE_ALLOWED = {"create secrets"}
"""Tried by a leader that finds no Secret for the agents' certificate; the manifests bring one, and no such right."""


@dataclass(frozen=True, order=True)
class Right:
    """A verb on a resource (`gpunodes.gpudiag.dev/status`), in a namespace or (empty) anywhere."""

    namespace: str
    resource: str
    verb: str

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{f' in {self.namespace}' if self.namespace else ''}"


def audited(folder: Path, *flags: str) -> tuple[Binaries, Path]:
    """Programs of a control plane whose API server keeps an audit log, and that log."""
    binaries, log, policy = find_binaries(), folder / "audit.log", folder / "audit-policy.json"
    policy.write_text(json.dumps(POLICY))
    wrapper = folder / "kube-apiserver"
    # Of the size (MB) at which a log is put aside; those put aside are not read.
    more = [f"--audit-policy-file={policy}", f"--audit-log-path={log}", "--audit-log-maxsize=1024", *flags]
    wrapper.write_text(f'#!/bin/sh\nexec {shlex.quote(str(binaries.kube_apiserver))} "$@" {shlex.join(more)}\n')
    wrapper.chmod(0o755)
    return replace(binaries, kube_apiserver=wrapper), log


def requests(log: Path, user: str) -> list[dict[str, Any]]:
    """Requests about resources that a user made, by its own name."""
    events = (json.loads(line) for line in log.read_text().splitlines())
    return [event for event in events if event["user"]["username"] == user and "objectRef" in event]


def used(events: Iterable[dict[str, Any]]) -> set[Right]:
    """The rights that these took; impersonation counts as a right of its own."""
    found = set()
    for event in events:
        about = event["objectRef"]
        if "impersonatedUser" in event:
            found |= _impersonated(event["impersonatedUser"])
            continue
        resource = _resource(about.get("apiGroup", ""), about["resource"], about.get("subresource", ""))
        found.add(Right(about.get("namespace", ""), resource, event["verb"]))
    return found


def refused(events: Iterable[dict[str, Any]]) -> list[str]:
    """What the API server answered with 403, impersonated requests apart: those are the caller's."""
    return [
        f"{event['verb']} {event['requestURI']}"
        for event in events
        if event.get("responseStatus", {}).get("code") == 403 and "impersonatedUser" not in event
    ]


def granted(items: Iterable[Object], account: str) -> set[Right]:
    """The rights that rendered roles give to a service account."""
    items = list(items)
    roles = {
        (item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]): item["rules"]
        for item in items
        if item["kind"] in {"Role", "ClusterRole"}
    }
    found: set[Right] = set()
    for binding in items:
        if binding["kind"] not in {"RoleBinding", "ClusterRoleBinding"}:
            continue
        if account not in {subject["name"] for subject in binding["subjects"]}:
            continue
        where, role = binding["metadata"].get("namespace", ""), binding["roleRef"]
        key = (role["kind"], where if role["kind"] == "Role" else "", role["name"])
        found |= {
            Right(where, _resource(group, *resource.partition("/")[::2]), verb)
            for rule in roles[key]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }
    return found


def granted_anywhere(kubectl: Kubectl, folder: Path, account: str) -> set[Right]:
    """What the roles of any overlay, with all components or none, give to a service account."""
    return {
        right
        for overlay in OVERLAYS
        for components in ((), COMPONENTS)
        for right in granted(kustomize(kubectl, folder / overlay, overlay=overlay, components=components), account)
    }


def asked_beyond(log: Path, agent: str, grants: Iterable[Right]) -> set[str]:
    """What processes of ours, known by their User-Agent, asked for in a whole run and no role grants; not where.

    Tests run them as administrators and in namespaces of their own, so nothing was refused.
    """
    known = {(grant.resource, grant.verb) for grant in grants}
    with log.open() as lines:
        events = [json.loads(line) for line in lines if f'"userAgent":"{agent}' in line and '"objectRef"' in line]
    return {f"{use.verb} {use.resource}" for use in used(events) if (use.resource, use.verb) not in known}


def covers(grant: Right, use: Right) -> bool:
    same = (grant.resource, grant.verb) == (use.resource, use.verb)
    return same and grant.namespace in {"", use.namespace}


def _resource(group: str, resource: str, subresource: str) -> str:
    return f"{resource}{f'.{group}' if group else ''}{f'/{subresource}' if subresource else ''}"


def _impersonated(user: dict[str, Any]) -> set[Right]:
    _, _, namespace, _ = user["username"].split(":")
    group = "authentication.k8s.io"
    found = {Right(namespace, "serviceaccounts", "impersonate")}
    if user.get("uid"):
        found.add(Right("", f"uids.{group}", "impersonate"))
    extras = user.get("extra", {})
    return found | {Right("", f"userextras.{group}/{name}", "impersonate") for name in extras}
