"""gpudiag by Helm on real kubelets: a former release, upgraded while its diagnostics live; who may do what; the end.

The tests of this file build on each other; pytest runs them in this order, after those of test_cluster.py.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.manifests.rendering import CHART
from tests.cluster.mcp.facade import ACCEPT, message
from tests.e2e.cluster import API_SERVER, CRDS, Answer, Cluster, Installation, clean, is_ready
from tests.e2e.providers import ASSISTANTS, NAMESPACES, RELEASE_NAMESPACE
from tests.unit.manifests.releases import CHARTS

from gpudiag_api.version import __version__

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

DIAGNOSTICS = "/apis/gpudiag.dev/v1alpha1/namespaces/{}/gpudiagnostics"
VALUES: dict[str, Any] = {
    "image": {"pullPolicy": "Never", "tag": __version__},
    "agent": {"affinity": None, "settings": {"source": "simulated"}},
}
NEWER: dict[str, Any] = {
    **VALUES,
    # Pods change with the release, as images would.
    "agent": {**VALUES["agent"], "podAnnotations": {"release": "next"}},
    # Read through the API server from now on; it calls agents from an address that depends on the cluster.
    "operator": {"podAnnotations": {"release": "next"}, "routing": "proxy"},
    "networkPolicy": {"apiServerCIDR": "0.0.0.0/0"},
    "mcp": {"enabled": True},
}
ONCE = {
    "apiVersion": "gpudiag.dev/v1alpha1",
    "kind": "GPUDiagnostic",
    "metadata": {"name": "before-the-run"},
    "spec": {"mode": "Once"},
}
ASSISTANT = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "assistant", "namespace": ASSISTANTS},
    "spec": {
        "serviceAccountName": "assistant",
        "terminationGracePeriodSeconds": 0,
        "containers": [
            {
                "name": "assistant",
                "image": f"gpudiag-agent:{__version__}",
                "imagePullPolicy": "Never",
                "command": ["sleep", "infinity"],
                "volumeMounts": [{"name": "token", "mountPath": "/tokens"}],
            }
        ],
        "volumes": [
            {
                "name": "token",
                "projected": {"sources": [{"serviceAccountToken": {"audience": "gpudiag-mcp", "path": "token"}}]},
            }
        ],
    },
}


@pytest.fixture(scope="module")
def here(cluster: Cluster) -> Iterator[Installation]:
    """A namespace that allows privileged agents, in a cluster without the kinds."""
    clean(cluster, *NAMESPACES)
    cluster.kubectl("create", "namespace", RELEASE_NAMESPACE)
    label = "pod-security.kubernetes.io/enforce=privileged"
    cluster.kubectl("label", "namespace", RELEASE_NAMESPACE, label)
    yield Installation(cluster, RELEASE_NAMESPACE)
    clean(cluster, *NAMESPACES)


def values(folder: Path, content: dict[str, Any]) -> str:
    (folder / "values.json").write_text(json.dumps(content), encoding="utf-8")
    return f"--values={folder / 'values.json'}"


def reason(here: Installation) -> str:
    """Why the agent can be read or not."""
    conditions = here.gpunode().get("conditions", [])
    return next((str(one["reason"]) for one in conditions if one["type"] == "AgentReachable"), "")


def test_a_former_release_is_installed_and_answers(here: Installation, tmp_path: Path) -> None:
    here.cluster.helm("install", "gpudiag", CHARTS[0], here.where, values(tmp_path, VALUES))
    made = ("get", "secret", "gpudiag-agent-tls", here.where, "--output=jsonpath={.data.tls\\.crt}")
    here.cluster.until("certificate", lambda: here.cluster.kubectl(*made).stdout)
    here.hurry()
    here.cluster.until("Healthy GPUNode", here.is_healthy)
    here.cluster.kubectl("apply", "--filename=-", here.where, stdin=json.dumps(ONCE))
    here.cluster.kubectl("wait", "--for=condition=Ready", "gpudiagnostic/fleet", here.where, "--timeout=60s")
    here.cluster.kubectl(
        "wait", "--for=condition=Complete", "gpudiagnostic/before-the-run", here.where, "--timeout=60s"
    )


def test_diagnostics_live_through_an_upgrade(here: Installation, tmp_path: Path) -> None:
    def written(name: str) -> tuple[str, dict[str, Any]]:
        found = here.cluster.json("get", "gpudiagnostic", name, here.where)
        return found["metadata"]["uid"], found["status"]

    fleet, once = written("fleet"), written("before-the-run")
    before = {part: here.name(part) for part in ("agent", "operator")}
    # As docs/install.md has it: the kinds first.
    kinds = here.cluster.helm("show", "crds", CHART).stdout
    here.cluster.kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=kinds)
    said = here.cluster.helm("upgrade", "gpudiag", CHART, here.where, values(tmp_path, NEWER)).stdout
    assert "is not the one of this chart" not in said
    for workload in ("daemonset/gpudiag-agent", "deployment/gpudiag-operator", "deployment/gpudiag-mcp"):
        here.cluster.kubectl("rollout", "status", workload, here.where, "--timeout=120s", timeout=150)
    here.cluster.until("Healthy GPUNode", here.is_healthy)
    here.cluster.until("verdict", lambda: here.diagnostic("fleet").get("verdict") == "Healthy")
    assert {part: here.name(part) for part in before}.items() & before.items() == set(), "every Pod is a new one"
    assert written("before-the-run") == once, "what was answered once is not asked again"
    uid, status = written("fleet")
    assert uid == fleet[0]
    assert [one for one in fleet[1]["history"] if one not in status["history"]] == []
    for part in ("agent", "operator", "mcp"):
        assert here.pod(part)["status"]["containerStatuses"][0]["restartCount"] == 0, part


def test_the_chart_says_itself_that_it_works(here: Installation) -> None:
    assert "Succeeded" in here.cluster.helm("test", "gpudiag", here.where, "--timeout=2m", timeout=150).stdout


def test_agents_are_read_through_the_api_server_with_the_right_to_and_not_without(here: Installation) -> None:
    binding = here.cluster.kubectl("get", "rolebinding", "gpudiag-operator-proxy", here.where, "--output=json").stdout
    here.cluster.kubectl("delete", "rolebinding", "gpudiag-operator-proxy", here.where)
    here.cluster.until("refused operator", lambda: reason(here) == "Unauthorized")
    kept = {**json.loads(binding)}
    kept["metadata"] = {name: kept["metadata"][name] for name in ("name", "namespace", "labels", "annotations")}
    here.cluster.kubectl("apply", "--filename=-", stdin=json.dumps(kept))
    here.cluster.until("Healthy GPUNode", here.is_healthy)


def own(here: Installation, part: str, *requests: tuple[str, str] | tuple[str, str, dict[str, Any]]) -> list[Answer]:
    """What the API server answers a part, in its own Pod with its own account: method, path, perhaps a body."""
    sent = []
    for method, path, *body in requests:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        request: dict[str, Any] = {
            "method": method,
            "url": f"https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT{path}",
        }
        request |= {"headers": {"Content-Type": kind}, **API_SERVER}
        sent.append(request | ({"body": json.dumps(body[0])} if body else {}))
    return here.cluster.ask(here.name(part), here.namespace, *sent)


def test_an_agent_may_have_tokens_reviewed_and_nothing_else(here: Installation) -> None:
    rules = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    asked = {"kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1"}
    (answer,) = own(here, "agent", ("POST", rules, {**asked, "spec": {"namespace": here.namespace}}))
    may = {
        (verb, group, resource)
        for rule in answer.json["status"]["resourceRules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    everybody = {
        (verb, group, name) for verb, group, name in may if name.startswith("selfsubject") and verb == "create"
    }
    assert may - everybody == {("create", "authentication.k8s.io", "tokenreviews")}
    refused = own(
        here,
        "agent",
        ("GET", "/api/v1/nodes"),
        ("GET", f"/api/v1/namespaces/{here.namespace}/secrets/gpudiag-agent-tls"),
        ("GET", "/apis/gpudiag.dev/v1alpha1/gpunodes"),
        ("POST", DIAGNOSTICS.format(here.namespace), ONCE),
    )
    assert [one.status for one in refused] == [403] * 4


def test_the_operator_reads_nodes_and_may_not_change_questions_or_read_other_secrets(here: Installation) -> None:
    fleet = f"{DIAGNOSTICS.format(here.namespace)}/fleet"
    answers = own(
        here,
        "operator",
        ("GET", "/api/v1/nodes"),
        ("GET", f"/api/v1/namespaces/{here.namespace}/secrets"),
        ("GET", "/api/v1/namespaces/kube-system/pods"),
        ("PATCH", fleet, {"spec": {"suspend": True}}),
        ("POST", DIAGNOSTICS.format(here.namespace), ONCE),
    )
    assert [one.status for one in answers] == [200, 403, 403, 403, 403]


def test_the_facade_reads_and_may_not_write(here: Installation) -> None:
    path = DIAGNOSTICS.format(here.namespace)
    answers = own(
        here,
        "mcp",
        ("GET", "/apis/gpudiag.dev/v1alpha1/gpunodes"),
        ("GET", path),
        ("POST", path, ONCE),
        ("DELETE", f"{path}/fleet"),
        ("GET", f"/api/v1/namespaces/{here.namespace}/secrets/gpudiag-agent-tls"),
        ("GET", "/api/v1/nodes"),
    )
    assert [one.status for one in answers] == [200, 200, 403, 403, 403, 403]


def test_people_look_with_the_clusters_view_and_create_with_a_role_of_their_own(here: Installation) -> None:
    kubectl = here.cluster.kubectl
    kubectl("create", "namespace", ASSISTANTS)
    kubectl("label", "namespace", ASSISTANTS, "gpudiag.dev/mcp-client=true")
    kubectl("create", "serviceaccount", "assistant", f"--namespace={ASSISTANTS}")
    account, where = f"{ASSISTANTS}:assistant", f"--namespace={ASSISTANTS}"
    kubectl("create", "clusterrolebinding", "e2e-assistant", "--clusterrole=view", f"--serviceaccount={account}")
    person = f"--as=system:serviceaccount:{account}"
    create = ("create", "--filename=-", where, person)
    # The controller manager puts gpudiag-viewer into view.
    here.cluster.until("right to look", lambda: not kubectl("get", "gpunodes", person, check=False).returncode, 30)
    assert kubectl("get", "gpudiagnostics", "--all-namespaces", person).returncode == 0
    refused = kubectl(*create, stdin=json.dumps(ONCE), check=False)
    assert "forbidden" in refused.stderr.lower(), refused
    assert kubectl("auth", "can-i", "create", "gpudiagnostics", where, person, check=False).stdout == "no\n"
    kubectl("create", "rolebinding", "editor", where, "--clusterrole=gpudiag-editor", f"--serviceaccount={account}")
    kubectl(*create, stdin=json.dumps(ONCE))
    kubectl("wait", "--for=condition=Complete", "gpudiagnostic/before-the-run", where, "--timeout=60s")
    kubectl("delete", "rolebinding", "editor", where)
    changed = kubectl("delete", "gpudiagnostic", "before-the-run", where, person, check=False)
    assert "forbidden" in changed.stderr.lower(), changed


def test_an_assistant_asks_the_facade_with_its_own_token_and_is_offered_no_creation(here: Installation) -> None:
    kubectl, where = here.cluster.kubectl, f"--namespace={ASSISTANTS}"
    kubectl("apply", "--filename=-", stdin=json.dumps(ASSISTANT))
    here.cluster.until("Ready assistant", lambda: is_ready(here.cluster.json("get", "pod", "assistant", where)))
    service = here.cluster.json("get", "service", "gpudiag-mcp", here.where)["spec"]["clusterIP"]
    host = {"Host": f"gpudiag-mcp.{here.namespace}.svc:9812", "Content-Type": "application/json", **ACCEPT}

    def call(said: dict[str, Any], **more: Any) -> dict[str, Any]:
        url = f"http://{service}:9812/mcp"
        return {"method": "POST", "url": url, "body": json.dumps(said), "headers": host, **more}

    token = {"token_files": {"Authorization": "/tokens/token"}}
    health = message("tools/call", name="get_gpu_health", arguments={})
    answers = here.cluster.ask(
        "assistant", ASSISTANTS, call(message()), call(message(), **token), call(health, **token)
    )
    assert [one.status for one in answers] == [401, 200, 200]
    (listed,) = [
        json.loads(line.removeprefix("data:")) for line in answers[1].body.splitlines() if line.startswith("data:")
    ]
    offered = {tool["name"] for tool in listed["result"]["tools"]}
    assert "get_gpu_health" in offered
    assert "create_gpu_diagnostic" not in offered
    assert "Healthy" in answers[2].body
    assert f"system:serviceaccount:{ASSISTANTS}:assistant" in answers[2].body


def test_nothing_but_the_kinds_is_left_after_uninstalling(here: Installation) -> None:
    here.cluster.helm("uninstall", "gpudiag", here.where, "--wait", "--timeout=2m", timeout=150)
    here.cluster.kubectl("delete", "gpudiagnostic", "before-the-run", here.where)
    # The Lease goes with the operator's service account: the garbage collector takes it.
    here.cluster.until("end of the Pods and the Lease", lambda: not {"Pod", "Lease"} & here.leftovers().keys(), 60)
    assert here.leftovers() == {}
    assert here.cluster.existing("crd", *CRDS) == list(CRDS)
