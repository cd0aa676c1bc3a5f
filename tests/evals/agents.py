"""Simulated agents whose reports a test completes: what they say goes the whole way, operator and resources included.

The HTTP contract is the simulator's own. A node differs from a simulated one in its edit: pods on its GPUs, XIDs that
name them, another driver, or things that no honest agent would say.
"""

import asyncio
import functools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Self

import msgspec
from aiohttp import web

from gpudiag_api import wire
from gpudiag_api.meaning import etag
from gpudiag_api.times import to_rfc3339
from gpudiag_cli.simulator.addresses import listen_all
from gpudiag_cli.simulator.agent import answer
from gpudiag_cli.simulator.faults import Fault, Injected
from gpudiag_cli.simulator.machines import MACHINES
from gpudiag_cli.simulator.node import SimulatedNode
from gpudiag_cli.simulator.report import NodeSpec

Edit = Callable[[wire.Report], wire.Report]

PORT = 9810
STORY_SECONDS = 600.0
"""The faults of a story began so long ago."""


class PreparedNode(SimulatedNode):
    """A simulated node with a completed report."""

    def __init__(self, spec: NodeSpec, address: str, port: int, edit: Edit) -> None:
        self._edit = edit
        super().__init__(spec, address, port)

    def _compose(self) -> None:
        super()._compose()
        self._report = self._edit(self._report)
        self.etag = etag(self._report)


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What a node is to be."""

    name: str
    machine: str = "h100-8"
    faults: tuple[tuple[Fault, int], ...] = ()
    """Each with the index of its GPU."""
    edits: tuple[Edit, ...] = ()
    labels: dict[str, str] = {}
    says: dict[str, bytes] = {}
    """Instead of the answer at a path: JSON, or what passes for it."""

    def edit(self, report: wire.Report) -> wire.Report:
        """All edits, one after the other."""
        return functools.reduce(lambda done, edit: edit(done), self.edits, report)


def held(pod: str, *gpus: int, container: str = "main") -> Edit:
    """``namespace/name`` holds these GPUs, and its XIDs name it."""
    namespace, _, name = pod.partition("/")

    def edit(report: wire.Report) -> wire.Report:
        more = tuple(
            wire.Allocation(gpu_uuid=report.gpus[gpu].uuid, namespace=namespace, pod=name, container=container)
            for gpu in gpus
        )
        xids = tuple(
            msgspec.structs.replace(event, pod_namespace=namespace, pod_name=name)
            if event.subject.gpu_index in gpus
            else event
            for event in report.xids
        )
        return msgspec.structs.replace(report, allocations=report.allocations + more, xids=xids)

    return edit


async def _serve(prepared: Prepared, node: PreparedNode, request: web.BaseRequest) -> web.StreamResponse:
    body = prepared.says.get(request.path)
    if body is None:
        return await answer(node, request)
    if request.path == "/v1/report" and "wait" in request.query and "If-None-Match" in request.headers:
        await asyncio.Event().wait()
    sampled = {"X-Gpudiag-Sampled-At": to_rfc3339(time.time()), "ETag": 'W/"said"'}
    return web.Response(body=body, content_type="application/json", headers=sampled)


class Agents:
    """Prepared nodes, listening, in a thread of their own; ``with Agents(...) as agents``."""

    def __init__(self, prepared: Sequence[Prepared]) -> None:
        self._prepared = prepared
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._servers: list[web.Server] = []
        self._sockets: list[asyncio.Server] = []
        self.nodes: dict[str, PreparedNode] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _do(self, work: Any) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(30)

    async def _start(self) -> None:
        began = time.time() - STORY_SECONDS
        for one, bound in zip(self._prepared, listen_all(len(self._prepared), PORT), strict=True):
            address, port = bound.getsockname()
            spec = NodeSpec(name=one.name, machine=MACHINES[one.machine], labels=one.labels)
            node = PreparedNode(spec, address, port, one.edit)
            node.set_faults(Injected(fault=fault, gpu=gpu, since=began) for fault, gpu in one.faults)
            self.nodes[one.name] = node
            server = web.Server(functools.partial(_serve, one, node), access_log=None, handler_cancellation=True)
            self._servers.append(server)
            if node.behaviour is Fault.REFUSE:
                bound.close()
            else:
                self._sockets.append(await self._loop.create_server(server, sock=bound))

    async def _stop(self) -> None:
        for listening in self._sockets:
            listening.close()
        for server in self._servers:
            await server.shutdown(0.1)
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
