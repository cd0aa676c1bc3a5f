"""`make demo`, end to end, as a stranger runs it: it judges itself, and so does this test."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_the_demo_shows_what_it_says_and_leaves_nothing_behind(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"} | {
        "TMPDIR": str(tmp_path)
    }
    demo = subprocess.run(
        [sys.executable, "-m", "gpudiag_cli", "demo"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=400,
    )
    assert demo.returncode == 0, demo.stdout[-4000:] + demo.stderr[-4000:]
    assert "kubectl get gpud,gn" in demo.stdout
    for word in ("Healthy", "Unhealthy", "Unknown", "Open"):
        assert re.search(rf"\b{word}\b", demo.stdout), word
    assert list(tmp_path.iterdir()) == []
