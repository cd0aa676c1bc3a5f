"""A dead agent costs its own node only: the breaker opens, and closes again by itself."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cluster.operator.conftest import Rig

pytestmark = pytest.mark.cluster


def test_a_dead_agent_opens_its_breaker_and_recovers(rig: "Rig") -> None:
    agent = rig.add_node("x1")
    rig.add_node("x2")
    rig.diagnostic("fleet", interval="5s")
    operator = rig.start("--breaker-open", "1s")
    rig.eventually(lambda: rig.status("fleet").get("verdict") == "Healthy")
    agent.close()
    rig.eventually(lambda: rig.health("x1") == ("Unknown", "ConnectionRefused"))
    rig.eventually(lambda: rig.gpunode("x1")["status"]["breaker"]["state"] == "Open")
    rig.eventually(lambda: rig.condition("fleet", "CircuitBreakersClosed").get("reason") == "SomeOpen")
    assert rig.status("fleet")["verdict"] == "Unknown"
    assert rig.health("x2")[0] == "Healthy"
    agent.listen()
    rig.eventually(lambda: operator.metric('gpudiag_node_health{node="x1"}') == 0)
    rig.eventually(lambda: rig.status("fleet")["verdict"] == "Healthy", 30)
