"""The operator process against a real API server: GPUNodes and Continuous diagnostics."""

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cluster.operator.conftest import Rig

pytestmark = pytest.mark.cluster


def counts(status: dict[str, Any]) -> tuple[int, int, int]:
    """(nodes targeted, nodes reporting, GPUs)."""
    summary = status.get("summary", {})
    nodes, gpus = summary.get("nodes", {}), summary.get("gpus", {})
    return nodes.get("targeted", 0), nodes.get("reporting", 0), gpus.get("total", 0)


def test_a_fleet_comes_back_with_inventory_and_health(rig: "Rig") -> None:
    for name in ("a1", "a2", "a3"):
        rig.add_node(name)
    rig.diagnostic("fleet")
    operator = rig.start()
    rig.eventually(lambda: rig.status("fleet"))

    rig.kubectl("wait", "--for=condition=Ready", "gpud/fleet", "-n", rig.namespace, "--timeout=10s")
    status = rig.status("fleet")
    assert counts(status) == (3, 3, 6)
    assert status["verdict"] == "Healthy"
    assert status["inventory"][0]["model"] == "NVIDIA H100 80GB HBM3"
    assert rig.health("a1") == ("Healthy", "AllHealthy")
    owner = rig.gpunode("a1")["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"]) == ("Node", "a1")
    assert operator.get("/healthz")[0] == 200
    assert operator.metric('gpudiag_fleet_nodes{health="Healthy"}') == 3

    metadata = rig.kubectl.json("get", "gpud", "fleet", "-n", rig.namespace)["metadata"]
    assert metadata["generation"] == 1
    assert metadata.keys().isdisjoint({"annotations", "finalizers"}), "Git sees its object as it wrote it"
    before = operator.metric("gpudiag_operator_writes_total")
    rig.steadily(lambda: operator.metric("gpudiag_operator_writes_total") == before, 3)


@pytest.mark.slow
def test_a_first_fill_that_takes_a_while_says_how_far_it_has_come(rig: "Rig") -> None:
    for number in range(3):
        rig.add_node(f"fill-{number}")
    rig.diagnostic("fleet", interval="5s")
    rig.start("--first-fill-rate", "0.5", ready=False)
    said: dict[str, None] = {}

    def message() -> str:
        text = str(rig.condition("fleet", "Ready").get("message", ""))
        said[text] = None
        return text

    rig.eventually(lambda: message() == "3 of 3 nodes answered.", 40)
    counted = [text for text in said if text.endswith("nodes written.")]
    assert counted == sorted(counted)
    assert len(counted) > 1
    assert all(text.startswith("3 of 3 nodes answered. ") for text in counted)
    assert all(rig.health(f"fill-{number}")[0] == "Healthy" for number in range(3))


def test_a_fault_shows_within_seconds_and_goes_again(rig: "Rig") -> None:
    agent = rig.add_node("b1")
    rig.add_node("b2")
    rig.diagnostic("fleet", interval="5s")
    rig.start()
    rig.eventually(lambda: rig.status("fleet").get("verdict") == "Healthy")
    agent.lose_gpu()
    rig.eventually(lambda: rig.health("b1") == ("Unhealthy", "FallenOffBus"), 5)
    rig.eventually(lambda: rig.status("fleet")["verdict"] == "Unhealthy", 5)
    assert rig.status("fleet")["nodes"][0]["name"] == "b1"
    listed = rig.kubectl("get", "gpunodes", "--field-selector", "status.health=Unhealthy", "-o", "name").stdout
    assert listed.split() == ["gpunode.gpudiag.dev/b1"]

    agent.heal()
    rig.eventually(lambda: rig.status("fleet")["verdict"] == "Healthy", 25)


@pytest.mark.slow
def test_targets_by_selector_and_by_name(rig: "Rig") -> None:
    rig.add_node("c1", labels={"pool": "train"})
    rig.add_node("c2", labels={"pool": "serve"})
    rig.diagnostic("train", interval="5s", target={"nodeSelector": {"matchLabels": {"pool": "train"}}})
    rig.diagnostic("named", target={"nodeNames": ["c2", "nowhere"]})
    rig.diagnostic("nothing", target={"nodeSelector": {"matchLabels": {"pool": "none"}}})
    rig.start()
    rig.eventually(lambda: rig.status("train").get("verdict") == "Healthy")
    assert counts(rig.status("train")) == (1, 1, 2)
    rig.eventually(lambda: rig.status("named"))
    named = rig.status("named")
    assert (named["verdict"], named["nodes"][0]["name"], named["nodes"][0]["reason"]) == (
        "Unknown",
        "nowhere",
        "NodeGone",
    )
    rig.eventually(lambda: rig.status("nothing"))
    assert rig.status("nothing")["verdict"] == "Unknown"
    assert rig.condition("nothing", "Ready")["reason"] == "NoTargets"

    rig.kubectl("label", "node", "c2", "pool=train", "--overwrite")
    rig.eventually(lambda: counts(rig.status("train"))[0] == 2, 40)


