"""The files of the repository that the demo applies; they are not part of the installed package."""

from pathlib import Path

from gpudiag_cli.errors import CommandError

ROOT = Path(__file__).resolve().parents[3]
MANIFESTS = ROOT / "manifests" / "base"
CRDS = ROOT / "crds"
# No Deployment and no DaemonSet: there is no kubelet to run them; the demo runs the programs itself.
BASE = ("namespace.yaml", "operator-rbac.yaml", "user-roles.yaml")
FLEET = MANIFESTS / "fleet.yaml"


def require() -> None:
    """Make sure that the files are there.

    Raises:
        CommandError: the package was installed without a checkout.
    """
    for path in (CRDS, FLEET, *(MANIFESTS / name for name in BASE)):
        if not path.exists():
            raise CommandError(f"{path} is missing: run this from a checkout of the repository (make demo, make up).")
