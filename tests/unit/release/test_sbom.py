"""The bill of materials says what an image's layers hold together, and is a valid document."""

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from tools import image_contents, images, sbom
from tools.image_contents import Package

SITE = "venv/lib/python3.11/site-packages"
BASE = "usr/local/lib/python3.11/site-packages"
STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u10
Description: GNU C Library
 of many lines

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""
RELEASE = 'ID=debian\nVERSION_ID="12"\n'
PINNED = {"aiohttp": ("3.14.5", ["a" * 64, "b" * 64]), "typing-extensions": ("4.16.0", ["c" * 64])}


def layer(files: Mapping[str, str], *, zipped: bool = False) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return gzip.compress(raw.getvalue()) if zipped else raw.getvalue()


def distribution(name: str, version: str, folder: str = SITE) -> dict[str, str]:
    metadata = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n\n# A readme\nVersion: 0\n"
    return {f"{folder}/{name.replace('-', '_')}-{version}.dist-info/METADATA": metadata}


def archive(path: Path, *layers: bytes) -> Path:
    config = json.dumps({"created": "2026-01-02T03:04:05.678901234Z", "architecture": "amd64"})
    names = [f"{number}.tar" for number in range(len(layers))]
    manifest = json.dumps([{"Config": "config.json", "RepoTags": ["x:1"], "Layers": names}])
    with tarfile.open(path, "w") as tar:
        for name, content in zip(
            ("manifest.json", "config.json", *names), (manifest.encode(), config.encode(), *layers), strict=True
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def image(tmp_path: Path) -> image_contents.Image:
    base = {"var/lib/dpkg/status": STATUS, "usr/lib/os-release": RELEASE} | distribution("pip", "25.0", BASE)
    removed = {f"{BASE}/.wh.pip-25.0.dist-info": ""}
    ours = distribution("aiohttp", "3.14.5") | distribution("Typing.Extensions", "4.16.0")
    return image_contents.read(archive(tmp_path / "i.tar", layer(base, zipped=True), layer(removed), layer(ours)))


def made(image: image_contents.Image) -> dict[str, Any]:
    text = sbom.document(image, name="gpudiag-agent", version="0.1.0", base="registry.example/python:3", pinned=PINNED)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document: dict[str, Any] = json.loads(text)
    return document


def test_layers_add_up_and_what_one_hides_is_not_there(image: image_contents.Image) -> None:
    assert image.python == (Package("aiohttp", "3.14.5"), Package("typing-extensions", "4.16.0"))
    assert image.debian == (Package("libc6", "2.36-9+deb12u10", "amd64"),)
    assert image.system["VERSION_ID"] == "12"


def test_a_folder_that_is_hidden_whole_comes_back_with_what_its_own_layer_has(tmp_path: Path) -> None:
    upper = {f"{SITE}/.wh..wh..opq": ""} | distribution("kept", "2")
    path = archive(tmp_path / "i.tar", layer(distribution("hidden", "1")), layer(upper))
    assert image_contents.read(path).python == (Package("kept", "2"),)


def test_it_names_the_packages_their_files_and_what_they_stand_on(image: image_contents.Image) -> None:
    bill = made(image)
    parts = {part["name"]: part for part in bill["components"]}
    assert parts.keys() == {"aiohttp", "typing-extensions", "libc6", "debian", "registry.example/python:3"}
    assert parts["aiohttp"]["purl"] == "pkg:pypi/aiohttp@3.14.5"
    (files,) = parts["aiohttp"]["externalReferences"]
    assert {one["content"] for one in files["hashes"]} == {"a" * 64, "b" * 64}
    assert parts["libc6"]["purl"] == "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12"
    subject = bill["metadata"]["component"]
    assert (subject["name"], subject["version"], subject["hashes"][0]["content"]) == (
        "gpudiag-agent",
        "0.1.0",
        image.digest,
    )
    under = {one["ref"]: set(one.get("dependsOn", ())) for one in bill["dependencies"]}
    assert under["gpudiag-agent"] == {"base", "pkg:pypi/aiohttp@3.14.5", "pkg:pypi/typing-extensions@4.16.0"}
    assert under["base"] == {"system", parts["libc6"]["purl"]}


def test_the_same_image_gives_the_same_bytes(image: image_contents.Image) -> None:
    assert made(image) == made(image)


@pytest.mark.parametrize(
    ("pinned", "said"),
    [
        (PINNED, None),
        ({"aiohttp": PINNED["aiohttp"]}, "it has typing-extensions 4.16.0"),
        ({**PINNED, "kopf": ("1.45.2", [])}, "it lacks kopf 1.45.2"),
        ({**PINNED, "aiohttp": ("3.15.0", [])}, "it has aiohttp 3.14.5; it lacks aiohttp 3.15.0"),
    ],
)
def test_an_image_that_is_not_what_its_requirements_say_is_seen(
    image: image_contents.Image, pinned: Any, said: str | None
) -> None:
    found = sbom.disagreement(image, pinned)
    assert found is None if said is None else found is not None and found.endswith(said)


def test_what_is_no_archive_is_said(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "i.tar", "w"):
        pass
    with pytest.raises(ValueError, match="is no archive of one image"):
        image_contents.read(tmp_path / "i.tar")


@pytest.mark.parametrize("part", sorted(images.IMAGES))
def test_every_requirement_is_read_with_its_hashes(part: str) -> None:
    text = (images.ROOT / "requirements" / f"{part}.txt").read_text()
    found = sbom.requirements(part)
    assert len(found) == text.count("==")
    assert sum(len(hashes) for _, hashes in found.values()) == text.count("--hash=sha256:")
    assert all(hashes for _, hashes in found.values())


@pytest.mark.parametrize(
    ("engine", "command"),
    [
        ("docker", ["docker", "save", "--output=/f", "x:1"]),
        ("podman", ["podman", "save", "--format=docker-archive", "--output=/f", "x:1"]),
        ("buildah", ["buildah", "push", "x:1", "docker-archive:/f:x:1"]),
    ],
)
def test_every_engine_gives_an_archive(engine: str, command: list[str]) -> None:
    assert images.saving(engine, "x:1", Path("/f")) == command
