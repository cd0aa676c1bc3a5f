"""buildah for machines without a container engine: Debian's packages, unpacked into the cache and not installed."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from .toolbox import download

PACKAGES = (
    *("buildah", "golang-github-containers-common", "golang-github-containers-image", "libseccomp2"),
    *("libgpgme11", "libassuan0", "libgpg-error0", "libdevmapper1.02.1", "libsubid4"),
)
_SCRIPT = """#!/bin/sh
export CONTAINERS_CONF={root}/usr/share/containers/containers.conf
export CONTAINERS_REGISTRIES_CONF={root}/etc/containers/registries.conf
export CONTAINERS_STORAGE_CONF={folder}/storage.conf BUILDAH_ISOLATION=chroot
case $1 in
pull|bud|push) verb=$1; shift; set -- "$verb" --signature-policy={root}/etc/containers/policy.json "$@" ;;
esac
exec unshare --mount sh -c 'mount --bind {folder}/ld.so.cache /etc/ld.so.cache && exec "$@"' \\
    sh {root}/usr/bin/buildah "$@"
"""
"""buildah starts itself anew without its environment, so its libraries are found by the linker's own cache."""
_STORAGE = """[storage]
driver = "overlay"
graphroot = "{folder}/store"
runroot = "{folder}/run"
"""


def unpacked(cache: Path) -> Path:
    """The root folder of the packages; fetched once."""
    root = cache / "buildah"
    if not root.exists():
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            partial = Path(temporary)
            download(PACKAGES, partial)
            for package in partial.glob("*.deb"):
                subprocess.run(["dpkg-deb", "-x", package, partial / "root"], check=True, timeout=60)
            (partial / "root").rename(root)
    return root


def engine(folder: Path, cache: Path) -> dict[str, str]:
    """An environment in which ``buildah`` is on PATH and keeps everything in a folder, which must be empty."""
    root = unpacked(cache)
    libraries = sorted({str(path.parent) for path in root.glob("usr/lib/**/*.so.*")})
    ldconfig = shutil.which("ldconfig", path=f"{os.environ['PATH']}:/sbin:/usr/sbin") or "ldconfig"
    subprocess.run([ldconfig, "-X", "-C", folder / "ld.so.cache", *libraries], check=True, timeout=60)
    (folder / "storage.conf").write_text(_STORAGE.format(folder=folder), encoding="utf-8")
    (folder / "bin").mkdir()
    script = folder / "bin" / "buildah"
    script.write_text(_SCRIPT.format(root=root, folder=folder), encoding="utf-8")
    script.chmod(0o755)
    return {**os.environ, "PATH": f"{script.parent}:{os.environ['PATH']}"}
