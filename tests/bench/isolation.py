"""A network namespace of one's own, so that thousands of connections disturb nobody and nobody disturbs them.

Each closed connection would otherwise stay in the machine's connection tracking for two minutes. Without root the
machine's own loopback has to do; the JSON says which it was.
"""

import ctypes
import os
import subprocess
import sys

_CLONE_NEWNET = 0x40000000  # sched.h


def enter() -> str:
    """Move this process, before it has threads or sockets, and its children into a namespace; gives where it is."""
    problem = "this needs root"
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNET) == 0:
            try:
                subprocess.run(["ip", "link", "set", "lo", "up"], check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError) as error:
                sys.exit(f"error: the new network namespace has no loopback: {error}. Install iproute2, or be no root.")
            return "network namespace of its own"
        problem = os.strerror(ctypes.get_errno())
    print(f"NOTE: no network namespace of its own ({problem}): measured on the machine's loopback.", file=sys.stderr)
    return "the machine's loopback"
