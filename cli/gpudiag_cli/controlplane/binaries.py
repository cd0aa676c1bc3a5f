"""Which programs make up the control plane, and where they come from.

KUBEBUILDER_ASSETS goes first: it is envtest's convention, so a machine set up for any other operator's tests needs
no build. What envtest does not ship (the controller manager) is built even then.
"""

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpudiag_cli.controlplane.build import provide
from gpudiag_cli.controlplane.errors import ControlPlaneError
from gpudiag_cli.controlplane.progress import Progress
from gpudiag_cli.controlplane.recipe import (
    APISERVER,
    CONTROLLER_MANAGER,
    ETCD,
    KUBECTL,
    Recipe,
    source_folder,
)

ASSETS = "KUBEBUILDER_ASSETS"
# The first whose CustomResourceDefinitions have selectableFields for certain.
OLDEST_APISERVER = (1, 31)


@dataclass(frozen=True)
class Binaries:
    """Full paths of the programs; no controller manager where none was asked for."""

    etcd: Path
    kube_apiserver: Path
    kubectl: Path
    kube_controller_manager: Path | None = None


def find_binaries(*, controller_manager: bool = True, progress: Progress | None = None) -> Binaries:
    """Find or build the programs: KUBEBUILDER_ASSETS, else the cache, else a build with Go.

    Raises:
        ControlPlaneError: with what is missing and how to get it.
    """
    progress = progress or Progress()
    wanted = [ETCD, APISERVER, KUBECTL, *([CONTROLLER_MANAGER] if controller_manager else [])]
    found = _from_assets(wanted, progress)
    missing = [name for name in wanted if name not in found]
    if missing:
        found |= provide(missing, Recipe.read(source_folder()), progress)
    return Binaries(found[ETCD], found[APISERVER], found[KUBECTL], found.get(CONTROLLER_MANAGER))


def _from_assets(wanted: Sequence[str], progress: Progress) -> dict[str, Path]:
    setting = os.environ.get(ASSETS)
    if not setting:
        return {}
    folder = Path(setting).resolve()
    found = {name: folder / name for name in wanted if os.access(folder / name, os.X_OK)}
    absent = [name for name in (ETCD, APISERVER) if name not in found]
    if absent:
        raise ControlPlaneError(
            f"{ASSETS} is set to {folder}, which holds no {' and no '.join(absent)} that can be run. "
            f"Set it to a folder that does, or unset it to have the programs built."
        )
    _check_version(found[APISERVER])
    missing = [name for name in wanted if name not in found]
    if missing:
        progress.say(f"{ASSETS} ({folder}) holds no {' and no '.join(missing)}: using the one that gpudiag builds")
    return found


def _check_version(apiserver: Path) -> None:
    try:
        said = subprocess.run(
            [apiserver, "--version"], capture_output=True, text=True, check=False, timeout=60
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ControlPlaneError(
            f"{apiserver} cannot be run: {error}. Set {ASSETS} to programs for this machine, or unset it."
        ) from None
    version = re.search(r"v(\d+)\.(\d+)", said)
    if not version or (int(version[1]), int(version[2])) < OLDEST_APISERVER:
        raise ControlPlaneError(
            f"{apiserver} says its version is {said or 'nothing'}; gpudiag needs Kubernetes "
            f"{'.'.join(map(str, OLDEST_APISERVER))} or newer. Set {ASSETS} to newer programs, or unset it."
        )
