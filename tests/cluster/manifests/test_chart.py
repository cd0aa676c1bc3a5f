"""The Helm chart with the real helm: it says the same as kustomize, and the API server takes every form of it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from tests.cluster.manifests.helm import Helm, program
from tests.cluster.manifests.policies import Place, allowed
from tests.cluster.manifests.rendering import CHART, Object, by_key, environment, one, parse, pod_of
from tests.cluster.manifests.test_network_policies import AGENT, agent, api_server, facade, operator, stranger

from gpudiag_cli.controlplane import ControlPlane, Kubectl

Render = Callable[..., list[Object]]
Template = Callable[..., list[Object]]
pytestmark = [pytest.mark.cluster, pytest.mark.slow]

HELMS_OWN_LABELS = (
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "helm.sh/chart",
)
NO_GPUS = {"image": {"pullPolicy": "Never"}, "agent": {"affinity": None, "settings": {"source": "simulated"}}}
MONITORING = {"monitoring": {"enabled": True}, "networkPolicy": {"allowPrometheus": True}}
PROXY = {"operator": {"routing": "proxy"}, "networkPolicy": {"apiServerCIDR": "10.0.0.0/8"}}
PLAIN = {"agentAPI": {"tls": {"mode": "off"}}}
CREATE = {"mcp": {"enabled": True, "allowCreate": {"enabled": True}}}
EVERYTHING: dict[str, Any] = {
    "imagePullSecrets": [{"name": "login"}],
    "image": {"registry": "registry.example/gpu/", "tag": "9.9.9"},
    "commonLabels": {"team": "gpu"},
    "openshift": {"enabled": True},
    "monitoring": {
        "enabled": True,
        "labels": {"release": "prometheus"},
        "agentEndpoint": {
            "authorization": {"credentials": {"name": "scraper", "key": "token"}},
            "tlsConfig": {"cert": {"secret": {"name": "scraper", "key": "tls.crt"}}},
        },
    },
    "networkPolicy": {
        "allowPrometheus": True,
        "apiServerCIDR": "10.0.0.1/32",
        "tracingTo": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "observability"}}}],
    },
    "tracing": {"otlpEndpoint": "https://collector.observability:4318"},
    "agentAPI": {
        "allowedServiceAccounts": ["sre/reader"],
        "metricsServiceAccounts": ["monitoring/prometheus"],
        "anonymousPaths": "/healthz",
        "tls": {"mode": "secret", "secretName": "agents", "serverName": "agents.example", "clientSecretName": "client"},
    },
    "agent": {
        "runtimeClassName": "nvidia",
        "nodeSelector": {"pool": "gpu"},
        "resourceClaim": {"enabled": True},
        "settings": {"interval": "15s"},
        "thresholds": {"temperature": {}},
        "podAnnotations": {"a": "b"},
        "podLabels": {"c": "d"},
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        "serviceAccount": {"annotations": {"e": "f"}},
    },
    "operator": {
        "image": {"repository": "operator", "digest": f"sha256:{'0' * 64}"},
        "replicas": 3,
        "shards": 2,
        "tolerations": [{"key": "control", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    },
    "mcp": {
        "enabled": True,
        "replicas": 2,
        "stateKeysSecret": "keys",
        "allowCreate": {
            "enabled": True,
            "namespaces": ["team-a"],
            "serviceAccountsIn": ["team-a"],
            "users": ["ann@example.org"],
            "groups": ["gpu-users"],
        },
    },
}


@pytest.fixture(scope="session")
def helm_program() -> Path:
    return program()


@pytest.fixture
def helm(helm_program: Path, tmp_path: Path) -> Helm:
    return Helm(helm_program, tmp_path)


@pytest.fixture
def template(helm: Helm, tmp_path: Path) -> Template:
    """``template({"mcp": {"enabled": True}})`` gives the objects of the chart."""

    def made(values: dict[str, Any] | None = None, *flags: str) -> list[Object]:
        path = tmp_path / f"values-{uuid4().hex[:6]}.yaml"
        path.write_text(yaml.safe_dump(values or {}))
        return helm.template(path, *flags)

    return made


def comparable(item: Object) -> Object:
    """Without what Helm adds, and with lists in the order of their keys where their order means nothing."""
    plain: Object = json.loads(json.dumps(item))
    labels = plain["metadata"].get("labels", {})
    for name in HELMS_OWN_LABELS:
        labels.pop(name, None)
    if labels.get("app.kubernetes.io/name") == "gpudiag":
        labels.pop("app.kubernetes.io/name")  # kustomize gives it to objects of a part only
    pod = plain.get("spec", {}).get("template", {}).get("spec", {})
    for container in pod.get("containers", []):
        container["env"] = sorted(container["env"], key=lambda entry: entry["name"])
        container["volumeMounts"] = sorted(container.get("volumeMounts", []), key=lambda entry: entry["mountPath"])
    pod["volumes"] = sorted(pod.get("volumes", []), key=lambda entry: entry["name"])
    if plain["kind"] == "ConfigMap":
        plain["data"] = {key: yaml.safe_load(text) for key, text in plain["data"].items()}
    return plain


@pytest.mark.parametrize(
    ("how", "values"),
    [
        pytest.param({}, {}, id="default"),
        pytest.param({"overlay": "kind"}, NO_GPUS, id="kind"),
        pytest.param({"overlay": "minimal"}, {"agent": {"privileged": False}}, id="minimal"),
        pytest.param({"overlay": "openshift"}, {"openshift": {"enabled": True}}, id="openshift"),
        pytest.param({"components": ["mcp"]}, {"mcp": {"enabled": True}}, id="mcp"),
        pytest.param({"components": ["mcp", "mcp-create"]}, CREATE, id="mcp-create"),
        pytest.param({"components": ["monitoring"]}, MONITORING, id="monitoring"),
        pytest.param({"components": ["high-availability"]}, {"operator": {"replicas": 2}}, id="high-availability"),
        pytest.param({"components": ["proxy-routing"]}, PROXY, id="proxy-routing"),
        pytest.param({"components": ["tls"]}, {"agentAPI": {"tls": {"mode": "secret"}}}, id="tls"),
        pytest.param({"components": ["monitoring", "plain-http"]}, {**MONITORING, **PLAIN}, id="plain-http"),
    ],
)
def test_chart_and_kustomize_agree(
    render: Render, template: Template, how: dict[str, Any], values: dict[str, Any]
) -> None:
    """Documented differences: Helm's labels; the Namespace, which is not in the chart; what only values can name."""
    ours, charts = by_key(render(**how)), by_key(template(values))
    del ours["Namespace", "", "gpudiag-system"]
    assert charts.keys() == ours.keys()
    for key, item in ours.items():
        if "apiServerCIDR" in values.get("networkPolicy", {}) and key[0] == "NetworkPolicy":
            continue
        assert comparable(charts[key]) == comparable(item), key


