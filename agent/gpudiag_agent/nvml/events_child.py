"""The process that waits for NVML's events: ``python -m gpudiag_agent.nvml.events_child``.

It writes a line of JSON per XID that the driver reports, and an empty line once it listens. It ends when its input
ends, when no GPU can be listened to, and with the agent.

Unlike the reader it keeps the library initialised, and so every ``/dev/nvidia*`` open: events come to whoever waits.
"""

import ctypes
import os
import select
import signal
import sys
from typing import Any

import msgspec
import pynvml

from gpudiag_agent.nvml import values
from gpudiag_agent.nvml.call import TIMEOUT, attempt
from gpudiag_agent.nvml.event import NVMLEvent

_PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""
_WAIT_MILLISECONDS = 1000
"""How long it may take to see that the input has ended."""
_MAX_GPUS = 64


def main() -> int:
    """Listen until the input ends; 1 when there is nothing to listen to (any more)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lines = os.dup(sys.stdout.fileno())
    # Libraries print: what they write to standard output must not get between the lines.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _, code = attempt("nvmlInit")
    if code:
        return 1
    events, code = attempt("nvmlEventSetCreate")
    if code or not _register(events):
        return 1
    try:
        os.write(lines, b"\n")
        return _listen(events, lines)
    except (BrokenPipeError, ConnectionResetError):
        # Nobody is left to tell.
        return 0


def _register(events: Any) -> int:
    """Listen to every GPU that lets us; gives how many."""
    count, code = attempt("nvmlDeviceGetCount")
    registered = 0
    for index in range(0 if code else min(count, _MAX_GPUS)):
        handle, code = attempt("nvmlDeviceGetHandleByIndex", index)
        if not code:
            _, code = attempt("nvmlDeviceRegisterEvents", handle, pynvml.nvmlEventTypeXidCriticalError, events)
            registered += not code
    return registered


def _listen(events: Any, lines: int) -> int:
    while not select.select([sys.stdin], [], [], 0)[0]:
        event, code = attempt("nvmlEventSetWait_v2", events, _WAIT_MILLISECONDS)
        if code == TIMEOUT:
            continue
        if code:
            return 1
        told = _told(event)
        if told is not None:
            os.write(lines, msgspec.json.encode(told) + b"\n")
    return 0


def _told(event: Any) -> NVMLEvent | None:
    info, code = attempt("nvmlDeviceGetPciInfo", event.device)
    pci = values.pci(None if code else info)
    if not pci or not event.eventType & pynvml.nvmlEventTypeXidCriticalError:
        return None
    return NVMLEvent(
        code=int(event.eventData),
        pci=pci,
        uuid=values.uuid(attempt("nvmlDeviceGetUUID", event.device)[0]),
        gpu_instance=int(event.gpuInstanceId),
        compute_instance=int(event.computeInstanceId),
    )


if __name__ == "__main__":
    sys.exit(main())
