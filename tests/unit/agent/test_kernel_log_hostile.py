"""A gigabyte of hostile kernel log: memory stays bounded, in the scanner and in the reader. None of it is on disk."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fuzz import stream

pytestmark = pytest.mark.slow
GIGABYTE = 1 << 30
ALLOWED = 40 << 10
"""Resident KiB at the highest, of which 27,000 are an interpreter with the modules."""
_READER = """
import asyncio, fcntl, os, sys, termios
from pathlib import Path
from gpudiag_agent.clock import SystemClock
from gpudiag_agent.kernel_log.boot import Boot
from gpudiag_agent.kernel_log.decode import Decoder
from gpudiag_agent.kernel_log.intake import Intake
from gpudiag_agent.kernel_log.reader import KernelLogReader
from gpudiag_agent.checks.xid.ledger import XIDLedger
kind, path = sys.argv[1], Path(sys.argv[2])
boot = Boot("11111111-2222-3333-4444-555555555555", 1_800_000_000.0)
decoder, ledger, heard = Decoder(boot), XIDLedger(boot.id), 0
def take(record):
    global heard
    event = decoder.feed(record, 1_900_000_000.0)
    if event is not None:
        heard += 1
        ledger.hear(event)
def left(descriptor):
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)
async def main():
    intake = Intake(boot_id=boot.id, now=lambda: 1_900_000_000.0, on_record=take)
    logs = {"journal": path} if kind == "journal" else {}
    reader = KernelLogReader(None if logs else path, **logs, intake=intake, clock=SystemClock(), on_change=lambda: None)
    task = asyncio.create_task(reader.run())
    probe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    await asyncio.to_thread(sys.stdin.read)  # Ends when all was written.
    while left(probe):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    assert reader.problem is None and intake.failures == 0, (reader.problem, intake.failures)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
asyncio.run(main())
assert heard > 1000, heard
"""
_PEAK = """
import atexit, re, sys
atexit.register(lambda: print(re.search("VmHWM.*", open("/proc/self/status").read())[0], file=sys.stderr))
"""


def _peak(stderr: str) -> int:
    """Peak resident memory in KiB."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", stderr)[-1])


def _stream(kind: str) -> list[str]:
    return [sys.executable, "-m", "tests.fuzz.stream", str(GIGABYTE), kind]


def test_scanning_a_gigabyte() -> None:
    scan = _PEAK + "from gpudiag_agent.__main__ import main;sys.argv[1:]=['xid','--scan','-'];sys.exit(main())"
    with subprocess.Popen(_stream("kernel_log"), stdout=subprocess.PIPE) as source:
        done = subprocess.run(
            [sys.executable, "-c", scan], stdin=source.stdout, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, check=False,
        )  # fmt: skip
        assert source.stdout is not None
        source.stdout.close()
    assert "Traceback" not in done.stderr
    assert _peak(done.stderr) < ALLOWED


@pytest.mark.parametrize("kind", stream.KINDS)
def test_reading_a_gigabyte_from_a_fifo(kind: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    os.mkfifo(log)
    reader = [sys.executable, "-c", _PEAK + _READER, kind, str(log)]
    said = tmp_path / "said"
    with said.open("w") as errors, subprocess.Popen(reader, stdin=subprocess.PIPE, stderr=errors) as reading:
        held = os.open(log, os.O_RDWR)  # Open before its reader is: nobody waits, and nothing ends too soon.
        subprocess.run(_stream(kind), stdout=held, check=True, timeout=300)
        reading.communicate()
        os.close(held)
    assert reading.returncode == 0, said.read_text()[-2000:]
    assert _peak(said.read_text()) < ALLOWED
