"""Rights by measurement: what each component asks of a real API server is what its roles grant, no more and no less.

A scenario that takes each path once stands for the whole suite; the audit log of an API server of its own is the
witness. The components run as their own service accounts.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.access.conftest import AgentProcess
from tests.cluster.manifests.audit import audited, covers, granted, refused, requests, used
from tests.cluster.manifests.rendering import Object, kustomize, one
from tests.cluster.mcp.facade import AUDIENCE, calling, facade
from tests.cluster.operator.conftest import OperatorProcess, Rig
from tests.unit.mcp.test_server import data

from gpudiag_cli.controlplane import ControlPlane

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

COMPONENTS = ("mcp", "mcp-create")
SECRET = "gpudiag-agent-tls"
DETAILS_OF_PODS = {"node-name", "node-uid", "pod-name", "pod-uid"}
"""Extras that only tokens mounted into a Pod carry; those made here are of accounts alone."""


@dataclass
class World:
    """A control plane that writes everything down, with our roles in the namespace of a rig."""

    rig: Rig
    log: Path
    items: list[Object]

    def account(self, name: str) -> str:
        return f"system:serviceaccount:{self.rig.namespace}:{name}"

    def start(self, *flags: str) -> OperatorProcess:
        plane, folder = self.rig.plane, self.rig.folder
        path = plane.service_account_kubeconfig(
            folder / "operator.kubeconfig", "gpudiag-operator", namespace=self.rig.namespace
        )
        return self.rig.start("--kubeconfig", str(path), *flags)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    binaries, log = audited(
        folder,
        # As on OpenShift: who sets an owner must be allowed to delete what it owns.
        "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
        # As before Kubernetes 1.34, where a watch brings no first list: then `list` is needed.
        "--feature-gates=WatchList=false",
    )
    with ControlPlane.start(folder / "plane", binaries=binaries, controller_manager=False) as plane:
        rig = Rig(plane, plane.client(), folder)
        try:
            rig.install()
            items = kustomize(plane.client(), folder / "base", components=COMPONENTS, namespace=rig.namespace)
            kinds = {"ServiceAccount", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "Secret"}
            mine = [item for item in items if item["kind"] in kinds]
            impersonation = {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": "gpudiag-mcp-for-callers", "namespace": rig.namespace},
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io",
                    "kind": "ClusterRole",
                    "name": "gpudiag-mcp-impersonate-serviceaccounts",
                },
                "subjects": [{"kind": "ServiceAccount", "name": "gpudiag-mcp", "namespace": rig.namespace}],
            }
            plane.client().apply(*mine, impersonation)
            yield World(rig, log, [*items, impersonation])
        finally:
            rig.close()


def agree(world: World, account: str, *, not_measured: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Nothing was refused, and every right was used."""
    events = requests(world.log, world.account(account))
    assert not refused(events)
    uses, grants = used(events), granted(world.items, account)
    idle = {str(grant) for grant in grants if not any(covers(grant, use) for use in uses)}
    assert idle == not_measured, "granted and not used (or used and said not to be)"


def test_the_operators_rights_are_what_it_uses(world: World) -> None:
    rig = world.rig
    # Before there are agents: those of the rig speak plain HTTP.
    managed = world.start("--agent-tls", "managed")
    rig.eventually(lambda: rig.kubectl.json("get", "secret", SECRET, "-n", rig.namespace).get("data"))
    assert managed.stop()[0] == 0
    agent = rig.add_node("rb-1")
    # Of people, before the operator knows the node.
    maintenance = {"apiVersion": "gpudiag.dev/v1alpha1", "kind": "GPUNode", "metadata": {"name": "rb-2"}}
    rig.kubectl.apply({**maintenance, "spec": {"maintenance": {"reason": "new"}}})
    rig.diagnostic("fleet", interval="5s")
    operator = world.start("--mirror-labels", "pool")
    rig.eventually(lambda: rig.health("rb-1")[0] == "Healthy")
    rig.kubectl("label", "node", "rb-1", "pool=training")
    rig.eventually(lambda: rig.gpunode("rb-1")["metadata"].get("labels"))
    before = rig.gpunode("rb-1")["status"]
    agent.lose_gpu()
    rig.eventually(lambda: rig.health("rb-1")[0] == "Unhealthy")
    rig.diagnostic("once", mode="Once", detail="Full", ttlAfterFinished="0s", target={"nodeNames": ["rb-1"]})
    rig.eventually(lambda: not rig.status("once") and "once" not in names(rig))
    assert operator.stop()[0] == 0

    # As if the process had died between an Event and its status: the same Event is met again, and counted.
    body = json.dumps({"status": before})
    rig.kubectl("patch", "gpunode", "rb-1", "--subresource=status", "--type=merge", "-p", body)
    second = world.start()
    rig.eventually(lambda: rig.health("rb-1")[0] == "Unhealthy")
    events = rig.kubectl.json("get", "events", "-n", "default")["items"]
    assert any(event.get("count", 1) > 1 for event in events)
    assert second.stop()[0] == 0
    agree(world, "gpudiag-operator")


