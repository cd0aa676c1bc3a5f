"""Run a part of the test suite and end with one line that says how it went.

``quick``: unit, then cluster tests, with the coverage of every process they start.
``slow``: what is marked slow, end to end included.
"""

import argparse
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SLOWEST = ("--durations=12", "--durations-min=3")
PATIENT = ("-o", "faulthandler_timeout=900")
"""A slow test may take minutes; a quick one that hangs is ended with its stack by the setting in pyproject.toml."""
NOT_SLOW = ("-m", "not slow")
BUDGET_SECONDS = {"quick": 20 * 60, "slow": 60 * 60}
"""A suite that takes longer hangs: stop it and say so. A fresh machine builds the control plane in `quick`."""


def main() -> int:
    """Run the command; the exit code is that of the first step that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=sorted(BUDGET_SECONDS))
    suite = parser.parse_args().suite
    os.chdir(ROOT)
    # The tests start hundreds of processes of ours; without byte code each of them compiles its part anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.monotonic()
    code, outcome = quick() if suite == "quick" else slow()
    print(f"make {'test' if suite == 'quick' else 'test-all'}: {outcome}, {time.monotonic() - started:.0f} s")
    return code


def quick() -> tuple[int, str]:
    """Unit and cluster tests under coverage, subprocesses included.

    Cluster tests mostly wait for an API server, so more of their files run at once than there are cores on a small
    machine, each worker with a server of its own.
    """
    run(sys.executable, "-m", "gpudiag_cli.controlplane", "build")
    run(sys.executable, "-m", "coverage", "erase")
    limit = BUDGET_SECONDS["quick"]
    unit, units = pytest(*NOT_SLOW, "-n", "2", "--dist", "loadfile", "tests/unit", coverage=True, budget=limit)
    cluster, clusters = pytest(*NOT_SLOW, "-n", "3", "--dist", "loadfile", "tests/cluster", coverage=True, budget=limit)
    run(sys.executable, "-m", "coverage", "combine", "--quiet")
    covered = run(sys.executable, "-m", "coverage", "report")
    total = re.search(r"^TOTAL.*?(\d+)%$", covered.stdout, re.MULTILINE)
    if covered.returncode:
        print(covered.stdout, end="")
    return (
        unit or cluster or covered.returncode,
        f"unit {units}; cluster {clusters}; coverage {total[1] if total else '?'} %",
    )


def slow() -> tuple[int, str]:
    """The slow tests, without coverage: they measure and they wait.

    Files of unit and cluster tests run side by side; what has a whole cluster or installs its tools runs by itself.
    """
    run(sys.executable, "-m", "gpudiag_cli.controlplane", "build")
    suites = (
        ("unit", ("-n", "2", "--dist", "loadfile", "tests/unit")),
        ("cluster", ("-n", "3", "--dist", "loadfile", "tests/cluster")),
        ("end to end", ("tests/e2e",)),
        ("assistants", ("tests/conformance", "tests/evals")),
    )
    began, codes, outcomes = time.monotonic(), [], []
    for name, where in suites:
        left = BUDGET_SECONDS["slow"] - (time.monotonic() - began)
        code, outcome = pytest("-m", "slow", *where, *PATIENT, coverage=False, budget=left)
        codes.append(code)
        outcomes.append(f"{name} {outcome}")
    return next((code for code in codes if code), 0), "; ".join(outcomes)


def pytest(*arguments: str, coverage: bool, budget: float) -> tuple[int, str]:
    """Run pytest, show its output as it comes, and return its exit code and its own summary line."""
    runner = ["coverage", "run", "-m", "pytest"] if coverage else ["pytest"]
    summary, started = "no summary", time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", *runner, *arguments, *SLOWEST],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        alarm = threading.Timer(budget, process.kill)
        alarm.start()
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if re.search(r"\d+ (passed|failed|error)", line):
                summary = line.strip(" =\n")
        alarm.cancel()
    if time.monotonic() - started >= budget:
        summary = f"stopped after {budget:.0f} s"
    return process.returncode, re.sub(r" in [\d.]+s.*", "", summary)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a step whose standard error people should see; its output is returned."""
    return subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)


if __name__ == "__main__":
    sys.exit(main())
