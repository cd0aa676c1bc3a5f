"""Health of a node: worst of its parts, and no data is not healthy."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.operator.fleet import (
    CRITICAL,
    INFO,
    NOW,
    WARNING,
    finding,
    gap,
    gpu,
    node_of,
    report,
    with_counts,
)

from gpudiag_api.kinds import GPUNodeSpec
from gpudiag_api.vocabulary import Action, Capability, Health, NotRead, Severity
from gpudiag_api.wire import Subject
from gpudiag_operator.assess.node import assess
from gpudiag_operator.domain import Reading, Target

BLINDING = [one for one in Capability if one.blinds]
HARMLESS = [one for one in Capability if not one.blinds]


def test_a_node_without_findings_is_healthy() -> None:
    state = node_of(gpus=8)
    assert (state.health, state.reason, state.action) == (Health.HEALTHY, "AllHealthy", Action.NONE)
    assert state.message == "Healthy: all 8 GPUs work."


@pytest.mark.parametrize(
    ("severity", "health"), [(CRITICAL, Health.UNHEALTHY), (WARNING, Health.DEGRADED), (INFO, Health.HEALTHY)]
)
def test_a_finding_weighs_on_its_gpu_and_its_node(severity: Severity, health: Health) -> None:
    state = node_of(findings=(finding(severity, index=1),))
    assert [gpu.health for gpu in state.gpus] == [Health.HEALTHY, health]
    assert state.health is health


def test_the_message_says_verdict_evidence_and_next_action() -> None:
    state = node_of(findings=(finding(WARNING, index=1), finding(CRITICAL, index=0)))
    assert state.message == (
        "Unhealthy: GPU 0 counts 2 uncorrectable memory errors (and 1 more finding);"
        " next: drain the node and reset the GPU."
    )
    assert state.reason == "UncorrectableErrors"


def test_the_action_covers_all_findings() -> None:
    findings = (finding(CRITICAL), finding(WARNING, index=1, reason="Hot", action=Action.REPLACE_GPU))
    assert node_of(findings=findings).action is Action.REPLACE_GPU


def test_a_finding_about_a_gpu_that_is_not_there_is_about_the_node() -> None:
    lost = finding(CRITICAL, subject=Subject(gpu_index=1, gpu_uuid="GPU-lost", pci="0000:ff:00.0"))
    state = node_of(findings=(lost,))
    assert state.health is Health.UNHEALTHY
    assert [gpu.health for gpu in state.gpus] == [Health.HEALTHY] * 2  # index 1 is another GPU now


@pytest.mark.parametrize("capability", BLINDING)
def test_what_blinds_the_agent_makes_the_gpus_unknown(capability: Capability) -> None:
    state = node_of(capabilities=(gap(Capability.NO_KERNEL_LOG), gap(capability)))
    assert {state.health, *(gpu.health for gpu in state.gpus)} == {Health.UNKNOWN}
    assert state.reason == capability
    assert f"what says {capability}" in state.message


@pytest.mark.parametrize("capability", HARMLESS)
def test_the_other_capabilities_never_change_health(capability: Capability) -> None:
    assert node_of(capabilities=(gap(capability),)).health is Health.HEALTHY


def test_a_critical_finding_of_another_source_outranks_blindness() -> None:
    state = node_of(capabilities=(gap(Capability.DRIVER_HUNG),), findings=(finding(CRITICAL, index=1),))
    assert [gpu.health for gpu in state.gpus] == [Health.UNKNOWN, Health.UNHEALTHY]
    assert (state.health, state.reason) == (Health.UNHEALTHY, "UncorrectableErrors")


def test_a_warning_does_not() -> None:
    state = node_of(capabilities=(gap(Capability.DRIVER_HUNG),), findings=(finding(WARNING),))
    assert (state.health, state.reason) == (Health.UNKNOWN, "DriverHung")


def test_no_gpus_at_all_is_unknown() -> None:
    state = node_of(gpus=0)
    assert (state.health, state.reason) == (Health.UNKNOWN, "NoGPUs")


@pytest.mark.parametrize("health", [Health.UNKNOWN, Health.UNHEALTHY, Health.DEGRADED])
def test_what_the_agent_says_is_never_made_better(health: Health) -> None:
    assert node_of(health=health).health is health
    assert assess_report(gpus=(gpu(0), gpu(1, health=health))) is health


def assess_report(**fields: object) -> Health:
    whole = msgspec.structs.replace(report(), **fields)
    return assess(Reading(target=Target(node="n1"), report=whole), node=None, now=NOW).health


class TestUnread:
    @pytest.mark.parametrize("reason", list(NotRead))
    def test_it_is_unknown_for_that_reason(self, reason: NotRead) -> None:
        state = node_of(failure=reason)
        assert (state.health, state.reason, state.action) == (Health.UNKNOWN, reason, Action.NONE)
        assert "gave no answer in 5 s" in state.message

    def test_its_inventory_stays_and_is_unknown(self) -> None:
        state = node_of(failure=NotRead.TIMEOUT, gpus=3)
        assert [gpu.health for gpu in state.gpus] == [Health.UNKNOWN] * 3
        assert state.driver.version == "570.133.20"

    def test_what_was_known_is_said_and_no_verdict(self) -> None:
        state = node_of(failure=NotRead.TIMEOUT, findings=(finding(CRITICAL, index=1), finding(WARNING)))
        assert state.health is Health.UNKNOWN
        assert "last known, at 2026-11-21T03:00:00.000Z: Critical UncorrectableErrors on GPU 1 and 1 more" in (
            state.message
        )
        assert len(state.findings) == 2

    def test_a_blocked_target_needs_no_failure(self) -> None:
        target = Target(node="n1", blocked=NotRead.AGENT_MISSING, message="no agent runs here")
        state = assess(Reading(target=target), node=None, now=NOW)
        assert (state.reason, state.failure and state.failure.reason) == ("AgentMissing", NotRead.AGENT_MISSING)

    def test_without_a_report_what_was_known_before_is_used(self) -> None:
        before = node_of(gpus=4, findings=(finding(),))
        state = node_of(failure=NotRead.TIMEOUT, unseen=True, last=before)
        assert (len(state.gpus), state.findings, state.health) == (4, before.findings, Health.UNKNOWN)


class TestMaintenance:
    @pytest.mark.parametrize(
        ("until", "on"), [(None, True), ("2999-01-01T00:00:00Z", True), ("2020-01-01T00:00:00Z", False)]
    )
    def test_it_lasts_until_its_end(self, until: str | None, *, on: bool) -> None:
        spec = GPUNodeSpec.model_validate({"maintenance": {"until": until}})
        assert node_of(spec=spec).maintenance is on

    def test_there_is_none_by_default(self) -> None:
        assert node_of().maintenance is False


def test_duplicates_of_an_agent_are_taken_once() -> None:
    whole = msgspec.structs.replace(report(), gpus=(gpu(0), gpu(0)), findings=(finding(), finding(count=7)))
    state = assess(Reading(target=Target(node="n1"), report=whole), node=None, now=NOW)
    assert (len(state.gpus), len(state.findings)) == (1, 1)


severities = st.sampled_from(Severity)
some_findings = st.lists(
    st.builds(finding, severities, st.sampled_from([None, 0, 1, 2]), reason=st.sampled_from(["A", "B", "C"])),
    max_size=6,
)


@given(some_findings, st.randoms())
def test_the_order_of_findings_does_not_matter(findings: list, random) -> None:  # type: ignore[no-untyped-def, type-arg]
    shuffled = findings.copy()
    random.shuffle(shuffled)
    assert node_of(findings=tuple(findings)) == node_of(findings=tuple(shuffled))


@given(some_findings)
def test_a_node_is_as_bad_as_its_worst_finding(findings: list) -> None:  # type: ignore[type-arg]
    state = node_of(findings=tuple(findings))
    assert state.health is Health.worst([Health.HEALTHY, *(one.severity.health for one in findings)])
    badness = [one.severity.badness for one in state.findings]
    assert badness == sorted(badness, reverse=True)


def test_repeats_change_no_health() -> None:
    state = node_of(findings=(finding(),))
    again = with_counts(state, 9)
    assert (again.health, again.reason) == (state.health, state.reason)
