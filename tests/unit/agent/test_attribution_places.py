"""From held devices to GPUs, from an event to its pod, from processes to rows: values in, values out."""

import msgspec
import pytest

from gpudiag_agent.attribution.model import Device, Held, Owner, PodRef
from gpudiag_agent.attribution.places import MAX_ALLOCATIONS, Places, pod_behind
from gpudiag_agent.attribution.processes import pids, rows
from gpudiag_agent.sample import CallError, GPUProcess, GPUSample, MIGDevice, Sample
from gpudiag_api.wire import Allocation

MIG = (
    MIGDevice(uuid="MIG-a", gpu_instance=1, compute_instance=0),
    MIGDevice(uuid="MIG-b", gpu_instance=2, compute_instance=0),
)
GPUS = (
    GPUSample(index=0, uuid="GPU-0"),
    GPUSample(index=1, uuid="GPU-1", mig_current=True, mig=MIG),
)
LOST = (CallError("nvmlDeviceGetUUID", 15, "NVML_ERROR_GPU_IS_LOST"),)


def sample(*gpus: GPUSample) -> Sample:
    return Sample(taken_at=0.0, gpus=gpus)


def held(device: Device, *, pod: str = "p", container: str = "c") -> Held:
    return Held(device=device, namespace="ns", pod=pod, container=container)


@pytest.fixture
def places() -> Places:
    known = Places()
    known.observe(sample(*GPUS))
    return known


class TestAllocations:
    @pytest.mark.parametrize(
        ("device", "where"),
        [
            (Device(gpu_uuid="GPU-0"), ("GPU-0", None, None)),
            (Device(gpu_uuid="GPU-elsewhere"), ("GPU-elsewhere", None, None)),
            (Device(index=0), ("GPU-0", None, None)),
            (Device(mig_uuid="MIG-b"), ("GPU-1", "MIG-b", 2)),
            (Device(index=1, gpu_instance=1), ("GPU-1", "MIG-a", 1)),
            (Device(gpu_uuid="GPU-1", gpu_instance=2), ("GPU-1", "MIG-b", 2)),
            (Device(index=1, gpu_instance=9), ("GPU-1", None, 9)),
        ],
    )
    def test_name_the_gpu(self, places: Places, device: Device, where: tuple[str, str | None, int | None]) -> None:
        (found,) = places.allocations([held(device)])
        assert (found.gpu_uuid, found.mig_uuid, found.mig_gpu_instance) == where
        assert (found.namespace, found.pod, found.container) == ("ns", "p", "c")

    @pytest.mark.parametrize("device", [Device(index=7), Device(mig_uuid="MIG-x"), Device(index=7, gpu_instance=1)])
    def test_leave_out_what_nobody_knows(self, places: Places, device: Device) -> None:
        assert places.allocations([held(device)]) == ()

    def test_list_every_pod_of_a_shared_gpu_once_in_a_stable_order(self, places: Places) -> None:
        given = [held(Device(gpu_uuid="GPU-0"), pod=pod) for pod in ("b", "a", "b", "c")]
        found = places.allocations(given)
        assert [one.pod for one in found] == ["a", "b", "c"]
        assert places.allocations(given[::-1]) == found

    def test_are_bounded(self, places: Places) -> None:
        many = [held(Device(gpu_uuid="GPU-0"), pod=f"p{number}") for number in range(600)]
        assert len(places.allocations(many)) == MAX_ALLOCATIONS

    def test_outlive_the_gpu_that_says_nothing_any_more(self, places: Places) -> None:
        places.observe(sample(GPUS[0], GPUSample(index=1, uuid="GPU-1", errors=LOST)))
        places.observe(sample(GPUS[0]))
        assert [one.mig_uuid for one in places.allocations([held(Device(mig_uuid="MIG-a"))])] == ["MIG-a"]

    def test_forget_the_instances_that_were_made_anew(self, places: Places) -> None:
        fresh = (MIGDevice(uuid="MIG-c", gpu_instance=1, compute_instance=0),)
        places.observe(sample(GPUS[0], msgspec.structs.replace(GPUS[1], mig=fresh)))
        assert places.allocations([held(Device(mig_uuid="MIG-a"))]) == ()
        assert [one.mig_uuid for one in places.allocations([held(Device(index=1, gpu_instance=1))])] == ["MIG-c"]


