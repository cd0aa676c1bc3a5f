"""The health mask of a fabric: small bit fields with 0 for "not supported" (``NVML_GPU_FABRIC_HEALTH_*`` of nvml.h)."""

import msgspec

_TRUE = 1
_FLAGS = (
    (0, "bandwidth", "less bandwidth"),
    (2, "route_recovery", "routes under recovery"),
    (4, "route_unhealthy", "a route is unhealthy"),
    (6, "access_timeout", "access timeouts under recovery"),
)
_BROKEN = frozenset({"route_unhealthy"})
_CONFIGURATION_SHIFT, _CONFIGURATION_MASK = 8, 0xF
_CONFIGURATIONS = {
    2: "wrong system GUID",
    3: "wrong chassis serial number",
    4: "no partition",
    5: "insufficient NVLinks",
    6: "GPU firmware that does not fit",
    7: "invalid location",
    8: "invalid GPU state",
}


class Told(msgspec.Struct, frozen=True):
    """What the mask says is wrong, in words."""

    broken: tuple[str, ...] = ()
    reduced: tuple[str, ...] = ()
    misconfigured: str = ""


def decode(mask: int) -> Told:
    """Read a mask; 426 means that all is fine (measured)."""
    found = [(name, words) for shift, name, words in _FLAGS if (mask >> shift) & 0x3 == _TRUE]
    configuration = (mask >> _CONFIGURATION_SHIFT) & _CONFIGURATION_MASK
    return Told(
        broken=tuple(words for name, words in found if name in _BROKEN),
        reduced=tuple(words for name, words in found if name not in _BROKEN),
        misconfigured=_CONFIGURATIONS.get(configuration, ""),
    )
