"""XID codes that GPUDiagnostics call critical, for a process that judges none: such an XID is always worth a write.

Over shards the owner of a node writes its GPUNode and the aggregator judges, so each owner watches for the codes.
"""

from typing import Protocol

import msgspec


class _XIDs(msgspec.Struct):
    critical: list[int] | None = None


class _Policy(msgspec.Struct):
    xids: _XIDs | None = None


class _Spec(msgspec.Struct):
    policy: _Policy | None = None


class _Diagnostic(msgspec.Struct):
    spec: _Spec = msgspec.field(default_factory=_Spec)


_decoder = msgspec.json.Decoder(_Diagnostic)


class TakesCodes(Protocol):
    """``publish.Publisher``, as far as it cares."""

    critical_xids: frozenset[int]


def critical_codes(raw: msgspec.Raw | bytes) -> frozenset[int] | None:
    """The reflector's projection of a GPUDiagnostic: its codes; None: it names none.

    Raises:
        msgspec.DecodeError: not a GPUDiagnostic.
    """
    policy = _decoder.decode(raw).spec.policy
    codes = policy.xids.critical if policy is not None and policy.xids is not None else None
    return frozenset(codes) if codes else None


class CriticalCodes:
    """Keeps the union of all codes where they are needed (the reflector's listener)."""

    def __init__(self, publisher: TakesCodes) -> None:
        self._publisher = publisher
        self._codes: dict[str, frozenset[int]] = {}

    def upsert(self, name: str, item: frozenset[int]) -> None:
        """A GPUDiagnostic that names some is new or changed."""
        self._codes[name] = item
        self._tell()

    def delete(self, name: str) -> None:
        """One is gone, or names none any more."""
        self._codes.pop(name, None)
        self._tell()

    def _tell(self) -> None:
        self._publisher.critical_xids = frozenset().union(*self._codes.values())
