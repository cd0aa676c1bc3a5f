"""Build the three images with docker, podman or buildah, whichever is there."""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENGINES = {"docker": ("build",), "podman": ("build",), "buildah": ("bud",)}
IMAGES = {
    "agent": ("Dockerfile.agent", "gpudiag-agent"),
    "operator": ("Dockerfile.operator", "gpudiag-operator"),
    "mcp": ("Dockerfile.operator", "gpudiag-mcp"),
}


def main() -> int:
    """Run the command; the exit code is the engine's."""
    parser = argparse.ArgumentParser(description=__doc__)
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
    return 0


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
