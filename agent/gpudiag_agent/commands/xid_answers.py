"""What one code or one line means, as the ``xid`` command says it. Pure."""

import msgspec

from gpudiag_agent.checks.sxid import catalogue as sxids
from gpudiag_agent.checks.xid import catalogue, history, workflow
from gpudiag_agent.checks.xid.catalogue import Verdict
from gpudiag_agent.kernel_log import scan
from gpudiag_agent.kernel_log.details import LinkEvent, LinkRegisters
from gpudiag_agent.kernel_log.fabric_manager import FabricManagerLine
from gpudiag_agent.kernel_log.parse import LostLine
from gpudiag_agent.kernel_log.sxid import SXIDLine
from gpudiag_api.naming import camel
from gpudiag_api.vocabulary import Action, Blame, Severity

_LOST_CODE = 79
_FIRST_SXID = 10000
"""XIDs are small numbers, SXids have five digits."""


class Answer(msgspec.Struct, frozen=True, kw_only=True, rename=camel):
    """One code, as JSON carries it. Absent parts are null, so that every element has the same fields."""

    code: int
    kind: str
    """``xid`` or ``sxid``."""
    pci: str | None = None
    name: str
    meaning: str
    category: str = msgspec.field(name="class")
    immediate: str | None = None
    investigatory: str | None = None
    severity: Severity
    blame: Blame
    action: Action
    gpu_instance: int | None = None
    compute_instance: int | None = None
    link: int | None = None
    process_id: int | None = None
    process_name: str | None = None
    caused_by: int | None = None
    message: str | None = None
    details: object = None
    line: int | None = None
    """Number of the line, from 1."""


def of_code(code: int) -> Answer:
    """What a bare number means; an SXid by its worst form."""
    if code >= _FIRST_SXID and sxids.lookup(code).name != "unknown error":
        return _of_sxid(code, fatal=sxids.lookup(code).kind == "PotentiallyFatal")
    return _of_xid(code, catalogue.lookup(code).verdict)


def of_line(found: scan.Found, number: int | None = None) -> Answer:
    """What a line means, given its own words and nothing else."""
    if isinstance(found, SXIDLine):
        answer = _of_sxid(found.code, fatal=found.fatal)
        return _with(answer, pci=found.pci, link=found.link, message=found.message, line=number)
    if isinstance(found, FabricManagerLine):
        answer = _of_sxid(found.code, fatal=found.fatal)
        return _with(answer, pci=found.pci, link=found.port, line=number)
    if isinstance(found, LostLine):
        answer = _of_xid(_LOST_CODE, catalogue.lookup(_LOST_CODE).verdict)
        return _with(answer, pci=found.pci, message="GPU has fallen off the bus.", line=number)
    burst = history.Burst(
        id="", code=found.code, pci=found.pci, first=0, last=0, caused_by=found.caused_by, detail=found.detail
    )
    return _with(
        _of_xid(found.code, workflow.verdict(burst, ())),
        pci=found.pci,
        gpu_instance=found.gpu_instance,
        compute_instance=found.compute_instance,
        link=found.detail.link if isinstance(found.detail, LinkEvent | LinkRegisters) else None,
        process_id=found.process_id,
        process_name=found.process_name,
        caused_by=found.caused_by,
        message=found.message,
        details=found.detail,
        line=number,
    )


def _with(answer: Answer, **values: object) -> Answer:
    return msgspec.structs.replace(answer, **values)


def _of_xid(code: int, verdict: Verdict) -> Answer:
    entry = catalogue.lookup(code)
    return Answer(
        code=code,
        kind="xid",
        name=entry.name,
        meaning=entry.meaning,
        category=entry.kind,
        immediate=entry.immediate,
        investigatory=entry.investigatory,
        severity=verdict.severity,
        blame=verdict.blame,
        action=verdict.action,
    )


def _of_sxid(code: int, *, fatal: bool) -> Answer:
    entry, verdict = sxids.lookup(code), sxids.verdict(code, fatal=fatal)
    return Answer(
        code=code,
        kind="sxid",
        name=entry.name,
        meaning=f"NVSwitch: {entry.name}",
        category=entry.kind,
        severity=verdict.severity,
        blame=verdict.blame,
        action=verdict.action,
    )
