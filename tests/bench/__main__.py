"""Run the benchmarks, print a table, keep the results as JSON. Exit status 1 when a ratio or a count misses its target.

Each is measured against a reference of the same run where there is one; absolute times are reported and never gate.
"""

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from tests.bench import isolation
from tests.bench.context import Context
from tests.bench.result import Result, table

ROWS = {
    "sweep": ("sweep", "one sweep over all agents, bodies changed and unchanged, against a bare client and Go"),
    "pool": ("slow", "agents that take 50 ms, against a fixed pool of 10 workers"),
    "hang": ("slow", "a tenth of the agents hangs for ever"),
    "breaker": ("breaker", "rejection by an open breaker"),
    "changes": ("changes", "report change to GPUNode.status and GPUDiagnostic.status, 10 a second"),
    "endtoend": ("endtoend", "kernel line and NVML change to GPUNode.status, real agent process"),
    "install": ("scale", "first fill of all GPUNodes"),
    "restart": ("scale", "start of the operator over GPUNodes that are there"),
    "steady": ("scale", "a fleet in which nothing happens: writes, CPU, memory, connections"),
    "flip": ("scale", "a tenth of the fleet turns sick within a second"),
    "failover": ("failover", "the leader is killed, and stopped: until a standby holds its Lease"),
    "growth": ("growth", "ten times the nodes: time, CPU, memory"),
    "agent": ("agent", "the agent's report under load, memory of both processes"),
    "facade": ("facade", "fleet questions over 1,000 nodes: time and size"),
    "kernel_log": ("kernel_log", "lines of the kernel log a second, against a bare loop over the same reads"),
    "startup": ("startup", "--help and --version"),
}
"""Row → module that measures it, what it is. Rows of one module are measured on one fleet."""


def main() -> int:
    """Run the command."""
    options = _options()
    context = Context(quick=options.quick, rows=frozenset(options.only or ROWS))
    where = isolation.enter()
    told = machine(where, quick=options.quick)
    results: list[Result] = []
    path = options.output or Path("build/bench") / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json"
    for module, rows in _modules(context.rows):
        print(f"… {', '.join(f'{row}: {ROWS[row][1]}' for row in rows)}", file=sys.stderr, flush=True)
        try:
            results += importlib.import_module(f"tests.bench.{module}").run(context)
        except Exception as error:  # noqa: BLE001  (the rows measured so far are worth keeping)
            print(f"  {module} failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            results.append(Result(name=f"{module} ran to its end", measured=1, unit="failures", target=0, gates=True))
        keep(path, told, results)
    print(table(results))
    print(f"{where}; kept in {path}")
    return 1 if any(result.gates and not result.met for result in results) else 0


def keep(path: Path, told: dict[str, object], results: Iterable[Result]) -> None:
    """Write what there is so far."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{**asdict(result), "verdict": result.verdict} for result in results]
    path.write_text(json.dumps({"machine": told, "results": rows}, indent=1, ensure_ascii=False) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="rows:\n" + "\n".join(f"  {name:<10} {what}" for name, (_, what) in ROWS.items()),
    )
    parser.add_argument("--only", type=_rows, metavar="ROW,ROW", help="measure only these")
    parser.add_argument("--quick", action="store_true", help="small fleets and short times: a smoke test of the bench")
    parser.add_argument("--output", type=Path, help="where to write the JSON (default: build/bench/<time>.json)")
    return parser.parse_args()


def _rows(text: str) -> list[str]:
    rows = text.split(",")
    if unknown := [row for row in rows if row not in ROWS]:
        raise argparse.ArgumentTypeError(f"there is no row {', '.join(unknown)}; rows are {', '.join(ROWS)}")
    return rows


def _modules(rows: frozenset[str]) -> list[tuple[str, list[str]]]:
    wanted: dict[str, list[str]] = {}
    for row, (module, _) in ROWS.items():
        if row in rows:
            wanted.setdefault(module, []).append(row)
    return list(wanted.items())


def machine(where: str, *, quick: bool) -> dict[str, object]:
    """What the figures depend on."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "processor": platform.machine(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "network": where,
        "quick": quick,
    }


if __name__ == "__main__":
    sys.exit(main())
