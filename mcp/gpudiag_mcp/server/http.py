"""The streamable HTTP transport: many clients, each with rights of its own."""

from gpudiag_mcp.options import Options
from gpudiag_mcp.service import Service


async def serve_http(service: Service, options: Options) -> None:
    """Serve until cancelled.

    Raises:
        NotImplementedError: this version has no HTTP transport.
    """
    raise NotImplementedError("--transport http is not part of this version; use --transport stdio")
