"""A diagnostic's own judgement of a node."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.operator.fleet import (
    CRITICAL,
    INFO,
    WARNING,
    application_xid,
    finding,
    gap,
    node_of,
    spec_of,
    subject,
    xid,
)

from gpudiag_api.vocabulary import Capability, Health, NotRead, Severity
from gpudiag_api.wire import Driver, Evidence, Subject
from gpudiag_operator.assess.policy import Row, row
from gpudiag_operator.assess.weigh import Counts
from gpudiag_operator.domain import NodeState
from gpudiag_operator.kube.selectors import SelectorError


def judged(state: NodeState, **spec: Any) -> Row:
    return row(state, spec_of(**spec))


SICK = node_of(findings=(finding(CRITICAL, index=0), finding(WARNING, index=1, check="Temperature", reason="Hot")))


def test_without_policy_a_row_is_what_the_gpunode_says() -> None:
    found = judged(SICK)
    assert (found.health, found.reason, found.changed_by_policy) == (SICK.health, SICK.reason, False)
    assert found.gpus == Counts(total=2, degraded=1, unhealthy=1)


@pytest.mark.parametrize(
    ("checks", "health", "reason"),
    [
        ({"exclude": ["ECCUncorrectable"]}, Health.DEGRADED, "Hot"),
        ({"include": ["Temperature"]}, Health.DEGRADED, "Hot"),
        ({"include": ["ECCUncorrectable", "Temperature"]}, Health.UNHEALTHY, "UncorrectableErrors"),
        ({"include": ["ECCUncorrectable"], "exclude": ["ECCUncorrectable"]}, Health.HEALTHY, "AllHealthy"),
        ({"include": ["RowRemap"]}, Health.HEALTHY, "AllHealthy"),
    ],
)
def test_checks_filter_findings(checks: dict[str, list[str]], health: Health, reason: str) -> None:
    found = judged(SICK, checks=checks)
    assert (found.health, found.reason, found.changed_by_policy) == (health, reason, health is not SICK.health)


def test_a_filter_makes_no_blind_node_healthy() -> None:
    blind = node_of(capabilities=(gap(Capability.DRIVER_HUNG),), findings=(finding(CRITICAL),))
    found = judged(blind, checks={"exclude": ["ECCUncorrectable"]})
    assert (found.health, found.reason) == (Health.UNKNOWN, "DriverHung")
    assert found.gpus.unknown == 2


def test_nor_one_that_the_agent_calls_bad_without_a_finding() -> None:
    found = judged(node_of(health=Health.UNHEALTHY), checks={"exclude": ["XID"]}, policy={"expectedGPUsPerNode": 3})
    assert found.health is Health.UNHEALTHY
    found = judged(node_of(health=Health.DEGRADED, xids=(xid(code=1),)), policy={"xids": {"critical": [999]}})
    assert (found.health, found.reason) == (Health.DEGRADED, "ReportedByAgent")


def test_nor_a_gpu_of_which_nothing_is_known() -> None:
    state = node_of(findings=(finding(INFO),))
    gpus = (state.gpus[0], msgspec.structs.replace(state.gpus[1], health=Health.UNKNOWN))
    state = msgspec.structs.replace(state, gpus=gpus, health=Health.UNKNOWN)
    assert judged(state, checks={"exclude": ["ECCUncorrectable"]}).gpus == Counts(total=2, healthy=1, unknown=1)


def test_an_unread_node_is_unknown_whatever_the_policy() -> None:
    state = node_of(failure=NotRead.TIMEOUT, findings=(finding(),))
    found = judged(state, checks={"exclude": ["ECCUncorrectable"]}, policy={"expectedGPUsPerNode": 8})
    assert (found.health, found.reason, found.findings, found.burden) == (Health.UNKNOWN, "Timeout", (), 0)
    assert found.gpus == Counts(total=2, unknown=2)


class TestExpectations:
    @pytest.mark.parametrize(("want", "health"), [(2, Health.HEALTHY), (3, Health.UNHEALTHY), (1, Health.DEGRADED)])
    def test_number_of_gpus(self, want: int, health: Health) -> None:
        found = judged(node_of(), policy={"expectedGPUsPerNode": want})
        assert found.health is health
        assert found.changed_by_policy is (health is not Health.HEALTHY)
        assert found.burden == (1 if health is Health.UNHEALTHY else 0)

    def test_driver(self) -> None:
        found = judged(node_of(), policy={"expectedDriverVersion": "575.1"})
        assert (found.health, found.reason, found.action) == (
            Health.DEGRADED,
            "UnexpectedDriverVersion",
            "UpdateDriver",
        )
        assert found.top is not None
        assert found.top.message == "driver 570.133.20 instead of 575.1."

    def test_an_unknown_driver_is_not_held_against_a_node(self) -> None:
        assert judged(node_of(driver=Driver()), policy={"expectedDriverVersion": "575.1"}).health is Health.HEALTHY

    def test_model(self) -> None:
        found = judged(node_of(), policy={"expectedModel": "NVIDIA H200"})
        assert (found.health, found.reason) == (Health.DEGRADED, "UnexpectedModel")
        assert judged(node_of(), policy={"expectedModel": "NVIDIA H100 80GB HBM3"}).health is Health.HEALTHY


class TestXIDs:
    NOTED = finding(CRITICAL, check="XID", reason="XID48")

    def test_ignored_codes_do_not_count(self) -> None:
        found = judged(node_of(findings=(self.NOTED,), xids=(xid(48),)), policy={"xids": {"ignore": [48]}})
        assert (found.health, found.findings, found.changed_by_policy) == (Health.HEALTHY, (), True)

    def test_other_codes_do(self) -> None:
        found = judged(node_of(findings=(self.NOTED,)), policy={"xids": {"ignore": [49]}})
        assert found.health is Health.UNHEALTHY

    def test_a_critical_code_makes_its_gpu_unhealthy(self) -> None:
        found = judged(node_of(xids=(application_xid(index=1),)), policy={"xids": {"critical": [31]}})
        assert (found.health, found.reason) == (Health.UNHEALTHY, "XID31")
        assert found.gpus == Counts(total=2, healthy=1, unhealthy=1)

    def test_its_finding_is_raised_not_doubled(self) -> None:
        noted = finding(INFO, check="XID", reason="UnclassifiedXID", evidence=(Evidence(name="xid", value="999"),))
        found = judged(node_of(findings=(noted,), xids=(xid(999),)), policy={"xids": {"critical": [999]}})
        assert [(one.reason, one.severity) for one in found.findings] == [("UnclassifiedXID", CRITICAL)]

    def test_an_excluded_check_stays_excluded(self) -> None:
        found = judged(node_of(xids=(xid(31),)), policy={"xids": {"critical": [31]}}, checks={"exclude": ["XID"]})
        assert found.health is Health.HEALTHY


BROKEN_POOL = {"maintenanceSelector": {"matchLabels": {"pool": "broken"}}}


class TestMaintenance:
    def test_by_label(self) -> None:
        assert judged(node_of(labels={"pool": "broken"}), policy=BROKEN_POOL).maintenance
        assert not judged(node_of(labels={"pool": "a"}), policy=BROKEN_POOL).maintenance

    def test_it_changes_no_health(self) -> None:
        state = msgspec.structs.replace(SICK, maintenance=True)
        found = judged(state)
        assert (found.maintenance, found.health) == (True, Health.UNHEALTHY)

    def test_a_selector_that_means_nothing_is_refused(self) -> None:
        with pytest.raises(SelectorError):
            judged(SICK, policy={"maintenanceSelector": {"matchLabels": {"-": "x"}}})


class TestBurden:
    def test_a_gpu_that_was_lost_counts(self) -> None:
        lost = finding(CRITICAL, subject=Subject(gpu_uuid="GPU-gone", pci="0000:ff:00.0"))
        found = judged(node_of(findings=(lost, finding(CRITICAL, index=1))))
        assert (found.burden, found.gpus.total, found.gpus.unhealthy) == (2, 3, 2)

    def test_what_is_wrong_with_the_node_burdens_all_its_gpus(self) -> None:
        assert judged(node_of(gpus=8, findings=(finding(CRITICAL, index=None),))).burden == 8


findings = st.lists(
    st.builds(
        finding,
        st.sampled_from(Severity),
        st.sampled_from([None, 0, 1, 7]),
        check=st.sampled_from(["XID", "Temperature", "ECCUncorrectable"]),
        reason=st.sampled_from(["XID48", "B"]),
    ),
    max_size=5,
)
blindness = st.sampled_from([(), (gap(Capability.DRIVER_HUNG),)])


@given(findings, blindness)
def test_a_policy_that_touches_nothing_changes_nothing(some: Any, blind: Any) -> None:
    state = node_of(findings=tuple(some), capabilities=blind)
    plain, weighed = judged(state), judged(state, policy={"xids": {"ignore": [1]}})
    assert plain == weighed
    assert plain.health is state.health


@given(findings, blindness)
def test_leaving_checks_out_never_makes_worse_and_never_sees_what_nobody_saw(some: Any, blind: Any) -> None:
    state = node_of(findings=tuple(some), capabilities=blind)
    found = judged(state, checks={"exclude": ["XID", "Temperature"]})
    assert found.health.badness <= state.health.badness
    assert not blind or found.health.badness >= Health.UNKNOWN.badness


def test_the_subject_of_a_mig_instance_is_its_gpu() -> None:
    on_mig = msgspec.structs.replace(subject(1), mig_gpu_instance=3, mig_compute_instance=0)
    assert judged(node_of(findings=(finding(CRITICAL, subject=on_mig),))).gpus.unhealthy == 1
