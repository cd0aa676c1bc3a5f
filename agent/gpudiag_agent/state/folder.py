"""Small files in one folder, each written whole or not at all, and only by one process at a time."""

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path

MAX_BYTES = 1 << 20
"""Of one file: 1 MiB."""
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class UnusableError(Exception):
    """A file is there, but nothing that was written here: the sentence says what it is."""


class Folder:
    """A folder of state files.

    Args:
        path: of the folder; made on the first write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def read(self, name: str) -> bytes | None:
        """A file's content; None where there is none.

        Raises:
            UnusableError: it is too large, or no regular file.
            OSError: it cannot be read.
        """
        try:
            descriptor = os.open(self.path / name, os.O_RDONLY | _FLAGS)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise UnusableError("it is a symbolic link") from None
            raise
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UnusableError("it is no regular file")
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UnusableError(f"it is larger than {MAX_BYTES} bytes")
        return content

    def write(self, name: str, content: bytes) -> None:
        """Put a file there: after a crash at any moment it holds this or what it held before.

        Raises:
            OSError: no space, read-only, another agent's: the file is as it was.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._claim()
        beside = self.path / f".{name}.tmp"
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _FLAGS, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise
        beside.replace(self.path / name)
        self._sync()

    def set_aside(self, name: str) -> Path:
        """Rename a file to ``*.bad``, over the one before: there is never more than one.

        Raises:
            OSError: it cannot be renamed.
        """
        aside = self.path / f"{name}.bad"
        (self.path / name).replace(aside)
        return aside

    def close(self) -> None:
        """Let another process write here."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _claim(self) -> None:
        """Two agents writing in turns would each undo what the other remembers."""
        if self._lock is not None:
            return
        descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise BlockingIOError(errno.EWOULDBLOCK, "another agent writes there") from None
        self._lock = descriptor

    def _sync(self) -> None:
        # The rename itself; not every file system can, and then it happens a little later.
        with contextlib.suppress(OSError):
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
