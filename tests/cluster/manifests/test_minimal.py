"""The unprivileged agent of overlays/minimal says what it cannot see, and judges what it can."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.manifests.rendering import Object, environment, pod_of

from gpudiag_cli.nvmlfake import Machine, build

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def report(log: Path, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Of a running agent, once it has looked."""
    deadline = time.monotonic() + 30
    while True:
        assert time.monotonic() < deadline, log.read_text()
        assert process.poll() is None, log.read_text()
        if found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text()):
            try:
                with urllib.request.urlopen(f"{found.group()}/v1/report", timeout=5) as answer:
                    read: dict[str, Any] = json.load(answer)
                    return read
            except OSError:
                pass  # no sample yet
        time.sleep(0.05)


def test_what_the_minimal_agent_cannot_see_is_a_capability_and_not_a_fault(
    render: Callable[..., list[Object]], tmp_path: Path
) -> None:
    machine = Machine.create("t4-1", tmp_path / "gpus.nvml", node="minimal-1")
    library = build(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpudiag" / "nvmlfake")
    given = environment(pod_of(render(overlay="minimal"), "gpudiag-agent"))
    (tmp_path / "thresholds.yaml").write_text("{}\n")
    # The volumes of the Pod, as folders of the test. The machine's own PCI bus is not that of the stand-in.
    given |= {"GPUDIAG_STATE_DIR": str(tmp_path), "GPUDIAG_CONFIG": str(tmp_path / "thresholds.yaml")}
    given |= {"GPUDIAG_SYSFS_PCI": str(tmp_path / "none"), "GPUDIAG_POD_LOGS": str(tmp_path / "none")}
    # Tokens and TLS take a cluster around it; tests/cluster/access has one.
    for name in ("AUTH", "ALLOWED_SERVICE_ACCOUNTS", "TLS_CERT_DIR", "HEALTH_PORT"):
        given.pop(f"GPUDIAG_{name}")
    command = [sys.executable, "-m", "gpudiag_agent", "--host", "127.0.0.1", "--port", "0", "--node-name", "minimal-1"]
    log = tmp_path / "agent.log"
    everything = {**os.environ, **given, **machine.environment(library)}
    with log.open("wb") as output, subprocess.Popen(command, env=everything, stdout=output, stderr=output) as process:
        try:
            said = report(log, process)
        finally:
            process.terminate()
    assert {gap["reason"] for gap in said["capabilities"]} >= {"NoKernelLog", "NoPodResources"}
    assert said["health"] == "Healthy"
    assert len(said["gpus"]) == 1
