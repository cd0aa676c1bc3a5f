"""Links between processors: NVLink to other GPUs and switches, C2C to the CPU of a Grace superchip."""

from typing import Any

from gpudiag_agent.nvml import fields, values
from gpudiag_agent.nvml.call import NOT_THIS_DRIVER, Caller, attempt
from gpudiag_agent.nvml.fields import Fields, read_fields
from gpudiag_agent.sample import C2CLinkSample, NVLinkSample

_MAX_NVLINKS = 36
"""NVML_NVLINK_MAX_LINKS; a GPU ends the list before that with "not supported"."""
_MAX_C2C = 32
_MAX_VERSION = 15
_REMOTE_KINDS = {0: "gpu", 1: "cpu", 2: "switch"}
"""``nvmlIntNvLinkDeviceType_t``; 1 was IBM's POWER."""
_COUNTERS = ("replay", "recovery", "crc_flit", "crc_data", "ecc_data")
"""``nvmlNvLinkErrorCounter_t``, in order."""
_NVLINK5_COUNTERS = {
    206: "malformed",
    207: "buffer_overrun",
    208: "receive",
    209: "receive_remote",
    210: "receive_general",
    211: "link_integrity",
    212: "transmit_discards",
    213: "recovery_successful",
    214: "recovery_failed",
    215: "recovery_events",
    219: "effective",
    221: "symbol",
}
_EFFECTIVE_RATE, _SYMBOL_RATE = 220, 222
_NVLINK5 = (*_NVLINK5_COUNTERS, _EFFECTIVE_RATE, _SYMBOL_RATE)
_C2C_STATUS = 171
_C2C_COUNTERS = {231: "interrupt", 232: "replay", 233: "replay_back_to_back"}


def read_nvlinks(call: Caller, handle: Any, *, full: bool) -> tuple[NVLinkSample, ...] | None:
    """The links up to the first that the GPU does not have; None where it has none, or one could not be read."""
    states: list[bool | None] = []
    for link in range(_MAX_NVLINKS):
        state, code = attempt("nvmlDeviceGetNvLinkState", handle, link)
        call.answered("nvmlDeviceGetNvLinkState", code)
        if code and code not in NOT_THIS_DRIVER:
            # Half a list would say that the GPU has fewer links than its neighbours.
            return None
        if code:
            break
        states.append(values.flag(state))
    if not states:
        return None
    counters = _Counters(call, handle, len(states))
    return tuple(
        NVLinkSample(
            link=link,
            active=active,
            **(_remote(call, handle, link, active=bool(active)) if full else {}),
            **counters.of(link),
        )
        for link, active in enumerate(states)
    )


def _remote(call: Caller, handle: Any, link: int, *, active: bool) -> dict[str, Any]:
    # A link that is down has no other end that must be known.
    ask = call.detail if active else call.inventory
    kind = ask("nvmlDeviceGetNvLinkRemoteDeviceType", handle, link)
    return {
        "remote_pci": values.pci(call.inventory("nvmlDeviceGetNvLinkRemotePciInfo", handle, link)),
        "remote_kind": "" if kind is None else _REMOTE_KINDS.get(kind, ""),
        "version": values.setting(call.inventory("nvmlDeviceGetNvLinkVersion", handle, link), _MAX_VERSION),
    }


class _Counters:
    """Error counters of the links: a function up to NVLink 4, fields from NVLink 5 on; never both."""

    def __init__(self, call: Caller, handle: Any, links: int) -> None:
        self._call = call
        self._handle = handle
        # What link 0 does not have, no other link of the GPU has; asking all of them is most of the cost of a look.
        self._has = tuple(kind for kind in range(len(_COUNTERS)) if self._count(0, kind) is not None)
        scoped = [] if self._has else [(field, link) for link in range(links) for field in _NVLINK5]
        first = read_fields(call, handle, scoped[: len(_NVLINK5)]) if scoped else Fields({})
        self._fields = read_fields(call, handle, scoped) if first else Fields({})

    def of(self, link: int) -> dict[str, Any]:
        """What there is to tell about one link."""
        if self._has:
            found = {_COUNTERS[kind]: values.count(self._count(link, kind)) for kind in self._has}
            return {"errors": {name: number for name, number in found.items() if number is not None}}
        return {
            "errors": self._fields.counters(_NVLINK5_COUNTERS, link),
            "effective_bit_error_rate": values.bit_error_rate(self._fields.get(_EFFECTIVE_RATE, link)),
            "symbol_bit_error_rate": values.bit_error_rate(self._fields.get(_SYMBOL_RATE, link)),
        }

    def _count(self, link: int, kind: int) -> int | None:
        found: int | None = self._call.detail("nvmlDeviceGetNvLinkErrorCounter", self._handle, link, kind)
        return found


def read_c2c(call: Caller, handle: Any, read: Fields) -> tuple[C2CLinkSample, ...] | None:
    """The chip-to-chip links; None where the GPU has none."""
    links = values.setting(read.get(fields.C2C_LINKS), _MAX_C2C)
    if links is None:
        return None
    found = read_fields(
        call, handle, [(field, link) for link in range(links) for field in (_C2C_STATUS, *_C2C_COUNTERS)]
    )
    return tuple(
        C2CLinkSample(
            link=link,
            active=values.flag(found.get(_C2C_STATUS, link)),
            errors=found.counters(_C2C_COUNTERS, link),
        )
        for link in range(links)
    )
