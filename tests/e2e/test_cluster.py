"""gpudiag by kustomize on real kubelets, in the order of its life: installed, asked, used, disturbed and taken away.

The tests of this file build on each other, like an operator's day; pytest runs them in this order.
"""

import base64
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from tests.cluster.access.conftest import signed
from tests.e2e.cluster import CRDS, ROOT, Answer, Cluster, Installation
from tests.e2e.onenode.images import above, compressed, files
from tests.e2e.providers import NAMESPACE

from gpudiag_api.version import __version__

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

POD_RESOURCES = "/var/lib/kubelet/pod-resources/kubelet.sock"
TOKEN_FILE = "/var/run/secrets/gpudiag/token"
LIMITS = {"gpudiag-agent": 25, "gpudiag-operator": 65}
"""MB of layers above the base, gzip (issue 7)."""
WORKER = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "worker", "namespace": "default"},
    "spec": {
        "terminationGracePeriodSeconds": 1,
        "containers": [
            {
                "name": "train",
                "image": f"gpudiag-agent:{__version__}",
                "command": ["sleep", "infinity"],
                "resources": {"limits": {"nvidia.com/gpu": 1}},
            }
        ],
    },
}


@pytest.fixture(scope="module")
def here(cluster: Cluster) -> Installation:
    return Installation(cluster, NAMESPACE)