def test_the_agents_rights_are_what_it_uses(world: World) -> None:
    rig = world.rig
    own = rig.folder / "agents-account"
    own.mkdir()
    (own / "token").write_text(rig.plane.service_account_token("gpudiag-agent", namespace=rig.namespace))
    (own / "ca.crt").write_bytes(rig.plane.apiserver_ca.read_bytes())
    flags = ["--auth", "tokenreview", "--allowed-service-accounts", f"{rig.namespace}/gpudiag-operator"]
    agent = AgentProcess(rig.folder, *flags, "--api-server", rig.plane.server, "--service-account-dir", str(own))
    try:
        token = rig.plane.service_account_token("gpudiag-operator", namespace=rig.namespace, audience="gpudiag-agent")
        agent.until(lambda: agent.get("/v1/report", token)[0] == 200)
    finally:
        agent.stop()
    agree(world, "gpudiag-agent")


def test_a_gpunode_of_peoples_is_adopted_where_the_plugin_guards_owners_only_with_the_right_to_delete(
    world: World,
) -> None:
    rig = world.rig
    operator = world.start()
    rig.add_node("rb-2")
    rig.eventually(lambda: "cannot set" in operator.log.read_text() or "forbidden" in operator.log.read_text().lower())
    assert not rig.gpunode("rb-2")["metadata"].get("ownerReferences")
    openshift = kustomize(rig.kubectl, rig.folder / "openshift", overlay="openshift", namespace=rig.namespace)
    rig.kubectl.apply(one(openshift, "ClusterRole", "gpudiag-operator"))
    rig.eventually(lambda: rig.gpunode("rb-2")["metadata"].get("ownerReferences"), 30)
    operator.stop()


def test_proxy_routing_takes_one_right_more(world: World) -> None:
    rig = world.rig
    items = kustomize(rig.kubectl, rig.folder / "proxy", components=["proxy-routing"], namespace=rig.namespace)
    more = granted(items, "gpudiag-operator") - granted(world.items, "gpudiag-operator")
    assert {str(right) for right in more} == {f"get pods/proxy in {rig.namespace}"}
    rig.kubectl.apply(
        *(item for item in items if item["kind"] in {"Role", "RoleBinding"} and "proxy" in item["metadata"]["name"])
    )
    began = time.time()
    operator = world.start("--routing", "proxy")
    # The API server calls no loopback address; that it was asked is what counts.
    rig.eventually(lambda: any("/proxy/" in event["requestURI"] for event in requests_since(world, began)))
    operator.stop()
    assert not refused(requests_since(world, began))
    assert more <= used(requests_since(world, began))


async def test_the_facades_rights_are_what_it_uses(world: World) -> None:
    rig = world.rig
    rig.kubectl("create", "serviceaccount", "assistant", "-n", rig.namespace)
    for role in ("gpudiag-viewer", "gpudiag-editor"):
        account = f"--serviceaccount={rig.namespace}:assistant"
        rig.kubectl("create", "clusterrolebinding", f"assistant-{role}", f"--clusterrole={role}", account)
    token = rig.plane.service_account_token("assistant", namespace=rig.namespace, audience=AUDIENCE)
    own = rig.plane.service_account_kubeconfig(rig.folder / "mcp", "gpudiag-mcp", namespace=rig.namespace)
    flags = (f"--namespace={rig.namespace}", "--allow-create", "--allow-unattended-create")
    async with (
        facade(own, *flags, f"--create-namespaces={rig.namespace}") as running,
        calling(running.url, token=token) as client,
    ):
        health: Any = data(await client.call_tool("get_gpu_health", {}))
        assert health["verdict"]
        data(await client.call_tool("list_gpu_diagnostics", {}))
        made = data(await client.call_tool("create_gpu_diagnostic", {"node": "rb-1", "wait_s": 0}))
        one = {"namespace": rig.namespace, "name": made["name"]}
        data(await client.call_tool("get_gpu_diagnostic", one))
    extras = {f"impersonate userextras.authentication.k8s.io/authentication.kubernetes.io/{n}" for n in DETAILS_OF_PODS}
    agree(world, "gpudiag-mcp", not_measured=extras)


def names(rig: Rig) -> list[str]:
    return [item["metadata"]["name"] for item in rig.kubectl.json("get", "gpud", "-n", rig.namespace)["items"]]


def requests_since(world: World, began: float) -> list[dict[str, Any]]:
    events = requests(world.log, world.account("gpudiag-operator"))
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(began))
    return [event for event in events if event["requestReceivedTimestamp"] >= stamp]
