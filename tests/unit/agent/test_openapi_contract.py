"""The agent keeps what its OpenAPI description says, tried by schemathesis: right requests, wrong ones, odd methods."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

AGENT = (sys.executable, "-m", "gpudiag_agent", "--source", "simulated", "--host", "127.0.0.1", "--port", "0")


@pytest.fixture
def url() -> Iterator[str]:
    """A simulated agent that has its first report."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GPUDIAG_")}
    with subprocess.Popen([*AGENT, "--node-name", "n"], stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        yield json.loads(process.stderr.readline())["url"]
        process.terminate()
        process.stderr.read()


def schemathesis(url: str, folder: Path, *, examples: int) -> subprocess.CompletedProcess[str]:
    """Its own checks (all but the one of the response time: a long poll is meant to take long), the same each time."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
            *("--max-examples", str(examples), "--generation-deterministic", "--mode", "all", "--no-color"),
            *("--wait-for-schema", "10", "--request-timeout", "65"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=90,
    )


@pytest.mark.slow
def test_the_agent_keeps_its_openapi_description(url: str, tmp_path: Path) -> None:
    done = schemathesis(url, tmp_path, examples=30)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "8 selected / 8 total" in done.stdout, "every path is tried"
