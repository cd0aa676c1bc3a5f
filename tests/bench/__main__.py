"""Run the benchmarks, print a table, keep the results as JSON. Exit status 1 when a ratio or a count misses its target.

Each is measured against a floor of the same run where there is one; absolute times are reported and never gate.
"""

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from tests.bench.result import Result

BENCHMARKS = {
    "sweep": "200 agents, every body different, against a bare client",
    "live": "from a change to GPUNode.status, and writes of a steady fleet, on a real API server",
    "agent": "the report under load, memory of both processes",
    "startup": "--help and --version",
}


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="benchmarks:\n" + "\n".join(f"  {name:<9} {what}" for name, what in BENCHMARKS.items()),
    )
    parser.add_argument("--only", action="append", choices=sorted(BENCHMARKS), help="run this one; may be repeated")
    parser.add_argument("--output", type=Path, help="where to write the JSON (default: build/bench/<time>.json)")
    options = parser.parse_args()
    results: list[Result] = []
    for name in options.only or BENCHMARKS:
        print(f"… {name}: {BENCHMARKS[name]}", file=sys.stderr, flush=True)
        results += importlib.import_module(f"tests.bench.{name}").run()
    print("\n".join(result.line() for result in results))
    path = options.output or Path("build/bench") / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), "results": [asdict(result) for result in results]}, indent=1))
    print(f"kept in {path}")
    return 1 if any(result.gates and not result.met for result in results) else 0


def machine() -> dict[str, object]:
    """What the figures depend on."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit,
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "kernel": platform.release(),
    }


if __name__ == "__main__":
    sys.exit(main())
