"""Agents that refuse, hang, lie or shout: one reason each, every other node right."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from msgspec.structs import replace

if TYPE_CHECKING:
    from tests.cluster.operator.conftest import Rig

pytestmark = pytest.mark.cluster

Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def hangs(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def hangs_in_mid_body(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"wireVersion":')
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def closes_early(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"wireVersion":')
    assert request.transport is not None
    request.transport.close()
    return response


async def fails(_: web.Request) -> web.StreamResponse:
    return web.Response(status=500, text="boom")


async def html(_: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>It works!</html>", content_type="text/html")


async def shouts(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    for _ in range(100):
        await response.write(b" " * (1 << 20))
    return response


async def other_version(_: web.Request) -> web.StreamResponse:
    return web.json_response({"wireVersion": "9.0", "everything": "else"})


WRONG: dict[str, Behaviour] = {
    "Timeout": hangs,
    "BodyTimeout": hangs_in_mid_body,
    "ConnectionClosed": closes_early,
    "ServerError": fails,
    "NotJSON": html,
    "ResponseTooLarge": shouts,
    "AgentVersionSkew": other_version,
}


def shows(rig: "Rig", reason: str) -> bool:
    return rig.health(f"w-{reason.lower()}") == ("Unknown", reason)


def test_each_wrong_agent_has_its_reason_and_the_others_are_right(rig: "Rig") -> None:
    for reason, behaviour in WRONG.items():
        rig.add_node(f"w-{reason.lower()}").behave(behaviour)
    impostor = rig.add_node("w-identitymismatch")
    impostor.report = replace(impostor.report, agent=replace(impostor.report.agent, node_name="another"))
    twins = rig.add_node("w-badresponse")
    twins.report = replace(twins.report, gpus=(twins.report.gpus[0], twins.report.gpus[0]))
    refuses = rig.add_node("w-connectionrefused")
    refuses.close()
    rig.add_node("w-agentmissing", agent=False)
    rig.add_node("w-right")
    reasons = [*WRONG, "IdentityMismatch", "BadResponse", "ConnectionRefused", "AgentMissing"]

    rig.diagnostic("fleet", interval="5s")
    rig.start()
    for reason in reasons:
        rig.eventually(partial(shows, rig, reason), 30)
    assert rig.health("w-right") == ("Healthy", "AllHealthy")
    rig.eventually(lambda: rig.status("fleet")["summary"]["nodes"]["targeted"] == len(reasons) + 1)
    rig.eventually(lambda: rig.status("fleet")["summary"]["nodes"]["reporting"] == 1)
    status = rig.status("fleet")
    assert status["verdict"] == "Unknown"

    rig.diagnostic("check", mode="Once", deadline="4s")
    rig.kubectl("wait", "--for=condition=Complete", "gpud/check", "-n", rig.namespace, "--timeout=30s")
    rows = {row["name"]: row for row in rig.status("check")["nodes"]}
    assert rows["w-right"]["health"] == "Healthy"
    assert {row["health"] for name, row in rows.items() if name != "w-right"} == {"Unknown"}


def test_a_dead_agent_opens_its_breaker_and_recovers(rig: "Rig") -> None:
    agent = rig.add_node("x1")
    rig.add_node("x2")
    rig.diagnostic("fleet", interval="5s")
    operator = rig.start("--breaker-open", "1s")
    rig.eventually(lambda: rig.status("fleet").get("verdict") == "Healthy")
    agent.close()
    rig.eventually(lambda: rig.health("x1") == ("Unknown", "ConnectionRefused"))
    rig.eventually(lambda: rig.gpunode("x1")["status"]["circuitBreaker"]["state"] == "Open")
    rig.eventually(lambda: rig.condition("fleet", "CircuitBreakersClosed").get("reason") == "SomeOpen")
    assert rig.status("fleet")["verdict"] == "Unknown"
    assert rig.health("x2")[0] == "Healthy"
    agent.listen()
    rig.eventually(lambda: operator.metric('gpudiag_node_health{node="x1"}') == 0)
    rig.eventually(lambda: rig.status("fleet")["verdict"] == "Healthy", 30)


def test_a_node_that_is_not_ready_is_the_nodes_trouble(rig: "Rig") -> None:
    agent = rig.add_node("y1")
    rig.start()
    rig.eventually(lambda: rig.health("y1")[0] == "Healthy")
    agent.close()
    patch = '{"status": {"conditions": [{"type": "Ready", "status": "False"}]}}'
    rig.kubectl("patch", "node", "y1", "--subresource=status", "--type=merge", "-p", patch)
    rig.eventually(lambda: rig.health("y1") == ("Unknown", "NodeNotReady"))
