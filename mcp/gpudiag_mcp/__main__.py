"""``gpudiag-mcp``: reads the command line, then serves on the chosen transport.

Exit status: 0 when it was asked to end, 1 when it cannot start, 2 for a wrong command line.
"""

import asyncio
import contextlib
import signal
import sys

from gpudiag_mcp import logs, options


def main() -> int:
    """Run the command; gives its exit status."""
    chosen = options.parse(sys.argv[1:])
    logs.configure(level=chosen.log_level)
    # Imported after the command line is read: --help and --version answer at once.
    from gpudiag_mcp import tracing  # noqa: PLC0415
    from gpudiag_mcp.kube.errors import AccessError  # noqa: PLC0415
    from gpudiag_mcp.server.http import serve_http  # noqa: PLC0415
    from gpudiag_mcp.server.stdio import serve_stdio  # noqa: PLC0415
    from gpudiag_mcp.service import assemble  # noqa: PLC0415

    logs.configure(level=chosen.log_level)
    service = assemble(chosen)
    if chosen.transport == "stdio":
        # The SDK reads standard input in a thread that nothing can interrupt; there is nothing to save, so just end.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        serving = serve_stdio(service, chosen)
    else:
        serving = serve_http(service, chosen)
    try:
        with tracing.exported(), contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
            asyncio.run(serving)
    except (options.CannotStartError, AccessError) as error:
        print(f"gpudiag-mcp: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
