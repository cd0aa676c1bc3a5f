"""A gigabyte of hostile kernel log: memory stays bounded, in the scanner and in the reader."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
GIGABYTE = 1 << 30
ALLOWED = 64 << 10
"""Resident KiB at the highest."""
_READER = """
import asyncio, sys
from pathlib import Path
from gpudiag_agent.clock import SystemClock
from gpudiag_agent.kernel_log.boot import Boot
from gpudiag_agent.kernel_log.decode import Decoder
from gpudiag_agent.kernel_log.intake import Intake
from gpudiag_agent.kernel_log.reader import KernelLogReader
from gpudiag_agent.checks.xid.ledger import XIDLedger
boot = Boot("b", 1_800_000_000.0)
decoder, ledger, heard = Decoder(boot), XIDLedger("b"), 0
def take(record):
    global heard
    event = decoder.feed(record, 1_900_000_000.0)
    if event is not None:
        heard += 1
        ledger.hear(event)
async def main():
    intake = Intake(boot_id="b", now=lambda: 1_900_000_000.0, on_record=take)
    reader = KernelLogReader(Path(sys.argv[1]), intake=intake, clock=SystemClock(), on_change=lambda: None)
    task = asyncio.create_task(reader.run())
    await reader.caught_up.wait()
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


def test_scanning_a_gigabyte() -> None:
    scan = _PEAK + "from gpudiag_agent.__main__ import main;sys.argv[1:]=['xid','--scan','-'];sys.exit(main())"
    with subprocess.Popen([sys.executable, "-m", "tests.fuzz.stream", str(GIGABYTE)], stdout=subprocess.PIPE) as stream:
        done = subprocess.run(
            [sys.executable, "-c", scan], stdin=stream.stdout, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, check=False,
        )  # fmt: skip
        assert stream.stdout is not None
        stream.stdout.close()
    assert "Traceback" not in done.stderr
    assert _peak(done.stderr) < ALLOWED


def test_reading_a_gigabyte(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        subprocess.run([sys.executable, "-m", "tests.fuzz.stream", str(GIGABYTE)], stdout=file, check=True)
    done = subprocess.run(
        [sys.executable, "-c", _PEAK + _READER, str(log)], stderr=subprocess.PIPE, text=True, check=False
    )
    log.unlink()
    assert done.returncode == 0, done.stderr[-2000:]
    assert _peak(done.stderr) < ALLOWED
