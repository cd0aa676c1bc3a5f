"""What a simulated agent says beyond its report is what `detail: Full` asks for, and fits the report."""

from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import aiohttp
import msgspec
import pytest

from gpudiag_api import wire
from gpudiag_api.times import from_rfc3339
from gpudiag_cli.simulator import Fleet

T = TypeVar("T")
NOW = 1_800_000_000.0
Ask = Callable[[str], "aiohttp.client._RequestContextManager"]


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    async with Fleet(1, clock=lambda: NOW) as running:
        yield running


@pytest.fixture
async def ask(fleet: Fleet) -> AsyncIterator[Ask]:
    async with aiohttp.ClientSession() as session:
        yield lambda path: session.get(fleet["gpu-01"].url + path)


async def get(ask: Ask, path: str, kind: type[T]) -> T:
    async with ask(path) as response:
        assert response.status == 200, await response.text()
        return msgspec.json.decode(await response.read(), type=kind)


async def test_the_timeline_ends_with_the_sample_and_has_the_points_asked_for(ask: Ask) -> None:
    answer = await get(ask, "/v1/timeline?minutes=10&points=30", wire.TimelineAnswer)
    assert (answer.node_name, answer.step_seconds) == ("gpu-01", 20)
    assert [line.gpu_index for line in answer.gpus] == list(range(8))
    moments = [from_rfc3339(point.at) for point in answer.gpus[0].points]
    assert moments == [NOW - 20 * back for back in range(29, -1, -1)]
    assert len({point.temperature_celsius for point in answer.gpus[0].points}) > 1


async def test_points_are_never_denser_than_samples(ask: Ask) -> None:
    answer = await get(ask, "/v1/timeline?minutes=1&points=360", wire.TimelineAnswer)
    assert (answer.step_seconds, len(answer.gpus[0].points)) == (10, 6)


async def test_a_fault_shows_in_the_timeline_from_its_beginning(fleet: Fleet, ask: Ask) -> None:
    await fleet.set_fault("gpu-01", "hot", gpu=2)
    answer = await get(ask, "/v1/timeline?gpu=2", wire.TimelineAnswer)
    (line,) = answer.gpus
    assert [point.throttled for point in line.points] == [False] * (len(line.points) - 1) + [True]
    assert [(event.kind, event.gpu_index) for event in answer.events] == [("raised", 2)]


async def test_xids_come_oldest_first_behind_a_cursor(fleet: Fleet, ask: Ask) -> None:
    node = fleet["gpu-01"]
    node._clock = iter([NOW + step for step in range(100)]).__next__
    fleet._clock = node._clock
    for code in ("xid-31", "xid-48", "xid-79"):
        await fleet.set_fault(node.name, code)
    first = await get(ask, "/v1/xids?limit=2", wire.XIDsAnswer)
    assert [event.code for event in first.events] == [31, 48]
    rest = await get(ask, f"/v1/xids?since={first.cursor}", wire.XIDsAnswer)
    assert [event.code for event in rest.events] == [79]
    none = await get(ask, f"/v1/xids?since={rest.cursor}", wire.XIDsAnswer)
    assert (none.events, none.cursor) == ((), rest.cursor)


async def test_topology_names_every_pair_once(ask: Ask) -> None:
    answer = await get(ask, "/v1/topology", wire.TopologyAnswer)
    assert len(answer.links) == 28
    assert {link.kind for link in answer.links} == {"NVSwitch"}
    assert [place.numa_node for place in answer.placement] == [0] * 4 + [1] * 4


async def test_processes_are_those_of_the_jobs(fleet: Fleet, ask: Ask) -> None:
    assert (await get(ask, "/v1/processes", wire.ProcessesAnswer)).processes == ()
    await fleet.next_jobs()
    (row,) = (await get(ask, "/v1/processes", wire.ProcessesAnswer)).processes
    assert (row.gpu_index, row.namespace, row.pod) == (0, "jobs", "train-1")


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/v1/timeline?minuts=3", 400, "minuts. Known are minutes, gpu, points"),
        ("/v1/timeline?points=0", 400, "points is a whole number from 1 to 360, not '0'"),
        ("/v1/timeline?gpu=8", 404, "no GPU 8; the last one is 7"),
        ("/v1/xids?limit=many", 400, "limit is a whole number from 1 to 512, not 'many'"),
        ("/v1/topology?x=1", 400, "x. There are none here"),
    ],
)
async def test_wrong_parameters_are_named(ask: Ask, path: str, status: int, says: str) -> None:
    async with ask(path) as response:
        assert (response.status, response.content_type) == (status, "application/problem+json")
        assert says in (await response.json(content_type=None))["detail"]


async def test_misbehaviour_holds_for_every_path(fleet: Fleet, ask: Ask) -> None:
    await fleet.set_fault("gpu-01", "error-503")
    async with ask("/v1/topology") as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "5")
