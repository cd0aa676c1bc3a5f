"""Field values (``nvmlDeviceGetFieldValues``): decoded by their type, each with its own return code.

The thermal margins are signed; read through the unsigned member -5 becomes 4294967291 (measured).
"""

from typing import Any

from gpudiag_agent.nvml.call import Caller

MEMORY_TEMPERATURE = 82
SLOWDOWN_MARGIN = 194
RECOVERY_ACTION = 230

_MEMBER_BY_TYPE = {1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}
"""``nvmlValueType_t`` of nvml.h; 0 is a double, which none of these fields is."""


def read_fields(call: Caller, handle: Any) -> dict[int, int]:
    """The fields above that this GPU supports, as integers by field id."""
    wanted = [MEMORY_TEMPERATURE, SLOWDOWN_MARGIN, RECOVERY_ACTION]
    values = call("nvmlDeviceGetFieldValues", handle, wanted)
    found: dict[int, int] = {}
    for field, value in zip(wanted, values or (), strict=False):
        member = _MEMBER_BY_TYPE.get(value.valueType)
        if value.nvmlReturn == 0 and value.fieldId == field and member is not None:
            found[field] = int(getattr(value.value, member))
    return found
