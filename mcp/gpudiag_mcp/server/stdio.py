"""The stdio transport: one client, the user's own kubeconfig, nothing to authenticate."""

from gpudiag_mcp.options import Options
from gpudiag_mcp.server.app import build_server
from gpudiag_mcp.service import Service
from gpudiag_mcp.web.serving import Server, listen, metrics_page, serving


async def serve_stdio(service: Service, options: Options) -> None:
    """Serve until the client closes standard input. The process is the session.

    Raises:
        CannotStartError: the address of the metrics cannot be used.
    """
    at = listen(*options.metrics_addr) if options.metrics_addr is not None else None
    metrics = service.metrics
    began = service.monotonic()
    server = build_server(service)
    async with service.running(), serving(Server(metrics_page(metrics.registry)) if at else None, at):
        with metrics.sessions.track_inprogress():
            try:
                await server.run_stdio_async()
            finally:
                metrics.session_duration.observe(service.monotonic() - began)
