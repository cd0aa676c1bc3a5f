"""Build the three images with docker, podman or buildah, whichever is there, and write what is in them.

Beside each image, in build/images, comes its bill of materials (CycloneDX). It ends in failure when an image holds a
Python package that its hashed requirements do not name, or lacks one.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
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
    given = parser.parse_args()
    engine = given.engine or next((name for name in ENGINES if works(name)), None)
    if engine is None:
        print(
            "make images: none of docker, podman and buildah runs here. Install one of them, or start Docker's engine."
        )
        return 1
    for command in commands(engine, base_image=given.base_image, revision=revision()):
        if code := subprocess.run(command, cwd=ROOT, check=False).returncode:
            return code
    return max(bill(engine, target, base=given.base_image or base_image(IMAGES[target][0])) for target in IMAGES)


def works(engine: str) -> bool:
    """Whether the program is there and, where it needs a service, reaches it."""
    if shutil.which(engine) is None:
        return False
    return subprocess.run([engine, "info"], capture_output=True, check=False, timeout=30).returncode == 0


def commands(engine: str, *, base_image: str | None, revision: str) -> list[list[str]]:
    """One build per image, tagged with the version of this checkout."""
    arguments = [f"--build-arg=VERSION={version()}", f"--build-arg=REVISION={revision}"]
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
