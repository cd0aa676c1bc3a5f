"""``python -m tests.fuzz --seconds 120 kernel_log journal``: atheris on each target in turn; no target: on all of them.

Each runs in a process of its own, as atheris ends the one that it runs in. Found inputs stay in ``build/fuzz/<target>``
and are where the next run begins; one that crashes is ``build/fuzz/crash-…``. Exit status 1 when something was found.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

_FOUND = Path("build/fuzz")


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=120, help="for each target (default: 120)")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("target", nargs="*", help="default: all of them")
    options = parser.parse_args()
    if options.here:
        _fuzz(options.target[0], options.seconds)
    from tests.fuzz import targets  # noqa: PLC0415 - in the process that fuzzes they are imported under instrumentation

    names = options.target or list(targets.TARGETS)
    if unknown := set(names) - set(targets.TARGETS):
        parser.error(f"there is no target {', '.join(sorted(unknown))}; targets are {', '.join(targets.TARGETS)}")
    return max(_apart(name, options.seconds) for name in names)


def _apart(name: str, seconds: int) -> int:
    command = [sys.executable, "-m", "tests.fuzz", "--here", "--seconds", str(seconds), name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    ran = re.findall(r"#(\d+)\s+DONE.*?cov: (\d+)", done.stderr)
    if ran and done.returncode == 0:
        print(f"{name}: {int(ran[-1][0]):,} executions in {seconds} s, nothing found", flush=True)
        return 0
    print(done.stdout[-2000:], done.stderr[-6000:], f"{name}: found something, or did not run", sep="\n", flush=True)
    return 1


def _fuzz(name: str, seconds: int) -> None:
    import atheris  # type: ignore[import-untyped]  # noqa: PLC0415 - only here; a machine without it can list the targets

    with atheris.instrument_imports(include=["gpudiag_agent", "gpudiag_api"]):
        from tests.fuzz import targets  # noqa: PLC0415
    corpus = _FOUND / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(targets.seeds(name)):
        (corpus / f"seed-{number}").write_bytes(seed)
    flags = [f"-max_total_time={seconds}", "-max_len=8192", "-timeout=20", "-rss_limit_mb=2048"]
    atheris.Setup([sys.argv[0], *flags, f"-artifact_prefix={_FOUND}/", str(corpus)], targets.TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
