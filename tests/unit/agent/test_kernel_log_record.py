"""Records of the kernel log: who wrote them, what they say, and which are worth reading at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudiag_agent.kernel_log import parse as lines
from gpudiag_agent.kernel_log.record import LONGEST_RECORD, Record, may_matter, parse, stamp

XID = "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"3,7,1500000,-;NVRM: x\n SUBSYSTEM=pci\n", Record("NVRM: x", 7, 1_500_000)),
        (b"6,8,1,c,caller=T12;NVRM: x", Record("NVRM: x", 8, 1)),
        (rb"3,9,1,-;NVRM: a\x0aNVRM: b\x1b[0m", Record("NVRM: a\nNVRM: b [0m", 9, 1)),
        (b"NVRM: plain\r\n", Record("NVRM: plain")),
        (b" DEVICE=+pci:0000:3b:00.0", None),
        (b"\n", None),
    ],
)
def test_a_record_is_read(raw: bytes, expected: Record | None) -> None:
    assert parse(raw) == expected


@pytest.mark.parametrize("priority", [8, 11, 14, 24, 191])
def test_what_a_process_wrote_is_no_kernel_record(priority: int) -> None:
    assert parse(f"{priority},7,1,-;{XID}".encode()) is None


def test_on_the_device_a_line_without_a_head_is_nothing() -> None:
    assert parse(XID.encode()) == Record(XID)
    assert parse(XID.encode(), plain=False) is None


@pytest.mark.parametrize(
    "text",
    [
        XID,
        "NVRM: GPU at PCI:0000:66:00: GPU-6a1e1b3c-0000-1111-2222-333344445555",
        "NVRM: GPU Board Serial Number: 1650000000001",
        "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  570.86.15",
        "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 30 LTSSM Fault Up",
        "nvidia-peermem nv_get_p2p_free_callback:127 ERROR detected invalid context, skipping further processing",
        "python3[4242]: segfault at 28 ip 00007f error 4 in libnccl.so.2.18.5[7f00+1000]",
    ],
)
def test_every_family_of_lines_that_the_parsers_know_may_matter(text: str) -> None:
    assert lines.parse(text) is not None
    assert may_matter(text.encode())


@given(st.text(max_size=200))
def test_what_may_not_matter_means_nothing(text: str) -> None:
    assert may_matter(text.encode(errors="replace")) or lines.parse(text) is None


def test_most_lines_do_not_matter() -> None:
    assert not may_matter(b"6,1,1,-;usb 1-1: new high-speed USB device number 2 using xhci_hcd")


@given(st.binary(max_size=300) | st.from_regex(rb"\d{1,30},\d{1,30},\d{1,30},[-c]?;.*", fullmatch=True))
def test_no_record_breaks_the_reader(raw: bytes) -> None:
    for plain in (True, False):
        record = parse(raw, plain=plain)
        assert record is None or not set(map(chr, [*range(10), *range(11, 32), 127])) & set(record.text)
    stamp(raw)


def test_a_monstrous_record_is_cut() -> None:
    record = parse(b"3,1,1,-;NVRM: " + b"x" * 1_000_000)
    assert record is not None
    assert len(record.text) <= LONGEST_RECORD
