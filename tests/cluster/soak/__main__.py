"""Run seeds and keep what they met: ``python -m tests.cluster.soak 34-60``. A seed that fails reproduces."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.cluster.soak.page import page

from gpudiag_api.version import __version__

RESULTS = Path(__file__).resolve().parents[3] / "docs" / "soak.json"
PAGE = RESULTS.with_name("reliability.md")
TEST = "tests/cluster/soak/test_soak.py"


def main(seeds: str, *, workers: int) -> int:
    """Run them; the exit status is pytest's.

    Args:
        seeds: ``34-60``.
        workers: how many at once, each with a control plane of its own.
    """
    with tempfile.NamedTemporaryFile("r", suffix=".jsonl") as record:
        environment = {**os.environ, "GPUDIAG_SOAK_SEEDS": seeds, "GPUDIAG_SOAK_RECORD": record.name}
        command = [sys.executable, "-m", "pytest", "-m", "slow", "-o", "faulthandler_timeout=900", TEST]
        if workers > 1:
            command += ["-n", str(workers)]
        status = subprocess.run(command, env=environment, check=False).returncode
        met = [json.loads(line) for line in record.read().splitlines()]
    runs = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    runs += [{"version": __version__, **one} for one in met]
    runs = sorted({_key(run): run for run in reversed(runs)}.values(), key=_key)  # a seed that was run again: as before
    RESULTS.write_text("[\n" + ",\n".join(json.dumps(run) for run in runs) + "\n]\n")
    PAGE.write_text(page(runs))
    print(f"{len(met)} seeds came back to the state of an undisturbed run; {len(runs)} in {RESULTS.name}")
    return status


def _key(run: dict[str, Any]) -> tuple[str, int, int]:
    return run["version"], run.get("plan", 1), run["seed"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", help="first-last, or one number")
    parser.add_argument(
        "--workers", type=int, default=1, help="runs at once; mostly they wait, so more than cores is well"
    )
    arguments = parser.parse_args()
    sys.exit(main(arguments.seeds, workers=arguments.workers))