@pytest.mark.slow
def test_a_node_that_is_scaled_away_shrinks_the_fleet_without_alarm(rig: "Rig") -> None:
    rig.add_node("d1")
    rig.add_node("d2")
    rig.diagnostic("fleet", interval="5s")
    rig.start()
    rig.eventually(lambda: counts(rig.status("fleet")) == (2, 2, 4))
    rig.delete_pod("agent-d2")
    rig.kubectl("delete", "node", "d2")
    rig.eventually(lambda: counts(rig.status("fleet")) == (1, 1, 2))
    status = rig.status("fleet")
    assert status["verdict"] == "Healthy"
    assert [entry["verdict"] for entry in status["history"]][-1] == "Healthy"
    rig.eventually(lambda: rig.gpunode("d2") == {}, 40)


@pytest.mark.slow
def test_a_pod_that_gets_another_address_is_followed_to_ipv6_too(rig: "Rig") -> None:
    agent = rig.add_node("moved-1")
    rig.start()
    rig.eventually(lambda: rig.health("moved-1") == ("Healthy", "AllHealthy"))
    agent.close()
    agent.address, agent.port = "::1", 0
    agent.listen()
    agent.lose_gpu()
    rig.delete_pod("agent-moved-1")
    rig.kubectl.apply(rig.pod(agent, "agent-moved-1"))
    rig.set_pod("agent-moved-1", ip="::1", ready=True)
    rig.eventually(lambda: rig.health("moved-1") == ("Unhealthy", "FallenOffBus"))
    assert rig.gpunode("moved-1")["status"]["agent"]["podIP"] == "::1"


@pytest.mark.slow
def test_suspend_keeps_the_last_result(rig: "Rig") -> None:
    agent = rig.add_node("e1")
    rig.diagnostic("fleet", interval="5s")
    rig.start()
    rig.eventually(lambda: rig.status("fleet").get("verdict") == "Healthy")
    rig.diagnostic("fleet", interval="5s", suspend=True)
    rig.eventually(lambda: rig.condition("fleet", "Ready").get("reason") == "Suspended")
    agent.lose_gpu()
    rig.eventually(lambda: rig.health("e1")[0] == "Unhealthy")
    rig.steadily(lambda: rig.status("fleet")["verdict"] == "Healthy", 2)
    rig.diagnostic("fleet", interval="5s")
    rig.eventually(lambda: rig.status("fleet")["verdict"] == "Unhealthy")


def test_what_cannot_be_served_says_why(rig: "Rig") -> None:
    rig.add_node("h1")
    rig.start("--max-diagnostics-per-namespace", "2")
    rig.diagnostic("first", target={"nodeSelector": {"matchLabels": {"-bad-": "x"}}})
    rig.eventually(lambda: rig.condition("first", "Stalled").get("reason") == "InvalidTarget")
    assert "-bad-" in rig.condition("first", "Ready")["message"]
    rig.diagnostic("second")
    rig.eventually(lambda: rig.status("second"))
    rig.diagnostic("third")
    rig.eventually(lambda: rig.condition("third", "Stalled").get("reason") == "TooManyDiagnostics")
    assert rig.condition("third", "Ready")["reason"] == "TooManyDiagnostics"
    rig.kubectl("delete", "gpud", "first", "-n", rig.namespace)
    rig.eventually(lambda: rig.condition("third", "Ready").get("reason") == "Fresh")


def test_people_rule_the_breaker_and_maintenance(rig: "Rig") -> None:
    agent = rig.add_node("i1")
    rig.add_node("i2")
    rig.diagnostic("fleet", interval="5s")
    operator = rig.start()
    rig.eventually(lambda: counts(rig.status("fleet")) == (2, 2, 4))

    def wish(spec: str) -> None:
        rig.kubectl("patch", "gpunode", "i1", "--type=merge", "-p", f'{{"spec": {spec}}}')

    wish('{"circuitBreaker": "ForceOpen"}')
    rig.eventually(lambda: rig.health("i1") == ("Unknown", "ForcedOpen"))
    wish('{"circuitBreaker": "Auto"}')
    rig.eventually(lambda: operator.metric('gpudiag_node_health{node="i1"}') == 0)
    agent.lose_gpu()
    rig.eventually(lambda: rig.status("fleet")["verdict"] == "Unhealthy", 25)
    wish('{"maintenance": {"reason": "swapping the board"}}')
    rig.eventually(lambda: rig.status("fleet")["verdict"] == "Healthy", 25)
    assert rig.status("fleet")["summary"]["nodes"]["maintenance"] == 1


def test_a_gpunode_deleted_by_hand_is_made_again(rig: "Rig") -> None:
    rig.add_node("j1")
    rig.start()
    rig.eventually(lambda: rig.health("j1")[0] == "Healthy")
    uid = rig.gpunode("j1")["metadata"]["uid"]
    rig.kubectl("delete", "gpunode", "j1")
    rig.eventually(lambda: rig.gpunode("j1").get("metadata", {}).get("uid", uid) != uid)
    rig.eventually(lambda: rig.health("j1")[0] == "Healthy")
