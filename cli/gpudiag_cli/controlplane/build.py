"""Builds the missing programs, once: under a lock, into a temporary folder, and renamed when complete.

A build takes minutes, so a process that comes second waits for the first instead of building the same again, and
whatever was finished before an interruption is kept.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gpudiag_cli.controlplane.errors import OR_ASSETS, ControlPlaneError, last_lines, with_lines
from gpudiag_cli.controlplane.process import Child
from gpudiag_cli.controlplane.progress import Progress, duration, fresh_log, retry
from gpudiag_cli.controlplane.recipe import BUILD_ENVIRONMENT, PACKAGES, Recipe, cache_folder
from gpudiag_cli.controlplane.toolchain import find_go

Sleep = Callable[[float], None]


def provide(names: Sequence[str], recipe: Recipe, progress: Progress, sleep: Sleep = time.sleep) -> dict[str, Path]:
    """The programs with these names from the cache, where need be after building them.

    Raises:
        ControlPlaneError: there is no Go, the cache cannot be written, or a download or build failed.
    """
    paths = {name: recipe.destination / name for name in names}
    if not all(path.exists() for path in paths.values()):
        try:
            recipe.destination.mkdir(parents=True, exist_ok=True)
            with locked(cache_folder() / "lock", progress, sleep):
                # Once more under the lock: the process we may have waited for has built them.
                missing = [name for name in PACKAGES if name in paths and not paths[name].exists()]
                _build(missing, recipe, progress, sleep)
        except OSError as error:
            raise ControlPlaneError(
                f"The control plane cannot be kept in {recipe.destination}: {error}. "
                "Make room there, or set XDG_CACHE_HOME to a folder that can be written."
            ) from None
    return paths


@contextlib.contextmanager
def locked(path: Path, progress: Progress, sleep: Sleep = time.sleep) -> Iterator[None]:
    """Hold a lock between processes; the kernel frees it when its holder dies, however that happens."""
    with path.open("ab") as file:
        waiting = 0
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if waiting % 10 == 0:
                    progress.say("waiting for another process that builds the control plane")
                waiting += 1
                sleep(1)
        yield


def _build(missing: Sequence[str], recipe: Recipe, progress: Progress, sleep: Sleep) -> None:
    if not missing:
        return
    progress.say(
        f"building {', '.join(missing)} (Kubernetes {recipe.kubernetes_version}); with an empty Go cache this "
        f"takes about 5 minutes on 2 cores, once. They are kept in {recipe.destination}"
    )
    go = find_go(cache_folder(), progress, sleep)
    with tempfile.TemporaryDirectory(prefix="building-", dir=recipe.destination) as temporary:
        _download(go, missing, recipe, progress, sleep)
        for name in missing:
            started = time.monotonic()
            output = Path(temporary) / name
            arguments: list[str | Path] = ["build", *recipe.flags, "-o", output, PACKAGES[name]]
            if _run(go, arguments, recipe, progress, f"building {name}"):
                raise _failure(f"Building {name} with {go} failed", recipe)
            shutil.move(output, recipe.destination / name)
            progress.say(f"{name}: built in {duration(time.monotonic() - started)}")


def _download(go: Path, names: Sequence[str], recipe: Recipe, progress: Progress, sleep: Sleep) -> None:
    """Fetch all that the builds read, so that only this step needs the network, and it can be repeated."""
    arguments: list[str | Path] = ["list", "-deps", "-f", "{{if .Error}}{{.Error}}{{end}}"]
    arguments += [PACKAGES[name] for name in names]

    def attempt() -> int:
        return _run(go, arguments, recipe, progress, "downloading Go modules")

    if not retry(attempt, "downloading Go modules", progress, sleep):
        raise _failure("Downloading the Go modules of the control plane failed", recipe)


def _run(go: Path, arguments: Sequence[str | Path], recipe: Recipe, progress: Progress, doing: str) -> int:
    environment = {**os.environ, **BUILD_ENVIRONMENT}
    log = fresh_log(recipe.destination, "build")
    return progress.watch(Child.start([go, *arguments], log, env=environment, cwd=recipe.folder), doing)


def _failure(what: str, recipe: Recipe) -> ControlPlaneError:
    message = f"{what}. Check the network and GOPROXY, then try again; or {OR_ASSETS}. What Go said:"
    return ControlPlaneError(with_lines(message, last_lines(recipe.destination / "build.log")))
