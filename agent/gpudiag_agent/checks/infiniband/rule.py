"""Ports of InfiniBand and RoCE adapters, each against its own past; error counters by rate.

| what, per port | finding | cleared by |
|---|---|---|
| was active, is not for ``infiniband.downSeconds`` (240) and two looks | PortDown | it is active; a week without |
| down more than ``dropsPerHour`` (2) times in an hour | LinkFlapping, Warning | no such hour for two hours |
| active below its own rate of the last week for 5 minutes | RateReduced, Warning | that rate; a week without |
| active below most ports of the same kind for 5 minutes | SlowerThanPeers, Info | their rate |
| more than ``symbolErrorsPerHour`` (120) | SymbolErrors, Warning | no such hour for two hours |
| more than ``recoveriesPerMinute`` (5) | LinkRecoveries, Warning | no such minute for 15 minutes |
| more than ``faultsPerHour`` (0) integrity errors and buffer overruns | LinkFaults, Warning | an hour without |
| more than ``slowRestartsPerSecond`` (10) over a minute | Congestion, Info | no such minute for 15 minutes |
| fewer than ``activePorts`` (not set) active at ``lowestGbps`` (not set) | FewerPorts, Critical | as many |

PortDown is Critical where the port carries jobs between nodes (InfiniBand, or Ethernet of 200 Gb/s and more), Warning
elsewhere, Info where somebody switched it off. A port that was never active is not cabled, and no fault. Counters say
nothing by what they hold, only by how they grow. One ``link_downed`` is a switch that was restarted. Virtual functions
repeat what the physical one says and are not judged.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from gpudiag_agent.checks.base import Problem, View, Witness, evidence
from gpudiag_agent.checks.counters import HOUR, MINUTE, Counters
from gpudiag_agent.checks.infiniband.baseline import Known, PortBaseline
from gpudiag_agent.host.facts import Port
from gpudiag_agent.sample import Sample
from gpudiag_agent.thresholds import InfiniBandLimits
from gpudiag_api.vocabulary import Action, Blame, Check, Severity
from gpudiag_api.wire import Evidence, Subject

_SETTLED_SECONDS = 300.0
_CALM = 15 * MINUTE
_DROPS = "drops"
"""Our own count, beside the adapter's ``link_downed``, which some lack; 8 bits of it stand still when full."""
_PEERS = 4
"""Ports of one kind that are enough to say what is usual."""


class _Rule(msgspec.Struct, frozen=True):
    reason: str
    names: tuple[str, ...]
    window: float
    within: float
    limit: str
    factor: int
    severity: Severity
    words: str


_RULES = (
    _Rule("LinkFlapping", (_DROPS, "link_downed"), HOUR, 2 * HOUR, "drops_per_hour", 1, Severity.WARNING, "went down"),
    _Rule(
        "SymbolErrors", ("symbol_error",), HOUR, 2 * HOUR, "symbol_errors_per_hour", 1, Severity.WARNING,
        "read wrong symbols",
    ),
    _Rule(
        "LinkRecoveries", ("link_error_recovery",), MINUTE, _CALM, "recoveries_per_minute", 1, Severity.WARNING,
        "recovered from errors",
    ),
    _Rule(
        "LinkFaults", ("local_link_integrity_errors", "excessive_buffer_overrun_errors"), HOUR, HOUR,
        "faults_per_hour", 1, Severity.WARNING, "had faults of its link",
    ),
    _Rule(
        "Congestion", ("roce_slow_restart",), MINUTE, _CALM, "slow_restarts_per_second", 60, Severity.INFO,
        "slowed down for a crowded network",
    ),
)  # fmt: skip


class InfiniBand:
    """See the module.

    Args:
        counters: shared by all checks.
        baseline: what the ports have been able to do.
    """

    name = Check.INFINIBAND
    needs = Witness.PORTS

    def __init__(self, counters: Counters, baseline: PortBaseline) -> None:
        self._counters = counters
        self._baseline = baseline
        self._taken_at: float | None = None
        self._slower: dict[str, float] = {}
        """Port → since when it is slower than most of its kind."""

    def observe(self, sample: Sample) -> None:
        """Follow states and counters."""
        host = sample.host
        if host.ports is None or host.taken_at is None or host.taken_at == self._taken_at:
            return
        at = self._taken_at = host.taken_at
        self._baseline.take(host.ports, at)
        for port in host.ports:
            known = self._baseline.of(port.key)
            if known is not None:
                self._counters.observe(_key(port), {**port.counters, _DROPS: known.drops}, at)
        slower = {port.key for port in host.ports if _slower(port, host.ports)}
        self._slower = {key: self._slower.get(key, at) for key in slower}

    def judge(self, view: View) -> Iterable[Problem]:
        """Ports that should do better."""
        limits = view.thresholds.infiniband
        yield from self._fewer(view, limits)
        for port in view.host.ports or ():
            known = self._baseline.of(port.key)
            if known is None or not port.state:
                continue
            if known.down_since is not None:
                if known.looks > 1 and view.now - known.down_since >= limits.down_seconds:
                    yield _down(port, known, limits)
            else:
                yield from self._rate(port, known, view)
            yield from self._errors(port, limits)

    def _rate(self, port: Port, known: Known, view: View) -> Iterator[Problem]:
        if port.rate_gbps is None:
            return
        usual = _usual(port, view.host.ports or ()) or 0.0
        if known.slow_since is not None and view.now - known.slow_since >= _SETTLED_SECONDS:
            yield _slow(port, "RateReduced", port.rate_gbps, known.rate_gbps)
        elif view.now - self._slower.get(port.key, view.now) >= _SETTLED_SECONDS:
            yield _slow(port, "SlowerThanPeers", port.rate_gbps, usual)

    def _fewer(self, view: View, limits: InfiniBandLimits) -> Iterator[Problem]:
        booting = view.host.uptime_seconds is not None and view.host.uptime_seconds < _SETTLED_SECONDS
        if limits.active_ports is None or view.host.ports is None or booting:
            return
        good = sum(1 for port in view.host.ports if self._counts(port, view.now, limits))
        if good < limits.active_ports:
            yield _fewer_ports(good, limits)

    def _counts(self, port: Port, now: float, limits: InfiniBandLimits) -> bool:
        if port.active:
            return (port.rate_gbps or 0) >= (limits.lowest_gbps or 0)
        known = self._baseline.of(port.key)
        return known is not None and known.down_since is not None and now - known.down_since < limits.down_seconds

    def _errors(self, port: Port, limits: InfiniBandLimits) -> Iterator[Problem]:
        for rule in _RULES:
            limit = getattr(limits, rule.limit) * rule.factor
            grown = [
                self._counters.worst(_key(port), name, rule.window, within_seconds=rule.within) or 0
                for name in rule.names
            ]
            # Our count of drops and the adapter's are of the same events; the others add up.
            count = max(grown) if _DROPS in rule.names else sum(grown)
            if count > limit:
                yield _noisy(port, rule, count, limit)


