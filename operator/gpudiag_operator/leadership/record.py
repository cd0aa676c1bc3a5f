"""A ``coordination.k8s.io/v1`` Lease as an election sees it. Pure: JSON in, values and JSON out.

The times in it are for people: whether a Lease has run out is never decided by another machine's clock.
"""

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from gpudiag_api.times import to_rfc3339

RELEASED_SECONDS = 1
"""``leaseDurationSeconds`` of a Lease that was given up (the API takes no 0)."""


class LeaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a Lease says."""

    holder: str = ""
    """Empty: nobody's."""
    duration: float
    """Seconds after the last renewal in which nobody else may take it."""
    transitions: int = 0
    """How often it changed hands."""
    acquired: str = ""
    renewed: str = ""
    version: str = ""
    """metadata.resourceVersion."""

    def same_as(self, other: "LeaseRecord") -> bool:
        """Whether nobody renewed or took it in between; a label that somebody added is no renewal."""
        return msgspec.structs.replace(self, version="") == msgspec.structs.replace(other, version="")


def read(body: Mapping[str, Any], *, duration: float) -> LeaseRecord:
    """Take what matters from a Lease.

    Args:
        body: the object.
        duration: seconds, for a Lease that names none.

    Raises:
        KeyError: not a Kubernetes object.
    """
    spec = body.get("spec") or {}
    return LeaseRecord(
        holder=str(spec.get("holderIdentity") or ""),
        duration=float(spec.get("leaseDurationSeconds") or duration),
        transitions=int(spec.get("leaseTransitions") or 0),
        acquired=str(spec.get("acquireTime") or ""),
        renewed=str(spec.get("renewTime") or ""),
        version=str(body["metadata"].get("resourceVersion", "")),
    )


def taken(before: LeaseRecord | None, identity: str, *, duration: float, now: float) -> dict[str, Any]:
    """The spec by which ``identity`` takes a Lease; ``before`` None: there is none yet. ``now``: Unix seconds."""
    return {
        "holderIdentity": identity,
        "leaseDurationSeconds": math.ceil(duration),
        "leaseTransitions": 0 if before is None else before.transitions + 1,
        "acquireTime": micro_time(now),
        "renewTime": micro_time(now),
    }


def renewed(identity: str, *, duration: float, now: float) -> dict[str, Any]:
    """The part of the spec by which its holder renews a Lease."""
    return {
        "holderIdentity": identity,
        "leaseDurationSeconds": math.ceil(duration),
        "renewTime": micro_time(now),
    }


def released(now: float) -> dict[str, Any]:
    """The part of the spec by which its holder gives a Lease up: the next one need not wait."""
    return {"holderIdentity": "", "leaseDurationSeconds": RELEASED_SECONDS, "renewTime": micro_time(now)}


def micro_time(seconds: float) -> str:
    """A MicroTime: exactly six decimal places (apimachinery, ``RFC3339Micro``)."""
    return to_rfc3339(seconds).removesuffix("Z") + "000Z"
