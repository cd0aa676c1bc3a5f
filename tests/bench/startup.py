"""How long people wait for --help and --version, beside an interpreter that does nothing."""

import subprocess
import sys
import time

from tests.bench.context import Context
from tests.bench.result import Result

ROUNDS = 5


def run(_: Context) -> list[Result]:
    """Measure."""
    floor = _best("-c", "pass")
    results = [Result(name="python -c pass, best of 5", measured=floor, unit="s")]
    for module in ("gpudiag_agent", "gpudiag_operator", "gpudiag_cli"):
        for flag in ("--help", "--version"):
            name = f"{module} {flag}, best of {ROUNDS}"
            results.append(Result(name=name, measured=_best("-m", module, flag), unit="s", target=0.5))
    return results


def _best(*arguments: str) -> float:
    taken = []
    for _ in range(ROUNDS):
        began = time.monotonic()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        taken.append(time.monotonic() - began)
    return min(taken)