def _key(port: Port) -> str:
    return f"ib/{port.key}"


def _usual(port: Port, ports: Iterable[Port]) -> float | None:
    """The rate of most active ports of its kind; None: there is none."""
    rates = Counter(
        other.rate_gbps
        for other in ports
        if other.active and other.rate_gbps and (other.board, other.link_layer) == (port.board, port.link_layer)
    )
    if rates.total() < _PEERS:
        return None
    rate, times = rates.most_common(1)[0]
    return rate if times * 2 > rates.total() else None


def _slower(port: Port, ports: tuple[Port, ...]) -> bool:
    usual = _usual(port, ports)
    return port.active and usual is not None and port.rate_gbps is not None and port.rate_gbps < usual


def _down(port: Port, known: Known, limits: InfiniBandLimits) -> Problem:
    off = port.physical_state == "Disabled"
    critical = port.carries_jobs(known.rate_gbps)
    severity = Severity.INFO if off else Severity.CRITICAL if critical else Severity.WARNING
    if off:
        why = "somebody switched it off"
    elif port.physical_state == "LinkUp":
        why = "the link is up and no subnet manager has activated it"
    else:
        why = "check cable, transceiver and the switch's port"
    return _problem(
        port,
        "PortDown",
        severity,
        Action.NONE if off else Action.RESEAT_OR_CHECK_LINK,
        f"has been down for over {limits.down_seconds} s and had been up: {why}.",
        evidence("state", port.state, threshold="ACTIVE"),
        evidence("physicalState", port.physical_state or "unknown", threshold="LinkUp"),
    )


def _slow(port: Port, reason: str, rate: float, wanted: float) -> Problem:
    own = reason == "RateReduced"
    against = "and had run at" if own else "and most ports of its kind at"
    return _problem(
        port,
        reason,
        Severity.WARNING if own else Severity.INFO,
        Action.RESEAT_OR_CHECK_LINK if own else Action.NONE,
        f"runs at {rate:g} Gb/s, {against} {wanted:g}.",
        evidence("rate", f"{rate:g}", threshold=f"{wanted:g}", unit="Gb/s"),
    )


def _fewer_ports(good: int, limits: InfiniBandLimits) -> Problem:
    fast = f" at {limits.lowest_gbps} Gb/s or more" if limits.lowest_gbps else ""
    return Problem(
        check=Check.INFINIBAND,
        reason="FewerPorts",
        severity=Severity.CRITICAL,
        blame=Blame.ENVIRONMENT,
        action=Action.RESEAT_OR_CHECK_LINK,
        message=f"{good} InfiniBand or RoCE ports are active{fast}, this node should have {limits.active_ports}.",
        evidence=(evidence("activePorts", good, threshold=limits.active_ports, unit="ports"),),
    )


def _noisy(port: Port, rule: _Rule, count: int, limit: int) -> Problem:
    span, unit = ("a minute", "1/min") if rule.window == MINUTE else ("an hour", "1/h")
    return _problem(
        port,
        rule.reason,
        rule.severity,
        Action.NONE if rule.severity is Severity.INFO else Action.RESEAT_OR_CHECK_LINK,
        f"{rule.words} {count} times within {span}.",
        evidence("errors", count, threshold=limit, unit=unit),
    )


def _problem(port: Port, reason: str, severity: Severity, action: Action, words: str, *shown: Evidence) -> Problem:
    layer = port.link_layer or "InfiniBand"
    return Problem(
        check=Check.INFINIBAND,
        reason=reason,
        severity=severity,
        blame=Blame.ENVIRONMENT,
        action=action,
        message=f"{layer} port {port.name} ({port.pci}) {words}",
        subject=Subject(link=port.name),
        evidence=(*shown, evidence("adapter", port.pci)),
    )
