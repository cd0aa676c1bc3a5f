"""The facade keeps what its OpenAPI description says, tried by schemathesis over real HTTP."""

import asyncio
import sys
from pathlib import Path

import pytest
from tests.cluster.mcp.facade import facade

from gpudiag_cli.controlplane import ControlPlane

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.mark.usefixtures("crds")
async def test_the_facade_keeps_its_openapi_description(control_plane: ControlPlane, tmp_path: Path) -> None:
    async with facade(control_plane.kubeconfig, "--auth=none", "--calls-per-minute=100000") as one:
        trying = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{one.base}/openapi.json"),
            *("--max-examples", "30", "--generation-deterministic", "--mode", "all", "--no-color"),
            # A message may be right JSON-RPC and still name a method that does not exist: that is the protocol's 4xx.
            *("--exclude-checks", "positive_data_acceptance"),
            "--header=Accept: application/json, text/event-stream",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=tmp_path,
        )
        async with asyncio.timeout(90):
            said, _ = await trying.communicate()
    text = said.decode()
    assert trying.returncode == 0, text
    assert "3 selected / 3 total" in text, "every path is tried"
