"""The vocabulary is ordered, closed, and the same as the design's list."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudiag_api.vocabulary import Action, BreakerState, Capability, Health, Severity


def test_health_is_ordered_unhealthy_unknown_degraded_healthy() -> None:
    ordered = sorted(Health, key=lambda health: -health.badness)
    assert ordered == [Health.UNHEALTHY, Health.UNKNOWN, Health.DEGRADED, Health.HEALTHY]


def test_no_data_is_not_healthy() -> None:
    assert Health.worst([]) is Health.UNKNOWN


@given(st.lists(st.sampled_from(Health), min_size=1))
def test_the_worst_of_the_parts_is_one_of_them_and_none_is_worse(parts: list[Health]) -> None:
    worst = Health.worst(parts)
    assert worst in parts
    assert all(part.badness <= worst.badness for part in parts)


@pytest.mark.parametrize(
    ("severity", "health"),
    [(Severity.INFO, Health.HEALTHY), (Severity.WARNING, Health.DEGRADED), (Severity.CRITICAL, Health.UNHEALTHY)],
)
def test_a_severity_makes_a_health(severity: Severity, health: Health) -> None:
    assert severity.health is health


def test_severities_are_ordered() -> None:
    assert sorted(Severity, key=lambda severity: severity.badness) == list(Severity)


def test_the_most_disruptive_action_covers_the_others() -> None:
    assert Action.covering([Action.CHECK_COOLING, Action.REPLACE_GPU, Action.NONE]) is Action.REPLACE_GPU
    assert Action.covering([]) is Action.NONE


def test_only_some_capabilities_blind_the_agent() -> None:
    harmless = {capability for capability in Capability if not capability.blinds}
    assert harmless == {Capability.NO_KERNEL_LOG, Capability.NO_POD_RESOURCES, Capability.NO_HOST_PIDS}


def test_the_breaker_metric_is_0_closed_1_open_2_half_open() -> None:
    assert [state.metric for state in BreakerState] == [0, 1, 2, 1, 0]
