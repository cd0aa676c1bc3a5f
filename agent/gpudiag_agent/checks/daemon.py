"""A daemon over time: since when it is not there, and how often it started. Pure; shared by the checks of services."""

from collections import deque

from gpudiag_agent.host.facts import Daemon, HostFacts

RESTARTS, WITHIN = 3, 600.0
"""That many restarts in so many seconds are flapping (NVSentinel)."""
ABSENT_SECONDS = 60.0
"""A restart takes seconds."""
BOOT_SECONDS = 300.0
"""After boot nothing is called missing for so long (NVSentinel)."""


class DaemonWatch:
    """Follows one daemon.

    Args:
        name: as :attr:`HostFacts.daemons` calls it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._who: tuple[int, int] | None = None
        self._task: object = None
        """What the process that runs was first seen with."""
        self._starts: deque[float] = deque(maxlen=2 * RESTARTS)
        self.seen = False
        """Whether it has run outside a pod: then it is a service of the node."""
        self.absent_since: float | None = None
        """Unix time since when it is needed and does not run; None: it does, or nobody could tell."""

    def observe(self, host: HostFacts, at: float, *, needed: bool, task: object = None) -> None:
        """Take what the host showed at that Unix time.

        Args:
            host: with the daemons that run.
            at: when.
            needed: whether it has anything to do: it starts after the driver, and may start after its configuration.
            task: what it is configured for; a start for another task than the one before is no restart.
        """
        if host.daemons is None:
            self.absent_since = None
            return
        daemon = host.daemons.get(self._name)
        if daemon is None:
            self.absent_since = (self.absent_since or at) if needed else None
            return
        self.absent_since = None
        self._started(daemon, at, task)

    def _started(self, daemon: Daemon, at: float, task: object) -> None:
        who = (daemon.pid, daemon.started)
        if daemon.in_pod or who == self._who:
            return
        if task != self._task:
            self._starts.clear()
        elif self.seen:
            self._starts.append(at)
        # The task at its start: a configuration is written first, and the process that runs is ended after that.
        self.seen, self._who, self._task = True, who, task

    def missing(self, host: HostFacts, now: float) -> bool:
        """Whether it is away for longer than a restart or a boot takes."""
        if self.absent_since is None or now - self.absent_since < ABSENT_SECONDS:
            return False
        return host.uptime_seconds is None or host.uptime_seconds >= BOOT_SECONDS

    def restarts(self, now: float) -> int:
        """How often it was started anew in the last 10 minutes, as far as looks every interval can tell."""
        return sum(1 for at in self._starts if now - at < WITHIN)
