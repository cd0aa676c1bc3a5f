"""What is built, from what, with which flags, and where it is kept.

The versions stand in one place, tools/controlplane/go.mod. Everything that decides about the resulting bytes goes
into one hash, which names the cache folder; so a changed pin builds again and an unchanged one never does.
"""

import hashlib
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from gpudiag_cli.controlplane.errors import OR_ASSETS, ControlPlaneError

ETCD = "etcd"
APISERVER = "kube-apiserver"
CONTROLLER_MANAGER = "kube-controller-manager"
KUBECTL = "kubectl"

# In the order of building: the quick ones first, so that a broken set-up shows within seconds.
PACKAGES = {
    ETCD: "go.etcd.io/etcd/server/v3",
    KUBECTL: "k8s.io/kubernetes/cmd/kubectl",
    APISERVER: "k8s.io/kubernetes/cmd/kube-apiserver",
    CONTROLLER_MANAGER: "k8s.io/kubernetes/cmd/kube-controller-manager",
}
# The user's own GOFLAGS and GOWORK could change what is built; GOPROXY and the like are theirs to set.
# GOTOOLCHAIN=local: which Go is used is decided by toolchain.py, not by a download in the middle of a build.
BUILD_ENVIRONMENT = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off", "GOTOOLCHAIN": "local"}
# Without these a built server calls itself v0.0.0, and kubectl warns about the difference of versions.
VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


def source_folder() -> Path:
    """The folder of the Go module in this checkout.

    Raises:
        ControlPlaneError: an installed wheel does not carry it.
    """
    folder = Path(__file__).resolve().parents[3] / "tools" / "controlplane"
    if not (folder / "go.mod").is_file():
        raise ControlPlaneError(
            "The control plane's build files (tools/controlplane) are part of the source checkout, and this "
            f"installation of gpudiag has none. Run it from a checkout, or {OR_ASSETS}."
        )
    return folder


def cache_folder() -> Path:
    """Where built programs are kept between runs and between checkouts."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "gpudiag" / "controlplane"


@dataclass(frozen=True)
class Recipe:
    """How the programs of one go.mod are built."""

    folder: Path
    kubernetes_version: str
    flags: tuple[str, ...]
    key: str

    @classmethod
    def read(cls, folder: Path) -> "Recipe":
        """The recipe of a folder with go.mod and go.sum."""
        module, sums = ((folder / name).read_bytes() for name in ("go.mod", "go.sum"))
        version = kubernetes_version(module.decode())
        flags = build_flags(version)
        digest = hashlib.sha256()
        settings = [*flags, *map("=".join, BUILD_ENVIRONMENT.items()), sys.platform, platform.machine()]
        for part in (module, sums, "\0".join(settings).encode()):
            digest.update(hashlib.sha256(part).digest())
        return cls(folder, version, flags, digest.hexdigest()[:16])

    @property
    def destination(self) -> Path:
        """The cache folder of exactly this recipe."""
        return cache_folder() / self.key


def kubernetes_version(module: str) -> str:
    """The pinned version of Kubernetes, for example "v1.36.3"."""
    found = re.search(r"^(?:require)?\s*k8s\.io/kubernetes (v\d+\.\d+\.\d+\S*)", module, re.MULTILINE)
    if not found:
        raise ControlPlaneError(
            "tools/controlplane/go.mod requires no k8s.io/kubernetes; restore the file from the repository."
        )
    return found[1]


def build_flags(version: str) -> tuple[str, ...]:
    """The arguments of `go build`, the same for every program."""
    major, minor = version.removeprefix("v").split(".")[:2]
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    stamps = [f"-X {package}.{name}={value}" for package in VERSION_PACKAGES for name, value in values.items()]
    return ("-trimpath", "-buildvcs=false", f"-ldflags=-s -w {' '.join(stamps)}")
