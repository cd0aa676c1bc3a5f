"""The socket: all addresses of both families by default, one warning where plain HTTP leaves the machine."""

import errno
import ipaddress
import socket

_BACKLOG = 128


class ListenError(Exception):
    """A port that cannot be had; the message names the flag."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Args:
        host: an address or a name; empty: all addresses, IPv4 and IPv6 where the kernel has it.
        port: 0 takes a free one.

    Raises:
        OSError: the address is taken, or not of this machine.
    """
    if not host:
        if socket.has_dualstack_ipv6():
            try:
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG)
            except OSError as error:
                # A kernel that was built with IPv6 may have it switched off.
                if error.errno == errno.EADDRINUSE:
                    raise
        return socket.create_server(("", port), backlog=_BACKLOG)
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server((str(address[0]), port), family=family, backlog=_BACKLOG)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def url(listening: socket.socket, *, tls: bool = False) -> str:
    """Where a client finds it, for the log."""
    address, port = listening.getsockname()[:2]
    return f"http{'s' if tls else ''}://{f'[{address}]' if ':' in address else address}:{port}"
