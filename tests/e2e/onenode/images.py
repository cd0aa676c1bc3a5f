"""The images of this checkout on a machine without a container engine: `make images` with a buildah of its own.

The base is not the one that the Dockerfiles name, which comes from a registry, but a root file system of Debian's own
packages (Python 3.11 and what it needs), unpacked and not installed: no scripts run.
"""

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from tools.images import saving

from gpudiag_api.version import __version__
from gpudiag_cli.controlplane.errors import ControlPlaneError, with_lines

from .buildah import engine
from .toolbox import download

ROOT = Path(__file__).resolve().parents[3]
BASE_PACKAGES = (
    *("libc6", "libgcc-s1", "zlib1g", "libbz2-1.0", "liblzma5", "libffi8", "libexpat1", "libssl3", "libsqlite3-0"),
    *("libuuid1", "libncursesw6", "libtinfo6", "libreadline8", "libdb5.3", "libnsl2", "libtirpc3", "libcrypt1"),
    *("libgssapi-krb5-2", "libkrb5-3", "libk5crypto3", "libkrb5support0", "libcom-err2", "libkeyutils1"),
    *("libpython3.11-minimal", "libpython3.11-stdlib", "python3.11-minimal", "python3.11", "python3.11-venv"),
    *("python3-pip-whl", "python3-setuptools-whl"),
    *("coreutils", "libacl1", "libattr1", "libselinux1", "libpcre2-8-0", "libgmp10", "dash", "ca-certificates"),
)


PARTS = ("gpudiag-agent", "gpudiag-operator", "gpudiag-mcp")
PAUSE = "docker.io/library/gpudiag-e2e-pause:1"
BASE = "localhost/gpudiag-e2e-python:3.11"


def layer(folder: Path, prefix: str) -> bytes:
    """A folder as an uncompressed layer, owned by root."""
    buffer = io.BytesIO()

    def rooted(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        return info

    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(folder, arcname=prefix, filter=rooted)
    return buffer.getvalue()


def above(path: Path) -> tuple[dict[str, Any], list[bytes]]:
    """An archive's configuration and its layers above the base, uncompressed."""
    with tarfile.open(path) as tar:
        (manifest,) = json.loads(_content(tar, "manifest.json"))
        return json.loads(_content(tar, manifest["Config"])), [_content(tar, name) for name in manifest["Layers"][1:]]


def compressed(path: Path) -> int:
    """Size of the layers above the base as a registry keeps them, in bytes."""
    return sum(len(gzip.compress(data, compresslevel=6, mtime=0)) for data in above(path)[1])


def files(path: Path) -> set[str]:
    """Names of everything in the layers above the base."""
    return {name for data in above(path)[1] for name in tarfile.open(fileobj=io.BytesIO(data)).getnames()}


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None, name
    return file.read()


def base(folder: Path, downloads: Path) -> Path:
    """A root file system with Python 3.11 from Debian's packages, on a machine whose own apt can reach them."""
    debs = downloads / f"debs-{hashlib.sha256(' '.join(BASE_PACKAGES).encode()).hexdigest()[:16]}"
    if not debs.exists():
        partial = downloads / "debs.part"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        download(BASE_PACKAGES, partial)
        partial.rename(debs)
    for name in ("bin", "sbin", "lib", "lib64"):
        (folder / "usr" / name).mkdir(parents=True)
        (folder / name).symlink_to(f"usr/{name}")
    for deb in sorted(debs.glob("*.deb")):
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as unpacked:
            unread = [f"--exclude=./usr/share/{name}" for name in ("doc", "man", "locale", "lintian", "info")]
            command = ["tar", "-x", "--keep-directory-symlink", *unread, "-C", str(folder)]
            subprocess.run(command, stdin=unpacked.stdout, check=True)
    for name in ("tmp", "proc", "sys", "dev", "run", "etc", "var/lib"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "tmp").chmod(0o1777)
    (folder / "bin" / "sh").unlink(missing_ok=True)
    (folder / "bin" / "sh").symlink_to("dash")
    (folder / "bin" / "python3").symlink_to("python3.11")
    (folder / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n", encoding="utf-8")
    return folder


def archive(path: Path, name: str, layers: list[bytes], config: dict[str, Any]) -> Path:
    """An image as a docker archive, which `ctr images import` reads."""
    digests = [hashlib.sha256(data).hexdigest() for data in layers]
    document = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "config": config,
        "history": [{"created_by": "gpudiag's end-to-end suite"} for _ in layers],
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
    }
    files = {f"{digest}.tar": data for digest, data in zip(digests, layers, strict=True)}
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": list(files)}]
    files |= {"config.json": json.dumps(document).encode(), "manifest.json": json.dumps(manifest).encode()}
    with tarfile.open(path, "w") as tar:
        for member, data in files.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def build(folder: Path, cache: Path) -> dict[str, Path]:
    """All images as archives in a folder, by name, the sandbox's (pause) included.

    Raises:
        ControlPlaneError: with what the build said.
    """
    bottom = [layer(base(folder / "base", cache), ".")]
    archives = {"pause": archive(folder / "pause.tar", PAUSE, bottom, {"Entrypoint": ["/usr/bin/sleep", "infinity"]})}
    python = archive(folder / "python.tar", BASE, bottom, {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]})
    environment = engine(folder, cache)
    _run(["buildah", "pull", f"docker-archive:{python}"], environment)
    _run([sys.executable, "-m", "tools.images", "--engine=buildah", f"--base-image={BASE}", *_pip(folder)], environment)
    for name in PARTS:
        archives[name] = folder / f"{name}.tar"
        _run(saving("buildah", f"{name}:{__version__}", archives[name]), environment)
    return archives


def _pip(folder: Path) -> list[str]:
    """How pip reaches its index here, for the build: the settings and the certificates of this machine's own pip."""
    said = subprocess.run([sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True)
    found = dict(re.findall(r"^(?:global|:env:)\.([\w-]+)='(.*)'$", said.stdout, re.MULTILINE))
    options = {name: value for name, value in found.items() if name in ("index-url", "extra-index-url", "trusted-host")}
    path = folder / "pip.conf"
    path.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in options.items()), encoding="utf-8")
    ca = found.get("cert") or os.environ.get("SSL_CERT_FILE")
    return [f"--pip-config={path}", *([f"--ca={ca}"] if ca else [])]


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=900,
    )
    if done.returncode:
        raise ControlPlaneError(with_lines(f"{' '.join(command[:3])} failed:", done.stdout.splitlines()[-30:]))
