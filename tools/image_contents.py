"""What a built image holds, read from its archive (`docker save`, `podman save`, `buildah push … docker-archive:`)."""

import hashlib
import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath
from typing import IO

_DISTRIBUTION = re.compile(r"(^|/)(site|dist)-packages/[^/]+\.(dist|egg)-info/(METADATA|PKG-INFO)$")
_DEBIAN = re.compile(r"^var/lib/dpkg/(status|status\.d/[^/]+)$")
_SYSTEM = re.compile(r"^(etc|usr/lib)/os-release$")
_MOST = 16 << 20


@dataclass(frozen=True, order=True)
class Package:
    """A package with its version; ``architecture`` of Debian's only."""

    name: str
    version: str
    architecture: str = ""


@dataclass(frozen=True)
class Image:
    """What an image says of itself, and what is installed in it."""

    digest: str
    """Of its configuration: what the engines call the image's ID. Hex, without ``sha256:``."""
    created: str
    """RFC 3339."""
    architecture: str
    system: dict[str, str]
    """``/etc/os-release``."""
    python: tuple[Package, ...]
    """Distributions, by their names as the index normalises them."""
    debian: tuple[Package, ...]


def read(archive: Path) -> Image:
    """Read an archive of one image.

    Raises:
        ValueError: it is none.
    """
    with tarfile.open(archive) as tar:
        try:
            (manifest,) = json.loads(_content(tar, "manifest.json"))
            raw = _content(tar, manifest["Config"])
            layers = [str(name) for name in manifest["Layers"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{archive} is no archive of one image: {error}") from error
        files = _files(tar, layers)
    config = json.loads(raw)
    system = next((content for name, content in sorted(files.items()) if _SYSTEM.match(name)), b"")
    return Image(
        digest=hashlib.sha256(raw).hexdigest(),
        created=config.get("created", ""),
        architecture=config.get("architecture", ""),
        system=dict(_settings(system.decode())),
        python=tuple(sorted({_distribution(content) for name, content in files.items() if _DISTRIBUTION.search(name)})),
        debian=tuple(sorted(set(_debian(content for name, content in files.items() if _DEBIAN.match(name))))),
    )


def normalised(name: str) -> str:
    """A distribution's name as requirement files have it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _files(tar: tarfile.TarFile, layers: Iterable[str]) -> dict[str, bytes]:
    """Files of interest in the file system that the layers make together."""
    found: dict[str, bytes] = {}
    for layer in layers:
        # A layer hides what those below it have (OCI image specification, whiteouts), never what is its own.
        gone, new = [], {}
        with tarfile.open(fileobj=_open(tar, layer)) as inner:
            for member in inner:
                path = PurePosixPath(member.name.lstrip("./"))
                if path.name == ".wh..wh..opq":
                    gone.append(str(path.parent) + "/")
                elif path.name.startswith(".wh."):
                    gone.append(str(path.parent / path.name.removeprefix(".wh.")))
                elif member.isfile() and any(one.search(str(path)) for one in (_DISTRIBUTION, _DEBIAN, _SYSTEM)):
                    file = inner.extractfile(member)
                    new[str(path)] = file.read(_MOST) if file else b""
        found = {name: content for name, content in found.items() if not any(_within(name, one) for one in gone)} | new
    return found


def _within(name: str, gone: str) -> bool:
    return name == gone or name.startswith(gone if gone.endswith("/") else f"{gone}/")


def _open(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    file = tar.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    with _open(tar, name) as file:
        return file.read(_MOST)


def _distribution(metadata: bytes) -> Package:
    said = HeaderParser().parsestr(metadata.decode(errors="replace"))
    return Package(normalised(said["Name"]), said["Version"])


def _debian(files: Iterable[bytes]) -> Iterator[Package]:
    """Packages that are installed, of dpkg's database."""
    for content in files:
        for paragraph in content.decode(errors="replace").split("\n\n"):
            said = HeaderParser().parsestr(paragraph.strip())
            if said["Package"] and said.get("Status", "install ok installed").endswith(" installed"):
                yield Package(said["Package"], said["Version"], said.get("Architecture", ""))


def _settings(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            yield name, value.strip('"')
