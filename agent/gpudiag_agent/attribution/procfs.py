"""From a process id to its owner, at once, before the process is gone.

Reads ``stat`` and ``cgroup`` only: the kernel answers both without the memory lock of the process, which a process that
hangs in the driver may hold for ever (``cmdline`` and ``environ`` would hang with it).
"""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from gpudiag_agent.attribution import cgroup
from gpudiag_agent.attribution.model import Owner, PodRef
from gpudiag_agent.clock import Clock

PROC = Path("/proc")
POD_LOGS = Path("/var/log/pods")

_INITIAL_PID_NAMESPACE = "pid:[4026531836]"
"""PROC_PID_INIT_INO of include/linux/proc_ns.h: the namespace the driver counts in."""
_REMEMBERED = 1024
"""Processes and pods kept; the wire lists as many processes."""
_FRESH = 1.0
"""Seconds for which a process is not looked at again, nor the folder of pods: a storm of lines names one process."""
_AFTERLIFE = 60.0
"""Seconds for which a process that is gone is remembered: a line about it may come after its end."""
_MAX_BYTES = 16384
_MAX_FOLDERS = 4096
_CLOCK_SKEW = 1.0


class _Known(msgspec.Struct):
    owner: Owner
    started: int
    """Clock ticks since boot."""
    seen: float
    """On the monotonic clock."""


class Resolver:
    """Looks processes up, and remembers them.

    Args:
        clock: for how long ago a process was seen.
        booted_at: Unix time of the boot, which process start times count from.
        proc: a procfs of the node's own process ids.
        pod_logs: where the kubelet keeps the logs of its pods.
    """

    def __init__(self, *, clock: Clock, booted_at: float, proc: Path = PROC, pod_logs: Path = POD_LOGS) -> None:
        self._clock = clock
        self._booted_at = booted_at
        self._proc = proc
        self._pod_logs = pod_logs
        self._known: dict[int, _Known] = {}
        self._pods: dict[str, PodRef] = {}
        self._pods_read = float("-inf")

    def problem(self) -> str | None:
        """Why the node's processes cannot be seen, in a sentence; None: they can."""
        if shows_node(self._proc):
            return None
        return f"{self._proc} shows a container's processes and not the node's: run the agent with hostPID: true."

    def resolve(self, pid: int, *, at: float | None = None) -> Owner | None:
        """Who a process is; a few file reads, never waiting.

        Args:
            pid: as the node counts.
            at: Unix time of the event that names it. A process younger than that has only inherited the number.

        Returns:
            None: it is gone, and was not seen within the last minute.
        """
        if pid <= 0:
            return None
        known = self._known.get(pid)
        age = self._clock.monotonic() - known.seen if known is not None else float("inf")
        if known is not None and age < _FRESH and self._older(known.started, at):
            return known.owner
        found = cgroup.process_stat(self._read(f"{pid}/stat"))
        if found is None or not self._older(found[2], at):
            return known.owner if known is not None and age < _AFTERLIFE and self._older(known.started, at) else None
        return self._look(pid, *found, known)

    def _look(self, pid: int, name: str, state: str, started: int, known: _Known | None) -> Owner:
        before = known.owner if known is not None and known.started == started else None
        pod_uid, pod = self._placed(pid, before)
        owner = Owner(
            pid=pid,
            name=name,
            state=state,
            state_since=before.state_since if before and before.state == state else self._clock.now(),
            pod_uid=pod_uid,
            pod=pod,
        )
        self._remember(pid, _Known(owner, started, self._clock.monotonic()))
        return owner

    def _placed(self, pid: int, before: Owner | None) -> tuple[str | None, PodRef | None]:
        if before is not None and before.pod is not None:
            return before.pod_uid, before.pod
        uids = cgroup.pod_uids(self._read(f"{pid}/cgroup"))
        if not uids and before is not None:  # A zombie of cgroup v1 has left its group.
            return before.pod_uid, None
        if uids and not any(uid in self._pods for uid in uids):
            self._read_pods()
        for uid in uids:
            if uid in self._pods:
                return uid, self._pods[uid]
        return (uids[0] if uids else None), None

    def _read_pods(self) -> None:
        if self._clock.monotonic() - self._pods_read >= _FRESH:
            self._pods_read = self._clock.monotonic()
            self._pods = dict(self._folders())

    def _folders(self) -> Iterator[tuple[str, PodRef]]:
        try:
            with os.scandir(self._pod_logs) as entries:
                for _, entry in zip(range(_MAX_FOLDERS), entries, strict=False):
                    found = cgroup.pod_of_folder(entry.name)
                    if found is not None:
                        yield found
        except OSError:
            return

    def _remember(self, pid: int, known: _Known) -> None:
        self._known.pop(pid, None)
        while len(self._known) >= _REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[pid] = known

    def _older(self, started: int, at: float | None) -> bool:
        """Whether a process that started so many ticks after boot was there at that Unix time."""
        born = self._booted_at + started / os.sysconf("SC_CLK_TCK")
        return at is None or born <= at + _CLOCK_SKEW

    def _read(self, name: str) -> str:
        return _read(self._proc / name)


def shows_node(proc: Path) -> bool:
    """Whether a procfs shows the node's own processes.

    The second process of a node is kthreadd; in a container's own process namespace it is something else.
    """
    found = cgroup.process_stat(_read(proc / "2/stat"))
    if found is not None and found[0] == "kthreadd":
        return True
    try:
        return str((proc / "self/ns/pid").readlink()) == _INITIAL_PID_NAMESPACE
    except OSError:
        return False


def _read(path: Path) -> str:
    """The beginning of a file; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
