"""Child processes that never outlive this one.

A test run can be killed in ways that run no clean-up code, and an API server left behind eats 300 MB for ever. So
the kernel is asked (PR_SET_PDEATHSIG) to kill each child when its parent dies. Two traps are stepped around here:

- The request has to be made in the child, before it becomes the program. subprocess' preexec_fn can deadlock in a
  parent with threads; so the child is first a tiny Python that makes the request and then replaces itself (exec),
  under the same process id.
- To the kernel the "parent" is the *thread* that started the child, not the process. A child started by a worker
  thread would die when that thread ends; so one daemon thread, which lives as long as the process, starts all.
"""

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

# Python ignores SIGPIPE, and what is ignored stays ignored across exec: hand the program the default.
# The parent may have died before the request was made; then nobody would ever send the signal.
_SHIM = """
import ctypes, os, signal, sys
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass
class Child:
    """A running program, its name for people, and the log that takes both its outputs."""

    name: str
    log: Path
    process: subprocess.Popen[bytes]

    @classmethod
    def start(
        cls,
        command: Sequence[str | Path],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> "Child":
        """Start a program (named by a full path) in a session of its own, so that Ctrl-C reaches only us."""
        shim = [sys.executable, "-I", "-S", "-c", _SHIM, str(os.getpid())]
        full = [*shim, *map(str, command)]
        with log.open("ab") as output:
            process = _spawn(full, output.fileno(), env, cwd)
        return cls(Path(command[0]).name, log, process)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def stop(self, grace: float) -> None:
        """End it: politely, and after so many seconds for certain. A stopped one is no error."""
        if self.alive:
            # To its whole session: a `go build` that ends leaves its compilers running.
            os.killpg(self.pid, signal.SIGTERM)
            # One that is paused (SIGSTOP) would see the SIGTERM only when it goes on.
            os.killpg(self.pid, signal.SIGCONT)
            try:
                self.process.wait(grace)
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()


_Order = tuple[Sequence[str], int, Mapping[str, str] | None, Path | None]
_orders: "queue.SimpleQueue[tuple[_Order, Future[subprocess.Popen[bytes]]]]" = queue.SimpleQueue()
_guard = threading.Lock()
_spawner: threading.Thread | None = None


def _spawn(
    command: Sequence[str], output: int, env: Mapping[str, str] | None, cwd: Path | None
) -> subprocess.Popen[bytes]:
    global _spawner
    with _guard:
        # Not alive also after a fork: a child has none of its parent's threads.
        if _spawner is None or not _spawner.is_alive():
            _spawner = threading.Thread(target=_serve, name="controlplane-spawner", daemon=True)
            _spawner.start()
    future: Future[subprocess.Popen[bytes]] = Future()
    _orders.put(((command, output, env, cwd), future))
    return future.result()


def _serve() -> None:
    while True:
        (command, output, env, cwd), future = _orders.get()
        try:
            future.set_result(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=env,
                    cwd=cwd,
                    start_new_session=True,
                )
            )
        except OSError as error:
            future.set_exception(error)
