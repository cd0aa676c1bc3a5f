"""What the kubelet says: protocol buffers, device ids in every form, and what hostile bytes cannot do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudiag_agent.attribution import devices
from gpudiag_agent.attribution.model import Device, Held
from gpudiag_agent.attribution.pod_resources import MAX_HELD, parse_allocatable, parse_list
from gpudiag_agent.attribution.protobuf import MalformedError, fields, text

from . import pod_resources_bytes as wire

A, B = "11111111-1111-1111-1111-111111111111", "21111111-1111-1111-1111-111111111111"

GO_LIST = bytes.fromhex(
    "0abf010a05747261696e12026d6c1ab1010a046d61696e12410a0e6e76696469612e636f6d2f677075122b4750552d31313131313131312d31"
    "3131312d313131312d313131312d3131313131313131313131313a3a331a020a001a040102ac0222150a066d656d6f7279108080808080201a"
    "040a0208012a491201631a026d6c22400a210a1f6b38732e6770752e6e76696469612e636f6d2f6465766963653d6770752d31120e6770752e"
    "6e76696469612e636f6d1a016e22056770752d312a0173"
)
"""As k8s.io/kubelet v0.36.3 encodes it: a time-sliced GPU, CPUs, memory, and a DRA claim with a share id."""
GO_ALLOCATABLE = bytes.fromhex(
    "0a3a0a0e6e76696469612e636f6d2f67707512284750552d31313131313131312d313131312d313131312d313131312d313131313131313131"
    "3131310a3a0a0e6e76696469612e636f6d2f67707512284750552d32313131313131312d313131312d313131312d313131312d313131313131"
    "3131313131311203000102"
)


class TestDeviceIds:
    @pytest.mark.parametrize(
        ("resource", "device_id", "device"),
        [
            ("nvidia.com/gpu", f"GPU-{A}", Device(gpu_uuid=f"GPU-{A}")),
            ("nvidia.com/gpu", f"GPU-{A}::0", Device(gpu_uuid=f"GPU-{A}")),
            ("nvidia.com/gpu.shared", f"GPU-{A}::17", Device(gpu_uuid=f"GPU-{A}")),
            ("example.com/renamed", f"GPU-{A}", Device(gpu_uuid=f"GPU-{A}")),
            ("nvidia.com/mig-1g.10gb", f"MIG-{A}", Device(mig_uuid=f"MIG-{A}")),
            ("nvidia.com/mig-1g.10gb", f"MIG-{A}::2", Device(mig_uuid=f"MIG-{A}")),
            ("nvidia.com/gpu", f"MIG-{A}", Device(mig_uuid=f"MIG-{A}")),
            ("nvidia.com/mig-1g.5gb", f"MIG-GPU-{A}/7/0", Device(gpu_uuid=f"GPU-{A}", gpu_instance=7)),
            ("nvidia.com/gpu", "nvidia3", Device(index=3)),
            ("nvidia.com/gpu", "nvidia3/gi7", Device(index=3, gpu_instance=7)),
            ("nvidia.com/gpu", "nvidia3/vgpu12", Device(index=3)),
            ("nvidia.com/gpu", "nvidia3/gi7/vgpu1", Device(index=3, gpu_instance=7)),
            ("nvidia.com/gpu", "5", Device(index=5)),
            ("nvidia.com/gpu", "5::1", Device(index=5)),
        ],
    )
    def test_every_form_names_its_gpu(self, resource: str, device_id: str, device: Device) -> None:
        assert devices.parse(device_id, resource=resource) == device

    @pytest.mark.parametrize(
        ("resource", "device_id"),
        [
            ("nvidia.com/GV100GL_Tesla_V100", "42"),  # KubeVirt: an IOMMU group
            ("nvidia.com/rdma", "0"),
            ("intel.com/sriov", "0000:3b:02.1"),
            ("cpu", "3"),
            ("nvidia.com/gpu", "GPU-123"),
            ("nvidia.com/gpu", f"GPU-{A}::x"),
            ("nvidia.com/gpu", "nvidia-uvm"),
            ("nvidia.com/gpu", "٣"),
            ("nvidia.com/gpu", ""),
        ],
    )
    def test_what_is_no_gpu_is_left_out(self, resource: str, device_id: str) -> None:
        assert devices.parse(device_id, resource=resource) is None

    @pytest.mark.parametrize(
        ("name", "cdi", "device"),
        [
            ("gpu-2", [], Device(index=2)),
            ("gpu-2-mig-9-4-4", [], Device(index=2)),
            ("gpu-2-mig-1g.10gb-19-0", [], Device(index=2)),
            (f"gpu-{A}", [], Device(gpu_uuid=f"GPU-{A}")),
            ("", ["nvidia.com/gpu=1"], Device(index=1)),
            ("", ["nvidia.com/gpu=1:0"], Device(index=1)),
            ("", [f"nvidia.com/gpu=GPU-{A}"], Device(gpu_uuid=f"GPU-{A}")),
            ("", ["k8s.gpu.nvidia.com/device=common", "k8s.gpu.nvidia.com/device=gpu-3"], Device(index=3)),
            ("channel-0", [], None),
            ("", ["nvidia.com/gpu=all"], None),
        ],
    )
    def test_a_claimed_device_names_its_gpu(self, name: str, cdi: list[str], device: Device | None) -> None:
        assert devices.parse_dra(name, cdi) == device

    @given(st.text(max_size=80), st.sampled_from(["nvidia.com/gpu", "cpu", ""]))
    def test_no_text_breaks_it(self, device_id: str, resource: str) -> None:
        devices.parse(device_id, resource=resource)
        devices.parse_dra(device_id, [device_id, f"nvidia.com/gpu={device_id}"])


class TestList:
    def test_what_the_kubelet_itself_encodes_is_understood(self) -> None:
        by_plugin, by_claim = parse_list(GO_LIST)
        assert by_plugin == Held(device=Device(gpu_uuid=f"GPU-{A}"), namespace="ml", pod="train", container="main")
        assert by_claim == Held(device=Device(index=1), namespace="ml", pod="train", container="main")

    def test_one_gpu_may_have_many_pods_and_one_pod_many_gpus(self) -> None:
        share = wire.container("c", wire.devices("nvidia.com/gpu", f"GPU-{A}::0"))
        both = wire.container("c", wire.devices("nvidia.com/gpu", f"GPU-{A}::1", f"GPU-{B}"), wire.devices("cpu", "1"))
        held = parse_list(wire.listed(wire.pod("x", "one", share), wire.pod("y", "two", both), wire.pod("z", "none")))
        assert [(one.namespace, one.pod, one.device.gpu_uuid) for one in held] == [
            ("x", "one", f"GPU-{A}"),
            ("y", "two", f"GPU-{A}"),
            ("y", "two", f"GPU-{B}"),
        ]

    def test_claims_on_other_drivers_are_not_gpus(self) -> None:
        claims = (
            wire.claimed(driver="compute-domain.nvidia.com", device="gpu-1"),
            wire.claimed(driver="dra.net", device="gpu-1"),
            wire.claimed(cdi=("intel.com/gpu=0",)),
            wire.claimed(cdi=("nvidia.com/gpu=0",)),
        )
        held = parse_list(wire.listed(wire.pod("n", "p", wire.container("c", claims=claims))))
        assert [one.device for one in held] == [Device(index=0)]

    def test_fields_of_later_versions_are_skipped(self) -> None:
        known = wire.pod("n", "p", wire.container("c", wire.devices("nvidia.com/gpu", f"GPU-{A}")))
        later = wire.field(99, "news") + wire.field(100, 2**64 - 1) + b"\x9d\x06abcd" + b"\x99\x06abcdefgh"
        assert len(parse_list(later + wire.listed(later + known) + later)) == 1

    def test_no_answer_holds_more_than_the_bound(self) -> None:
        many = wire.container("c", wire.devices("nvidia.com/gpu", *(f"GPU-{A}::{n}" for n in range(3000))))
        assert len(parse_list(wire.listed(wire.pod("n", "p", many, many)))) == MAX_HELD

    def test_texts_are_clipped_within_a_character(self) -> None:
        assert text(memoryview("ä".encode() * 4000)) == "ä" * 253


class TestAllocatable:
    def test_what_the_kubelet_itself_encodes_is_understood(self) -> None:
        assert parse_allocatable(GO_ALLOCATABLE) == 2

    @pytest.mark.parametrize(
        ("held", "count"),
        [
            ([wire.devices("nvidia.com/gpu", "nvidia0", "nvidia1")], 2),
            ([wire.devices("nvidia.com/gpu", f"GPU-{A}::0", f"GPU-{A}::1", f"GPU-{B}::0")], 2),
            ([wire.devices("nvidia.com/gpu.shared", f"GPU-{A}::0", f"GPU-{A}::1")], 1),
            ([wire.devices("nvidia.com/gpu", f"MIG-{A}")], None),
            ([wire.devices("nvidia.com/gpu", "nvidia0/gi1")], None),
            ([wire.devices("nvidia.com/gpu", f"GPU-{A}"), wire.devices("nvidia.com/mig-1g.5gb", f"MIG-{B}")], None),
            ([wire.devices("cpu", "1"), wire.devices("nvidia.com/gpu")], 0),
            ([], 0),
        ],
    )
    def test_counts_whole_gpus_or_says_that_it_cannot(self, held: list[bytes], count: int | None) -> None:
        assert parse_allocatable(wire.allocatable(*held)) == count


class TestHostileBytes:
    @pytest.mark.parametrize(
        "nonsense",
        [
            b"\x0a",
            b"\x0a\xff\xff\xff\xff\x0f",
            b"\x0a\x05abc",
            b"\xff" * 11,
            b"\x0b",
            b"\x00\x00",
            b"\x09abc",
            wire.field(1, wire.field(1, b"\xff\xfe")),
            wire.field(1, wire.field(1, 7)),
        ],
    )
    def test_is_malformed_and_says_so(self, nonsense: bytes) -> None:
        with pytest.raises(MalformedError):
            parse_list(nonsense)

    @given(st.binary(max_size=400))
    def test_gives_a_value_or_malformed(self, nonsense: bytes) -> None:
        for parse in (parse_list, parse_allocatable):
            try:
                parse(nonsense)
            except MalformedError:
                continue

    @given(st.data())
    def test_a_bent_answer_gives_a_value_or_malformed(self, data: st.DataObject) -> None:
        bent = bytearray(GO_LIST)
        for at in data.draw(st.lists(st.integers(0, len(GO_LIST) - 1), max_size=4)):
            bent[at] = data.draw(st.integers(0, 255))
        try:
            found = parse_list(bytes(bent[: data.draw(st.integers(0, len(bent)))]))
        except MalformedError:
            return
        assert all(len(one.pod) <= 253 for one in found)

    @given(st.lists(st.tuples(st.integers(1, 2**29 - 1), st.one_of(st.integers(0, 2**64 - 1), st.binary(max_size=30)))))
    def test_what_is_written_is_read(self, written: list[tuple[int, int | bytes]]) -> None:
        message = b"".join(wire.field(number, value) for number, value in written)
        read = [
            (number, value if isinstance(value, int) else bytes(value)) for number, value in fields(memoryview(message))
        ]
        assert read == written
