"""What a release needs to know: that its tag fits the version, and what the changelog says of it.

``tools/release.py v0.1.0`` prints the notes; it fails, and says what to do, when the tag or the changelog does not fit.
"""

import argparse
import re
import sys
from pathlib import Path

from gpudiag_api.version import __version__

CHANGELOG = Path(__file__).resolve().parent.parent / "CHANGELOG.md"


def notes(tag: str, changelog: str, version: str = __version__) -> str:
    """The section of the changelog for a tag.

    Args:
        tag: ``v`` and the version.
        changelog: the whole file.
        version: of the distribution.

    Raises:
        ValueError: the tag is of another version, or the changelog has no section of its own for it.
    """
    if tag != f"v{version}":
        raise ValueError(
            f"the tag {tag} does not fit version {version}: change api/gpudiag_api/version.py, or tag v{version}"
        )
    section = re.search(
        rf"^## {re.escape(version)} - \d{{4}}-\d\d-\d\d\n(.*?)(?=^## |\Z)", changelog, re.DOTALL | re.MULTILINE
    )
    if section is None or not section[1].strip():
        raise ValueError(f"CHANGELOG.md has nothing under '## {version} - YYYY-MM-DD': rename its section Unreleased")
    return section[1].strip() + "\n"


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tag", help="such as v0.1.0")
    try:
        print(notes(parser.parse_args().tag, CHANGELOG.read_text()), end="")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
