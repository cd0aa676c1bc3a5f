"""Build the three images with docker, podman or buildah, whichever is there, and write what is in them.

Beside each image, in build/images, comes its bill of materials (CycloneDX). It ends in failure when an image holds a
Python package that its hashed requirements do not name, or lacks one.
"""

import argparse
import configparser
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools import image_contents, sbom

ROOT = Path(__file__).resolve().parent.parent
BILLS = ROOT / "build" / "images"
ENGINES = {"docker": ("build",), "podman": ("build",), "buildah": ("bud",)}
IMAGES = {
    "agent": ("Dockerfile.agent", "gpudiag-agent"),
    "operator": ("Dockerfile.operator", "gpudiag-operator"),
    "mcp": ("Dockerfile.operator", "gpudiag-mcp"),
}
"""Dockerfile and name by target; the target is also the name of the requirements."""


def main() -> int:
    """Run the command; the exit code is the engine's, or 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=ENGINES, help="default: the first of these that runs")
    parser.add_argument("--base-image", help="another Python 3.11 image than the Dockerfiles name")
    parser.add_argument("--pip-config", type=Path, metavar="FILE", help="a pip.conf for the build, for a mirror say")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="certificates (PEM) that pip trusts during the build")
    given = parser.parse_args()
    engine = given.engine or next((name for name in ENGINES if works(name)), None)
    if engine is None:
        print(
            "make images: none of docker, podman and buildah runs here. Install one of them, or start Docker's engine."
        )
        return 1
    with tempfile.TemporaryDirectory() as folder:
        try:
            kept = secrets(Path(folder) / "pip.conf", pip_config=given.pip_config, ca=given.ca)
        except ValueError as error:
            parser.error(str(error))
        for command in commands(engine, base_image=given.base_image, revision=revision(), secrets=kept):
            if code := subprocess.run(command, cwd=ROOT, check=False).returncode:
                return code
    return max(bill(engine, target, base=given.base_image or base_image(IMAGES[target][0])) for target in IMAGES)


def works(engine: str) -> bool:
    """Whether the program is there and, where it needs a service, reaches it."""
    if shutil.which(engine) is None:
        return False
    return subprocess.run([engine, "info"], capture_output=True, check=False, timeout=30).returncode == 0


def secrets(path: Path, *, pip_config: Path | None, ca: Path | None) -> list[str]:
    """Arguments that show pip's settings to the build alone: no layer and no history keeps a password of theirs.

    Args:
        path: where the settings are written that go into the build.
        pip_config: the user's own settings.
        ca: certificates for them to name.

    Raises:
        ValueError: a file cannot be used; the text names the option.
    """
    for option, file in (("--pip-config", pip_config), ("--ca", ca)):
        if file is not None and not file.is_file():
            raise ValueError(f"{option}: there is no file {file}")
    if pip_config is None and ca is None:
        return []
    settings = configparser.RawConfigParser()
    try:
        settings.read([pip_config] if pip_config else [], encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ValueError(f"--pip-config: pip could not read {pip_config}: {error}") from error
    if ca is not None:
        if not settings.has_section("global"):
            settings.add_section("global")
        settings.set("global", "cert", "/run/secrets/ca")
    path.touch(mode=0o600)
    with path.open("w", encoding="utf-8") as told:
        settings.write(told)
    return [f"--secret=id=pip,src={path}", *([f"--secret=id=ca,src={ca.resolve()}"] if ca else [])]


def commands(engine: str, *, base_image: str | None, revision: str, secrets: Sequence[str] = ()) -> list[list[str]]:
    """One build per image, tagged with the version of this checkout."""
    arguments = [f"--build-arg=VERSION={version()}", f"--build-arg=REVISION={revision}", *secrets]
    if base_image:
        arguments.append(f"--build-arg=BASE_IMAGE={base_image}")
    return [
        [engine, *ENGINES[engine], *arguments, f"--file={file}", f"--target={target}", f"--tag={name}:{version()}", "."]
        for target, (file, name) in IMAGES.items()
    ]


def saving(engine: str, image: str, archive: Path) -> list[str]:
    """The command that writes an image into an archive."""
    if engine == "buildah":
        return ["buildah", "push", image, f"docker-archive:{archive}:{image}"]
    kind = ["--format=docker-archive"] if engine == "podman" else []
    return [engine, "save", *kind, f"--output={archive}", image]


def bill(engine: str, target: str, *, base: str) -> int:
    """Write an image's bill of materials; 1 when the image is not what its requirements say."""
    name, pinned = IMAGES[target][1], sbom.requirements(target)
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "image.tar"
        if code := subprocess.run(saving(engine, f"{name}:{version()}", archive), check=False).returncode:
            return code
        image = image_contents.read(archive)
    if (wrong := sbom.disagreement(image, pinned)) is not None:
        print(f"{name}: {wrong}")
        return 1
    path = BILLS / f"{name}-{version()}.cdx.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(sbom.document(image, name=name, version=version(), base=base, pinned=pinned), encoding="utf-8")
    print(f"{name}:{version()}: {len(image.python)} Python and {len(image.debian)} Debian packages, {path}")
    return 0


def base_image(file: str) -> str:
    """What a Dockerfile builds upon unless told otherwise."""
    found = re.search(r"^ARG BASE_IMAGE=(\S+)", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        raise SystemExit(f"{file} has no line ARG BASE_IMAGE=…")
    return found[1]


def version() -> str:
    """The version that every file takes its own from."""
    text = (ROOT / "api" / "gpudiag_api" / "version.py").read_text(encoding="utf-8")
    found = re.search(r'"(\d+\.\d+\.\d+[^"]*)"', text)
    if not found:
        raise SystemExit("api/gpudiag_api/version.py holds no version such as 0.1.0")
    return found[1]


def revision() -> str:
    """The commit of this checkout, as the image's label names it."""
    said = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return said.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
