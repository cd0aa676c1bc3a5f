"""Health score of a GPU, 0 to 100, with a reason for every point lost. Pure.

The score orders GPUs that the four words of health cannot tell apart: which of the healthy ones is the most worn, which
of the sick ones is the worst. It never decides anything: health does, and the score is no part of a report's meaning.

| what | points |
|---|---|
| a Critical finding | 70, every further one 10 |
| a Warning finding | 25, every further one 5 |
| an Info finding that is not the application's | 2 |
| uncorrectable errors in the life of the board | 5 |
| rows remapped for uncorrectable errors | 2 each, at most 10 |
| row banks with few (low) or no spare rows left | 5, 10 |
| less than 5 °C left before slowdown | 5 |

So a Healthy GPU has 70 or more before Info findings, a Degraded one at most 75 and an Unhealthy one at most 30.
"""

from collections.abc import Iterator, Sequence

from gpudiag_agent.sample import GPUSample
from gpudiag_api.vocabulary import Blame, Severity
from gpudiag_api.wire import Finding, ScoreLoss

_FIRST = {Severity.CRITICAL: 70, Severity.WARNING: 25, Severity.INFO: 2}
_FURTHER = {Severity.CRITICAL: 10, Severity.WARNING: 5, Severity.INFO: 2}
_MAX_LOSSES = 16
_CLOSE_CELSIUS = 5


def score(gpu: GPUSample, findings: Sequence[Finding]) -> tuple[int, tuple[ScoreLoss, ...]]:
    """The score of a GPU that was read, and what it lost, dearest first.

    Args:
        gpu: what was read.
        findings: those about this GPU.
    """
    losses = sorted([*_findings(findings), *_wear(gpu)], key=lambda loss: -loss.points)
    named = tuple(losses[:_MAX_LOSSES])
    # A point that has no room for its reason is not taken.
    return max(0, 100 - sum(loss.points for loss in named)), named


def _findings(findings: Sequence[Finding]) -> Iterator[ScoreLoss]:
    seen: set[Severity] = set()
    for finding in findings:
        if finding.severity is Severity.INFO and finding.blame is Blame.APPLICATION:
            continue
        points = (_FURTHER if finding.severity in seen else _FIRST)[finding.severity]
        seen.add(finding.severity)
        yield ScoreLoss(reason=finding.reason, points=points)


def _wear(gpu: GPUSample) -> Iterator[ScoreLoss]:
    if gpu.ecc_uncorrected_aggregate:
        yield ScoreLoss(reason="PastUncorrectableErrors", points=5)
    if gpu.remapped_rows_uncorrected:
        yield ScoreLoss(reason="RemappedRows", points=min(2 * gpu.remapped_rows_uncorrected, 10))
    if gpu.remap_histogram is not None and gpu.remap_histogram.none:
        yield ScoreLoss(reason="NoSpareRows", points=10)
    elif gpu.remap_histogram is not None and gpu.remap_histogram.low:
        yield ScoreLoss(reason="FewSpareRows", points=5)
    if _close_to_slowdown(gpu):
        yield ScoreLoss(reason="CloseToSlowdown", points=5)


def _close_to_slowdown(gpu: GPUSample) -> bool:
    if gpu.thermal_margin_celsius is not None and gpu.thermal_margin_slowdown_celsius is not None:
        return gpu.thermal_margin_celsius - gpu.thermal_margin_slowdown_celsius < _CLOSE_CELSIUS
    if gpu.temperature_celsius is not None and gpu.temperature_slowdown_celsius is not None:
        return gpu.temperature_slowdown_celsius - gpu.temperature_celsius < _CLOSE_CELSIUS
    return False
