"""Keep what a release installs, so that later ones are tested against it: its chart, in which its CRDs are.

Run once for each release, before its tag. What is kept is never changed afterwards: people run it.
"""

import gzip
import io
import sys
import tarfile
from pathlib import Path

from gpudiag_api.version import __version__

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "manifests" / "chart" / "gpudiag"
RELEASES = ROOT / "tests" / "fixtures" / "releases"


def archive(folder: Path) -> bytes:
    """A chart as ``helm package`` makes it, the same bytes whoever makes it and whenever."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                entry = tarfile.TarInfo(f"{folder.name}/{path.relative_to(folder).as_posix()}")
                entry.size, entry.mode = path.stat().st_size, 0o644
                with path.open("rb") as file:
                    tar.addfile(entry, file)
    return gzip.compress(plain.getvalue(), mtime=0)


def main() -> int:
    """Run the command."""
    target = RELEASES / __version__ / f"gpudiag-{__version__}.tgz"
    if target.exists():
        print(f"{target.relative_to(ROOT)} is there already: a release is frozen once", file=sys.stderr)
        return 1
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(archive(CHART))
    print(f"wrote {target.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
