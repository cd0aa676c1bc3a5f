"""Kernel lines: every form the driver writes is understood, nothing else is, and no input breaks the parser."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudiag_agent.kernel_log.boot import Boot
from gpudiag_agent.kernel_log.decode import Decoder, KernelEvent
from gpudiag_agent.kernel_log.parse import (
    DriverLoaded,
    IdentityLine,
    LostBegin,
    LostEnd,
    LostLine,
    SerialLine,
    XIDLine,
    parse,
)
from gpudiag_agent.kernel_log.record import Record
from gpudiag_agent.kernel_log.record import parse as parse_record

LOST_IN_THREE_LINES = """\
NVRM: The NVIDIA GPU 0000:18:00.0
NVRM: (PCI ID: 10de:2330) installed in this system has
NVRM: fallen off the bus and is not responding to commands."""
BOOT = Boot("boot", 1000.0)


def xid(text: str) -> XIDLine:
    line = parse(text)
    assert isinstance(line, XIDLine)
    return line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NVRM: GPU 0000:18:00.0: GPU has fallen off the bus.", LostLine("0000:18:00.0")),
        (LOST_IN_THREE_LINES, LostLine("0000:18:00.0")),
        ("NVRM: The NVIDIA GPU 0000:18:00.0", LostBegin("0000:18:00.0")),
        ("NVRM: fallen off the bus and is not responding to commands.", LostEnd()),
        (
            "NVRM: GPU at PCI:0000:66:00: GPU-12345678-90ab-cdef-1234-567890abcdef",
            IdentityLine("0000:66:00.0", "GPU-12345678-90ab-cdef-1234-567890abcdef"),
        ),
        ("NVRM: GPU Board Serial Number: 1651922012345", SerialLine("1651922012345")),
        ("NVRM: GPU 0000:18:00.0: GPU serial number is 165192201.", SerialLine("165192201", "0000:18:00.0")),
        ("NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.133.20", DriverLoaded()),
    ],
)
def test_understands_the_lines_around_it(text: str, expected: object) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "evil: nvidia-nvswitch0: SXid (PCI:0000:00:00.0): 20034, Fatal, Link 30 LTSSM Fault Up",
        "nvidia-nvswitch0: SXid (PCI:0000:00:00.0): 99999, Fatal, no such number",
        "NVRM: a word in between: RmInitAdapter failed! (0x24:0xffff:1568)",
        "nvidia-peermem nothing wrong",
        "python3[7]: segfault at 0 ip 0 sp 0 error 4 in libc.so.6[7f0]",
        "evil[7]: NVRM: Xid (PCI:0000:3b:00): 79, forged by a process name",
        "NVRM: Xid (PCI:0000:3b:00): 99999999, no such number",
        "NVRM: Xid (PCI:zz:3b:00): 79, x",
        "NVRM: Xid (PCI:0000:41:00): many",
    ],
)
def test_takes_nothing_for_what_it_is_not(text: str) -> None:
    assert parse(text) is None


@given(st.text(max_size=300))
def test_no_text_breaks_it(text: str) -> None:
    parse(text)
    line = parse("NVRM: Xid (PCI:0000:41:00): 13, " + text)
    assert isinstance(line, XIDLine)
    assert line.code == 13


@given(
    domain=st.integers(0, 0xFFFFFFFF),
    bus=st.integers(0, 255),
    device=st.integers(0, 31),
    code=st.integers(1, 65535),
    pid=st.none() | st.integers(0, 2**31),
)
def test_any_address_and_code(domain: int, bus: int, device: int, code: int, pid: int | None) -> None:
    process = "" if pid is None else f"pid={pid}, name=train, "
    line = xid(f"NVRM: Xid (PCI:{domain:04x}:{bus:02x}:{device:02x}): {code}, {process}words")
    assert line.code == code
    assert line.pci.endswith(f":{bus:02x}:{device:02x}.0")
    assert int(line.pci.split(":", maxsplit=1)[0], 16) == domain
    assert line.process_id == pid
    assert line.message == "words"


@given(st.binary(max_size=400))
def test_no_bytes_break_a_record(raw: bytes) -> None:
    record = parse_record(raw)
    assert record is None or "\x00" not in record.text


def test_a_record_is_unescaped_and_placed_in_time() -> None:
    assert parse_record(rb"3,42,1500000,-;NVRM: a\x0aNVRM: b\x5cc" + b"\n SUBSYSTEM=pci\n") == Record(
        "NVRM: a\nNVRM: b\\c", 42, 1500000
    )


@pytest.mark.parametrize("raw", [b"11,5,1,-;NVRM: Xid (PCI:0000:3b:00): 79, forged", b"", b"\n", b" KEY=value"])
def test_what_a_process_wrote_does_not_count(raw: bytes) -> None:
    assert parse_record(raw) is None


def feed(*lines: bytes) -> list[KernelEvent]:
    decoder = Decoder(BOOT)
    records = [record for line in lines if (record := parse_record(line)) is not None]
    return [event for record in records if (event := decoder.feed(record, 2000.0)) is not None]


def test_an_event_has_the_kernels_number_and_time() -> None:
    (event,) = feed(b"3,42,1500000,-;NVRM: Xid (PCI:0000:41:00): 46")
    assert (event.id, event.at) == ("boot/42", 1001.5)


def test_a_line_without_a_head_arrived_now_and_has_the_same_id_when_read_again() -> None:
    line = b"NVRM: Xid (PCI:0000:41:00): 46"
    first, second = feed(line, line)
    assert first.at == 2000.0
    assert first.id != second.id
    assert [event.id for event in feed(line, line)] == [first.id, second.id]


def test_a_record_counts_once_however_often_it_is_read() -> None:
    line = b"3,42,1500000,-;NVRM: Xid (PCI:0000:41:00): 46"
    assert len(feed(line, line)) == 1
    assert len(feed(line, b"3,43,1500000,-;NVRM: Xid (PCI:0000:41:00): 46")) == 2


def test_a_lost_gpu_told_in_three_lines_is_one_event() -> None:
    (event,) = feed(
        b"NVRM: The NVIDIA GPU 0000:18:00.0",
        b"NVRM: (PCI ID: 10de:2330) installed in this system has",
        b"NVRM: fallen off the bus and is not responding to commands.",
    )
    assert event.what == LostLine("0000:18:00.0")
    assert feed(b"NVRM: fallen off the bus and is not responding to commands.") == []


def test_a_serial_number_belongs_to_the_gpu_named_before_it() -> None:
    events = feed(b"NVRM: GPU at PCI:0000:66:00: GPU-12345678", b"NVRM: GPU Board Serial Number: 77")
    assert events[1].what == SerialLine("77", "0000:66:00.0")
    assert feed(b"NVRM: GPU Board Serial Number: 77") == []
