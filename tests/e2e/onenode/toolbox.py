"""The programs of the one-node cluster, kept in the cache of the control plane, built or fetched once.

kubelet, kube-proxy, kube-scheduler and containerd are Go modules (tools/node, tools/containerd; about eight minutes
on two cores). runc, iptables and the CNI plugins are Debian's packages, unpacked into the cache and not installed.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from gpudiag_cli.controlplane import Progress
from gpudiag_cli.controlplane.binaries import find_binaries
from gpudiag_cli.controlplane.build import locked
from gpudiag_cli.controlplane.errors import ControlPlaneError, last_lines, with_lines
from gpudiag_cli.controlplane.process import Child
from gpudiag_cli.controlplane.progress import fresh_log, retry
from gpudiag_cli.controlplane.recipe import BUILD_ENVIRONMENT, Recipe, cache_folder
from gpudiag_cli.controlplane.toolchain import find_go

from .janitor import roots
from .plan import Programs

TOOLS = Path(__file__).resolve().parents[3] / "tools"
KUBERNETES = ("kubelet", "kube-proxy", "kube-scheduler")
CONTAINERD = ("containerd", "containerd-shim-runc-v2", "ctr")
DEBIAN = (
    *("runc", "libseccomp2", "containernetworking-plugins", "iptables", "libip4tc2", "libip6tc2", "libxtables12"),
    *("libnfnetlink0", "libnetfilter-conntrack3", "libnftnl11", "libmnl0"),
)
XTABLES = tuple(f"{name}{end}" for name in ("iptables", "ip6tables") for end in ("", "-save", "-restore"))


def missing() -> str | None:
    """Why this machine cannot run a node, or None."""
    if os.name != "posix" or os.geteuid() != 0:
        return "a node needs root"
    wanted = ("unshare", "nsenter", "ip", "mount", "apt-get", "dpkg-deb")
    if absent := [name for name in wanted if shutil.which(name) is None]:
        return f"not on PATH: {', '.join(absent)}"
    if unwritable := [str(root) for root in roots() if not os.access(root, os.W_OK)]:
        return f"control groups cannot be made in {', '.join(unwritable)}"
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "ip", "link", "add", "gpudiag0", "type", "bridge"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return None if tried.returncode == 0 else f"no network namespace with a bridge: {tried.stderr.strip()}"


def programs() -> Programs:
    """Every program; the first call on a machine builds."""
    progress = Progress()
    kubernetes = Recipe.read(TOOLS / "node")
    sums = (TOOLS / "containerd" / "go.sum").read_bytes()
    key = hashlib.sha256(kubernetes.key.encode() + sums + "".join(DEBIAN).encode()).hexdigest()[:16]
    folder = cache_folder() / f"node-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    control = find_binaries(progress=progress)
    with locked(cache_folder() / "lock", progress):
        for name in KUBERNETES:
            package = f"k8s.io/kubernetes/cmd/{name}"
            built(folder / name, TOOLS / "node", package, kubernetes.flags, progress)
        for name in CONTAINERD:
            package = f"github.com/containerd/containerd/v2/cmd/{name}"
            flags = ("-trimpath", "-buildvcs=false", "-ldflags=-s -w")
            built(folder / name, TOOLS / "containerd", package, flags, progress)
        _unpack(folder / "debian", progress)
    return Programs(control, folder, folder / "debian")


def built(path: Path, module: Path, package: str, flags: tuple[str, ...], progress: Progress) -> Path:
    """A program of a Go module; built where it is not there yet, under the lock of the caller."""
    if path.exists():
        return path
    progress.say(f"building {path.name}, once")
    go, environment = find_go(cache_folder(), progress), {**os.environ, **BUILD_ENVIRONMENT}
    with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
        output = Path(temporary) / path.name
        command: list[str | Path] = [go, "build", "-p", "2", *flags, "-o", output, package]
        log = fresh_log(path.parent, "build")

        def attempt() -> int:
            # A child that ends with this process, however that ends; its compilers with it.
            return progress.watch(Child.start(command, log, env=environment, cwd=module), f"building {path.name}")

        if not retry(attempt, f"building {path.name}", progress, time.sleep):
            raise ControlPlaneError(with_lines(f"{path.name} cannot be built:", last_lines(log)))
        output.rename(path)
    return path


def download(packages: Sequence[str], folder: Path) -> None:
    """Fetch Debian packages into a folder, by the machine's own apt; nothing is installed.

    Raises:
        ControlPlaneError: with what apt said.
    """
    for command in (("apt-get", "download", *packages), ("apt-get", "update"), ("apt-get", "download", *packages)):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=600)
        if command[1] == "download" and done.returncode == 0:
            return
        # A fresh machine has no lists of packages yet.
    raise ControlPlaneError(with_lines("apt-get download failed:", done.stderr.splitlines()[-20:]))


def _unpack(folder: Path, progress: Progress) -> None:
    if folder.exists():
        return
    progress.say(f"fetching {', '.join(DEBIAN)} by apt-get download (nothing is installed)")
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        root = Path(temporary) / "root"
        (root / "links").mkdir(parents=True)
        download(DEBIAN, Path(temporary))
        for package in Path(temporary).glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, root], check=True, timeout=60)
        for name in XTABLES:
            (root / "links" / name).symlink_to("../usr/sbin/xtables-nft-multi")
        root.rename(folder)
