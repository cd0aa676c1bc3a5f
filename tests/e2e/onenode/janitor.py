"""Takes away what no process ends with: control groups and folders of a node, once its test run is over.

Run as `python janitor.py CGROUP FOLDER…`; standard input is a pipe from the test run. When it closes, because the run
is done with the node or was killed, the node's processes have ended or are ending (init.py), and the rest goes.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
SECONDS = 20.0


def roots() -> list[Path]:
    """Where control groups are made: one folder, or one for each controller of version 1."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [path for path in sorted(CGROUPS.iterdir()) if path.is_dir() and not path.is_symlink()]


def cgroups(name: str) -> list[Path]:
    """Every folder of the node's control groups, deepest first."""
    return [Path(folder) for root in roots() for folder, _, _ in os.walk(root / name, topdown=False)]


def main() -> None:
    """Wait for the end, then tidy up."""
    # Ctrl-C and a terminal that closes are for the test run; this comes after it.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    name, folders = sys.argv[1], sys.argv[2:]
    sys.stdin.buffer.read()
    deadline = time.monotonic() + SECONDS
    while (left := cgroups(name)) and time.monotonic() < deadline:
        for folder in left:
            with contextlib.suppress(OSError):
                folder.rmdir()
        time.sleep(0.05)
    for path in folders:
        shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    main()
