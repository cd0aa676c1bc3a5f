"""The simulator speaks the agents' HTTP contract; a plain client sees what the operator would."""

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime

import aiohttp
import pytest
from multidict import CIMultiDictProxy

from gpudiag_api import wire
from gpudiag_api.meaning import etag
from gpudiag_api.times import from_rfc3339
from gpudiag_api.vocabulary import Capability, Health
from gpudiag_cli.errors import CommandError
from gpudiag_cli.simulator import MACHINES, Fleet, SimulatedNode

REPORT = "/v1/report"


class Client:
    """A client without compression of its own: headers and bytes as they travel."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def get(
        self, node: SimulatedNode, path: str = REPORT, *, timeout: float = 10.0, **headers: str
    ) -> tuple[int, CIMultiDictProxy[str], bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        limit = aiohttp.ClientTimeout(total=timeout)
        async with self._session.get(node.url + path, headers=named, timeout=limit) as response:
            return response.status, response.headers, await response.read()

    async def report(self, node: SimulatedNode) -> wire.Report:
        _, _, body = await self.get(node)
        return wire.decode(body)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with aiohttp.ClientSession(auto_decompress=False, headers={"Accept-Encoding": "identity"}) as session:
        yield Client(session)


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    async with Fleet(3) as running:
        yield running


@pytest.fixture
def node(fleet: Fleet) -> SimulatedNode:
    return fleet["gpu-02"]


async def waiting(node: SimulatedNode, requests: int) -> None:
    """Until the agent has received so many requests."""
    async with asyncio.timeout(5):
        while node.requests < requests:
            await asyncio.sleep(0)
    await asyncio.sleep(0)


class TestReport:
    async def test_is_valid_and_of_the_node_that_was_asked(self, fleet: Fleet, client: Client) -> None:
        for node in fleet.nodes.values():
            report = await client.report(node)
            assert (report.agent.node_name, report.agent.source) == (node.name, "simulated")
            assert report.health is Health.HEALTHY
            assert [gpu.index for gpu in report.gpus] == list(range(8))

    async def test_carries_the_tag_of_its_meaning_and_when_it_was_sampled(
        self, node: SimulatedNode, client: Client
    ) -> None:
        status, headers, body = await client.get(node)
        report = wire.decode(body)
        assert status == 200
        assert headers["ETag"] == etag(report)
        assert headers["X-Gpudiag-Sampled-At"] == report.sampled_at
        age = parsedate_to_datetime(headers["Date"]).timestamp() - from_rfc3339(headers["X-Gpudiag-Sampled-At"])
        assert age < 11

    async def test_is_compressed_on_request(self, node: SimulatedNode, client: Client) -> None:
        _, plain_headers, plain = await client.get(node)
        _, headers, packed = await client.get(node, Accept_Encoding="gzip")
        assert plain_headers["Vary"] == headers["Vary"] == "Accept-Encoding"
        assert headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(packed) == plain

    async def test_of_a_small_body_is_not_compressed(self, fleet: Fleet, node: SimulatedNode, client: Client) -> None:
        await fleet.set_fault(node.name, "no-driver")
        _, headers, body = await client.get(node, Accept_Encoding="gzip")
        assert "Content-Encoding" not in headers
        assert wire.decode(body).gpus == ()

    async def test_same_meaning_is_304_with_the_time_of_the_sample(self, node: SimulatedNode, client: Client) -> None:
        _, first, _ = await client.get(node)
        status, headers, body = await client.get(node, If_None_Match=first["ETag"])
        assert (status, body) == (304, b"")
        assert headers["ETag"] == first["ETag"]
        assert "X-Gpudiag-Sampled-At" in headers
        assert "Date" in headers

    async def test_fresh_takes_a_sample(self, client: Client) -> None:
        now = [1_800_000_000.0]
        async with Fleet(1, clock=lambda: now[0]) as fleet:
            node = fleet["gpu-01"]
            first = await client.report(node)
            now[0] += 3
            assert (await client.report(node)).sampled_at == first.sampled_at
            _, _, body = await client.get(node, f"{REPORT}?fresh=true")
            fresh = wire.decode(body)
        assert first.sampled_at is not None
        assert fresh.sampled_at is not None
        assert from_rfc3339(fresh.sampled_at) - from_rfc3339(first.sampled_at) == 3
        assert etag(fresh) == etag(first)
        assert fresh.gpus[0].measurements != first.gpus[0].measurements

    async def test_varies_where_that_was_asked_for(self, client: Client) -> None:
        ticks = iter(range(1_800_000_000, 1_800_001_000))
        async with Fleet(1, vary=True, clock=lambda: float(next(ticks))) as fleet:
            bodies = {(await client.get(fleet["gpu-01"]))[2] for _ in range(5)}
        assert len(bodies) == 5

    async def test_echoes_the_callers_ids(self, node: SimulatedNode, client: Client) -> None:
        _, headers, _ = await client.get(node, X_Request_Id="run-7")
        assert headers["X-Request-Id"] == "run-7"


class TestLongPoll:
    async def test_ends_with_the_change(self, fleet: Fleet, node: SimulatedNode, client: Client) -> None:
        _, first, _ = await client.get(node)
        poll = asyncio.create_task(client.get(node, f"{REPORT}?wait=30s", If_None_Match=first["ETag"]))
        await waiting(node, 2)
        assert not poll.done()
        await fleet.set_fault(node.name, "ecc", gpu=3)
        status, headers, body = await poll
        assert status == 200
        assert headers["ETag"] != first["ETag"]
        assert [finding.subject.gpu_index for finding in wire.decode(body).findings] == [3]

    async def test_ends_with_its_time(self, node: SimulatedNode, client: Client) -> None:
        _, first, _ = await client.get(node)
        status, headers, _ = await client.get(node, f"{REPORT}?wait=20ms", If_None_Match=first["ETag"])
        assert status == 304
        assert "X-Gpudiag-Sampled-At" in headers

    @pytest.mark.parametrize("tag", [None, 'W/"other"'])
    async def test_without_the_present_tag_answers_at_once(
        self, node: SimulatedNode, client: Client, tag: str | None
    ) -> None:
        headers = {"If_None_Match": tag} if tag else {}
        status, _, _ = await client.get(node, f"{REPORT}?wait=30s", timeout=5.0, **headers)
        assert status == 200

    async def test_of_a_client_that_went_is_forgotten(self, node: SimulatedNode, client: Client) -> None:
        _, first, _ = await client.get(node)
        poll = asyncio.create_task(client.get(node, f"{REPORT}?wait=30s", If_None_Match=first["ETag"]))
        await waiting(node, 2)
        poll.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await poll
        async with asyncio.timeout(5):
            while node._waiting:
                await asyncio.sleep(0)

    async def test_ends_with_another_job(self, fleet: Fleet, node: SimulatedNode, client: Client) -> None:
        _, first, _ = await client.get(node)
        poll = asyncio.create_task(client.get(node, f"{REPORT}?wait=30s", If_None_Match=first["ETag"]))
        await waiting(node, 2)
        await fleet.next_jobs([node.name])
        _, _, body = await poll
        assert [held.pod for held in wire.decode(body).allocations] == ["train-1"]


class TestHTTP:
    @pytest.mark.parametrize("path", ["/healthz", "/readyz"])
    async def test_is_alive(self, node: SimulatedNode, client: Client, path: str) -> None:
        assert (await client.get(node, path))[0] == 200

    @pytest.mark.parametrize(
        ("query", "says"),
        [
            ("?wiat=3s", "wiat"),
            ("?wait=3", "'3' is not a duration"),
            ("?wait=1h", "at most 5m"),
            ("?fresh=1", "true or false"),
        ],
    )
    async def test_wrong_parameters_are_named(self, node: SimulatedNode, client: Client, query: str, says: str) -> None:
        status, headers, body = await client.get(node, REPORT + query)
        assert (status, headers["Content-Type"].partition(";")[0]) == (400, "application/problem+json")
        assert says in body.decode()

    async def test_other_paths_are_404(self, node: SimulatedNode, client: Client) -> None:
        assert (await client.get(node, "/v2/report"))[0] == 404


class TestHealthFaults:
    @pytest.mark.parametrize(
        ("fault", "health", "reasons"),
        [
            ("xid-79", Health.UNHEALTHY, {"GPULost"}),
            ("gpu-lost", Health.UNHEALTHY, {"GPULost"}),
            ("xid-48", Health.UNHEALTHY, {"XID48"}),
            ("xid-31", Health.HEALTHY, {"XID31"}),
            ("ecc", Health.UNHEALTHY, {"UncorrectableErrors"}),
            ("row-remap-pending", Health.DEGRADED, {"RemapPending"}),
            ("row-remap-failed", Health.UNHEALTHY, {"RemapFailed"}),
            ("hot", Health.DEGRADED, {"Overheating"}),
            ("throttled", Health.DEGRADED, {"PowerBrake"}),
        ],
    )
    async def test_of_one_gpu(
        self, fleet: Fleet, node: SimulatedNode, client: Client, fault: str, health: Health, reasons: set[str]
    ) -> None:
        await fleet.set_fault(node.name, fault, gpu=5)
        report = await client.report(node)
        assert report.health is health
        assert {finding.reason for finding in report.findings} == reasons
        assert {finding.subject.gpu_uuid for finding in report.findings} == {report.gpus[5].uuid}
        assert {gpu.index for gpu in report.gpus if gpu.health is not Health.HEALTHY} <= {5}

    async def test_an_xid_is_listed_as_a_kernel_event(self, fleet: Fleet, node: SimulatedNode, client: Client) -> None:
        await fleet.set_fault(node.name, "xid-79", gpu=1)
        report = await client.report(node)
        assert [(event.code, event.subject.gpu_index) for event in report.xids] == [(79, 1)]
        assert report.xids[0].id.startswith(f"{report.agent.boot_id}/")

    @pytest.mark.parametrize(
        ("fault", "capability"), [("driver-hung", Capability.DRIVER_HUNG), ("no-driver", Capability.NO_DRIVER)]
    )
    async def test_a_blind_agent_says_so_and_calls_nothing_healthy(
        self, fleet: Fleet, node: SimulatedNode, client: Client, fault: str, capability: Capability
    ) -> None:
        await fleet.set_fault(node.name, fault)
        report = await client.report(node)
        assert [gap.reason for gap in report.capabilities] == [capability]
        assert report.health is Health.UNKNOWN

    async def test_a_kernel_log_that_cannot_be_read_changes_no_health(
        self, fleet: Fleet, node: SimulatedNode, client: Client
    ) -> None:
        await fleet.set_fault(node.name, "no-kernel-log")
        report = await client.report(node)
        assert [gap.reason for gap in report.capabilities] == [Capability.NO_KERNEL_LOG]
        assert (report.health, report.findings) == (Health.HEALTHY, ())

    async def test_a_hung_driver_gives_no_new_samples(self, client: Client) -> None:
        now = [1_800_000_000.0]
        async with Fleet(1, clock=lambda: now[0]) as fleet:
            node = fleet["gpu-01"]
            _, before, _ = await client.get(node)
            await fleet.set_fault(node.name, "driver-hung")
            now[0] += 100
            _, hung, _ = await client.get(node, f"{REPORT}?fresh=true")
            await fleet.clear(node.name)
            _, after, _ = await client.get(node)
        times = [from_rfc3339(each["X-Gpudiag-Sampled-At"]) for each in (before, hung, after)]
        assert times == [1_800_000_000, 1_800_000_000, 1_800_000_100]

    async def test_several_are_there_together_and_go_one_by_one(
        self, fleet: Fleet, node: SimulatedNode, client: Client
    ) -> None:
        before = node.etag
        await fleet.set_fault(node.name, "hot", gpu=0)
        await fleet.set_fault(node.name, "hot", gpu=1)
        await fleet.set_fault(node.name, "ecc", gpu=0)
        assert len((await client.report(node)).findings) == 3
        await fleet.clear(node.name, "hot")
        assert [finding.reason for finding in (await client.report(node)).findings] == ["UncorrectableErrors"]
        await fleet.clear(node.name)
        assert node.etag == before


class TestFleet:
    async def test_is_the_same_fleet_when_started_again(self) -> None:
        tags = []
        for _ in range(2):
            async with Fleet(2, machine="a100-8-mig") as fleet:
                tags.append([node.etag for node in fleet.nodes.values()])
        assert tags[0] == tags[1]
        assert len(set(tags[0])) == 2

    async def test_every_node_has_an_address_of_its_own(self) -> None:
        async with Fleet(300) as fleet:
            addresses = {node.address for node in fleet.nodes.values()}
            assert len(addresses) == 300
            assert all(address.startswith("127.") for address in addresses)

    async def test_two_fleets_do_not_meet(self, fleet: Fleet) -> None:
        async with Fleet(3) as other:
            theirs = {node.address for node in other.nodes.values()}
            assert theirs.isdisjoint(node.address for node in fleet.nodes.values())

    async def test_a_taken_address_is_said(self, fleet: Fleet) -> None:
        network = int(fleet["gpu-01"].address.split(".")[1])
        with pytest.raises(CommandError, match=r"cannot listen on port 9810.*--port"):
            await Fleet(1, network=network).start()

    async def test_mistakes_are_sentences(self, fleet: Fleet) -> None:
        with pytest.raises(CommandError, match="no simulated node 'gpu-99'"):
            await fleet.set_fault("gpu-99", "ecc")
        with pytest.raises(CommandError, match="no fault 'broken'"):
            await fleet.set_fault("gpu-01", "broken")
        with pytest.raises(CommandError, match="GPUs 0 to 7, no GPU 8"):
            await fleet.set_fault("gpu-01", "ecc", gpu=8)
        with pytest.raises(CommandError, match="no machine 'h900'"):
            Fleet(1, machine="h900")

    async def test_stopping_twice_is_no_error(self) -> None:
        fleet = Fleet(1)
        await fleet.start()
        await fleet.stop()
        await fleet.stop()


@pytest.mark.parametrize("machine", MACHINES.values(), ids=lambda machine: machine.name)
async def test_every_machine_gives_a_report_that_decodes(machine: object, client: Client) -> None:
    async with Fleet(1, machine=getattr(machine, "name")) as fleet:  # noqa: B009
        report = await client.report(fleet["gpu-01"])
    assert report.health is Health.HEALTHY
    assert len({gpu.uuid for gpu in report.gpus}) == len({gpu.pci for gpu in report.gpus}) == len(report.gpus)
