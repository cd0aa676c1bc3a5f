"""Every way in which an agent can fail is what a plain client really sees, and none spreads to a neighbour."""

import asyncio
import json
import zlib
from collections.abc import AsyncIterator

import aiohttp
import pytest

from gpudiag_api import wire
from gpudiag_api.times import from_rfc3339
from gpudiag_cli.simulator import Fault, Fleet, SimulatedNode

SHORT = aiohttp.ClientTimeout(total=0.1)
LONG = aiohttp.ClientTimeout(total=10)


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    async with Fleet(2) as running:
        yield running


@pytest.fixture
def node(fleet: Fleet) -> SimulatedNode:
    return fleet["gpu-01"]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=LONG) as session:
        yield session


async def read(
    session: aiohttp.ClientSession, node: SimulatedNode, timeout: aiohttp.ClientTimeout = LONG
) -> tuple[int, str, bytes]:
    async with session.get(f"{node.url}/v1/report", timeout=timeout) as response:
        return response.status, response.content_type, await response.read()


async def test_refuse(fleet: Fleet, node: SimulatedNode, session: aiohttp.ClientSession) -> None:
    await read(session, node)
    await fleet.set_fault(node.name, Fault.REFUSE)
    with pytest.raises(aiohttp.ClientConnectorError, match="Connect call failed"):
        await read(session, node)
    await fleet.clear(node.name)
    assert (await read(session, node))[0] == 200


async def test_refuse_ends_a_long_poll(fleet: Fleet, node: SimulatedNode, session: aiohttp.ClientSession) -> None:
    async def poll() -> int:
        headers = {"If-None-Match": node.etag}
        async with session.get(f"{node.url}/v1/report?wait=30s", headers=headers) as response:
            return response.status

    task = asyncio.create_task(poll())
    async with asyncio.timeout(5):
        while not node.requests:
            await asyncio.sleep(0)
    await fleet.set_fault(node.name, Fault.REFUSE)
    with pytest.raises(aiohttp.ClientConnectionError):
        await task


async def test_hang_until_it_does_no_more(fleet: Fleet, node: SimulatedNode, session: aiohttp.ClientSession) -> None:
    await fleet.set_fault(node.name, Fault.HANG)
    with pytest.raises(TimeoutError):
        await read(session, node, SHORT)
    pending = asyncio.create_task(read(session, node))
    async with asyncio.timeout(5):
        while node.requests < 2:
            await asyncio.sleep(0)
    await fleet.clear(node.name)
    assert (await pending)[0] == 200


async def test_hang_in_mid_body(fleet: Fleet, node: SimulatedNode, session: aiohttp.ClientSession) -> None:
    await fleet.set_fault(node.name, Fault.HANG_BODY)
    async with session.get(f"{node.url}/v1/report") as response:
        half = await response.content.readany()
        assert response.status == 200
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await response.content.read()
        await fleet.clear(node.name)
        assert wire.decode(half + await response.content.read()).agent.node_name == node.name


async def test_slow_body(fleet: Fleet, node: SimulatedNode, session: aiohttp.ClientSession) -> None:
    await fleet.set_fault(node.name, Fault.SLOW_BODY, latency=60)
    async with session.get(f"{node.url}/v1/report") as response:
        assert response.status == 200
        assert 0 < len(await response.content.readany()) < int(response.headers["Content-Length"])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await response.content.read()
    await fleet.set_fault(node.name, Fault.SLOW_BODY, latency=0.01)
    assert wire.decode((await read(session, node))[2]).agent.node_name == node.name


async def test_close_early(fleet: Fleet, node: SimulatedNode, session: aiohttp.ClientSession) -> None:
    await fleet.set_fault(node.name, Fault.CLOSE_EARLY)
    with pytest.raises(aiohttp.ClientPayloadError):
        await read(session, node)


