"""How the agent's HTTP application meets the network: plain or TLS, and a port of its own for the kubelet's probes.

The probes have a port because the kubelet must be answered before there is a certificate, and shows none of its own
under mutual TLS. It tells whether the agent lives and is ready, and nothing else.
"""

import socket
from collections.abc import Coroutine

from aiohttp import web

from gpudiag_agent import listening
from gpudiag_agent.clock import Clock
from gpudiag_agent.options import Options
from gpudiag_agent.tls.certificates import Certificates
from gpudiag_agent.tls.listener import Listener


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
            self._health = web.AppRunner(probes, access_log=None, keepalive_timeout=10)
            await self._health.setup()
            await web.SockSite(self._health, self._health_socket()).start()
        if (certificates := self.certificates) is None:
            await web.SockSite(runner, sock).start()
            return []
        server = runner.server
        assert server is not None, "the runner is set up"
        self.listener = Listener(
            sock,
            protocols=server,
            connections=lambda: server.connections,
            context=lambda: certificates.context,
            clock=self._clock,
        )
        return [self.listener.run(), certificates.watch()]

    async def close(self) -> None:
        """Answer no probe any more."""
        if self._health is not None:
            await self._health.cleanup()

    def _health_socket(self) -> socket.socket:
        host, port = self._options.host, self._options.health_port
        try:
            return listening.listen(host, port)
        except OSError as error:
            where = f"--host {host or '(all)'} --health-port {port}"
            raise listening.ListenError(f"cannot listen on {where}: {error.strerror or error}") from error
