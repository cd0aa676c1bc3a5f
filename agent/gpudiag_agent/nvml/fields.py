"""Field values (``nvmlDeviceGetFieldValues``): one batch, decoded by type, each with its own return code.

The thermal margins are signed; read through the unsigned member -5 becomes 4294967291 (measured).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from gpudiag_agent.nvml import values
from gpudiag_agent.nvml.call import ABOUT_THE_GPU, INVALID_ARGUMENT, Caller
from gpudiag_agent.sample import ThrottleTimes

RETIRED_SINGLE_BIT, RETIRED_DOUBLE_BIT, RETIRED_PENDING = 29, 30, 31
MEMORY_TEMPERATURE = 82
PCIE_REPLAYS = 94
C2C_LINKS = 170
SLOWDOWN_MARGIN = 194
RECOVERY_ACTION = 230
BANK_REMAP_PENDING = 307
PCIE_ERRORS = {
    169: "l0_to_recovery",
    173: "correctable",
    174: "naks_received",
    175: "receiver",
    176: "bad_tlp",
    177: "naks_sent",
    178: "bad_dllp",
    179: "non_fatal",
    180: "fatal",
    181: "unsupported_request",
    182: "lcrc",
    183: "lane",
}
_THROTTLE_TIMES = ((269, 270, 271), (251, 252, 253))
"""Software thermal, hardware thermal, power brake: today's numbers, then those of go-nvml v0.13.0-1. What stands at the
others' place is power smoothing, which is no 64-bit counter: the type tells them apart."""
_RENUMBERED = frozenset(field for numbering in _THROTTLE_TIMES for field in numbering)
"""A failure may be that of the other meaning. The clock event reasons are their witness as well."""

_DEVICE = (
    MEMORY_TEMPERATURE,
    SLOWDOWN_MARGIN,
    RECOVERY_ACTION,
    RETIRED_SINGLE_BIT,
    RETIRED_DOUBLE_BIT,
    RETIRED_PENDING,
    PCIE_REPLAYS,
    *PCIE_ERRORS,
    C2C_LINKS,
    BANK_REMAP_PENDING,
    *_RENUMBERED,
)

_COUNTER = 3
_MEMBER_BY_TYPE = {1: "uiVal", 2: "ulVal", _COUNTER: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}
"""``nvmlValueType_t`` of nvml.h; 0 is a double, which none of these fields is."""

Key = tuple[int, int]
"""A field and its scope: the number of a link, 0 for the whole GPU."""


class Fields:
    """The answers to one batch."""

    def __init__(self, answers: Mapping[Key, tuple[int, int]]) -> None:
        self._answers = answers

    def __bool__(self) -> bool:
        """Whether the GPU has any of them."""
        return bool(self._answers)

    def get(self, field: int, scope: int = 0) -> int | None:
        """The integer of a field; None where the GPU has none."""
        answer = self._answers.get((field, scope))
        return None if answer is None else answer[0]

    def counters(self, names: Mapping[int, str], scope: int = 0) -> dict[str, int]:
        """The counters among those fields that there are, by name."""
        found = {name: values.count(self.get(field, scope)) for field, name in names.items()}
        return {name: number for name, number in found.items() if number is not None}

    def throttle_times(self) -> ThrottleTimes | None:
        """Nanoseconds spent slowed down; None where the driver does not count them."""
        for numbering in _THROTTLE_TIMES:
            answers = [self._answers.get((field, 0)) for field in numbering]
            times = [values.count(answer[0]) if answer and answer[1] == _COUNTER else None for answer in answers]
            if any(time is not None for time in times):
                software, hardware, brake = times
                return ThrottleTimes(software_thermal=software, hardware_thermal=hardware, hardware_power_brake=brake)
        return None


def read_device_fields(call: Caller, handle: Any) -> Fields:
    """Everything that is a field of the whole GPU."""
    return read_fields(call, handle, [(field, 0) for field in _DEVICE])


def read_fields(call: Caller, handle: Any, wanted: Sequence[Key]) -> Fields:
    """Ask for fields in one call."""
    answers = call("nvmlDeviceGetFieldValues", handle, wanted, tolerate=(INVALID_ARGUMENT,))
    found: dict[Key, tuple[int, int]] = {}
    for key, answer in zip(wanted, answers or (), strict=False):
        code = int(answer.nvmlReturn)
        if code:
            _unanswered(call, key[0], code)
            continue
        member = _MEMBER_BY_TYPE.get(answer.valueType)
        if answer.fieldId == key[0] and member is not None:
            found[key] = int(getattr(answer.value, member)), answer.valueType
    return Fields(found)


def _unanswered(call: Caller, field: int, code: int) -> None:
    if code in ABOUT_THE_GPU:
        call.failed("nvmlDeviceGetFieldValues", code)
    elif field not in _RENUMBERED:
        call.answered(f"nvmlDeviceGetFieldValues({field})", code)
