"""Copy the source roots that an image needs into its environment, with their commands, and nothing else.

One distribution holds all parts; an image gets only its own, so the agent carries no operator code. The
third-party packages are installed before, from the pinned requirements.
"""

import argparse
import json
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("api", "agent", "operator", "mcp")


def install(parts: list[str], *, packages: Path, scripts: Path, python: str) -> None:
    """Copy the packages of these parts, and write the commands that pyproject.toml gives them.

    Args:
        parts: some of ``PARTS``.
        packages: folder of the environment's packages.
        scripts: folder of its commands.
        python: interpreter in the first line of a command: a path without spaces.
    """
    for part in parts:
        package = f"gpudiag_{part}"
        shutil.copytree(ROOT / part / package, packages / package, ignore=shutil.ignore_patterns("__pycache__"))
        if (ROOT / part / package / "__main__.py").exists():
            # `kubectl debug node/NODE --image … -- gpudiag-agent check` runs a command, not a module.
            command = scripts / f"gpudiag-{part}"
            text = f"#!{python}\nimport sys\n\nfrom {package}.__main__ import main\n\nsys.exit(main())\n"
            command.write_text(text, encoding="utf-8")
            command.chmod(0o755)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="interpreter of the environment to install into")
    parser.add_argument("parts", nargs="+", choices=PARTS)
    arguments = parser.parse_args()
    query = "import json, sysconfig; print(json.dumps([sysconfig.get_path(name) for name in ('purelib', 'scripts')]))"
    found = subprocess.run([arguments.python, "-c", query], check=True, capture_output=True, text=True)
    packages, scripts = map(Path, json.loads(found.stdout))
    install(arguments.parts, packages=packages, scripts=scripts, python=arguments.python)


if __name__ == "__main__":
    main()
