"""Everything the agent reads of one GPU. Names of functions and constants are those of nvml.h."""

from gpudiag_agent.nvml.call import Caller, attempt
from gpudiag_agent.nvml.fabric import read_fabric
from gpudiag_agent.nvml.fields import read_device_fields
from gpudiag_agent.nvml.identity import read_identity, read_lasting
from gpudiag_agent.nvml.links import read_c2c, read_nvlinks
from gpudiag_agent.nvml.memory import read_memory_errors
from gpudiag_agent.nvml.mig import read_mig
from gpudiag_agent.nvml.pcie import read_pcie
from gpudiag_agent.nvml.processes import read_processes
from gpudiag_agent.nvml.sensors import read_load, read_temperatures
from gpudiag_agent.sample import GPUSample


def read_device(index: int, *, full: bool = True) -> GPUSample:
    """Read one GPU. Never raises: what fails is in ``errors`` and ``unread``, what is unsupported is None.

    Args:
        index: NVML's.
        full: also what lasts for as long as the board and the driver, some of which is slow to read (``lasting``).
    """
    call = Caller()
    handle, code = attempt("nvmlDeviceGetHandleByIndex", index)
    if code:
        # A GPU that is listed and cannot be asked is a failure whatever the code, "not supported" included.
        call.failed("nvmlDeviceGetHandleByIndex", code)
        return GPUSample(index=index, errors=call.errors)
    identity = read_identity(call, handle)
    fields = read_device_fields(call, handle)
    found = {
        **identity,
        **(read_lasting(call, handle) if full else {}),
        **read_temperatures(call, handle, fields),
        **read_load(call, handle, fields),
        **read_memory_errors(call, handle, fields),
        **read_mig(call, handle),
        "pcie": read_pcie(call, handle, fields, full=full),
        "nvlinks": read_nvlinks(call, handle, full=full),
        "c2c": read_c2c(call, handle, fields),
        "fabric": read_fabric(call, handle),
        "processes": read_processes(call, handle),
    }
    return GPUSample(index=index, **found, errors=call.errors, unread=call.unread)
