"""Images without a container engine: what the Dockerfiles assemble, put together from the same requirement files.

This builder is the tests' own, for machines without docker, podman and buildah. The base is a root file system of
Debian's own packages (Python 3.11 and what it needs), unpacked and not installed: no scripts run.
"""

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.install_parts import install

from gpudiag_api.version import __version__

from .toolbox import download

ROOT = Path(__file__).resolve().parents[3]
SITE = "lib/python3.11/site-packages"
BASE_PACKAGES = (
    *("libc6", "libgcc-s1", "zlib1g", "libbz2-1.0", "liblzma5", "libffi8", "libexpat1", "libssl3", "libsqlite3-0"),
    *("libuuid1", "libncursesw6", "libtinfo6", "libreadline8", "libdb5.3", "libnsl2", "libtirpc3", "libcrypt1"),
    *("libgssapi-krb5-2", "libkrb5-3", "libk5crypto3", "libkrb5support0", "libcom-err2", "libkeyutils1"),
    *("libpython3.11-minimal", "libpython3.11-stdlib", "python3.11-minimal", "python3.11"),
    *("coreutils", "libacl1", "libattr1", "libselinux1", "libpcre2-8-0", "libgmp10", "dash", "ca-certificates"),
)


@dataclass(frozen=True)
class Part:
    """One image: its name, its source roots, its command and its user (as in the Dockerfile)."""

    name: str
    sources: tuple[str, ...]
    module: str
    user: str

    @property
    def requirements(self) -> Path:
        """The hashed requirements that the Dockerfile installs."""
        return ROOT / "requirements" / f"{self.sources[-1]}.txt"


PARTS = (
    Part("gpudiag-agent", ("api", "agent"), "gpudiag_agent", "0:0"),
    Part("gpudiag-operator", ("api", "operator"), "gpudiag_operator", "65532:65532"),
    Part("gpudiag-mcp", ("api", "mcp"), "gpudiag_mcp", "65532:65532"),
)


def environment(part: Part, folder: Path, downloads: Path) -> Path:
    """Install a part as its Dockerfile does: hashed requirements and its source roots, no pip; returns the folder."""
    site = folder / SITE
    shutil.copytree(packages(part, downloads), site)
    (folder / "bin").mkdir()
    install(list(part.sources), packages=site, scripts=folder / "bin", python="/venv/bin/python3")
    ours = [str(site / f"gpudiag_{source}") for source in part.sources]
    subprocess.run([sys.executable, "-m", "compileall", "-q", *ours], check=True, timeout=300)
    (folder / "bin" / "python3").symlink_to("/usr/bin/python3.11")
    (folder / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11\n", encoding="utf-8")
    return folder


def packages(part: Part, downloads: Path) -> Path:
    """The folder of a part's hashed requirements, with byte code; made once for each version of them."""
    kept = downloads / f"{part.name}-{hashlib.sha256(part.requirements.read_bytes()).hexdigest()[:16]}"
    if kept.exists():
        return kept
    partial = downloads / f"{part.name}.part"
    shutil.rmtree(partial, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    pip += ["--require-hashes", "--only-binary=:all:", "--target", str(partial), "-r", str(part.requirements)]
    subprocess.run(pip, check=True, timeout=600)
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(partial)], check=True, timeout=300)
    return partial.rename(kept)


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


def compressed(archive: Path) -> int:
    """Size of the layers above the base as a registry keeps them, in bytes."""
    with tarfile.open(archive) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None
        files = [tar.extractfile(name) for name in json.load(manifest)[0]["Layers"][1:]]
        return sum(len(gzip.compress(file.read(), compresslevel=6, mtime=0)) for file in files if file is not None)


def base(folder: Path, downloads: Path) -> Path:
    """A root file system with Python 3.11 from Debian's packages, on a machine whose own apt can reach them."""
    debs = downloads / "debs"
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
            command: list[str | Path] = [
                "tar",
                "-x",
                "--keep-directory-symlink",
                "--exclude=./usr/share/*",
                "-C",
                folder,
            ]
            subprocess.run(command, stdin=unpacked.stdout, check=True)
    for name in ("tmp", "proc", "sys", "dev", "run", "etc", "var/lib"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "tmp").chmod(0o1777)
    (folder / "bin" / "sh").unlink(missing_ok=True)
    (folder / "bin" / "sh").symlink_to("dash")
    (folder / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n", encoding="utf-8")
    return folder


def archive(path: Path, name: str, layers: list[bytes], config: dict[str, Any]) -> Path:
    """An image as a docker archive, which `ctr images import` reads."""
    digests = [hashlib.sha256(data).hexdigest() for data in layers]
    document = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "config": config,
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


def build(folder: Path, downloads: Path) -> dict[str, Path]:
    """All images as archives in a folder, by name, the sandbox's (pause) included."""
    bottom = layer(base(folder / "base", downloads), ".")
    archives = {"pause": archive(folder / "pause.tar", PAUSE, [bottom], {"Entrypoint": ["/usr/bin/sleep", "infinity"]})}
    for part in PARTS:
        top = layer(environment(part, folder / part.name, downloads), "venv")
        config = {
            "User": part.user,
            "Env": ["PATH=/venv/bin:/usr/bin:/bin", "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1", "USER=gpudiag"],
            "Entrypoint": ["python3", "-m", part.module],
        }
        name = f"docker.io/library/{part.name}:{__version__}"
        archives[part.name] = archive(folder / f"{part.name}.tar", name, [bottom, top], config)
    return archives


PAUSE = "docker.io/library/gpudiag-e2e-pause:1"
