"""What each port has been able to do: what it is compared with. Survives restarts of the agent and of the node."""

from typing import Annotated

import msgspec

from gpudiag_agent.host.facts import Port

MAX_PORTS = 128
KEPT = 7 * 86_400.0
"""Seconds after which a port that did not come up again was taken out of use, and a rate that did not come back was
lowered on purpose."""

_Time = Annotated[float, msgspec.Meta(ge=0)]


class Known(msgspec.Struct, kw_only=True):
    """One port's past."""

    up_at: _Time
    """Unix time at which it was last seen active."""
    down_since: _Time | None = None
    """Unix time since when it is not; None: it is active."""
    looks: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Looks in a row in which it was not."""
    drops: Annotated[int, msgspec.Meta(ge=0)] = 0
    """How often it was seen to go down."""
    rate_gbps: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)] = 0.0
    """The highest rate of the last days."""
    rate_at: _Time = 0.0
    """Unix time at which it was last seen at that rate."""
    slow_since: _Time | None = None
    """Unix time since when it is active at a lower one; None: it is not."""


class PortBaseline:
    """Every port that was active within the last week."""

    def __init__(self) -> None:
        self._ports: dict[str, Known] = {}

    def of(self, key: str) -> Known | None:
        """A port's past; None: it was never seen active, or not for a week."""
        return self._ports.get(key)

    def take(self, ports: tuple[Port, ...], at: float) -> None:
        """Take what all ports show at that Unix time."""
        for port in ports:
            if port.active:
                self._up(port, at)
            elif port.state:
                self._down(port, at)
        self._ports = {key: known for key, known in self._ports.items() if at - known.up_at < KEPT}

    def _up(self, port: Port, at: float) -> None:
        known = self._ports.get(port.key)
        if known is None:
            if len(self._ports) >= MAX_PORTS:
                return
            known = self._ports[port.key] = Known(up_at=at)
        known.up_at, known.down_since, known.looks = at, None, 0
        rate = port.rate_gbps
        if rate is None:
            return
        if rate >= known.rate_gbps or at - known.rate_at >= KEPT:
            known.rate_gbps, known.rate_at, known.slow_since = rate, at, None
        elif known.slow_since is None:
            known.slow_since = at

    def _down(self, port: Port, at: float) -> None:
        known = self._ports.get(port.key)
        if known is not None:
            known.drops += known.looks == 0
            known.looks += 1
            known.slow_since = None
            if known.down_since is None:
                known.down_since = at

    def dump(self) -> object:
        """All of it as builtins, for the state folder."""
        return msgspec.to_builtins(self._ports)

    def load(self, stored: object) -> None:
        """Take what :meth:`dump` gave.

        Raises:
            msgspec.ValidationError: it is something else; nothing was taken.
        """
        found = msgspec.convert(stored, dict[str, Known])
        self._ports = dict(list(found.items())[:MAX_PORTS])
