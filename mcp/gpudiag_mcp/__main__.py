"""`gpudiag-mcp`: holds the command's place and says honestly that the facade is not part of this version."""

import argparse
import sys

from gpudiag_api.version import __version__


def main() -> int:
    """Answer --help and --version; anything else is refused with a sentence, exit status 1."""
    parser = argparse.ArgumentParser(
        prog="gpudiag-mcp",
        description="The MCP facade: reads and creates GPUDiagnostics for AI assistants. Not part of this version.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.parse_args()
    print(f"gpudiag-mcp {__version__}: the facade is not part of this version; use kubectl.", file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())
