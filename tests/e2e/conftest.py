"""The cluster of the end-to-end suite: an existing one (GPUDIAG_E2E_KUBECONFIG), else a real node on this machine."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.onenode import images, toolbox
from tests.e2e.onenode.node import Node

from gpudiag_cli.controlplane.binaries import find_binaries

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "gpudiag-system"
Run = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Cluster:
    """What the suite needs of a cluster; `node` is None where its nodes are not this machine's."""

    kubectl: Run
    node: Node | None

    def json(self, *arguments: str) -> Any:
        """What kubectl says with `--output=json`."""
        return json.loads(self.kubectl(*arguments, "--output=json").stdout)

    def until(self, what: str, done: Callable[[], Any], seconds: float = 120.0) -> Any:
        """Wait for something true, and give it.

        Raises:
            AssertionError: it did not come in time.
        """
        deadline = time.monotonic() + seconds
        while not (value := done()):
            assert time.monotonic() < deadline, f"no {what} within {seconds:.0f} s:\n{self.describe()}"
            time.sleep(0.5)
        return value

    def ready(self, label: str) -> list[dict[str, Any]]:
        """The Pods of a part that are Ready and not being deleted."""
        pods = self.json("get", "pods", f"--namespace={NAMESPACE}", f"--selector=app.kubernetes.io/name={label}")
        return [
            pod
            for pod in pods["items"]
            if "deletionTimestamp" not in pod["metadata"]
            and any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))
        ]

    def describe(self) -> str:
        """Pods, resources and warnings, for whoever reads a failure."""
        what = ("pods,gn,gpud", "--all-namespaces")
        events = ("events", f"--namespace={NAMESPACE}", "--field-selector=type=Warning")
        return "\n".join(self.kubectl("get", *words, check=False).stdout for words in (what, events))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with the images of this checkout, and nothing of gpudiag in it yet."""
    if (given := os.environ.get("GPUDIAG_E2E_KUBECONFIG")) is not None:
        yield Cluster(_existing(Path(given)), None)
        return
    if (reason := toolbox.missing()) is not None:
        pytest.skip(f"NO CLUSTER TO TEST ON: {reason}. Set GPUDIAG_E2E_KUBECONFIG to a cluster that has the images.")
    folder = tmp_path_factory.mktemp("node")
    programs = toolbox.programs()
    built = images.build(tmp_path_factory.mktemp("images"), programs.node)
    try:
        with Node(folder, programs) as node:
            for archive in built:
                node.load(archive)
            yield Cluster(node.kubectl, node)
    finally:
        shutil.rmtree(built[0].parent, ignore_errors=True)


def _existing(kubeconfig: Path) -> Run:
    kubectl = shutil.which("kubectl") or str(find_binaries(controller_manager=False).kubectl)

    def run(
        *arguments: str | Path, stdin: str = "", check: bool = True, timeout: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        command = [kubectl, f"--kubeconfig={kubeconfig}", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=timeout)
        assert not check or done.returncode == 0, done.stderr
        return done

    return run
