"""The operator's own HTTP server: /healthz, /readyz and /metrics. Started before everything else, stopped last."""

import asyncio

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from gpudiag_operator.observability.health import Health


class Server:
    """Serves one process's health and metrics on one address.

    Args:
        address: host (empty: every address) and port; port 0 takes a free one.
        health: answers /healthz and /readyz.
        registry: answers /metrics.
    """

    def __init__(self, address: tuple[str, int], *, health: Health, registry: CollectorRegistry) -> None:
        self._address = address
        self._health = health
        self._registry = registry
        application = web.Application()
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)

    async def start(self) -> int:
        """Listen; gives the port.

        Raises:
            OSError: the address cannot be had.
        """
        await self._runner.setup()
        host, port = self._address
        await web.TCPSite(self._runner, host or None, port).start()
        taken: int = self._runner.addresses[0][1]
        return taken

    async def stop(self) -> None:
        """Close the server and its connections."""
        await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return self._answer(ready=False)

    async def _readyz(self, _: web.Request) -> web.Response:
        return self._answer(ready=True)

    def _answer(self, *, ready: bool) -> web.Response:
        problems = self._health.problems(ready=ready)
        body: dict[str, object] = {"status": "failing", "problems": problems} if problems else {"status": "ok"}
        role = self._health.role()
        if role:
            body["role"] = role
        return web.json_response(body, status=503 if problems else 200)

    async def _metrics(self, _: web.Request) -> web.Response:
        # 5,000 nodes are 10,000 series and some 100 ms: not on the loop that reads the agents.
        text = await asyncio.to_thread(generate_latest, self._registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})
