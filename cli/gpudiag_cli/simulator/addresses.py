"""An address of its own for every agent: 127.x.y.z, of which Linux has 16 million without any set-up.

A fleet takes one second octet, 127.<network>.0.0/16, so that two fleets on one machine, say of two test runs, do not
meet. Sockets are bound before anyone is told the addresses.
"""

import random
import resource
import socket
from collections.abc import Sequence

from gpudiag_cli.errors import CommandError

LARGEST_FLEET = 60_000
_PER_OCTET = 250
_BACKLOG = 64
_ATTEMPTS = 20
# Below lie the networks of other programs' habits (127.0.0.x, 127.0.1.1); above nothing is special.
_NETWORKS = range(16, 250)


def address(network: int, index: int) -> str:
    """The address of agent number ``index`` (from 0) in a network: 127.<network>.y.z, z from 1 to 250."""
    return f"127.{network}.{index // _PER_OCTET}.{index % _PER_OCTET + 1}"


def draw_network() -> int:
    """A second octet by chance."""
    return random.choice(_NETWORKS)  # noqa: S311 (keeps fleets apart, keeps no secret)


def listen(where: str, port: int) -> socket.socket:
    """A bound, listening, non-blocking socket.

    Raises:
        OSError: the address is taken, or there are no more file descriptors.
    """
    bound = socket.socket()
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.settimeout(0)
        bound.bind((where, port))
        bound.listen(_BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound


def listen_all(count: int, port: int, network: int | None = None) -> list[socket.socket]:
    """One listening socket for each agent; in a network that is free where none is given.

    Raises:
        CommandError: no network is free, or the one given is not.
    """
    if count > LARGEST_FLEET:
        raise CommandError(f"A fleet has at most {LARGEST_FLEET:,} nodes, not {count:,}.")
    problem: OSError | None = None
    for _ in range(1 if network is not None else _ATTEMPTS):
        chosen = draw_network() if network is None else network
        try:
            return _listen_network([address(chosen, index) for index in range(count)], port)
        except OSError as error:
            problem = error
    raise CommandError(
        f"The simulated agents cannot listen on port {port} of their loopback addresses: {problem}. "
        "Stop what listens there, or choose another port with --port."
    )


def _listen_network(addresses: Sequence[str], port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for where in addresses:
            sockets.append(listen(where, port))  # noqa: PERF401 (those opened before a failure have to be closed)
    except OSError:
        for opened in sockets:
            opened.close()
        raise
    return sockets


def allow_open_files(wanted: int) -> None:
    """Raise the soft limit on open files, often 1,024, to what a fleet needs.

    Raises:
        CommandError: the hard limit is lower; the message says how to raise it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise CommandError(
            f"So many agents need {wanted:,} open files and this shell allows {hard:,}. "
            f"Raise the limit (ulimit -Hn {wanted}, as root) or simulate fewer nodes."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
