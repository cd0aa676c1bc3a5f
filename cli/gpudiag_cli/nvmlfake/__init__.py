"""A stand-in for ``libnvidia-ml.so.1``, so that the agent's one NVML path runs on a machine without a GPU.

It stands in at the level of the library: the agent, its child process and pynvml are the real ones. ``build`` compiles
it, ``Machine`` writes the state file that says what it answers, also while it runs; ``state.c`` and ``gate.c`` have the
format, the files in ``machines/`` are examples. pynvml finds the library by ``LD_LIBRARY_PATH``, which
``Machine.environment`` sets.
"""

from gpudiag_cli.nvmlfake.library import BuildError, build
from gpudiag_cli.nvmlfake.machine import Machine, MachineError, machines

__all__ = ["BuildError", "Machine", "MachineError", "build", "machines"]
