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
"""Version of the report. Agents roll node by node: an operator reads the minor before and the one after its own.

A minor version only adds optional fields and words. A field that the operator does not know is ignored; a word that it
does not know makes the report unreadable, and the reason says to upgrade the operator: it does not guess."""

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


class ScoreLoss(_Wire, frozen=True, kw_only=True):
    """Why a health score is not 100."""

    reason: Word
    points: Annotated[int, msgspec.Meta(ge=1, le=100)]


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
    score: Annotated[int, msgspec.Meta(ge=0, le=100)] | None = None
    """Health score; absent where it could not be read. Never part of the report's meaning."""
    score_losses: Annotated[tuple[ScoreLoss, ...], msgspec.Meta(max_length=16)] = ()
    """Why it is not 100, dearest first."""
    measurements: Measurements = Measurements()


class Subject(_Wire, frozen=True, kw_only=True):
    """What a finding is about: a GPU, or one MIG instance of it. Empty: the whole node."""

    gpu_index: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None
    gpu_uuid: Word | None = None
    pci: Word | None = None
    serial: Word | None = None
    mig_gpu_instance: Count | None = None
    mig_compute_instance: Count | None = None
    link: Word | None = None
    """A link or port of it: ``nvlink 3``, ``c2c 0``, ``mlx5_2/1``."""


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
    documentation: Name = ""
    """Where the check is explained, with its runbook."""
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
        if subject.link is not None:
            where += f"/{subject.link}"
        return (str(self.check), self.reason, where, str(self.severity))


class XIDEvent(_Wire, frozen=True, kw_only=True):
    """One XID error from the kernel log; repeats are counted, not listed."""

    id: Word
    """Boot id and sequence number of the first occurrence: ``<boot id>/<sequence>``. Identity of the event."""
    code: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    name: Word = ""
    """NVIDIA's mnemonic."""
    kind: Word = msgspec.field(name="class", default="")
    """A word of :class:`gpudiag_api.vocabulary.XIDClass`; text, so that a newer one is shown, not refused."""
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
    mig_uuid: Word | None = None
    """The MIG device it holds; absent: the whole GPU, or a share of it."""
    mig_gpu_instance: Count | None = None


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


class TimelinePoint(_Wire, frozen=True, kw_only=True):
    """One GPU at one moment of the flight recorder; several samples averaged where it was downsampled."""

    at: Time
    temperature_celsius: float | None = None
    power_watts: float | None = None
    utilization_percent: float | None = None
    memory_used_bytes: Count | None = None
    sm_clock_mhz: float | None = None
    throttled: bool = False
    """Whether hardware held the clocks down in any of the samples."""


class GPUTimeline(_Wire, frozen=True, kw_only=True):
    """The flight recorder of one GPU, oldest point first."""

    gpu_index: Annotated[int, msgspec.Meta(ge=0, le=255)]
    gpu_uuid: Word = ""
    points: Annotated[tuple[TimelinePoint, ...], msgspec.Meta(max_length=360)] = ()


class TimelineEvent(_Wire, frozen=True, kw_only=True):
    """Something that happened meanwhile."""

    at: Time
    kind: Word
    """``xid``, ``raised``, ``cleared``, ``health``, ``driver``."""
    message: Text
    gpu_index: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None


class TimelineAnswer(_Wire, frozen=True, kw_only=True):
    """``GET /v1/timeline?minutes=&gpu=&points=``."""

    version: Word = msgspec.field(name="wireVersion")
    node_name: Name
    step_seconds: float
    """Seconds between two points."""
    gpus: Annotated[tuple[GPUTimeline, ...], msgspec.Meta(max_length=64)] = ()
    events: Annotated[tuple[TimelineEvent, ...], msgspec.Meta(max_length=256)] = ()


class GPULink(_Wire, frozen=True, kw_only=True):
    """How two GPUs of the node reach each other."""

    gpu_index: Annotated[int, msgspec.Meta(ge=0, le=255)]
    peer_index: Annotated[int, msgspec.Meta(ge=0, le=255)]
    kind: Word
    """``NVLink`` (direct), ``NVSwitch`` (both hang on switches), ``PCIe`` (one NUMA node), ``System`` (across CPUs)."""
    links: Count = 1
    """Active links of the first GPU that serve this way."""


class GPUPlacement(_Wire, frozen=True, kw_only=True):
    """Where a GPU sits."""

    gpu_index: Annotated[int, msgspec.Meta(ge=0, le=255)]
    gpu_uuid: Word = ""
    pci: Word = ""
    numa_node: int | None = None
    pcie_generation: Count | None = None
    pcie_generation_max: Count | None = None
    pcie_width: Count | None = None
    pcie_width_max: Count | None = None
    nvlinks_active: Count | None = None
    nvlinks_total: Count | None = None
    fabric_state: Word | None = None


class TopologyAnswer(_Wire, frozen=True, kw_only=True):
    """``GET /v1/topology``."""

    version: Word = msgspec.field(name="wireVersion")
    node_name: Name
    links: Annotated[tuple[GPULink, ...], msgspec.Meta(max_length=2048)] = ()
    placement: Annotated[tuple[GPUPlacement, ...], msgspec.Meta(max_length=64)] = ()


class ProcessRow(_Wire, frozen=True, kw_only=True):
    """A process on a GPU."""

    gpu_index: Annotated[int, msgspec.Meta(ge=0, le=255)]
    pid: Count
    name: Word = ""
    kind: Word = "compute"
    memory_bytes: Count | None = None
    mig_gpu_instance: Count | None = None
    namespace: Name | None = None
    pod: Name | None = None


class ProcessesAnswer(_Wire, frozen=True, kw_only=True):
    """``GET /v1/processes``."""

    version: Word = msgspec.field(name="wireVersion")
    node_name: Name
    processes: Annotated[tuple[ProcessRow, ...], msgspec.Meta(max_length=1024)] = ()
    truncated: bool = False


class KernelLogGap(_Wire, frozen=True, kw_only=True):
    """Records of the kernel log that nobody read: the ring was overwritten before the agent came."""

    boot_id: Word
    after: Count | None = None
    """Sequence number of the last record read before the gap; absent in the journal, which has no such numbers."""
    before: Count | None = None
    """Sequence number of the first record read after it."""
    lost: Count | None = None
    """How many records; absent where that is not known."""
    at: Time


class XIDsAnswer(_Wire, frozen=True, kw_only=True):
    """``GET /v1/xids?since=&limit=``: oldest first, so that the cursor moves forward."""

    version: Word = msgspec.field(name="wireVersion")
    node_name: Name
    events: Annotated[tuple[XIDEvent, ...], msgspec.Meta(max_length=512)] = ()
    cursor: Word = ""
    """Give it as ``since`` to get what came later."""
    gaps: Annotated[tuple[KernelLogGap, ...], msgspec.Meta(max_length=16)] = ()


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
    """Whether this operator reads a report of that version: the same major, at most one minor apart."""
    major, minor = (int(part) for part in WIRE_VERSION.split("."))
    try:
        theirs_major, theirs_minor = (int(part) for part in version.split("."))
    except ValueError:
        return False
    return theirs_major == major and abs(theirs_minor - minor) <= 1
