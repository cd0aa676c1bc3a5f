"""The kernel log: lines per second through reader, record and decoder, against a bare loop over the same reads.

Nine lines of ten thousand are the driver's, which is a storm; the rest is what a node says anyway.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.context import Context
from tests.bench.result import Result

from gpudiag_agent.clock import SystemClock
from gpudiag_agent.kernel_log.boot import Boot
from gpudiag_agent.kernel_log.decode import Decoder
from gpudiag_agent.kernel_log.intake import Intake
from gpudiag_agent.kernel_log.journal import ExportParser
from gpudiag_agent.kernel_log.reader import KernelLogReader
from gpudiag_agent.kernel_log.record import Record

LINES = 500_000
PER_SECOND = 100_000
"""What must be scanned."""
BOOT = Boot("11111111-2222-3333-4444-555555555555", 1_800_000_000.0)
_USUAL = (
    'audit: type=1400 audit(1700000000.000:10): apparmor="STATUS" operation="profile_load" name="cri-containerd"',
    "eth0: renamed from veth3c0ffee",
    "cni0: port 7(veth3c0ffee) entered forwarding state",
    "usb 1-1: new high-speed USB device number 2 using xhci_hcd",
    "EXT4-fs (nvme1n1p1): mounted filesystem with ordered data mode. Quota mode: none.",
)
_DRIVER = "NVRM: Xid (PCI:0000:3b:00): 31, pid=17, name=python3, Ch 00000018, intr 00000000. MMU Fault: ENGINE GRAPHICS"


def run(_: Context) -> list[Result]:
    """Measure."""
    texts = [_DRIVER if number % 1111 == 0 else _USUAL[number % 5] for number in range(LINES)]
    records = [b"6,%d,%d,-;%s\n" % (number, 10 * number, text.encode()) for number, text in enumerate(texts)]
    floor = _timed(lambda: _bare(records))
    device = _timed(lambda: _device(records))
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        log.write_bytes(b"".join(records))
        file = _timed(lambda: asyncio.run(_file(log)))
    storm = [b"6,%d,%d,-;%s\n" % (number, 10 * number, _DRIVER.encode()) for number in range(LINES // 10)]
    return [
        _result("a line of /dev/kmsg, of which 0.1 % the driver's", device, LINES, target=True, floor=floor),
        _result("a line of a file, likewise", file, LINES, target=True, floor=floor),
        _result("a line of the driver, one of a storm", _timed(lambda: _device(storm)), LINES // 10),
        _result("an entry of the journal, likewise", _timed(lambda: _journal(texts[: LINES // 10])), LINES // 10),
    ]


def _result(name: str, seconds: float, lines: int, *, target: bool = False, floor: float | None = None) -> Result:
    details = {"lines_per_second": lines / seconds}
    if floor is not None:
        details["bare_loop_microseconds"] = 1e6 * floor / lines
    return Result(
        name=name,
        measured=1e6 * seconds / lines,
        unit="µs",
        target=1e6 / PER_SECOND if target else None,
        details=details,
    )


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _intake() -> Intake:
    decoder = Decoder(BOOT)

    def take(record: Record) -> None:
        decoder.feed(record, 1_900_000_000.0)

    return Intake(boot_id=BOOT.id, now=time.time, on_record=take)


def _bare(records: list[bytes]) -> None:
    for record in records:
        len(record)


def _device(records: list[bytes]) -> None:
    """With one system call a record, as the device costs: a read of a pipe that is empty."""
    intake, (out, into) = _intake(), os.pipe()
    os.set_blocking(out, False)
    try:
        for record in records:
            try:
                os.read(out, 16384)
            except BlockingIOError:
                intake.device(record)
    finally:
        os.close(out)
        os.close(into)


async def _file(log: Path) -> None:
    reader = KernelLogReader(log, intake=_intake(), clock=SystemClock(), on_change=lambda: None)
    task = asyncio.create_task(reader.run())
    await reader.caught_up.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _journal(texts: list[str]) -> None:
    intake, parser = _intake(), ExportParser()
    fields = "".join(f"_FIELD_{number}=something that nobody needs\n" for number in range(8))
    boot = BOOT.id.replace("-", "")
    export = "".join(
        f"__CURSOR=s=ab;i={number:x}\n__REALTIME_TIMESTAMP=1800000000000000\n__MONOTONIC_TIMESTAMP={number}\n"
        f"_BOOT_ID={boot}\n{fields}_TRANSPORT=kernel\nSYSLOG_FACILITY=0\n_SOURCE_MONOTONIC_TIMESTAMP={number}\n"
        f"MESSAGE={text}\n\n"
        for number, text in enumerate(texts)
    ).encode()
    for start in range(0, len(export), 1 << 16):
        intake.entries(parser.feed(export[start : start + (1 << 16)]))
