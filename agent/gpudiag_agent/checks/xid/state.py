"""What the ledger keeps over a restart of the agent, as bytes: versioned, bounded, and never believed blindly."""

import msgspec

from gpudiag_agent.checks.kernel.signals import HeldSignal
from gpudiag_agent.checks.xid.history import MAX_BURSTS, Burst
from gpudiag_agent.state.bounds import Moment, Word

VERSION = 1
MAX_BYTES = 256 * 1024


class State(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All of it. A field that is added later has a default; a change of meaning is a new version."""

    version: int = VERSION
    boot: str = ""
    bursts: tuple[Burst, ...] = ()
    switches: tuple[Burst, ...] = ()
    signals: tuple[HeldSignal, ...] = ()
    lost: dict[Word, Moment] = {}
    uuids: dict[Word, Word] = {}
    serials: dict[Word, Word] = {}
    recovery: dict[str, int] = {}
    heard: tuple[str, ...] = ()


class _Version(msgspec.Struct):
    version: int = VERSION


def dump(state: State) -> bytes:
    """As JSON of at most 256 KiB: beyond it the older half of the bursts goes, again and again."""
    data = msgspec.json.encode(state)
    while len(data) > MAX_BYTES:
        state = msgspec.structs.replace(
            state,
            bursts=state.bursts[(len(state.bursts) + 1) // 2 :],
            switches=state.switches[(len(state.switches) + 1) // 2 :],
            heard=state.heard[-256:] if state.bursts or state.switches else (),
            uuids=state.uuids if state.bursts else {},
            serials=state.serials if state.bursts else {},
            signals=state.signals if state.bursts or state.switches else (),
        )
        data = msgspec.json.encode(state)
    return data


def load(data: bytes) -> State | str:
    """The state, or one sentence why the bytes cannot be used."""
    if len(data) > MAX_BYTES:
        return f"the saved history has {len(data)} bytes, more than {MAX_BYTES}"
    try:
        version = msgspec.json.decode(data, type=_Version).version
        if version != VERSION:
            return f"the saved history has version {version}, this agent reads {VERSION}"
        state = msgspec.json.decode(data, type=State)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return f"the saved history cannot be read: {error}"
    if len(state.bursts) > MAX_BURSTS or len(state.switches) > MAX_BURSTS:
        return f"the saved history has more than {MAX_BURSTS} bursts"
    return state
