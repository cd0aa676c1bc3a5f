"""Parts that both kinds have: findings, GPUs, XID errors, conditions."""

import msgspec

from gpudiag_api.naming import camel


class Part(msgspec.Struct, frozen=True, rename=camel, gc=False):
    """Settings of every part: immutable, camelCase outside, unknown fields ignored."""


class Subject(Part, frozen=True):
    """What a finding or an XID is about; empty: the whole node."""

    gpu: int | None = None
    uuid: str | None = None
    pci: str | None = None
    serial: str | None = None
    mig_instance: str | None = None
    link: str | None = None


class Evidence(Part, frozen=True):
    """One measured value behind a finding."""

    name: str = ""
    value: str = ""
    threshold: str | None = None
    unit: str | None = None


class Finding(Part, frozen=True):
    """One thing that is wrong."""

    check: str = ""
    reason: str = ""
    severity: str = ""
    blame: str = ""
    recommended_action: str = "None"
    message: str = ""
    subject: Subject = Subject()
    documentation: str | None = None
    evidence: tuple[Evidence, ...] = ()
    first_seen: str | None = None
    last_seen: str | None = None
    count: int = 1


class MIGInstance(Part, frozen=True):
    """One MIG device."""

    uuid: str = ""
    instance: str = ""
    profile: str = ""
    memory_bytes: int | None = None


class GPU(Part, frozen=True):
    """One GPU of a node."""

    index: int = 0
    uuid: str = ""
    pci: str = ""
    model: str = ""
    serial: str | None = None
    memory_bytes: int | None = None
    health: str = "Unknown"
    reason: str | None = None
    mig_enabled: bool | None = None
    mig: tuple[MIGInstance, ...] = ()


class XIDEvent(Part, frozen=True):
    """One XID error."""

    code: int = 0
    name: str = ""
    severity: str = ""
    blame: str = ""
    recommended_action: str = "None"
    message: str = ""
    subject: Subject = Subject()
    process_id: int | None = None
    process_name: str | None = None
    pod: str | None = None
    id: str = ""
    first_seen: str | None = None
    last_seen: str | None = None
    count: int = 1


class GPUCounts(Part, frozen=True):
    """Number of GPUs by health."""

    total: int = 0
    healthy: int = 0
    degraded: int = 0
    unhealthy: int = 0
    unknown: int = 0


class Condition(Part, frozen=True):
    """One aspect of the state."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: str = ""
    observed_generation: int | None = None


class Metadata(Part, frozen=True):
    """Who and when; ``labels`` and ``annotations`` as they are."""

    name: str = ""
    namespace: str = ""
    generation: int = 0
    creation_timestamp: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
