"""Free TCP ports on loopback that stay ours, also while the server behind one is down.

The usual way, binding port 0, gives a port of the range from which the kernel takes the source ports of outgoing
connections. In an outage test that bites: while the API server is down another program's connection may take its
port, and a client that retries long enough even connects to itself. So ports are drawn from below that range.
"""

import random
import socket
from collections.abc import Set as AbstractSet
from pathlib import Path

LOWEST = 20_000
LOOPBACK = "127.0.0.1"
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port(taken: AbstractSet[int] = frozenset()) -> int:
    """A port on 127.0.0.1 that nobody listens on now. Another may still take it first: be ready to try again."""
    candidates = range(LOWEST, max(_first_ephemeral(), LOWEST + 1_000))
    while True:
        port = random.choice(candidates)  # noqa: S311 (spreads processes over ports, keeps no secret)
        if port not in taken and _is_free(port):
            return port


def free_ports(count: int) -> list[int]:
    """So many different free ports."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port(ports))
    return sorted(ports)


def _first_ephemeral() -> int:
    try:
        return int(_EPHEMERAL.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Like the servers themselves do: a port whose last connections linger in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
