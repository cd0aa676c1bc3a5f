"""The process that calls NVML: ``python -m gpudiag_agent.nvml.child``.

It greets with an empty frame once it can be asked; from then on one byte in means one frame out: ``QUICK`` for what
changes all the time, any other for everything. The greeting tells a slow start, which is the node's doing, from a slow
driver.

Small on purpose (no asyncio, no aiohttp): it is half of what the agent costs every node. It ends when its input
ends, and the kernel kills it should the agent die while it is stuck in a call.
"""

import ctypes
import os
import signal
import sys

from gpudiag_agent.nvml.frames import GREETING, QUICK, encode
from gpudiag_agent.nvml.reader import read_sample

_PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""


def main() -> None:
    """Serve samples until the input ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Ctrl-C in a terminal reaches the whole process group; the agent decides when the child ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = os.dup(sys.stdin.fileno()), os.dup(sys.stdout.fileno())
    # Libraries print: what they write to standard output must not get between the frames.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        _write(answers, GREETING)
        while request := os.read(requests, 1):
            _write(answers, encode(read_sample(full=request != QUICK)))
    except (BrokenPipeError, ConnectionResetError):
        # Nobody is left to answer to.
        return


def _write(to: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(to, left) :]


if __name__ == "__main__":
    main()