class TestThePodBehindAnEvent:
    TRAIN, SERVE = PodRef("ns", "train"), PodRef("ns", "serve")

    @staticmethod
    def holds(pod: PodRef, gpu: str = "GPU-0", *, instance: int | None = None, container: str = "c") -> Allocation:
        return Allocation(
            gpu_uuid=gpu, namespace=pod.namespace, pod=pod.name, container=container, mig_gpu_instance=instance
        )

    def test_is_the_pod_of_the_process_whoever_holds_the_gpu(self) -> None:
        owner = Owner(pid=1, pod_uid="u", pod=self.TRAIN)
        assert pod_behind(owner, [self.holds(self.SERVE)], gpu_uuid="GPU-0") == self.TRAIN

    def test_is_the_only_holder_where_the_process_is_gone(self) -> None:
        holders = [self.holds(self.TRAIN), self.holds(self.TRAIN, container="d"), self.holds(self.SERVE, "GPU-1")]
        assert pod_behind(None, holders, gpu_uuid="GPU-0") == self.TRAIN

    def test_is_the_only_holder_where_the_processes_pod_has_no_name(self) -> None:
        assert pod_behind(Owner(pid=1, pod_uid="u"), [self.holds(self.TRAIN)], gpu_uuid="GPU-0") == self.TRAIN

    def test_is_nobody_where_two_share_the_gpu(self) -> None:
        assert pod_behind(None, [self.holds(self.TRAIN), self.holds(self.SERVE)], gpu_uuid="GPU-0") is None

    def test_is_nobody_for_a_process_of_the_node(self) -> None:
        assert pod_behind(Owner(pid=1, name="nvidia-smi"), [self.holds(self.TRAIN)], gpu_uuid="GPU-0") is None

    def test_is_nobody_where_the_gpu_is_unknown_or_free(self) -> None:
        assert pod_behind(None, [self.holds(self.TRAIN)], gpu_uuid=None) is None
        assert pod_behind(None, [self.holds(self.TRAIN)], gpu_uuid="GPU-1") is None

    def test_of_a_mig_instance_is_its_holder(self) -> None:
        holders = [self.holds(self.TRAIN, instance=1), self.holds(self.SERVE, instance=2)]
        assert pod_behind(None, holders, gpu_uuid="GPU-0", gpu_instance=2) == self.SERVE
        assert pod_behind(None, holders, gpu_uuid="GPU-0") is None


class TestProcesses:
    def test_are_listed_with_name_and_pod(self) -> None:
        gpu = msgspec.structs.replace(
            GPUS[1],
            processes=(
                GPUProcess(pid=20, kind="graphics"),
                GPUProcess(pid=10, kind="compute", memory_bytes=5, mig_gpu_instance=2),
                GPUProcess(pid=0, kind="compute"),
            ),
        )
        owners = {10: Owner(pid=10, name="python3", pod_uid="u", pod=PodRef("ns", "train"))}
        first, second = rows(sample(gpu), owners)
        assert (first.pid, first.name, first.namespace, first.pod) == (10, "python3", "ns", "train")
        assert (first.gpu_index, first.kind, first.memory_bytes, first.mig_gpu_instance) == (1, "compute", 5, 2)
        assert (second.pid, second.name, second.pod) == (20, "", None)
        assert rows(sample(gpu), None)[0].pod is None

    def test_are_none_where_the_driver_does_not_say(self) -> None:
        assert rows(sample(*GPUS), None) == ()
        assert pids(None) == ()

    def test_on_several_gpus_are_looked_up_once_and_not_without_bound(self) -> None:
        many = tuple(GPUProcess(pid=pid, kind="compute") for pid in range(1, 2000))
        both = [msgspec.structs.replace(gpu, processes=many) for gpu in GPUS]
        assert pids(sample(*both)) == tuple(range(1, 1025))