async def test_disconnect(fleet: Fleet, node: SimulatedNode, session: aiohttp.ClientSession) -> None:
    await fleet.set_fault(node.name, Fault.DISCONNECT)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await read(session, node)


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        (Fault.ERROR_500, 500, "application/problem+json"),
        (Fault.ERROR_503, 503, "application/problem+json"),
        (Fault.UNAUTHORIZED, 401, "application/problem+json"),
        (Fault.GARBAGE, 200, "application/json"),
        (Fault.HTML, 200, "text/html"),
        (Fault.NOT_A_REPORT, 200, "application/json"),
    ],
)
async def test_another_answer(
    fleet: Fleet, node: SimulatedNode, session: aiohttp.ClientSession, fault: Fault, status: int, kind: str
) -> None:
    await fleet.set_fault(node.name, fault)
    seen_status, seen_kind, body = await read(session, node)
    assert (seen_status, seen_kind) == (status, kind)
    with pytest.raises(ValueError, match=r"JSON|Expected|missing|decode"):
        wire.decode(body)


async def test_huge(fleet: Fleet, node: SimulatedNode, session: aiohttp.ClientSession) -> None:
    await fleet.set_fault(node.name, Fault.HUGE)
    size = 0
    async with session.get(f"{node.url}/v1/report") as response:
        assert "Content-Length" not in response.headers
        async for chunk in response.content.iter_any():
            size += len(chunk)
    assert size == 100 * 1024 * 1024


async def test_a_client_that_has_enough_of_it_is_no_error(
    fleet: Fleet, node: SimulatedNode, session: aiohttp.ClientSession
) -> None:
    await fleet.set_fault(node.name, Fault.HUGE)
    async with session.get(f"{node.url}/v1/report") as response:
        await response.content.readany()
        response.close()
    await fleet.clear(node.name)
    assert (await read(session, node))[0] == 200


async def test_gzip_bomb(fleet: Fleet, node: SimulatedNode) -> None:
    await fleet.set_fault(node.name, Fault.GZIP_BOMB)
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        _, _, body = await read(session, node)
    assert len(body) < 1 << 20
    unpacker = zlib.decompressobj(wbits=31)
    assert len(unpacker.decompress(body, max_length=2 << 20)) == 2 << 20


async def test_wrong_version_is_valid_otherwise(
    fleet: Fleet, node: SimulatedNode, session: aiohttp.ClientSession
) -> None:
    await fleet.set_fault(node.name, Fault.WRONG_VERSION)
    report = wire.decode((await read(session, node))[2])
    assert not wire.accepts(report.version)


async def test_wrong_node(fleet: Fleet, node: SimulatedNode, session: aiohttp.ClientSession) -> None:
    await fleet.set_fault(node.name, Fault.WRONG_NODE)
    assert wire.decode((await read(session, node))[2]).agent.node_name == "not-gpu-01"


async def test_duplicate_gpu(fleet: Fleet, node: SimulatedNode, session: aiohttp.ClientSession) -> None:
    await fleet.set_fault(node.name, Fault.DUPLICATE_GPU)
    gpus = json.loads((await read(session, node))[2])["gpus"]
    assert (len(gpus), len({gpu["uuid"] for gpu in gpus})) == (9, 8)


async def test_latency(fleet: Fleet, node: SimulatedNode, session: aiohttp.ClientSession) -> None:
    await fleet.set_fault(node.name, Fault.LATENCY, latency=30)
    with pytest.raises(TimeoutError):
        await read(session, node, SHORT)
    await fleet.set_fault(node.name, Fault.LATENCY, latency=0.01)
    assert (await read(session, node))[0] == 200


async def test_stale(fleet: Fleet, node: SimulatedNode, session: aiohttp.ClientSession) -> None:
    async with session.get(f"{node.url}/v1/report") as response:
        before = from_rfc3339(response.headers["X-Gpudiag-Sampled-At"])
    await fleet.set_fault(node.name, Fault.STALE)
    async with session.get(f"{node.url}/v1/report", headers={"If-None-Match": node.etag}) as response:
        assert response.status == 304
        assert before - from_rfc3339(response.headers["X-Gpudiag-Sampled-At"]) > 500


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault.exclusive])
async def test_does_not_spread(fleet: Fleet, node: SimulatedNode, session: aiohttp.ClientSession, fault: Fault) -> None:
    await fleet.set_fault(node.name, fault)
    body = (await read(session, fleet["gpu-02"]))[2]
    assert wire.decode(body).agent.node_name == "gpu-02"


async def test_the_last_one_decides(fleet: Fleet, node: SimulatedNode, session: aiohttp.ClientSession) -> None:
    await fleet.set_fault(node.name, Fault.HANG)
    await fleet.set_fault(node.name, Fault.HTML)
    assert (await read(session, node))[1] == "text/html"
