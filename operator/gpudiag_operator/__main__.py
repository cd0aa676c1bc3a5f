"""``gpudiag-operator``: reads its settings first, so that --help and wrong values answer at once."""

import sys

from gpudiag_operator.settings import parse


def main() -> None:
    """Run the operator until it is told to stop; exits with its status."""
    settings = parse()
    # Only now: kopf, kubernetes and aiohttp take most of a second to import.
    from gpudiag_operator.app import run  # noqa: PLC0415

    sys.exit(run(settings))


if __name__ == "__main__":
    main()
