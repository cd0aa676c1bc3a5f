"""The agent's report as it goes over the wire, version 1.

Read 5,000 times in a row by the operator, so it is msgspec rather than pydantic: decoding validates types and
bounds in one pass at a fraction of the cost, and the agent does without pydantic altogether (5 MB per node).
Field names on the wire are camelCase. Unknown fields are ignored (a newer minor version adds fields); bounds keep
a hostile or broken agent from filling the operator's memory.

Units are in the names; times are RFC 3339 in UTC with a ``Z``; absent means unsupported or unknown, never zero.
"""

from typing import Annotated

import msgspec

from gpudiag_api.naming import camel
from gpudiag_api.vocabulary import Action, Blame, Capability, Health, Severity

WIRE_VERSION = "1.0"
"""Version of the report: the operator accepts the current and the previous minor of the same major."""

MAX_REPORT_BYTES = 1 << 20
"""Upper bound of a decompressed report body: 1 MiB. A real one with 16 GPUs is about 12 KiB."""

Name = Annotated[str, msgspec.Meta(max_length=253)]
Word = Annotated[str, msgspec.Meta(max_length=63)]
Text = Annotated[str, msgspec.Meta(max_length=1024)]
Time = Annotated[str, msgspec.Meta(max_length=35)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Wire(msgspec.Struct, frozen=True, kw_only=True, rename=camel, omit_defaults=True, gc=False):
    """Shared settings: immutable, camelCase, absent when default."""


class AgentInfo(_Wire, frozen=True, kw_only=True):
    """The agent that wrote the report."""

    version: Word
    node_name: Name
    boot_id: Word = ""
    """The kernel's boot id; a new one means the node was rebooted."""
    source: Word = "nvml"
    """``nvml`` or ``simulated``."""
    sampling_interval_seconds: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 10.0


class CapabilityGap(_Wire, frozen=True, kw_only=True):
    """Something the agent could not do, and why."""

    reason: Capability
    message: Text = ""
    """What was tried, what came back and what to do, in one sentence."""


class Driver(_Wire, frozen=True, kw_only=True):
    """Versions of the driver stack; absent ones could not be read."""

    version: Word | None = None
    cuda_version: Word | None = None
    """The newest CUDA version the driver supports, for example ``12.8``."""
    nvml_version: Word | None = None


class MIGInstance(_Wire, frozen=True, kw_only=True):
    """One MIG device of a GPU."""

    uuid: Word
    gpu_instance: Count
    compute_instance: Count
    profile: Word = ""
    """For example ``1g.10gb``."""
    memory_bytes: Count | None = None


class Measurements(_Wire, frozen=True, kw_only=True):
    """Telemetry of one GPU at sampling time. Never part of the report's meaning."""

    temperature_celsius: float | None = None
    memory_temperature_celsius: float | None = None
    power_watts: float | None = None
    utilization_percent: float | None = None
    memory_used_bytes: Count | None = None
    sm_clock_mhz: Count | None = None


class GPU(_Wire, frozen=True, kw_only=True):
    """One GPU: its identity and what was measured."""

    index: Annotated[int, msgspec.Meta(ge=0, le=255)]
    uuid: Word
    pci: Word
    """``0000:3b:00.0``: see :mod:`gpudiag_api.pci`."""
    model: Name = ""
    """As the driver names it, for example ``NVIDIA H100 80GB HBM3``."""
    serial: Word = ""
    memory_bytes: Count | None = None
    mig_enabled: bool | None = None
    """None where the GPU has no MIG."""
    mig: Annotated[tuple[MIGInstance, ...], msgspec.Meta(max_length=64)] = ()
    health: Health = Health.UNKNOWN
    """The worst of the GPU's findings; Unknown where it could not be read."""
    measurements: Measurements = Measurements()


class Subject(_Wire, frozen=True, kw_only=True):
    """What a finding is about: a GPU, or one MIG instance of it. Empty: the whole node."""

    gpu_index: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None
    gpu_uuid: Word | None = None
    pci: Word | None = None
    serial: Word | None = None
    mig_gpu_instance: Count | None = None
    mig_compute_instance: Count | None = None


class Evidence(_Wire, frozen=True, kw_only=True):
    """One measured value behind a finding."""

    name: Word
    value: Name
    threshold: Name | None = None
    unit: Word | None = None


class Finding(_Wire, frozen=True, kw_only=True):
    """One thing that is wrong, what shows it and what to do about it."""

    check: Word
    """A word of :class:`gpudiag_api.vocabulary.Check`; text, so that a newer check is shown, not refused."""
    reason: Word
    """Stable CamelCase: an API, like the reason of a condition."""
    severity: Severity
    blame: Blame
    action: Action
    message: Text
    """One sentence for people: verdict, evidence."""
    subject: Subject = Subject()
    evidence: Annotated[tuple[Evidence, ...], msgspec.Meta(max_length=16)] = ()
    first_seen: Time
    last_seen: Time
    count: Count = 1

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What the finding means: (check, reason, subject, severity), without values and times."""
        subject = self.subject
        where = subject.gpu_uuid or subject.pci or ""
        if subject.mig_gpu_instance is not None:
            where += f"/gi{subject.mig_gpu_instance}/ci{subject.mig_compute_instance}"
        return (str(self.check), self.reason, where, str(self.severity))


class XIDEvent(_Wire, frozen=True, kw_only=True):
    """One XID error from the kernel log; repeats are counted, not listed."""

    id: Word
    """Boot id and sequence number of the first occurrence: ``<boot id>/<sequence>``. Identity of the event."""
    code: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    name: Word = ""
    """NVIDIA's mnemonic."""
    severity: Severity
    blame: Blame
    action: Action
    message: Text = ""
    """The driver's own words."""
    subject: Subject = Subject()
    process_id: Count | None = None
    """Host pid that the driver names."""
    process_name: Word | None = None
    pod_namespace: Name | None = None
    pod_name: Name | None = None
    first_seen: Time
    last_seen: Time
    count: Count = 1


class Allocation(_Wire, frozen=True, kw_only=True):
    """A container that holds a GPU."""

    gpu_uuid: Word
    namespace: Name
    pod: Name
    container: Name


class Report(_Wire, frozen=True, kw_only=True):
    """What an agent knows about its node."""

    version: Word = msgspec.field(name="wireVersion")
    agent: AgentInfo
    sampled_at: Time | None = None
    """When NVML last answered; absent when it never did."""
    health: Health = Health.UNKNOWN
    driver: Driver = Driver()
    capabilities: Annotated[tuple[CapabilityGap, ...], msgspec.Meta(max_length=16)] = ()
    gpus: Annotated[tuple[GPU, ...], msgspec.Meta(max_length=64)] = ()
    findings: Annotated[tuple[Finding, ...], msgspec.Meta(max_length=256)] = ()
    xids: Annotated[tuple[XIDEvent, ...], msgspec.Meta(max_length=64)] = ()
    """Newest first."""
    allocations: Annotated[tuple[Allocation, ...], msgspec.Meta(max_length=512)] = ()


class Envelope(msgspec.Struct, frozen=True, rename=camel):
    """Only the version of a report: read when the whole does not decode, to tell skew from nonsense."""

    wire_version: str


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Report)


def encode(report: Report) -> bytes:
    """The report as JSON."""
    return _encoder.encode(report)


def decode(body: bytes) -> Report:
    """Decode and validate a report.

    Raises:
        msgspec.DecodeError: the body is not JSON.
        msgspec.ValidationError: JSON, but not a report; the message names the field.
    """
    return _decoder.decode(body)


def accepts(version: str) -> bool:
    """Whether this operator understands a report of that version: same major, this minor or the one before."""
    major, minor = (int(part) for part in WIRE_VERSION.split("."))
    try:
        theirs_major, theirs_minor = (int(part) for part in version.split("."))
    except ValueError:
        return False
    return theirs_major == major and minor - 1 <= theirs_minor <= minor
