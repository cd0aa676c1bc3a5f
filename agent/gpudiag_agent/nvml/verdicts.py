"""Why the child gave no sample, in a closed word and a sentence that says what to do."""

import signal

from gpudiag_agent.sample import SourceFault
from gpudiag_api.vocabulary import Capability

_CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE})

CLOSED = SourceFault(Capability.PERMISSION_DENIED, "The agent is ending and reads no GPU any more.")


def silent(seconds: float) -> SourceFault:
    """No answer within that many seconds."""
    return SourceFault(
        Capability.DRIVER_HUNG,
        f"NVML did not answer within {seconds:g} s, so the process that asked was killed. Look for NVRM in dmesg, then "
        "reboot the node; where persistence mode is off, start nvidia-persistenced instead: waking GPUs takes long.",
    )


def stuck(fault: SourceFault) -> SourceFault:
    """The child cannot be killed, whatever it was to be killed for."""
    if _STUCK in fault.message:
        return fault
    return SourceFault(Capability.DRIVER_HUNG, f"{_STUCK} {fault.message}")


_STUCK = (
    "The process that reads NVML cannot be killed, it hangs in the kernel: the node must be rebooted, unless the "
    "driver lets go of it by itself."
)


def slow_start(seconds: float) -> SourceFault:
    """Python itself did not start within that many seconds."""
    return SourceFault(
        Capability.PERMISSION_DENIED,
        f"The process that reads NVML did not start within {seconds:g} s, before it asked the driver anything: the "
        "node or the agent's container has too little CPU or memory.",
    )


def not_started(error: OSError) -> SourceFault:
    """The node would not start a process."""
    return SourceFault(
        Capability.PERMISSION_DENIED,
        f"The process that reads NVML could not be started ({error}): check the process and memory limits of the "
        "agent's container.",
    )


def nonsense(said: str) -> SourceFault:
    """The child lives and does not speak the protocol."""
    return SourceFault(
        Capability.PERMISSION_DENIED,
        f"The process that reads NVML answered nonsense and was killed ({said}): another version of the agent may be "
        "installed on its path.",
    )


def ended(code: int, said: str) -> SourceFault:
    """The child ended without an answer, by itself or by somebody else's hand.

    Args:
        code: exit code, negative for a signal.
        said: how the answer broke off.
    """
    name = _signal_name(-code) if code < 0 else f"exit code {code}"
    if -code in _CRASHES:
        return SourceFault(
            Capability.DRIVER_HUNG,
            f"The NVIDIA library crashed the process that reads it ({name}). Look for NVRM and segfault in dmesg, and "
            "reinstall the driver so that library and kernel module match.",
        )
    if -code == signal.SIGKILL:
        return SourceFault(
            Capability.PERMISSION_DENIED,
            f"The process that reads NVML was killed ({name}; {said}), probably for lack of memory: look for oom in "
            "dmesg, and raise the memory limit of the agent's container.",
        )
    return SourceFault(
        Capability.PERMISSION_DENIED,
        f"The process that reads NVML ended ({name}; {said}): the agent's log says why.",
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
