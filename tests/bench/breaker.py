"""What it costs to turn a call away while a breaker is open: time, and instructions where valgrind can count them."""

import re
import shutil
import subprocess
import sys
import tempfile
import time
import timeit
from pathlib import Path
from random import Random

from tests.bench.context import Context, progress
from tests.bench.result import Result, spread

from gpudiag_operator.collect.breaker import Breaker
from gpudiag_operator.collect.settings import BreakerSettings

_CALLS = 20_000
_ROUNDS = 9
_COUNTED = 2_000
_VALGRIND_SECONDS = 300


def run(_: Context) -> list[Result]:
    """Measure."""
    breaker = open_breaker()
    taken = [1e6 * seconds / _CALLS for seconds in timeit.repeat(breaker.acquire, number=_CALLS, repeat=_ROUNDS)]
    assert breaker.acquire() is None
    results = [
        Result(
            name="rejection by an open breaker",
            measured=spread(taken)["median"],
            unit="µs",
            target=20,
            gates=True,
            details=spread(taken),
        )
    ]
    counted = _instructions()
    if counted is None:
        progress("no valgrind on the PATH: instructions are not reported")
    else:
        results.append(Result(name="rejection by an open breaker", measured=counted, unit="instructions"))
    return results


def open_breaker() -> Breaker:
    """A breaker that has seen enough."""
    settings = BreakerSettings()
    breaker = Breaker("node", settings, monotonic=time.monotonic, wall=time.time, rng=Random(7))
    for _ in range(settings.consecutive_failures):
        permit = breaker.acquire()
        assert permit is not None
        permit.failure()
    assert breaker.acquire() is None
    return breaker


def _instructions() -> float | None:
    """Per rejection: a process that makes some, less one that makes none."""
    if shutil.which("valgrind") is None:
        return None
    progress("counting instructions, about a minute")
    return (_count(_COUNTED) - _count(0)) / _COUNTED


def _count(calls: int) -> int:
    program = (
        "from tests.bench.breaker import open_breaker; acquire = open_breaker().acquire\n"
        f"for _ in range({calls}): acquire()"
    )
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={Path(folder) / 'out'}"]
        command += [sys.executable, "-X", "frozen_modules=on", "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_VALGRIND_SECONDS)
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found is not None, done.stderr
    return int(found[1])