@pytest.mark.usefixtures("crds", "foreign_kinds", "system_namespace")
@pytest.mark.parametrize("values", [EVERYTHING, {"agent": {"privileged": False}, **CREATE, **MONITORING}])
def test_the_api_server_takes_every_form_of_it(
    kubectl: Kubectl, template: Template, namespace: str, values: dict[str, Any]
) -> None:
    kubectl("create", "namespace", "team-a", check=False)
    kubectl("label", "--overwrite", "namespace", "gpudiag-system", "resource.kubernetes.io/admin-access=true")
    items = template(values)
    text = yaml.safe_dump_all(items)
    said = kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text)
    assert len(said.stdout.splitlines()) == len(items)
    assert "Warning" not in said.stderr

    level = "pod-security.kubernetes.io/enforce=restricted"
    kubectl("label", "--overwrite", "namespace", namespace, level)
    for name in ("gpudiag-operator", "gpudiag-mcp"):
        pod = pod_of(items, name)
        pod["metadata"]["namespace"] = namespace
        assert "created" in kubectl("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(pod)).stdout


def test_every_option_arrives(template: Template) -> None:
    items = template(EVERYTHING)
    agents, operators, facades = (pod_of(items, f"gpudiag-{part}")["spec"] for part in ("agent", "operator", "mcp"))
    assert agents["runtimeClassName"] == "nvidia"
    assert agents["nodeSelector"] == {"pool": "gpu"}
    assert agents["containers"][0]["image"] == "registry.example/gpu/gpudiag-agent:9.9.9"
    assert agents["containers"][0]["resources"]["claims"] == [{"name": "gpus"}]
    assert environment(pod_of(items, "gpudiag-agent"))["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert environment(pod_of(items, "gpudiag-agent"))["GPUDIAG_INTERVAL"] == "15s"
    secured = environment(pod_of(items, "gpudiag-agent"))
    assert secured["GPUDIAG_ALLOWED_SERVICE_ACCOUNTS"] == "$(POD_NAMESPACE)/gpudiag-operator,sre/reader"
    assert secured["GPUDIAG_METRICS_SERVICE_ACCOUNTS"] == "monitoring/prometheus"
    (scraped,) = one(items, "PodMonitor", "gpudiag-agent")["spec"]["podMetricsEndpoints"]
    assert scraped["authorization"] == {"credentials": {"name": "scraper", "key": "token"}}
    assert scraped["tlsConfig"] == {
        "ca": {"secret": {"name": "agents", "key": "ca.crt"}},
        "cert": {"secret": {"name": "scraper", "key": "tls.crt"}},
        "serverName": "agents.example",
    }
    assert (secured["GPUDIAG_ANONYMOUS_PATHS"], secured["GPUDIAG_TLS_CLIENT_AUTH"]) == ("/healthz", "require")
    assert environment(pod_of(items, "gpudiag-operator"))["GPUDIAG_AGENT_SERVER_NAME"] == "agents.example"
    assert operators["containers"][0]["image"] == f"registry.example/gpu/operator@sha256:{'0' * 64}"
    assert environment(pod_of(items, "gpudiag-operator"))["GPUDIAG_SHARDS"] == "2"
    assert "runAsUser" not in operators["securityContext"]
    settings = environment(pod_of(items, "gpudiag-mcp"))
    assert settings["GPUDIAG_CREATE_NAMESPACES"] == "team-a"
    assert settings["GPUDIAG_STATE_KEYS"] == "/etc/gpudiag-mcp/keys"
    assert facades["volumes"] == [{"name": "state-keys", "secret": {"secretName": "keys"}}]
    for part in ("operator", "mcp"):
        told = environment(pod_of(items, f"gpudiag-{part}"))["OTEL_EXPORTER_OTLP_ENDPOINT"]
        assert told == "https://collector.observability:4318"
        budget = one(items, "PodDisruptionBudget", f"gpudiag-{part}")["spec"]
        assert budget["selector"] == {"matchLabels": {"app.kubernetes.io/name": f"gpudiag-{part}"}}
    for pod in (agents, operators, facades):
        assert pod["imagePullSecrets"] == [{"name": "login"}]
    for item in items:
        if item["kind"] != "CustomResourceDefinition":
            assert item["metadata"]["labels"]["team"] == "gpu"
    people = one(items, "ClusterRole", "gpudiag-mcp-impersonate-people")["rules"]
    assert [rule["resourceNames"] for rule in people] == [["ann@example.org"], ["gpu-users"]]


@pytest.mark.parametrize(
    ("endpoint", "port"), [("http://collector:4318", 4318), ("http://[::1]:99/x", 99), ("https://c.example/otlp", 443)]
)
def test_spans_reach_the_collector_and_only_from_those_that_make_them(
    template: Template, endpoint: str, port: int
) -> None:
    collector, elsewhere = Place("observability", {}, {"team": "observability"}), Place("team-a", {}, {"team": "a"})
    peer = [{"namespaceSelector": {"matchLabels": {"team": "observability"}}}]
    values = {"tracing": {"otlpEndpoint": endpoint}, "mcp": {"enabled": True}}
    narrow = {**values, "networkPolicy": {"tracingTo": peer, "apiServerCIDR": "10.0.0.1/32"}}
    wide, narrowed = (
        [item for item in template(given) if item["kind"] == "NetworkPolicy"] for given in (values, narrow)
    )
    without = [item for item in template({"mcp": {"enabled": True}}) if item["kind"] == "NetworkPolicy"]
    for source in (operator, facade):
        assert allowed(wide, source, collector, port)
        assert allowed(wide, source, elsewhere, port)
        assert allowed(narrowed, source, collector, port)
        assert not allowed(narrowed, source, elsewhere, port)
        assert not allowed(narrowed, source, collector, port + 1)
        assert port == 443 or not allowed(without, source, collector, port)
    assert not allowed(narrowed, agent, collector, port)


def test_with_proxy_routing_the_api_servers_reach_agents_and_strangers_do_not(template: Template) -> None:
    policies = [item for item in template(PROXY) if item["kind"] == "NetworkPolicy"]
    assert allowed(policies, api_server, agent, AGENT)
    assert allowed(policies, operator, agent, AGENT)
    narrow = template({**PROXY, "networkPolicy": {"apiServerCIDR": "10.0.0.1/32"}})
    for other in (facade, stranger):
        assert not allowed([item for item in narrow if item["kind"] == "NetworkPolicy"], other, agent, AGENT)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"operator": {"routing": "proxy"}}, "operator.routing: proxy needs networkPolicy.apiServerCIDR"),
        ({"agentAPI": {"tls": {"clientSecretName": "x"}}}, "clientSecretName needs agentAPI.tls.mode: secret"),
        ({"agentAPI": {"auth": "basic"}}, "auth"),
        (
            {"agentAPI": {"anonymousPaths": "/healthz"}, "monitoring": {"enabled": True}},
            "Prometheus then needs monitoring.agentEndpoint.authorization",
        ),
        ({"mcp": {"enabled": True, "replicas": 2}}, "mcp.replicas above 1 needs mcp.stateKeysSecret"),
        ({"operator": {"settings": {"unreachable": "1s"}}}, "unreachable"),
        ({"agent": {"previleged": False}}, "previleged"),
        ({"operator": {"replicas": "two"}}, "replicas"),
    ],
)
def test_a_wrong_value_is_refused_and_named(helm: Helm, tmp_path: Path, values: dict[str, Any], sentence: str) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(values))
    said = helm("template", "gpudiag", CHART, f"--values={path}", check=False)
    assert said.returncode != 0
    assert sentence in said.stderr


