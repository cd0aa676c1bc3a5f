"""Status parts that both kinds show: findings, GPUs, XID events, allocations, counts.

Plain strings instead of enums: a value outside a status enum would reject the whole PATCH, and CRDs lag behind
operators. The words are those of :mod:`gpudiag_api.vocabulary`.
"""

from typing import Annotated

from pydantic import Field

from gpudiag_api.kinds.base import ATOMIC, Model, Timestamp

Word = Annotated[str, Field(max_length=63)]
Text = Annotated[str, Field(max_length=1024)]
Name = Annotated[str, Field(max_length=253)]


class Subject(Model):
    """What a finding is about: a GPU or one MIG instance of it. Empty: the whole node."""

    gpu: int | None = None
    """Index of the GPU, as nvidia-smi counts it."""
    uuid: Word | None = None
    """UUID of the GPU, the name for machines."""
    pci: Word | None = None
    """PCI address, for example 0000:3b:00.0."""
    serial: Word | None = None
    """Serial number of the board, for the vendor."""
    mig_instance: Word | None = None
    """GPU instance and compute instance, for example gi1/ci0."""
    link: Word | None = None
    """A link or port of it, for example nvlink 3."""


class Evidence(Model):
    """One measured value behind a finding."""

    name: Word
    """What was measured."""
    value: Name
    """The value, in unit."""
    threshold: Name | None = None
    """The limit that was crossed, in unit."""
    unit: Word | None = None
    """Unit of value and threshold."""


class Finding(Model):
    """One thing that is wrong, what shows it and what to do about it."""

    check: Word
    """The check that found it, for example ECCUncorrectable."""
    reason: Word
    """Stable CamelCase word, for example VolatileUncorrectableErrors."""
    severity: Word
    """Info (no effect on health), Warning (Degraded) or Critical (Unhealthy)."""
    blame: Word
    """Application, Hardware, Driver, Environment or Unknown."""
    recommended_action: Word
    """What to do, from the closed list, for example DrainAndResetGPU."""
    message: Text = ""
    """One sentence for people."""
    subject: Subject = Subject()
    """What it is about."""
    documentation: Name | None = None
    """Where the check is explained, with its runbook."""
    evidence: Annotated[tuple[Evidence, ...], Field(json_schema_extra=ATOMIC)] = ()
    """What was measured."""
    first_seen: Timestamp | None = None
    """When the agent saw it first (RFC 3339, UTC)."""
    last_seen: Timestamp | None = None
    """When the agent had seen it last, as of this write (RFC 3339, UTC)."""
    count: int = 1
    """How often it was seen, as of this write."""


class MIGInstance(Model):
    """One MIG device of a GPU."""

    uuid: Word
    """UUID of the MIG device."""
    instance: Word
    """GPU instance and compute instance, for example gi1/ci0."""
    profile: Word = ""
    """MIG profile, for example 1g.10gb."""
    memory_bytes: int | None = None
    """Memory of the instance in bytes."""


class GPU(Model):
    """One GPU of a node."""

    index: int
    """Index as nvidia-smi counts it: the name for people."""
    uuid: Word
    """UUID: the name for machines."""
    pci: Word = ""
    """PCI address, for example 0000:3b:00.0."""
    model: Name = ""
    """Product name as the driver gives it."""
    serial: Word | None = None
    """Serial number of the board."""
    memory_bytes: int | None = None
    """Memory in bytes."""
    health: Word
    """Healthy, Degraded, Unhealthy or Unknown."""
    reason: Word | None = None
    """Why, when not Healthy: the reason of the worst finding, or why the GPU could not be read."""
    score: int | None = None
    """Health score from 0 to 100, as of this write; absent where the GPU could not be read."""
    mig_enabled: bool | None = None
    """Whether MIG mode is on; absent where the GPU has no MIG."""
    mig: Annotated[tuple[MIGInstance, ...], Field(json_schema_extra=ATOMIC)] = ()
    """MIG devices."""


class XIDEvent(Model):
    """One XID error from the kernel log."""

    code: int
    """XID code, see NVIDIA's catalogue."""
    name: Word = ""
    """Mnemonic of the code."""
    severity: Word
    """Info, Warning or Critical."""
    blame: Word
    """Application, Hardware, Driver, Environment or Unknown."""
    recommended_action: Word
    """What to do, from the closed list."""
    message: Text = ""
    """The driver's own words."""
    subject: Subject = Subject()
    """The GPU it happened on."""
    process_id: int | None = None
    """Host process id that the driver named."""
    process_name: Word | None = None
    """Name of that process."""
    pod: Name | None = None
    """Pod that the process belonged to, as namespace/name."""
    id: Word = ""
    """Kernel boot id and sequence number of the first occurrence."""
    first_seen: Timestamp | None = None
    """First occurrence (RFC 3339, UTC)."""
    last_seen: Timestamp | None = None
    """Last occurrence as of this write (RFC 3339, UTC)."""
    count: int = 1
    """Occurrences as of this write."""


class Allocation(Model):
    """A container that holds a GPU."""

    gpu_uuid: Word
    """UUID of the GPU or MIG device."""
    namespace: Name
    """Namespace of the Pod."""
    pod: Name
    """Name of the Pod."""
    container: Name
    """Name of the container."""


class GPUCounts(Model):
    """Number of GPUs by health."""

    total: int = 0
    """GPUs known on the nodes in question."""
    healthy: int = 0
    """GPUs with nothing to report."""
    degraded: int = 0
    """GPUs that work but need attention soon."""
    unhealthy: int = 0
    """GPUs that should not be scheduled on."""
    unknown: int = 0
    """GPUs whose health could not be told."""
