"""The folder of one control plane: its data, logs, keys and kubeconfigs.

A folder is locked while it is in use, to two ends: two control planes never share one, and temporary folders of
processes that were killed (which cannot tidy up) are recognised and removed by the next start.
"""

import fcntl
import shutil
import tempfile
import time
from pathlib import Path

from gpudiag_cli.controlplane.errors import ControlPlaneError

PREFIX = "gpudiag-controlplane-"
LOCK = "lock"
# A folder this young may be about to be locked by its maker.
_YOUNG_SECONDS = 60.0


class Workspace:
    """A locked folder; a temporary one, removed on close, where none is given."""

    def __init__(self, directory: Path | None = None) -> None:
        self._temporary = directory is None
        try:
            if directory is None:
                sweep(Path(tempfile.gettempdir()))
                directory = Path(tempfile.mkdtemp(prefix=PREFIX))
            # Absolute: the programs run with the folder as their working directory, or their users elsewhere.
            self.path = directory.resolve()
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / LOCK).open("ab")
        except OSError as error:
            raise ControlPlaneError(
                f"The control plane has no folder for its data: {error}. Name one that can be written."
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise ControlPlaneError(
                f"Another control plane runs in {self.path}. Stop it first, or choose another folder."
            ) from None

    def close(self) -> None:
        """Give the folder up; doing it twice is no error."""
        if self._temporary:
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def sweep(parent: Path) -> list[Path]:
    """Remove the temporary folders whose process is gone; gives what was removed."""
    removed = []
    for lock in parent.glob(f"{PREFIX}*/{LOCK}"):
        try:
            if time.time() - lock.stat().st_mtime < _YOUNG_SECONDS:
                continue
            with lock.open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
        except OSError:  # in use, another user's, or just gone
            continue
        removed.append(lock.parent)
    return removed