def test_lint_finds_nothing(helm: Helm) -> None:
    assert "[WARNING]" not in helm("lint", "--strict", CHART).stdout


def test_it_installs_upgrades_and_goes_and_the_kinds_stay(helm_program: Path, tmp_path: Path) -> None:
    """On an API server of its own; there is no kubelet, so nobody waits for Pods."""
    with ControlPlane.start(tmp_path / "plane") as plane:
        kubectl, helm = plane.client(), Helm(helm_program, tmp_path, plane.kubeconfig)
        where = ("--namespace=gpudiag-system",)
        first = helm("install", "gpudiag", CHART, *where, "--create-namespace").stdout
        assert "pod-security.kubernetes.io/enforce=privileged" in first
        assert kubectl("get", "gpud", "fleet", "-n", "gpudiag-system", "-o", "name").stdout

        kubectl("label", "namespace", "gpudiag-system", "pod-security.kubernetes.io/enforce=privileged")
        second = helm("upgrade", "gpudiag", CHART, *where, "--set=operator.replicas=2").stdout
        assert "pod-security" not in second
        assert "is not the one of this chart" not in second
        assert kubectl.json("get", "deployment", "gpudiag-operator", *where)["spec"]["replicas"] == 2

        # A cluster whose kinds are older: Helm leaves them, and the notes say so.
        drop = '[{"op": "remove", "path": "/spec/versions/0/additionalPrinterColumns/0"}]'
        kubectl("patch", "crd", "gpunodes.gpudiag.dev", "--type=json", "-p", drop)
        third = helm("upgrade", "gpudiag", CHART, *where).stdout
        assert "gpunodes.gpudiag.dev in this cluster is not the one of this chart" in third
        kinds = helm("show", "crds", CHART).stdout
        kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=kinds)
        assert "is not the one of this chart" not in helm("upgrade", "gpudiag", CHART, *where).stdout

        helm("uninstall", "gpudiag", *where)
        assert not kubectl(
            "get", "deploy,ds,svc,cm,netpol,role", "-l", "app.kubernetes.io/part-of=gpudiag", *where
        ).stdout
        assert not kubectl("get", "clusterrole,clusterrolebinding", "-l", "app.kubernetes.io/part-of=gpudiag").stdout
        assert len(kubectl("get", "crd", "-o", "name").stdout.split()) == 2


