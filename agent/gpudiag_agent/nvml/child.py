"""The process that calls NVML: ``python -m gpudiag_agent.nvml.child``. One byte in, one frame out.

Small on purpose (no asyncio, no aiohttp): it is half of what the agent costs every node. It ends when its input
ends, and the kernel kills it should the agent die while it is stuck in a call.
"""

import ctypes
import os
import signal
import sys

from gpudiag_agent.nvml.frames import encode
from gpudiag_agent.nvml.reader import read_sample

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve samples until the input ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Ctrl-C in a terminal reaches the whole process group; the agent decides when the child ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = os.dup(sys.stdin.fileno()), os.dup(sys.stdout.fileno())
    # Libraries print: what they write to standard output must not get between the frames.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    while os.read(requests, 1):
        frame = memoryview(encode(read_sample()))
        while frame:
            frame = frame[os.write(answers, frame) :]


if __name__ == "__main__":
    main()
