"""The API server's strict dry run accepts every object we ship, and Pod Security what it should."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from tests.cluster.manifests.audit import granted
from tests.cluster.manifests.rendering import (
    COMPONENTS,
    MANIFESTS,
    OVERLAYS,
    ROOT,
    Object,
    environment,
    one,
    parse,
    pod_of,
)

from gpudiag_cli.controlplane import Kubectl

Render = Callable[..., list[Object]]
pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crds", "foreign_kinds", "system_namespace")]

PARTS = ("gpudiag-agent", "gpudiag-operator", "gpudiag-mcp")
SERVER_SIDE = ("--server-side",)


def dry_run(kubectl: Kubectl, items: list[Object], *how: str) -> list[str]:
    """What the API server would do; it fails for an unknown or doubled field."""
    text = yaml.safe_dump_all(items)
    said = kubectl("apply", "--dry-run=server", "--validate=strict", *how, "-f", "-", stdin=text)
    # Of what the fixtures made by other means kubectl says that it lacks an annotation.
    warnings = [line for line in said.stderr.splitlines() if "last-applied-configuration" not in line]
    assert not warnings
    return said.stdout.splitlines()


@pytest.mark.parametrize(("overlay", "how"), [*((overlay, SERVER_SIDE) for overlay in OVERLAYS), ("default", ())])
def test_every_object_of_an_overlay_is_accepted(kubectl: Kubectl, render: Render, overlay: str, how: Any) -> None:
    items = render(overlay=overlay)
    assert len(dry_run(kubectl, items, *how)) == len(items)


def test_every_component_is_accepted_and_they_go_together(kubectl: Kubectl, render: Render) -> None:
    items = render(components=COMPONENTS)
    assert {item["kind"] for item in items} >= {"PodMonitor", "PodDisruptionBudget", "PrometheusRule", "ConfigMap"}
    assert len(dry_run(kubectl, items, *SERVER_SIDE)) == len(items)


def test_plain_http_is_accepted_too(kubectl: Kubectl, render: Render) -> None:
    items = render(components=["mcp", "monitoring", "plain-http"])
    assert len(dry_run(kubectl, items, *SERVER_SIDE)) == len(items)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_container_can_write_to_its_image(render: Render, overlay: str) -> None:
    items = render(overlay=overlay, components=["mcp", "mcp-create"])
    for part in PARTS:
        for container in pod_of(items, part)["spec"]["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.slow
@pytest.mark.parametrize("component", COMPONENTS)
def test_every_component_goes_alone_and_into_another_namespace(render: Render, component: str) -> None:
    # Creating is an addition to the facade.
    with_it = ["mcp", component] if component == "mcp-create" else [component]
    items = render(components=with_it, namespace="elsewhere")
    assert {item["metadata"].get("namespace") for item in items} == {"elsewhere", None}
    assert "gpudiag-system" not in json.dumps(items)
    for binding in (item for item in items if item["kind"].endswith("RoleBinding")):
        assert {subject["namespace"] for subject in binding["subjects"]} == {"elsewhere"}
    assert all(item["metadata"]["labels"]["app.kubernetes.io/part-of"] == "gpudiag" for item in items)


@pytest.mark.parametrize("folder", ["samples", "gitops/argocd"])
def test_every_sample_is_accepted(kubectl: Kubectl, folder: str) -> None:
    items = parse(kubectl("kustomize", MANIFESTS / folder).stdout)
    for item in items:
        item["metadata"].pop("namespace", None)
    assert len(dry_run(kubectl, items, *SERVER_SIDE)) == len(items)


class TestPodSecurity:
    """Against the real admission plug-in, by the labels of a namespace."""

    @pytest.fixture
    def admitted(self, kubectl: Kubectl, namespace: str) -> Callable[..., str]:
        def ask(pod: Object, level: str) -> str:
            kubectl("label", "--overwrite", "namespace", namespace, f"pod-security.kubernetes.io/enforce={level}")
            mine = {**pod, "metadata": {**pod["metadata"], "namespace": namespace}}
            said = kubectl("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(mine), check=False)
            return said.stdout if said.returncode == 0 else said.stderr

        return ask

    @pytest.mark.parametrize("overlay", ["default", "openshift"])
    @pytest.mark.parametrize("part", PARTS[1:])
    def test_operator_and_facade_satisfy_restricted(
        self, admitted: Callable[..., str], render: Render, overlay: str, part: str
    ) -> None:
        pod = pod_of(render(overlay=overlay, components=["mcp", "mcp-create"]), part)
        assert f"pod/{part} created" in admitted(pod, "restricted")

    def test_in_the_minimal_overlay_everything_does(self, admitted: Callable[..., str], render: Render) -> None:
        items = render(overlay="minimal", components=["mcp"])
        for part in PARTS:
            assert f"pod/{part} created" in admitted(pod_of(items, part), "restricted")
        labels = one(items, "Namespace", "gpudiag-system")["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"

    def test_the_agent_needs_what_its_comments_say_and_nothing_else(
        self, admitted: Callable[..., str], render: Render
    ) -> None:
        pod = pod_of(render(), "gpudiag-agent")
        assert "pod/gpudiag-agent created" in admitted(pod, "privileged")
        refusal = admitted(pod, "baseline")
        assert set(re.findall(r"[:,] (host namespaces|privileged|hostPath volumes|[\w ]+) \(", refusal)) == {
            "host namespaces",
            "privileged",
            "hostPath volumes",
        }
        assert "hostPID=true" in refusal
        assert set(re.findall(r'"([\w-]+)"', refusal.partition("hostPath volumes")[2])) - {"agent"} == {
            "kmsg",
            "sys",
            "state",
            "pod-resources",
            "pod-logs",
        }

    def test_each_of_these_needs_has_its_reason_above_it(self) -> None:
        lines = (ROOT / "manifests/base/agent.yaml").read_text().splitlines()
        mounts = {"kmsg", "sys", "state", "pod-resources", "pod-logs"}
        for number, line in enumerate(lines):
            mount = re.fullmatch(r" {12}- name: ([\w-]+)", line)
            needs = line.strip() in {"hostPID: true", "privileged: true"} or (mount and mount[1] in mounts)
            if needs:
                assert lines[number - 1].strip().startswith("# "), f"no reason above {line.strip()!r}"


class TestRoles:
    def test_viewing_is_part_of_the_clusters_own_roles_and_creating_is_not(
        self, kubectl: Kubectl, render: Render
    ) -> None:
        """The controller that aggregates does not run here: the selectors are the API server's own."""
        items = render()
        for role in ("view", "edit", "admin"):
            selectors = kubectl.json("get", "clusterrole", role)["aggregationRule"]["clusterRoleSelectors"]
            taken = {
                item["metadata"]["name"]
                for item in items
                if item["kind"] == "ClusterRole"
                and any(s["matchLabels"].items() <= item["metadata"].get("labels", {}).items() for s in selectors)
            }
            assert taken == {"gpudiag-viewer"}

    def test_the_viewer_may_only_look(self, render: Render) -> None:
        rules = one(render(), "ClusterRole", "gpudiag-viewer")["rules"]
        assert {verb for rule in rules for verb in rule["verbs"]} == {"get", "list", "watch"}
        leases = next(rule for rule in rules if rule["resources"] == ["leases"])
        assert leases == {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": ["gpudiag-operator", "gpudiag-aggregator"],
            "verbs": ["get"],
        }

    def test_the_agents_one_right_is_to_ask_whose_token_it_is(self, render: Render) -> None:
        rights = granted(render(components=COMPONENTS), "gpudiag-agent")
        assert {str(right) for right in rights} == {"create tokenreviews.authentication.k8s.io"}

    def test_the_operators_right_to_secrets_is_to_one_of_its_namespace(self, render: Render) -> None:
        found = [
            (item["kind"], rule)
            for item in render()
            for rule in item.get("rules", [])
            if "secrets" in rule["resources"] and item["kind"].endswith("Role")
        ]
        one_secret = {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": ["gpudiag-agent-tls"],
            "verbs": ["get", "patch"],
        }
        assert found == [("Role", one_secret)]

    @pytest.mark.parametrize("component", ["tls", "plain-http"])
    def test_where_it_makes_no_certificate_it_has_none(self, render: Render, component: str) -> None:
        items = render(components=[component])
        assert not any("secrets" in rule["resources"] for item in items for rule in item.get("rules", []))
        assert not any(item["kind"] == "Secret" for item in items)

    def test_plain_http_is_nobodys_default(self, render: Render) -> None:
        for overlay in OVERLAYS:
            items = render(overlay=overlay)
            agents, operators = (environment(pod_of(items, f"gpudiag-{part}")) for part in ("agent", "operator"))
            assert agents["GPUDIAG_AUTH"] == "tokenreview"
            assert agents["GPUDIAG_TLS_CERT_DIR"]
            assert operators["GPUDIAG_AGENT_TLS"] == "managed"
        plain = render(components=["plain-http"])
        assert "GPUDIAG_TLS_CERT_DIR" not in environment(pod_of(plain, "gpudiag-agent"))
        assert environment(pod_of(plain, "gpudiag-operator"))["GPUDIAG_AGENT_TLS"] == "off"

    def test_nobody_is_allowed_everything(self, render: Render) -> None:
        for item in render(components=COMPONENTS):
            for rule in item.get("rules", []) if item["kind"].endswith("Role") else []:
                assert "*" not in {*rule["verbs"], *rule["resources"], *rule["apiGroups"]}
                assert "secrets" not in rule["resources"] or rule["resourceNames"]
