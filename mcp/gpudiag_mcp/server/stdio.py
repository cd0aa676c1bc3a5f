"""The stdio transport: one client, the user's own kubeconfig, nothing to authenticate."""

from gpudiag_mcp.server.app import build_server
from gpudiag_mcp.service import Service


async def serve_stdio(service: Service) -> None:
    """Serve until the client closes standard input."""
    server = build_server(service)
    async with service.running():
        await server.run_stdio_async()
