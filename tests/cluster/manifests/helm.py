"""Helm, built once from the module in tools/helm with the Go of the control plane, and kept in the same cache."""

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

from tests.cluster.manifests.rendering import CHART, ROOT, Object, parse

from gpudiag_cli.controlplane import Progress
from gpudiag_cli.controlplane.build import locked
from gpudiag_cli.controlplane.recipe import BUILD_ENVIRONMENT, cache_folder
from gpudiag_cli.controlplane.toolchain import find_go

MODULE = ROOT / "tools" / "helm"
PACKAGE = "helm.sh/helm/v4/cmd/helm"
FLAGS = ("-trimpath", "-buildvcs=false", "-ldflags=-s -w")


def program() -> Path:
    """The program; the first call on a machine builds it (1.5 minutes on two idle cores)."""
    digest = hashlib.sha256(b"".join((MODULE / name).read_bytes() for name in ("go.mod", "go.sum"))).hexdigest()[:16]
    folder, progress = cache_folder(), Progress()
    built = folder / f"helm-{digest}" / "helm"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock", progress), tempfile.TemporaryDirectory(dir=built.parent) as temporary:
            if not built.exists():
                progress.say("building helm, once: about two minutes")
                output = Path(temporary) / "helm"
                subprocess.run(
                    [find_go(folder, progress), "build", *FLAGS, "-o", output, PACKAGE],
                    cwd=MODULE,
                    env={**os.environ, **BUILD_ENVIRONMENT},
                    check=True,
                    timeout=1200,
                )
                output.rename(built)
    return built


class Helm:
    """A callable helm that keeps its files in a folder of the test; ``kubeconfig`` for what talks to a server."""

    def __init__(self, path: Path, folder: Path, kubeconfig: Path | None = None) -> None:
        self._path = path
        names = ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")
        self._environment = {**os.environ, **{name: str(folder / name) for name in names}}
        self._environment["KUBECONFIG"] = str(kubeconfig or folder / "none")

    def __call__(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [self._path, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=self._environment,
            timeout=180,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def template(self, values: Path, *flags: str, namespace: str = "gpudiag-system") -> list[Object]:
        """The objects of the chart, kinds included, its test's left out."""
        common = ("--include-crds", "--skip-tests", f"--namespace={namespace}", f"--values={values}")
        return parse(self("template", "gpudiag", CHART, *common, *flags).stdout)
