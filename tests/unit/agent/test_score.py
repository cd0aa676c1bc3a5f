"""The health score: an order among GPUs, with a reason for every point."""

import pytest

from gpudiag_agent.sample import GPUSample, RowHistogram
from gpudiag_agent.score import score
from gpudiag_api.vocabulary import Action, Blame, Severity
from gpudiag_api.wire import Finding


def finding(severity: Severity, blame: Blame = Blame.HARDWARE, reason: str = "R") -> Finding:
    return Finding(
        check="XID",
        reason=reason,
        severity=severity,
        blame=blame,
        action=Action.NONE,
        message="",
        first_seen="",
        last_seen="",
    )


CRITICAL, WARNING, INFO = (finding(severity) for severity in reversed(Severity))


def gpu(**values: object) -> GPUSample:
    return GPUSample(index=0, uuid="GPU-0", **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "findings", "points"),
    [
        ({}, [], 100),
        ({}, [CRITICAL], 30),
        ({}, [CRITICAL, CRITICAL], 20),
        ({}, [WARNING], 75),
        ({}, [WARNING, WARNING, INFO], 68),
        ({}, [finding(Severity.INFO, Blame.APPLICATION)], 100),
        ({"ecc_uncorrected_aggregate": 3}, [], 95),
        ({"remapped_rows_uncorrected": 2}, [], 96),
        ({"remapped_rows_uncorrected": 500}, [], 90),
        ({"remap_histogram": RowHistogram(600, 30, 9, 1, 0)}, [], 95),
        ({"remap_histogram": RowHistogram(600, 30, 9, 1, 1)}, [], 90),
        ({"thermal_margin_celsius": 2, "thermal_margin_slowdown_celsius": -2}, [], 95),
        ({"thermal_margin_celsius": 3, "thermal_margin_slowdown_celsius": -2}, [], 100),
        ({"temperature_celsius": 83, "temperature_slowdown_celsius": 87}, [], 95),
        ({"temperature_celsius": 82, "temperature_slowdown_celsius": 87}, [], 100),
    ],
)
def test_points(values: dict[str, object], findings: list[Finding], points: int) -> None:
    total, losses = score(gpu(**values), findings)
    assert total == points
    assert 100 - sum(loss.points for loss in losses) == points, "every point has a reason"


def test_it_never_goes_below_zero_and_names_the_dearest_losses() -> None:
    total, losses = score(gpu(ecc_uncorrected_aggregate=1), [CRITICAL] * 40)
    assert total == 0
    assert [loss.points for loss in losses] == [70, *[10] * 15]


def test_no_point_is_lost_without_its_reason() -> None:
    total, losses = score(gpu(), [INFO] * 30)
    assert total == 100 - sum(loss.points for loss in losses) == 68


def test_the_words_of_health_and_the_score_agree() -> None:
    worn = gpu(
        ecc_uncorrected_aggregate=1,
        remapped_rows_uncorrected=99,
        remap_histogram=RowHistogram(0, 0, 0, 1, 1),
        temperature_celsius=87,
        temperature_slowdown_celsius=87,
    )
    healthy, degraded, unhealthy = (
        score(one, found)[0] for one, found in ((worn, []), (gpu(), [WARNING]), (gpu(), [CRITICAL]))
    )
    assert healthy >= 70
    assert degraded <= 75
    assert unhealthy <= 30
