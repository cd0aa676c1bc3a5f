"""The programs of the one-node cluster, kept in the cache of the control plane, built or fetched once.

kubelet, kube-proxy, kube-scheduler and containerd are Go modules (tools/node, tools/containerd; about eight minutes
on two cores). runc, iptables and the CNI plugins are Debian's packages, unpacked into the cache and not installed.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from gpudiag_cli.controlplane import Progress
from gpudiag_cli.controlplane.binaries import find_binaries
from gpudiag_cli.controlplane.build import locked
from gpudiag_cli.controlplane.recipe import BUILD_ENVIRONMENT, Recipe, cache_folder
from gpudiag_cli.controlplane.toolchain import find_go

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
            _build(folder / name, TOOLS / "node", package, kubernetes.flags, progress)
        for name in CONTAINERD:
            package = f"github.com/containerd/containerd/v2/cmd/{name}"
            flags = ("-trimpath", "-buildvcs=false", "-ldflags=-s -w")
            _build(folder / name, TOOLS / "containerd", package, flags, progress)
        _unpack(folder / "debian", progress)
    return Programs(control, folder, folder / "debian")


def _build(path: Path, module: Path, package: str, flags: tuple[str, ...], progress: Progress) -> None:
    if path.exists():
        return
    progress.say(f"building {path.name}, once")
    with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
        output = Path(temporary) / path.name
        command: list[str | Path] = [
            find_go(cache_folder(), progress),
            "build",
            "-p",
            "2",
            *flags,
            "-o",
            output,
            package,
        ]
        subprocess.run(command, cwd=module, env={**os.environ, **BUILD_ENVIRONMENT}, check=True, timeout=1800)
        output.rename(path)


def _unpack(folder: Path, progress: Progress) -> None:
    if folder.exists():
        return
    progress.say(f"fetching {', '.join(DEBIAN)} by apt-get download (nothing is installed)")
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        root = Path(temporary) / "root"
        (root / "links").mkdir(parents=True)
        subprocess.run(["apt-get", "download", *DEBIAN], cwd=temporary, check=True, capture_output=True, timeout=300)
        for package in Path(temporary).glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, root], check=True, timeout=60)
        for name in XTABLES:
            (root / "links" / name).symlink_to("../usr/sbin/xtables-nft-multi")
        root.rename(folder)
