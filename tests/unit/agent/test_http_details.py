"""The paths besides the report: timeline, XIDs, topology, processes."""

import json
from typing import Any

import msgspec
import pytest
from tests.unit.agent.served_node import GPU, Node

from gpudiag_agent.sample import GPUProcess, NVLinkSample, Sample
from gpudiag_api import wire


async def answer(node: Node, path: str, status: int = 200) -> Any:
    response, body = await node.get(path)
    assert response.status == status, body
    assert response.headers["X-Gpudiag-Sampled-At"]
    return json.loads(body)


class TestTimeline:
    async def test_samples_come_back_oldest_first(self, node: Node) -> None:
        await node.look(temperature_celsius=50)
        found = msgspec.convert(await answer(node, "/v1/timeline?points=360"), wire.TimelineAnswer)
        (gpu,) = found.gpus
        assert (gpu.gpu_index, gpu.gpu_uuid) == (3, "GPU-3")
        assert gpu.points[-1].temperature_celsius in {45.5, 50}
        assert gpu.points[-1].power_watts == 212.5
        assert gpu.points[-1].memory_used_bytes == 7

    async def test_events_stand_beside_them(self, node: Node) -> None:
        node.xid(1)
        await node.look()
        await node.look(remap_pending=True)
        events = msgspec.convert(await answer(node, "/v1/timeline"), wire.TimelineAnswer).events
        assert [event.kind for event in events] == ["xid", "raised", "raised", "health"]
        assert events[0].message.startswith("XID 31 ")

    @pytest.mark.parametrize(
        ("query", "says"),
        [
            ("minutes=0", "minutes: '0' is no whole number from 1 to 30"),
            ("minutes=31", "from 1 to 30"),
            ("minutes=1e3", "from 1 to 30"),
            ("gpu=256", "from 0 to 255"),
            ("gpu=-1", "from 0 to 255"),
            ("gpu=٣", "from 0 to 255"),
            ("points=361", "from 1 to 360"),
            ("span=3", "unknown query parameter 'span'; allowed are: minutes, gpu, points"),
        ],
    )
    async def test_a_wrong_parameter_is_named(self, node: Node, query: str, says: str) -> None:
        assert says in (await answer(node, f"/v1/timeline?{query}", 400))["detail"]

    async def test_a_gpu_that_is_not_there_is_not_found(self, node: Node) -> None:
        assert "has: 3" in (await answer(node, "/v1/timeline?gpu=7", 404))["detail"]


class TestXIDs:
    async def test_a_cursor_gives_what_is_new(self, node: Node) -> None:
        node.xid(1)
        node.xid(2)
        await node.look()
        first = msgspec.convert(await answer(node, "/v1/xids?limit=1"), wire.XIDsAnswer)
        rest = msgspec.convert(await answer(node, f"/v1/xids?since={first.cursor}"), wire.XIDsAnswer)
        assert [event.process_name for event in (*first.events, *rest.events)] == ["p1", "p2"]
        assert (await answer(node, f"/v1/xids?since={rest.cursor}")).get("events", []) == []

    async def test_a_gap_in_the_kernel_log_is_told(self, node: Node) -> None:
        node.gaps = (wire.KernelLogGap(boot_id="b", after=4, before=9, at="2027-01-15T08:00:00Z"),)
        assert (await answer(node, "/v1/xids"))["gaps"][0]["before"] == 9

    @pytest.mark.parametrize("query", ["limit=0", "limit=513", "since=" + "x" * 64, "after=1"])
    async def test_a_wrong_parameter_is_refused(self, node: Node, query: str) -> None:
        await answer(node, f"/v1/xids?{query}", 400)


class TestTopologyAndProcesses:
    async def test_links_and_places(self, node: Node) -> None:
        links = tuple(NVLinkSample(link=n, active=n > 0, remote_kind="switch") for n in range(18))
        other = msgspec.structs.replace(GPU, index=4, uuid="GPU-4", pci="0000:5d:00.0", nvlinks=links)
        node.next = Sample(taken_at=0, gpus=(msgspec.structs.replace(GPU, nvlinks=links), other))
        await node.look()
        found = msgspec.convert(await answer(node, "/v1/topology"), wire.TopologyAnswer)
        assert found.links == (wire.GPULink(gpu_index=3, peer_index=4, kind="NVSwitch", links=17),)
        assert [(place.nvlinks_active, place.nvlinks_total) for place in found.placement] == [(17, 18)] * 2

    async def test_processes(self, node: Node) -> None:
        await node.look(processes=(GPUProcess(pid=7, kind="compute", memory_bytes=5),))
        rows = msgspec.convert(await answer(node, "/v1/processes"), wire.ProcessesAnswer).processes
        assert [(row.gpu_index, row.pid, row.memory_bytes) for row in rows] == [(3, 7, 5)]

    @pytest.mark.parametrize("path", ["/v1/timeline", "/v1/xids", "/v1/topology", "/v1/processes"])
    async def test_before_the_first_sample_there_is_nothing_to_tell(self, fresh_node: Node, path: str) -> None:
        response, body = await fresh_node.get(path)
        assert response.status == 503
        assert response.headers["Retry-After"] == "1"
        assert "first sample" in json.loads(body)["detail"]
