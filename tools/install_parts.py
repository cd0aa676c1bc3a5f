"""Copy the source roots that an image needs into its environment, and nothing else.

One distribution holds all parts; an image gets only its own, so the agent carries no operator code. The
third-party packages are installed before, from the pinned requirements.
"""

import argparse
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="interpreter of the environment to install into")
    parser.add_argument("parts", nargs="+", choices=["api", "agent", "operator", "mcp"])
    arguments = parser.parse_args()
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    found = subprocess.run([arguments.python, "-c", query], check=True, capture_output=True, text=True)
    for part in arguments.parts:
        package = f"gpudiag_{part}"
        shutil.copytree(ROOT / part / package, Path(found.stdout.strip()) / package)


if __name__ == "__main__":
    main()
