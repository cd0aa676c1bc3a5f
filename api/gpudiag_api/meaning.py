"""What a report means, and its ETag.

Covered: inventory, health, findings as (check, reason, subject, severity), capabilities, the agent's version,
allocations, and the identity of the XIDs held. Left out: evidence, counts, last-seen times, measurements. The same
state gives the same tag after an agent restart.
"""

import hashlib

import msgspec

from gpudiag_api.wire import Report

_encoder = msgspec.json.Encoder(order="sorted")


def meaning(report: Report) -> tuple[object, ...]:
    """The parts of a report whose change is worth a new answer, a write and somebody's attention."""
    return (
        report.version,
        report.agent.version,
        report.agent.node_name,
        str(report.health),
        report.driver,
        sorted(str(gap.reason) for gap in report.capabilities),
        [
            (
                gpu.index,
                gpu.uuid,
                gpu.pci,
                gpu.model,
                gpu.serial,
                gpu.memory_bytes,
                gpu.mig_enabled,
                gpu.mig,
                gpu.health,
            )
            for gpu in report.gpus
        ],
        sorted(finding.key for finding in report.findings),
        sorted(event.id for event in report.xids),
        sorted(
            (held.gpu_uuid, held.namespace, held.pod, held.container, held.mig_uuid or "")
            for held in report.allocations
        ),
    )


def etag(report: Report) -> str:
    """The weak ETag of a report, quotes and ``W/`` included (RFC 9110, section 8.8.3)."""
    digest = hashlib.blake2b(_encoder.encode(meaning(report)), digest_size=12).hexdigest()
    return f'W/"{digest}"'
