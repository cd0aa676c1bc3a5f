"""Once diagnostics on a real API server: complete, again on a trigger, deleted when their time has passed."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cluster.operator.conftest import Rig

pytestmark = pytest.mark.cluster


def test_it_completes_with_fresh_samples_and_again_for_a_new_trigger(rig: "Rig") -> None:
    agent = rig.add_node("k1")
    rig.start()
    rig.diagnostic("check", mode="Once", trigger="first")
    rig.kubectl("wait", "--for=condition=Complete", "gpud/check", "-n", rig.namespace, "--timeout=20s")
    status = rig.status("check")
    assert (status["verdict"], status["lastHandledTrigger"]) == ("Healthy", "first")
    assert rig.condition("check", "Complete")["reason"] == "Succeeded"
    assert agent.fresh_reads == 1
    rig.steadily(lambda: agent.fresh_reads == 1, 2)

    rig.diagnostic("check", mode="Once", trigger="second")
    rig.kubectl("wait", "--for=condition=Complete", "gpud/check", "-n", rig.namespace, "--timeout=20s")
    rig.eventually(lambda: rig.status("check")["lastHandledTrigger"] == "second")
    assert rig.status("check")["runID"] != status["runID"]
    assert agent.fresh_reads == 2


@pytest.mark.slow
def test_a_complete_one_is_not_run_again_after_a_restart(rig: "Rig") -> None:
    agent = rig.add_node("l1")
    first = rig.start()
    rig.diagnostic("check", mode="Once")
    rig.kubectl("wait", "--for=condition=Complete", "gpud/check", "-n", rig.namespace, "--timeout=20s")
    version = rig.kubectl.json("get", "gpud", "check", "-n", rig.namespace)["metadata"]["resourceVersion"]
    first.kill()
    rig.start()
    rig.steadily(lambda: agent.fresh_reads == 1, 3)
    assert rig.kubectl.json("get", "gpud", "check", "-n", rig.namespace)["metadata"]["resourceVersion"] == version


@pytest.mark.slow
def test_one_killed_in_mid_run_runs_again(rig: "Rig") -> None:
    agent = rig.add_node("m1")
    first = rig.start()
    rig.eventually(lambda: rig.health("m1")[0] == "Healthy")
    agent.hang(fresh_only=True)
    rig.diagnostic("check", mode="Once", deadline="5m")
    rig.eventually(lambda: rig.condition("check", "Complete").get("reason") == "Running")
    first.kill()
    agent.behave(None)
    rig.start()
    rig.kubectl("wait", "--for=condition=Complete", "gpud/check", "-n", rig.namespace, "--timeout=30s")
    assert rig.status("check")["verdict"] == "Healthy"


@pytest.mark.slow
def test_the_deadline_ends_a_run_with_what_it_has(rig: "Rig") -> None:
    slow = rig.add_node("n1")
    rig.add_node("n2")
    rig.start()
    rig.eventually(lambda: rig.health("n1")[0] == "Healthy")
    slow.hang(fresh_only=True)
    rig.diagnostic("check", mode="Once", deadline="2s")
    rig.kubectl("wait", "--for=condition=Complete", "gpud/check", "-n", rig.namespace, "--timeout=20s")
    status = rig.status("check")
    assert rig.condition("check", "Complete")["reason"] == "DeadlineExceeded"
    assert status["nodes"][0]["name"] == "n1"
    assert (status["nodes"][0]["health"], status["nodes"][0]["reason"]) == ("Unknown", "Timeout")
    assert status["summary"]["nodes"]["reporting"] == 1


@pytest.mark.slow
def test_a_new_spec_in_mid_run_ends_in_its_own_state(rig: "Rig") -> None:
    slow = rig.add_node("o1")
    rig.add_node("o2")
    rig.start()
    rig.eventually(lambda: rig.health("o1")[0] == "Healthy")
    slow.hang(fresh_only=True)
    rig.diagnostic("check", mode="Once", deadline="5m")
    rig.eventually(lambda: rig.condition("check", "Complete").get("reason") == "Running")
    rig.diagnostic("check", mode="Once", deadline="5m", target={"nodeNames": ["o2"]})
    rig.kubectl("wait", "--for=condition=Complete", "gpud/check", "-n", rig.namespace, "--timeout=20s")
    status = rig.status("check")
    assert (status["observedGeneration"], status["summary"]["nodes"]["targeted"]) == (2, 1)


def test_its_object_goes_when_the_ttl_has_passed(rig: "Rig") -> None:
    rig.add_node("p1")
    rig.start()
    rig.diagnostic("brief", mode="Once", ttlAfterFinished="2s")
    rig.diagnostic("kept", mode="Once")
    rig.kubectl("wait", "--for=condition=Complete", "gpud/brief", "-n", rig.namespace, "--timeout=20s")
    rig.kubectl("wait", "--for=delete", "gpud/brief", "-n", rig.namespace, "--timeout=20s")
    assert rig.condition("kept", "Complete")["status"] == "True"


def test_nobody_answers(rig: "Rig") -> None:
    agent = rig.add_node("q1")
    agent.close()
    rig.start()
    rig.diagnostic("check", mode="Once")
    rig.kubectl("wait", "--for=condition=Complete", "gpud/check", "-n", rig.namespace, "--timeout=30s")
    assert rig.condition("check", "Complete")["reason"] == "NoNodeAnswered"
    assert rig.status("check")["verdict"] == "Unknown"
