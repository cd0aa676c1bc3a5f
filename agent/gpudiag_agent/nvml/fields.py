"""Field values (``nvmlDeviceGetFieldValues``): one batch, decoded by type, each with its own return code.

The thermal margins are signed; read through the unsigned member -5 becomes 4294967291 (measured).
"""

from typing import Any

from gpudiag_agent.nvml.call import INVALID_ARGUMENT, UNSUPPORTED, Caller

MEMORY_TEMPERATURE = 82
SLOWDOWN_MARGIN = 194
RECOVERY_ACTION = 230

_MEMBER_BY_TYPE = {1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}
"""``nvmlValueType_t`` of nvml.h; 0 is a double, which none of these fields is."""
_NOT_THIS_DRIVER = UNSUPPORTED | {INVALID_ARGUMENT}
"""A driver older than the field calls its id an invalid argument."""


def read_fields(call: Caller, handle: Any) -> dict[int, int]:
    """The fields above that this GPU supports, as integers by field id."""
    wanted = [MEMORY_TEMPERATURE, SLOWDOWN_MARGIN, RECOVERY_ACTION]
    answers = call("nvmlDeviceGetFieldValues", handle, wanted, tolerate=(INVALID_ARGUMENT,))
    found: dict[int, int] = {}
    for field, answer in zip(wanted, answers or (), strict=False):
        if answer.nvmlReturn:
            if answer.nvmlReturn not in _NOT_THIS_DRIVER:
                call.failed("nvmlDeviceGetFieldValues", int(answer.nvmlReturn))
            continue
        member = _MEMBER_BY_TYPE.get(answer.valueType)
        if answer.fieldId == field and member is not None:
            found[field] = int(getattr(answer.value, member))
    return found
