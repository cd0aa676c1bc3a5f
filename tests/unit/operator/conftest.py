"""A small API server and a client of it: ``fake_server`` has what it can do."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from tests.unit.operator.fake_server import NoAccess, Server

from gpudiag_operator.kube.client import KubeClient


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.01, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


@pytest.fixture
async def access(server: Server) -> NoAccess:
    return NoAccess(f"http://127.0.0.1:{server.port}")


@pytest.fixture
async def api(access: NoAccess) -> AsyncIterator[KubeClient]:
    async with KubeClient(access, request_seconds=5) as client:
        yield client