@pytest.mark.usefixtures("crds")
def test_the_charts_own_test_reads_the_fleets_answer(
    helm: Helm, kubectl: Kubectl, control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    """The Pod of `helm test` as a process, with the rights of its service account."""
    text = helm("template", "gpudiag", CHART, f"--namespace={namespace}", "--show-only=templates/tests/fleet.yaml")
    items = parse(text.stdout)
    kubectl.apply(*(item for item in items if item["kind"] != "Pod"))
    container = one(items, "Pod", "gpudiag-test")["spec"]["containers"][0]
    mount = tmp_path / "account"
    mount.mkdir()
    (mount / "token").write_text(control_plane.service_account_token("gpudiag-test", namespace=namespace))
    (mount / "ca.crt").write_bytes(control_plane.apiserver_ca.read_bytes())
    host, port = control_plane.server.removeprefix("https://").split(":")
    given = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port, "NAMESPACE": namespace}
    given |= {"SERVICE_ACCOUNT": str(mount), "SECONDS_TO_WAIT": "0"}

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", *container["args"]]
        return subprocess.run(
            command, env={**os.environ, **given}, capture_output=True, text=True, check=False, timeout=60
        )

    assert "cannot be read" in run().stdout
    fleet = {"apiVersion": "gpudiag.dev/v1alpha1", "kind": "GPUDiagnostic", "metadata": {"name": "fleet"}, "spec": {}}
    kubectl.apply(fleet, namespace=namespace)
    assert "has not answered yet" in run().stdout
    ready = {"type": "Ready", "status": "True", "reason": "Fresh", "message": "2 nodes", "observedGeneration": 1}
    status = {"verdict": "Unhealthy", "conditions": [{**ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
    patch = json.dumps({"status": status})
    kubectl("patch", "gpud", "fleet", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
    done = run()
    assert (done.returncode, done.stdout) == (
        0,
        "GPUDiagnostic/fleet is Ready: Fresh: 2 nodes (verdict Unhealthy)\n",
    )
