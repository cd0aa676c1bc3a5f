"""What each check says of each GPU, as 0 or 1: an alert ends with a 0, and what cannot be judged has no series."""

from collections.abc import Mapping

from prometheus_client.core import GaugeMetricFamily, Metric

from gpudiag_agent.checks.driver import feeds
from gpudiag_agent.sample import Sample
from gpudiag_agent.server.measured import LABELS
from gpudiag_agent.standings import Standings
from gpudiag_api.vocabulary import Severity
from gpudiag_api.wire import Report

_NODE = ("", "")
"""Labels of what is said of the node, or of a GPU that NVML has no UUID of."""


def family(report: Report, sample: Sample, standings: Standings) -> Metric:
    """``gpudiag_gpu_condition{uuid,gpu,check}``, at most a series per check and GPU, and one of the node.

    1 while a Warning or Critical finding of the check stands, 0 when it could judge and found none.

    Args:
        report: its findings and GPUs.
        sample: which GPUs were read, and what of them was not.
        standings: which checks can judge.
    """
    gauge = GaugeMetricFamily(
        "gpudiag_gpu_condition",
        "1: a Warning or Critical finding of the check stands; 0: none does; absent: it cannot judge.",
        labels=[*LABELS, "check"],
    )
    for (uuid, index, check), raised in sorted(_conditions(report, sample, standings).items()):
        gauge.add_metric([uuid, index, check], raised)
    return gauge


def _conditions(report: Report, sample: Sample, standings: Standings) -> Mapping[tuple[str, str, str], bool]:
    able = [str(check) for check, standing in standings.all() if standing.up]
    found: dict[tuple[str, str, str], bool] = {(*_NODE, check): False for check in able}
    for gpu in sample.gpus:
        blind = {check for error in gpu.errors + gpu.unread for check in feeds.checks(error.call)}
        found |= {(gpu.uuid, str(gpu.index), check): False for check in able if check not in blind}
    for finding in report.findings:
        if finding.severity is Severity.INFO:
            continue
        subject = finding.subject
        index = "" if subject.gpu_index is None else str(subject.gpu_index)
        found[subject.gpu_uuid or "", index, str(finding.check)] = True
    return found
