"""A cluster by kind, through pytest-kind's own fixture; needs Docker.

pytest-kind's defaults are kind 0.17 and kubectl 1.25, which it would fetch, and kind 0.17 makes a Kubernetes 1.25 that
gpudiag does not support. So it is given the kubectl of the control plane and a kind built from tools/kind, whose own
default is the node image of its time. `--kind-bin`, `--kind-kubectl-bin`, `--kind-image`, `--cluster-name` and
`--keep-cluster` are pytest-kind's and still count.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from tests.e2e.onenode.toolbox import built

from gpudiag_cli.controlplane import Progress
from gpudiag_cli.controlplane.binaries import find_binaries
from gpudiag_cli.controlplane.build import locked
from gpudiag_cli.controlplane.recipe import cache_folder

ROOT = Path(__file__).resolve().parents[2]
PLUGIN_DEFAULT_NAME = "pytest-kind"
NAME = "gpudiag-e2e"


def missing() -> str | None:
    """Why this machine cannot run kind, or None."""
    if shutil.which("docker") is None:
        return "no Docker (docker is not on PATH)"
    said = subprocess.run(
        ["docker", "info", "--format", "{{.ServerVersion}}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return None if said.returncode == 0 else f"Docker's engine does not answer: {said.stderr.strip()[-200:]}"


def program() -> Path:
    """The program kind; the first call on a machine builds it (half a minute)."""
    progress, module = Progress(), ROOT / "tools" / "kind"
    digest = hashlib.sha256((module / "go.sum").read_bytes()).hexdigest()[:16]
    folder = cache_folder() / f"kind-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(cache_folder() / "lock", progress):
        flags = ("-trimpath", "-buildvcs=false", "-ldflags=-s -w")
        return built(folder / "kind", module, "sigs.k8s.io/kind", flags, progress)


def override(option: argparse.Namespace, *, kind: Path, kubectl: Path) -> None:
    """Put our programs where the user named none."""
    option.kind_bin = option.kind_bin or str(kind)
    option.kind_kubectl_bin = option.kind_kubectl_bin or str(kubectl)
    if option.cluster_name == PLUGIN_DEFAULT_NAME:
        option.cluster_name = NAME


def prepare(option: argparse.Namespace) -> None:
    """Build the images with Docker, and set pytest-kind's options."""
    subprocess.run([sys.executable, "-m", "tools.images", "--engine", "docker"], cwd=ROOT, check=True, timeout=1800)
    override(option, kind=program(), kubectl=find_binaries(controller_manager=False).kubectl)
