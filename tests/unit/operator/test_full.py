"""`detail: Full` and `podRef`: what is asked of an agent, what is shown of it, and to whom."""

from typing import Any

import msgspec
import pytest
from tests.unit.operator.fleet import CRITICAL, WARNING, finding, node_of, xid

from gpudiag_api import wire
from gpudiag_api.kinds import GPUDiagnosticStatus
from gpudiag_api.vocabulary import Blame, Health, NotRead
from gpudiag_operator.aggregate import budget
from gpudiag_operator.aggregate.results import CHANGES, PROCESSES, results
from gpudiag_operator.assess.narrow import holds, narrowed
from gpudiag_operator.collect.details import fetch_details
from gpudiag_operator.collect.outcome import FetchError
from gpudiag_operator.domain import NodeDetails, NodeState

AT = "2027-01-15T08:00:00.000Z"


def details(*, points: int = 2, processes: int = 2, events: int = 2) -> NodeDetails:
    return NodeDetails(
        timeline=wire.TimelineAnswer(
            version="1.0",
            node_name="n1",
            step_seconds=30,
            gpus=tuple(
                wire.GPUTimeline(
                    gpu_index=index,
                    points=tuple(wire.TimelinePoint(at=AT, temperature_celsius=40 + n) for n in range(points)),
                )
                for index in (0, 1)
            ),
            events=tuple(
                wire.TimelineEvent(at=AT, kind="xid", message=f"XID 31: secret-job {n}", gpu_index=n % 2)
                for n in range(events)
            ),
        ),
        topology=wire.TopologyAnswer(
            version="1.0",
            node_name="n1",
            links=(wire.GPULink(gpu_index=0, peer_index=1, kind="NVLink", links=4),),
            placement=(wire.GPUPlacement(gpu_index=0, numa_node=0), wire.GPUPlacement(gpu_index=1, numa_node=1)),
        ),
        processes=wire.ProcessesAnswer(
            version="1.0",
            node_name="n1",
            processes=tuple(
                wire.ProcessRow(
                    gpu_index=n % 2, pid=100 + n, name="train", namespace="mine" if n % 2 else "theirs", pod="p"
                )
                for n in range(processes)
            ),
        ),
    )


def full(**fields: Any) -> NodeState:
    return msgspec.structs.replace(node_of(**fields), details=details())


class TestAsked:
    async def get(self, path: str) -> bytes:
        found = details()
        answers = {
            "/v1/timeline?points=60": found.timeline,
            "/v1/topology": found.topology,
            "/v1/processes": found.processes,
        }
        return msgspec.json.encode(answers[path])

    async def test_all_parts_come(self) -> None:
        assert await fetch_details("n1", self.get) == details()

    @pytest.mark.parametrize(
        ("fault", "says"),
        [
            (FetchError(NotRead.TIMEOUT, "no answer within 5 s"), "/v1/topology: Timeout: no answer within 5 s"),
            (b"<html>", "/v1/topology: BadResponse: "),
            (b'{"wireVersion":"1.0","nodeName":"n1","links":7}', "/v1/topology: BadResponse: Expected `array`"),
            (
                b'{"wireVersion":"1.0","nodeName":"other"}',
                "/v1/topology: IdentityMismatch: it reports for",
            ),
            (b'{"x":' + b"[" * 100_000, "/v1/topology: BadResponse: "),
        ],
    )
    async def test_a_part_that_does_not_come_is_named_and_the_others_are_there(
        self, fault: Exception | bytes, says: str
    ) -> None:
        async def get(path: str) -> bytes:
            if path != "/v1/topology":
                return await self.get(path)
            if isinstance(fault, Exception):
                raise fault
            return fault

        found = await fetch_details("n1", get)
        assert (found.topology, found.timeline) == (None, details().timeline)
        (missing,) = found.missing
        assert missing.startswith(says)


