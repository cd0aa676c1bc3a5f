"""/healthz, /readyz, /metrics over HTTP, and the checks behind them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest

from gpudiag_operator.observability.health import Health
from gpudiag_operator.observability.http import Server
from gpudiag_operator.observability.metrics import Metrics


@dataclass
class Rig:
    health: Health
    session: aiohttp.ClientSession
    base: str

    async def get(self, path: str) -> tuple[int, str]:
        async with self.session.get(self.base + path) as answer:
            return answer.status, await answer.text()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    health = Health()
    server = Server(("127.0.0.1", 0), health=health, registry=Metrics().registry)
    port = await server.start()
    async with aiohttp.ClientSession() as session:
        yield Rig(health, session, f"http://127.0.0.1:{port}")
    await server.stop()


async def test_well_is_200(rig: Rig) -> None:
    assert await rig.get("/healthz") == (200, '{"status": "ok"}')
    assert (await rig.get("/readyz"))[0] == 200


async def test_what_is_wrong_is_said_by_name(rig: Rig) -> None:
    rig.health.live["collection"] = lambda: "no call for 130 s"
    rig.health.ready["start"] = lambda: "waiting for the API server"
    code, text = await rig.get("/healthz")
    assert code == 503
    assert '"collection": "no call for 130 s"' in text
    code, text = await rig.get("/readyz")
    assert code == 503
    assert "waiting for the API server" in text


async def test_metrics_are_served(rig: Rig) -> None:
    code, text = await rig.get("/metrics")
    assert code == 200
    assert "gpudiag_operator_build_info" in text


async def test_a_loop_that_is_late_is_not_well() -> None:
    ticks = iter([0.0, 0.02, 1.0, 21.0, 30.0, 30.0])
    health = Health(monotonic=lambda: next(ticks))
    task = asyncio.create_task(health.watch_loop(0.01))
    async with asyncio.timeout(5):
        while health.loop_problem() is None:
            await asyncio.sleep(0.001)
    task.cancel()
    assert health.loop_problem() == "the event loop was 20.0 s late"
