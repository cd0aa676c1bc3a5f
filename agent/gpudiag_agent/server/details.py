"""The paths that answer "and what happened, and who was it": timeline, XIDs, topology, processes."""

from collections.abc import Callable, Sequence

import msgspec
from aiohttp import web

from gpudiag_agent.clock import Clock
from gpudiag_agent.recorder.history import History
from gpudiag_agent.sample import Sample
from gpudiag_agent.server import query
from gpudiag_agent.server.answers import JSON, compressible
from gpudiag_agent.server.problems import not_found, unavailable
from gpudiag_agent.topology import topology
from gpudiag_api import wire
from gpudiag_api.wire import KernelLogGap, ProcessRow

MAX_PROCESSES = 1024


class Details:
    """Handlers over what the agent remembers.

    Args:
        node_name: of this node.
        history: samples, changes and XIDs.
        clock: for "the last minutes".
        sample: the latest sample, None before the first.
        processes: who uses the GPUs of a sample.
        gaps: records of the kernel log that nobody read.
    """

    def __init__(
        self,
        *,
        node_name: str,
        history: History,
        clock: Clock,
        sample: Callable[[], Sample | None],
        processes: Callable[[Sample], Sequence[ProcessRow]],
        gaps: Callable[[], Sequence[KernelLogGap]],
    ) -> None:
        self._node_name = node_name
        self._history = history
        self._clock = clock
        self._sample = sample
        self._processes = processes
        self._gaps = gaps

    def add_to(self, app: web.Application) -> None:
        """Serve the paths."""
        app.router.add_get("/v1/timeline", self._timeline)
        app.router.add_get("/v1/xids", self._xids)
        app.router.add_get("/v1/topology", self._topology)
        app.router.add_get("/v1/processes", self._process_list)

    async def _timeline(self, request: web.Request) -> web.Response:
        asked = query.timeline_query(request.query.items())
        self._latest()
        recorder = self._history.recorder
        if asked.gpu is not None and asked.gpu not in recorder.gpus:
            there = ", ".join(map(str, sorted(recorder.gpus))) or "none"
            raise not_found(f"query parameter gpu: there is no GPU {asked.gpu}; the flight recorder has: {there}")
        return _answer(
            request,
            recorder.timeline(
                node_name=self._node_name,
                now=self._clock.now(),
                minutes=asked.minutes,
                gpu=asked.gpu,
                points=asked.points,
            ),
        )

    async def _xids(self, request: web.Request) -> web.Response:
        asked = query.xids_query(request.query.items())
        self._latest()
        answer = self._history.xids.answer(
            node_name=self._node_name, since=asked.since, limit=asked.limit, gaps=self._gaps()
        )
        return _answer(request, answer)

    async def _topology(self, request: web.Request) -> web.Response:
        query.known(request.query.items(), ())
        return _answer(request, topology(self._latest(), node_name=self._node_name))

    async def _process_list(self, request: web.Request) -> web.Response:
        query.known(request.query.items(), ())
        rows = tuple(self._processes(self._latest()))
        answer = wire.ProcessesAnswer(
            version=wire.WIRE_VERSION,
            node_name=self._node_name,
            processes=rows[:MAX_PROCESSES],
            truncated=len(rows) > MAX_PROCESSES,
        )
        return _answer(request, answer)

    def _latest(self) -> Sample:
        sample = self._sample()
        if sample is None:
            raise unavailable("the first sample is not finished yet")
        return sample


def _answer(request: web.Request, content: msgspec.Struct) -> web.Response:
    return compressible(request, msgspec.json.encode(content), JSON, headers={"Cache-Control": "no-store"})