class TestShown:
    def result(self, state: NodeState, *, namespace: str = "mine", show_pods: bool = False) -> Any:
        (found,) = results([state, node_of("n2")], namespace=namespace, show_pods=show_pods)
        return found

    def test_everything_about_a_node(self) -> None:
        found = self.result(full(gpus=2), show_pods=True)
        assert [gpu.index for gpu in found.gpus] == [0, 1]
        assert [len(line.points) for line in found.timeline] == [2, 2]
        assert [(link.gpu, link.peer, link.kind, link.links) for link in found.topology.links] == [(0, 1, "NVLink", 4)]
        assert [(one.pid, one.pod, one.name) for one in found.processes] == [(100, "p", "train"), (101, "p", "train")]
        assert found.changes[0].message == "XID 31: secret-job 0"

    def test_only_what_was_read_in_full_has_a_result(self) -> None:
        assert results([node_of()], namespace="mine", show_pods=True) == ()

    def test_a_time_that_is_none_is_left_out(self) -> None:
        """One such point would have the API server refuse the whole status."""
        found = details()
        assert found.timeline is not None
        points = (wire.TimelinePoint(at="yesterday"), wire.TimelinePoint(at=AT))
        timeline = msgspec.structs.replace(found.timeline, gpus=(wire.GPUTimeline(gpu_index=0, points=points),))
        state = msgspec.structs.replace(node_of(gpus=2), details=msgspec.structs.replace(found, timeline=timeline))
        assert [point.at for point in self.result(state).timeline[0].points] == [AT]

    def test_others_pods_and_processes_are_not_shown(self) -> None:
        theirs, mine = self.result(full(gpus=2)).processes
        assert (theirs.pid, theirs.namespace, theirs.pod, theirs.name) == (100, None, None, "")
        assert (mine.namespace, mine.pod, mine.name) == ("mine", "p", "train")

    def test_a_kernel_line_that_names_processes_is_cut(self) -> None:
        assert {change.message for change in self.result(full(gpus=2)).changes} == {"XID 31"}

    @pytest.mark.parametrize(("namespace", "shown"), [("mine", True), ("theirs", False)])
    def test_an_xid_of_an_own_pod_is_shown_in_full(self, namespace: str, shown: bool) -> None:
        event = xid(pod_namespace=namespace, pod_name="job-0", process_id=7, process_name="python", message="pid=7")
        (found,) = self.result(full(gpus=2, xids=(event,))).events
        assert (found.pod, found.process_id, found.process_name, found.message) == (
            (f"{namespace}/job-0", 7, "python", "pid=7") if shown else (None, None, None, "")
        )

    def test_lists_are_bounded(self) -> None:
        state = msgspec.structs.replace(node_of(gpus=2), details=details(points=300, processes=200, events=200))
        found = self.result(state)
        assert [len(line.points) for line in found.timeline] == [60, 60]
        assert (len(found.processes), found.processes_truncated, len(found.changes)) == (PROCESSES, True, CHANGES)

    def test_ten_nodes_in_full_fit_into_a_status(self) -> None:
        states = [
            msgspec.structs.replace(
                node_of(f"n{number}", gpus=8, findings=tuple(finding(CRITICAL, index=i) for i in range(8))),
                details=details(points=60, processes=64, events=32),
            )
            for number in range(10)
        ]
        status = GPUDiagnosticStatus(results=results(states, namespace="mine", show_pods=True))
        assert budget.size(status) > budget.LIMIT
        fitted = budget.fit(status)
        assert budget.size(fitted) <= budget.LIMIT
        assert fitted.results
        assert fitted.results[0].timeline_truncated


class TestNarrowed:
    def node(self, **fields: Any) -> NodeState:
        held = [("mine", "job-0", 0), ("theirs", "job-0", 1)]
        allocations = tuple(
            wire.Allocation(gpu_uuid=gpu.uuid, namespace=namespace, pod=pod, container="c")
            for namespace, pod, index in held
            for gpu in node_of(gpus=2).gpus
            if gpu.index == index
        )
        return node_of(gpus=2, allocations=allocations, **fields)

    def test_only_the_pods_gpus_count(self) -> None:
        state = self.node(health=Health.UNHEALTHY, findings=(finding(CRITICAL, index=1),))
        mine, theirs = (narrowed(state, namespace, "job-0") for namespace in ("mine", "theirs"))
        assert (mine.health, mine.reason, [gpu.index for gpu in mine.gpus]) == (Health.HEALTHY, "AllHealthy", [0])
        assert (theirs.health, [gpu.index for gpu in theirs.gpus]) == (Health.UNHEALTHY, [1])
        assert mine.findings == ()
        assert {held.namespace for held in mine.allocations} == {"mine"}

    def test_what_is_wrong_with_the_node_concerns_every_pod_on_it(self) -> None:
        state = self.node(health=Health.DEGRADED, findings=(finding(WARNING, index=None),))
        assert narrowed(state, "mine", "job-0").health is Health.DEGRADED

    def test_xids_of_other_gpus_are_left_out(self) -> None:
        subject = wire.Subject(gpu_index=1, gpu_uuid=node_of(gpus=2).gpus[1].uuid)
        state = self.node(xids=(xid(subject=subject, blame=Blame.HARDWARE),))
        assert narrowed(state, "mine", "job-0").xids == ()
        assert len(narrowed(state, "theirs", "job-0").xids) == 1

    def test_a_node_that_is_not_read_stays_unknown(self) -> None:
        state = self.node(failure=NotRead.TIMEOUT)
        assert (narrowed(state, "mine", "job-0").health, narrowed(state, "mine", "job-0").reason) == (
            Health.UNKNOWN,
            "Timeout",
        )

    def test_a_pod_with_a_mig_device_has_its_gpu(self) -> None:
        whole = node_of(gpus=1).gpus[0]
        mig = wire.MIGInstance(uuid="MIG-1", gpu_instance=1, compute_instance=0)
        state = msgspec.structs.replace(
            node_of(gpus=1),
            gpus=(msgspec.structs.replace(whole, mig=(mig,)),),
            allocations=(wire.Allocation(gpu_uuid="MIG-1", namespace="mine", pod="job-0", container="c"),),
        )
        assert [gpu.uuid for gpu in narrowed(state, "mine", "job-0").gpus] == [whole.uuid]

    def test_a_name_in_another_namespace_is_another_pod(self) -> None:
        assert holds(self.node(), "mine", "job-0")
        assert not holds(self.node(), "nobody", "job-0")
        assert not holds(self.node(), "mine", "job-1")
