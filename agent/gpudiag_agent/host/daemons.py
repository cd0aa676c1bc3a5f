"""Fabric Manager and IMEX among the node's processes.

A node has thousands of processes: those that were found are looked at again by their pid, and the others are gone
through only when one is missing, rarely where the node has no need of it and never had it.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

from gpudiag_agent.attribution import cgroup
from gpudiag_agent.attribution.procfs import shows_node
from gpudiag_agent.clock import Clock
from gpudiag_agent.host import files
from gpudiag_agent.host.facts import FABRIC_MANAGER, IMEX, Daemon

_COMM = 15
"""Characters of a process's name that the kernel keeps (TASK_COMM_LEN - 1): ``nv-fabricmanager`` has 16."""
_NAMES = {name[:_COMM]: name for name in (FABRIC_MANAGER, IMEX)}
_WANTED, _UNWANTED = 30.0, 300.0
"""Seconds between two looks through all processes."""
_MAX_PROCESSES = 65536
_STAT, _CGROUP = 1024, 16384


class Daemons:
    """Remembers who was found.

    Args:
        proc: a procfs of the node's own process ids.
        clock: for how long ago the processes were gone through.
    """

    def __init__(self, proc: Path, *, clock: Clock) -> None:
        self._proc = proc
        self._clock = clock
        self._known: dict[str, Daemon] = {}
        self._missed: set[str] = set()
        """Those that have run: they may come back at any moment."""
        self._searched = float("-inf")

    def look(self, *, wanted: Collection[str] = ()) -> Mapping[str, Daemon] | None:
        """Who runs now; None: the node's processes cannot be seen.

        Args:
            wanted: names of those that the node needs, as far as can be told: one that starts is then seen sooner.
        """
        if not shows_node(self._proc):
            return None
        alive = {name: daemon for name, daemon in self._known.items() if self._is(name, daemon)}
        ended = len(alive) < len(self._known)
        self._known = alive
        urgent = ({*wanted} | self._missed) - alive.keys()
        since = self._clock.monotonic() - self._searched
        if ended or (len(alive) < len(_NAMES) and since >= (_WANTED if urgent else _UNWANTED)):
            self._search()
        return dict(self._known)

    def _is(self, name: str, daemon: Daemon) -> bool:
        found = cgroup.process_stat(files.read(self._proc / str(daemon.pid) / "stat", _STAT) or "")
        return found is not None and found[0] == name[:_COMM] and found[2] == daemon.started and found[1] != "Z"

    def _search(self) -> None:
        self._searched = self._clock.monotonic()
        found: dict[str, Daemon] = {}
        for pid in files.names(self._proc, _MAX_PROCESSES) or ():
            if not (pid.isascii() and pid.isdigit()):
                continue
            name = _NAMES.get(files.line(self._proc / pid / "comm", 32))
            daemon = self._daemon(pid) if name is not None else None
            if name is not None and daemon is not None and _better(daemon, found.get(name)):
                found[name] = daemon
        self._known = found
        self._missed |= found.keys()

    def _daemon(self, pid: str) -> Daemon | None:
        stat = cgroup.process_stat(files.read(self._proc / pid / "stat", _STAT) or "")
        if stat is None or stat[1] == "Z":
            return None
        in_pod = bool(cgroup.pod_uids(files.read(self._proc / pid / "cgroup", _CGROUP) or ""))
        return Daemon(pid=int(pid), started=stat[2], in_pod=in_pod)


def _better(one: Daemon, other: Daemon | None) -> bool:
    """The node's own before a pod's; of several (it has forked) the oldest."""
    return other is None or (one.in_pod, one.started, one.pid) < (other.in_pod, other.started, other.pid)