@pytest.fixture(scope="module")
def objects(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """overlays/kind with the facade; the simulated agents read the real kubelet's allocations."""
    folder = tmp_path_factory.mktemp("kustomization")
    manifests = os.path.relpath(ROOT / "manifests", folder)
    agent = [{"name": "agent", "env": [{"name": "GPUDIAG_POD_RESOURCES", "value": POD_RESOURCES}]}]
    patches = {
        ("DaemonSet", "gpudiag-agent"): {"containers": agent},
        ("Deployment", "gpudiag-mcp"): {"containers": [{"name": "mcp", "imagePullPolicy": "Never"}]},
    }
    kustomization = {
        "resources": [f"{manifests}/overlays/kind"],
        "components": [f"{manifests}/components/mcp"],
        "patches": [
            {"patch": yaml.safe_dump(of(*workload, {"spec": {"template": {"spec": spec}}}))}
            for workload, spec in patches.items()
        ],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
    return cluster.kubectl("kustomize", folder).stdout


def of(kind: str, name: str, rest: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, **rest}


def test_the_images_are_small(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    if not cluster.layers:
        pytest.skip(f"the images of a cluster by {cluster.provider} are not built by this suite's own builder")
    sizes = {
        name: compressed(cluster.layers[name]) / 1e6 for name in ("gpudiag-agent", "gpudiag-operator", "gpudiag-mcp")
    }
    with capsys.disabled():
        print("\nMB above the base, gzip:", {name: round(size, 1) for name, size in sizes.items()})
    assert [name for name, limit in LIMITS.items() if sizes[name] > limit] == []


def test_an_image_holds_its_part_and_nothing_that_installs(cluster: Cluster) -> None:
    if not cluster.layers:
        pytest.skip(f"the images of a cluster by {cluster.provider} are not built by this suite's own builder")
    for part, user in (("agent", "0:0"), ("operator", "65532:65532"), ("mcp", "65532:65532")):
        archive = cluster.layers[f"gpudiag-{part}"]
        config, names = above(archive)[0]["config"], files(archive)
        assert config["User"] == user
        assert config["Labels"]["org.opencontainers.image.version"] == __version__
        assert re.fullmatch(r"[0-9a-f]{40}", config["Labels"]["org.opencontainers.image.revision"])
        site = "venv/lib/python3.11/site-packages"
        ours = {name.removeprefix(f"{site}/") for name in names if re.fullmatch(rf"{site}/gpudiag_\w+", name)}
        assert ours == {"gpudiag_api", f"gpudiag_{part}"}
        assert f"venv/bin/gpudiag-{part}" in names
        unwanted = r"(bin|site-packages)/(pip|ensurepip|setuptools|wheel)[^/]*$|(^|/)(pip\.conf|run/secrets/.+)$"
        assert [name for name in names if re.search(unwanted, name)] == []


def test_everything_becomes_ready_under_its_security_context(here: Installation, objects: str) -> None:
    # As docs/install.md has it: the first time the kinds are not yet served when the first diagnostic is sent.
    arguments = ("apply", "--server-side", "--filename=-")
    here.cluster.until(
        "apply", lambda: here.cluster.kubectl(*arguments, stdin=objects, check=False).returncode == 0, 30
    )
    # The kubelet looks once a minute whether the Secret with the agents' certificate has come.
    here.cluster.until("Ready agent", lambda: here.ready("agent"), 200)
    for part in ("operator", "mcp"):
        pod = here.pod(part)
        assert pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"], part
        assert pod["spec"]["securityContext"]["runAsNonRoot"], part
    for part in ("operator", "mcp", "agent"):
        assert here.pod(part)["status"]["containerStatuses"][0]["restartCount"] == 0, part


def test_a_diagnostic_becomes_ready(here: Installation) -> None:
    here.cluster.until("Healthy GPUNode", here.is_healthy)
    here.cluster.kubectl("wait", "--for=condition=Ready", "gpudiagnostic/fleet", here.where, "--timeout=60s")
    assert here.diagnostic("fleet")["verdict"] == "Healthy"


def report(here: Installation, address: str, **more: Any) -> dict[str, Any]:
    """A request for an agent's report, as the operator makes it: over TLS, for the name of the Service."""
    found = here.cluster.json("get", "secret", "gpudiag-agent-tls", here.where)["data"]["ca.crt"]
    return {
        "url": f"https://{address}:9810/v1/report",
        "ca": base64.b64decode(found).decode(),
        "server_name": f"gpudiag-agent.{here.namespace}.svc",
        **more,
    }


def asked(here: Installation, token: str | None) -> Answer:
    """What the agent answers, at its Pod's address, to somebody with this token."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = report(here, here.pod("agent")["status"]["podIP"], headers=headers)
    return here.cluster.ask(here.name("operator"), here.namespace, request)[0]


def test_an_agent_answers_at_its_pods_address_and_through_a_service(here: Installation) -> None:
    address = here.pod("agent")["status"]["podIP"]
    slices = here.cluster.json(
        "get", "endpointslices", here.where, "--selector=kubernetes.io/service-name=gpudiag-agent"
    )
    endpoints = [one for item in slices["items"] for one in item["endpoints"]]
    assert address in [found for one in endpoints for found in one["addresses"]]
    # The agents' own Service is headless: a name, and not all clusters of this suite have names. kube-proxy is shown by
    # another one for the same Pods.
    spec = {"selector": {"app.kubernetes.io/name": "gpudiag-agent"}, "ports": [{"port": 9810}]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "agents", "namespace": here.namespace}}
    made = here.cluster.kubectl("apply", "--filename=-", "--output=json", stdin=json.dumps({**service, "spec": spec}))
    own = {"token_files": {"Authorization": TOKEN_FILE}}
    targets = [address, json.loads(made.stdout)["spec"]["clusterIP"]]
    requests, operator = [report(here, one, **own) for one in targets], here.name("operator")

    def answered() -> list[Answer]:
        answers = here.cluster.ask(operator, here.namespace, *requests)
        return answers if all(one.status for one in answers) else []

    # kube-proxy takes a moment to hear of a new Service.
    answers = here.cluster.until("answer at every address", answered, 30)
    here.cluster.kubectl("delete", "service", "agents", here.where)
    assert [(one.status, one.json["health"]) for one in answers] == [(200, "Healthy")] * 2


def test_an_agent_answers_through_the_api_servers_proxy_and_asks_for_a_token_there_too(here: Installation) -> None:
    pod = f"/api/v1/namespaces/{here.namespace}/pods/https:{here.name('agent')}:9810/proxy"
    service = f"/api/v1/namespaces/{here.namespace}/services/https:gpudiag-agent:http/proxy"
    for way in (pod, service):
        assert here.cluster.kubectl("get", "--raw", f"{way}/readyz").returncode == 0, way
        refused = here.cluster.kubectl("get", "--raw", f"{way}/v1/report", check=False)
        assert refused.returncode == 1, way
    # With a token: the operator reads agents like this with --routing=proxy (test_cluster_helm.py).


def test_new_tokens_are_taken_and_wrong_ones_are_refused(here: Installation) -> None:
    first, second = (here.token("gpudiag-operator") for _ in range(2))
    assert first != second
    assert [asked(here, token).status for token in (first, second, first)] == [200] * 3
    assert asked(here, None).status == 401
    assert asked(here, first[:-8] + "AAAAAAAA").status == 401, "a signature that is none"
    assert asked(here, here.token("gpudiag-operator", audience="gpudiag-mcp")).status == 401, "meant for somebody else"
    assert asked(here, here.token("gpudiag-mcp")).status == 403, "an account that may not read agents"


def test_a_token_that_has_ended_is_refused(here: Installation) -> None:
    if here.cluster.node is None:
        pytest.skip("only the key of a cluster of this machine can sign a token that has ended")
    plane = SimpleNamespace(apiserver_ca=here.cluster.node.folder / "certificates" / "apiserver.crt")
    maker, kubectl = cast("Any", plane), cast("Any", here.cluster)
    lasting, ended = (signed(maker, kubectl, here.namespace, ends_in=seconds) for seconds in (120, -120))
    assert [asked(here, token).status for token in (lasting, ended)] == [200, 401]


def test_the_operator_takes_up_the_token_that_its_kubelet_brings(here: Installation) -> None:
    """The file is exchanged as a kubelet does it, which would take eight minutes at least to do so itself."""
    node, pod = here.cluster.node, here.pod("operator")
    if node is None:
        pytest.skip("the volumes of another machine's kubelet cannot be written")
    volume = f"/var/lib/kubelet/pods/{pod['metadata']['uid']}/volumes/kubernetes.io~projected/agent-token"
    write = 'rm -rf "..$1" && mkdir "..$1" && cat > "..$1/token" && chmod 644 "..$1/token"'
    exchange = f'cd "{volume}" && {write} && ln -s "..$1" ..new && mv -T ..new ..data'

    def bring(name: str, token: str) -> None:
        node.run(["sh", "-c", exchange, "sh", name], stdin=token)

    def reachable() -> str:
        conditions = here.gpunode()["conditions"]
        return next(str(one["reason"]) for one in conditions if one["type"] == "AgentReachable")

    def refused() -> bool:
        # The kubelet looks once a minute or so, and puts its own back.
        if node.run(["readlink", f"{volume}/..data"]).stdout.strip() != "..e2e-wrong":
            bring("e2e-wrong", "wrong")
        return reachable() == "Unauthorized"

    here.cluster.until("refused operator", refused)
    bring("e2e-renewed", here.token("gpudiag-operator"))
    here.cluster.until("Healthy GPUNode", here.is_healthy)
    assert here.name("operator") == pod["metadata"]["name"]
    assert here.pod("operator")["status"]["containerStatuses"][0]["restartCount"] == 0


def test_a_certificate_that_was_emptied_is_made_anew_and_taken_up_without_a_restart(here: Installation) -> None:
    def served() -> str:
        return asked(here, None).certificate

    before, agent = served(), here.name("agent")
    # Against a key that leaked (manifests/base/agent-api.yaml): nobody believes the old one any more.
    here.cluster.kubectl("patch", "secret", "gpudiag-agent-tls", here.where, "--type=merge", '--patch={"data": null}')
    made = ("get", "secret", "gpudiag-agent-tls", here.where, "--output=jsonpath={.data.tls\\.crt}")
    here.cluster.until("certificate", lambda: here.cluster.kubectl(*made).stdout)
    here.hurry()
    here.cluster.until("new certificate", lambda: served() not in {before, ""})
    here.cluster.until("Healthy GPUNode", here.is_healthy)
    assert here.name("agent") == agent
    assert here.pod("agent")["status"]["containerStatuses"][0]["restartCount"] == 0


def on_the_node(here: Installation, *options: str) -> tuple[int, str]:
    """Exit status and output of `gpudiag-agent check` by kubectl debug, without anything installed."""
    node = here.cluster.json("get", "nodes")["items"][0]["metadata"]["name"]
    image = ("--image", f"gpudiag-agent:{__version__}", "--image-pull-policy=Never", "--profile=sysadmin")
    what = ("debug", f"node/{node}", *image, "--namespace=default", *options, "--", "gpudiag-agent", "check")
    said = here.cluster.kubectl(*what)
    found = re.search(r"node-debugger-\S+", said.stdout + said.stderr)
    assert found, said
    where = ("pod", found[0], "--namespace=default")

    def ended() -> Any:
        return (
            here.cluster.json("get", *where)["status"]
            .get("containerStatuses", [{}])[0]
            .get("state", {})
            .get("terminated")
        )

    status = here.cluster.until("end of the check", ended)["exitCode"]
    output = here.cluster.kubectl("logs", found[0], "--namespace=default").stdout
    here.cluster.kubectl("delete", *where, "--wait=false")
    return int(status), output


def test_a_node_is_checked_by_kubectl_debug(here: Installation) -> None:
    status, output = on_the_node(here, "--env=GPUDIAG_SOURCE=simulated")
    assert status == 0, output
    assert ": Healthy. " in output
    assert output.count("NVIDIA H100") == 8
    if here.cluster.node is not None:
        # This machine's own GPUs: none, and no library to ask.
        status, output = on_the_node(here)
        assert status == 2, output
        assert ": Unknown. " in output


@pytest.fixture
def device_plugin(here: Installation, tmp_path: Path) -> Iterator[None]:
    """NVIDIA's device plugin, as far as the kubelet can tell."""
    node, log = here.cluster.node, tmp_path / "deviceplugin.log"
    if node is None:
        pytest.skip("a stand-in device plugin needs a node of this machine")
    uuids = [gpu["uuid"] for gpu in here.gpunode()["gpus"]]
    child = node.start([sys.executable, Path(__file__).with_name("deviceplugin.py"), *uuids], log)
    try:
        here.cluster.until("registered device plugin", lambda: "registered\n" in log.read_text(encoding="utf-8"), 30)
        yield
    finally:
        child.stop(1)


@pytest.mark.usefixtures("device_plugin")
def test_a_gpu_that_the_kubelet_gave_a_pod_is_seen_in_allocations_by_one_agent_and_the_next(here: Installation) -> None:
    here.cluster.kubectl("apply", "--filename=-", stdin=json.dumps(WORKER))
    allocations = here.cluster.until("allocation", lambda: here.gpunode().get("allocations"))
    found = [(one["namespace"], one["pod"], one["container"]) for one in allocations]
    assert found == [("default", "worker", "train")]
    before = here.name("agent")
    here.cluster.kubectl("delete", "pod", before, here.where)
    here.cluster.until("other agent", lambda: [pod for pod in here.ready("agent") if pod["metadata"]["name"] != before])
    # A new agent alone changes nothing that means anything, so nothing is written; what only it can know is.
    here.cluster.kubectl("delete", "pod", "worker", "--namespace=default")
    here.cluster.until("free GPU", lambda: not here.gpunode().get("allocations"))


def test_another_operator_takes_over_from_one_that_was_killed(here: Installation) -> None:
    before = here.name("operator")
    here.cluster.kubectl("delete", "pod", before, here.where, "--grace-period=0", "--force")

    def held_by_another() -> bool:
        holder = here.cluster.json("get", "lease", "gpudiag-operator", here.where)["spec"].get("holderIdentity") or ""
        return bool(holder) and not holder.startswith(before)

    here.cluster.until("other holder", held_by_another)
    here.pod("operator")


def test_an_agent_stays_on_a_drained_node(here: Installation) -> None:
    nodes = here.cluster.json("get", "nodes")["items"]
    if len(nodes) > 1 or here.cluster.provider == "existing":
        pytest.skip("only the one node of a cluster that was made for the test is drained")
    name, agent = nodes[0]["metadata"]["name"], here.name("agent")
    try:
        drain = ("drain", name, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s")
        here.cluster.kubectl(*drain)
        assert here.name("agent") == agent
    finally:
        here.cluster.kubectl("uncordon", name)
    here.pod("operator")


def test_nothing_but_the_kinds_is_left_after_uninstalling(here: Installation, objects: str) -> None:
    rest = [one for one in yaml.safe_load_all(objects) if one["kind"] != "CustomResourceDefinition"]
    delete = ("delete", "--filename=-", "--ignore-not-found", "--timeout=120s")
    here.cluster.kubectl(*delete, stdin=yaml.safe_dump_all(rest), timeout=180)
    assert here.leftovers() == {}
    assert here.cluster.existing("namespace", here.namespace) == []
    assert here.cluster.existing("crd", *CRDS) == list(CRDS)
