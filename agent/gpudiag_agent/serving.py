"""How the agent's HTTP application meets the network: plain or TLS, and a port of its own for the kubelet's probes.

The probes have a port because the kubelet must be answered before there is a certificate, and shows none of its own
under mutual TLS. It tells whether the agent lives and is ready, and nothing else.
"""

import asyncio
import socket
from collections.abc import Coroutine

from aiohttp import web

from gpudiag_agent import listening, patience
from gpudiag_agent.clock import Clock
from gpudiag_agent.options import Options
from gpudiag_agent.tls.certificates import Certificates
from gpudiag_agent.tls.listener import MOST_CONNECTIONS, Listener

_MOST_PROBES = 16
"""Connections to the port for probes; kubelets of all versions have one or two."""


class Serving:
    """Listens for an application.

    Args:
        options: ``tls_cert_dir``, ``tls_client_auth``, ``host`` and ``health_port``.
        clock: for waits.
    """

    def __init__(self, options: Options, *, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self.certificates: Certificates | None = None
        if options.tls_cert_dir is not None:
            mutual = options.tls_client_auth == "require"
            self.certificates = Certificates(options.tls_cert_dir, mutual=mutual, clock=clock)
        self.listener: Listener | None = None
        self._health: web.AppRunner | None = None
        self._plain: list[asyncio.Server] = []

    def unready(self) -> str | None:
        """Why nobody can be answered; None: they can."""
        return self.certificates.unready if self.certificates is not None else None

    async def start(
        self, runner: web.AppRunner, sock: socket.socket, probes: web.Application
    ) -> list[Coroutine[None, None, None]]:
        """Begin to listen; gives what must run until the end.

        Args:
            runner: set up, of the whole application.
            sock: where it is served.
            probes: served on ``health_port``.

        Raises:
            ListenError: that port cannot be had.
        """
        if self._options.health_port:
            self._health = web.AppRunner(probes, access_log=None, keepalive_timeout=10, **patience.NO_BODIES)
            await self._health.setup()
            await self._serve(self._health, self._health_socket(), most=_MOST_PROBES)
        if (certificates := self.certificates) is None:
            await self._serve(runner, sock, most=MOST_CONNECTIONS)
            return []
        server = runner.server
        assert server is not None, "the runner is set up"
        self.listener = Listener(
            sock,
            protocols=lambda: patience.Guard(server()),
            connections=lambda: server.connections,
            context=lambda: certificates.context,
            clock=self._clock,
        )
        return [self.listener.run(), certificates.watch()]

    async def close(self) -> None:
        """Take no plain connection any more, and answer no probe."""
        for server in self._plain:
            server.close()
        if self._health is not None:
            await self._health.cleanup()

    async def _serve(self, runner: web.AppRunner, sock: socket.socket, *, most: int) -> None:
        """In plain HTTP."""
        assert runner.server is not None, "the runner is set up"
        protocols = patience.guarded(runner.server, most=most)
        self._plain.append(await asyncio.get_running_loop().create_server(protocols, sock=sock))

    def _health_socket(self) -> socket.socket:
        host, port = self._options.host, self._options.health_port
        try:
            return listening.listen(host, port)
        except OSError as error:
            where = f"--host {host or '(all)'} --health-port {port}"
            raise listening.ListenError(f"cannot listen on {where}: {error.strerror or error}") from error
