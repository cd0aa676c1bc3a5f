"""Compiles the stand-in, once for each state of its sources."""

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from gpudiag_cli.errors import CommandError

SONAME = "libnvidia-ml.so.1"
"""What pynvml loads."""

_SOURCES = Path(__file__).parent
_OPTIONS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", f"-Wl,-soname,{SONAME}")
_SECONDS = 180.0
"""zig's first run compiles a part of the C library: 16 s on two cores (measured)."""


class BuildError(CommandError):
    """The stand-in could not be compiled."""


def build(directory: Path) -> Path:
    """Compile the stand-in, unless this version of it was compiled there before.

    Args:
        directory: a cache; it is created.

    Returns:
        The folder in it that holds ``libnvidia-ml.so.1``, for ``LD_LIBRARY_PATH``.

    Raises:
        BuildError: there is no compiler, or it failed.
    """
    sources = sorted((*_SOURCES.glob("*.c"), *_SOURCES.glob("*.h")))
    digest = hashlib.sha256(" ".join((*_OPTIONS, platform.machine())).encode())
    for source in sources:
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    folder = directory / digest.hexdigest()[:16]
    if not (folder / SONAME).exists():
        compile_library([source for source in sources if source.suffix == ".c"], folder)
    return folder


def compile_library(sources: Iterable[Path], folder: Path) -> None:
    """Compile C files to ``folder/libnvidia-ml.so.1``; two processes may do so at the same time.

    Raises:
        BuildError: there is no compiler, or it failed.
    """
    compiler = find_compiler()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch, SONAME)
            command: list[str | Path] = [*compiler, *_OPTIONS, "-o", made, *sources]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
            if done.returncode:
                raise BuildError(f"{compiler[0]} could not compile the NVML stand-in:\n{done.stderr[-2000:]}")
            # Complete or absent: whoever finds the file may load it.
            made.replace(folder / SONAME)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"The NVML stand-in could not be compiled into {folder}: {error}.") from None


def find_compiler() -> list[str]:
    """The command of a C compiler: ``$CC``, cc, gcc, clang, or the one in the ziglang package.

    Raises:
        BuildError: there is none.
    """
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        found = shutil.which(name) if name else None
        if found:
            return [found]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    raise BuildError("The NVML stand-in needs a C compiler: install one (cc), or `pip install ziglang`.")
