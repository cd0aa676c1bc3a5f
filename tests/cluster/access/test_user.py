"""The operator as a cluster runs it: under a number without a name, and nothing in its environment that gives one."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.operator.conftest import OperatorProcess, Rig, free_port

from gpudiag_cli.controlplane import ControlPlane, Kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

NAMELESS = ("unshare", "--user", "--map-user=54321", "--map-group=54321")
NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME", "POD_ID")


@pytest.fixture
def rig(control_plane: ControlPlane, kubectl: Kubectl, crds: list[str], tmp_path: Path) -> Iterator[Rig]:
    made = Rig(control_plane, kubectl, tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def nameless() -> tuple[str, ...]:
    """A prefix that makes a command run so, by a user namespace."""
    asks = (sys.executable, "-c", "import getpass; getpass.getuser()")
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    if shutil.which(NAMELESS[0]) is None or subprocess.run([*NAMELESS, "true"], check=False).returncode:
        pytest.skip("this machine gives no user namespaces")
    done = subprocess.run([*NAMELESS, *asks], env=environment, capture_output=True, text=True, check=False)
    assert "uid not found: 54321" in done.stderr, "this is what kopf would meet"
    return NAMELESS


def test_the_operator_needs_no_name_for_its_user(
    rig: Rig, nameless: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    rig.add_node("nameless-1")
    rig.diagnostic("fleet", interval="5s")
    port = free_port()
    command = [*nameless, sys.executable, "-m", "gpudiag_operator", "--kubeconfig", str(rig.plane.kubeconfig)]
    command += ["--namespace", rig.namespace, "--metrics-addr", f"127.0.0.1:{port}"]
    operator = OperatorProcess(command, rig.folder / "operator.log")
    operator.url = f"http://127.0.0.1:{port}"
    rig.operators.append(operator)
    rig.eventually(lambda: operator.get("/readyz")[0] == 200, 30)
    rig.eventually(lambda: rig.status("fleet").get("verdict") == "Healthy")
    assert operator.stop()[0] == 0
