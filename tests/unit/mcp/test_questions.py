"""From resources to answers: what an on-call engineer asks, as pure functions."""

from typing import Any, ClassVar

import pytest
from tests.unit.mcp.world import (
    NOW,
    ago,
    allocation,
    condition,
    diagnostic,
    diagnostics,
    finding,
    full,
    gpu,
    node,
    nodes,
    xid,
)

from gpudiag_api.vocabulary import Capability, NotRead
from gpudiag_mcp.answers.refusals import Refusal
from gpudiag_mcp.questions import describe, events, explain, freshness, health, incident, inventory, pods, results, xids
from gpudiag_mcp.questions import diagnostics as asked
from gpudiag_mcp.questions.diagnosing import Diagnosing
from gpudiag_mcp.questions.freshness import OperatorSign

BAD: dict[str, Any] = {
    "health": "Unhealthy",
    "recommendedAction": "DrainAndResetGPU",
    "reason": "VolatileUncorrectableErrors",
}
HOW = Diagnosing(enabled=True, namespace="team-a")


class TestHealth:
    def test_the_worst_node_is_the_verdict_and_comes_first(self) -> None:
        found = nodes(
            node("a"), node("b", health="Degraded"), node("c", health="Unknown"), node("d", **BAD, findings=[finding()])
        )
        answer = health.fleet_health(found, now=NOW)
        assert answer.verdict == "Unhealthy"
        assert [row.node for row in answer.worst] == ["d", "c", "b"]
        assert answer.nodes.model_dump() == {"total": 4, "healthy": 1, "degraded": 1, "unhealthy": 1, "unknown": 1}
        assert "ECCUncorrectable/VolatileUncorrectableErrors" in answer.summary
        assert answer.next is not None
        assert answer.next.action == "DrainAndResetGPU"

    def test_a_node_that_cannot_be_read_is_never_healthy(self) -> None:
        assert health.fleet_health(nodes(node("a"), node("b", health="Unknown")), now=NOW).verdict == "Unknown"
        never_judged = {"kind": "GPUNode", "metadata": {"name": "new"}}
        assert health.fleet_health(nodes(never_judged), now=NOW).verdict == "Unknown"

    def test_partial_data_is_an_answer_with_a_warning(self) -> None:
        found = nodes(node("a"), node("b", health="Unknown", reason="Timeout"))
        for answer in (
            health.fleet_health(found, now=NOW),
            health.list_nodes(found, now=NOW),
            inventory.fleet_inventory(found),
            describe.fleet(found, now=NOW),
            xids.analyze(found),
            pods.allocation(found),
        ):
            assert answer.warnings == ("Not read at present, last known state (Timeout: b).",)

    @pytest.mark.parametrize("reason", [*NotRead, *(gap for gap in Capability if gap.blinds), "NotReadYet", "NewWord"])
    def test_the_next_step_of_a_node_that_is_not_read_is_to_see_again(self, reason: str) -> None:
        found = nodes(node("a"), node("b", health="Unknown", reason=reason, allocations=[allocation("b", 0, "train")]))
        for answer in (
            health.fleet_health(found, now=NOW),
            health.node_health(found[1], now=NOW),
            describe.fleet(found, now=NOW),
            describe.node(found[1], now=NOW),
            incident.report(found, now=NOW),
            explain.explain(found, pod="train"),
        ):
            assert answer.next is not None
            assert "Nothing to do" not in answer.next.do
            assert answer.next.do.endswith(".")

    def test_a_finding_that_asks_for_more_comes_before_a_node_that_is_not_read(self) -> None:
        found = nodes(node("a", **BAD, findings=[finding()]), node("b", health="Unknown", reason="Timeout"))
        answer = health.fleet_health(found, now=NOW)
        assert answer.next is not None
        assert answer.next.action == "DrainAndResetGPU"

    def test_a_word_of_a_newer_operator_counts_as_unknown(self) -> None:
        newer = nodes(node("a"), node("b", health="Splendid"))
        assert health.fleet_health(newer, now=NOW).verdict == "Unknown"

    def test_maintenance_does_not_move_the_verdict_until_it_is_over(self) -> None:
        at_work = {"maintenance": {"reason": "swap", "until": ago(-60)}}
        found = nodes(node("a"), node("b", **BAD, spec=at_work))
        answer = health.fleet_health(found, now=NOW)
        assert answer.verdict == "Healthy"
        assert answer.maintenance_nodes == 1
        assert health.fleet_health(found, now=NOW + 120).verdict == "Unhealthy"

    def test_of_a_node_it_names_gpus_pods_and_what_was_measured(self) -> None:
        one = nodes(node("d", **BAD, findings=[finding()], allocations=[allocation("d", 0, "train")]))[0]
        answer = health.node_health(one, now=NOW)
        assert answer.bad_gpus[0].index == 0
        assert answer.bad_gpus[0].pods == ("team-a/train",)
        assert answer.findings[0].untrusted_evidence == ("volatileUncorrectable = 2 (limit 0)",)

    def test_pages_meet_every_node_once_and_worst_first(self) -> None:
        found = nodes(*(node(f"n{at:02}", **(BAD if at % 3 == 0 else {})) for at in range(25)))
        seen: list[str] = []
        token = ""
        while True:
            page = health.list_nodes(found, now=NOW, limit=10, continue_token=token)
            seen += [row.node for row in page.rows]
            token = page.continue_token
            if not token:
                break
            assert page.truncated
        assert len(seen) == len(set(seen)) == 25
        assert seen[:9] == [f"n{at:02}" for at in range(0, 25, 3)]

    @pytest.mark.parametrize("token", ["nonsense!", "e30", "WyJub2Rlcy9IZWFsdGh5IixbMV1d"])
    def test_a_token_of_something_else_says_what_to_do(self, token: str) -> None:
        with pytest.raises(Refusal, match="List again without continue_token"):
            health.list_nodes(nodes(node("a")), now=NOW, continue_token=token)


class TestXIDs:
    def test_codes_worst_first_with_whom_and_where(self) -> None:
        application = xid(31, severity="Info", blame="Application", recommendedAction="CheckApplication", count=9)
        answer = xids.analyze(nodes(node("a", xids=[application]), node("b", xids=[xid(pod="t/p")])))
        assert [(row.code, row.blame) for row in answer.codes] == [(79, "Hardware"), (31, "Application")]
        assert answer.codes[0].gpus == ("b/0",)
        assert answer.codes[0].pods == ("t/p",)
        assert answer.occurrences == 12
        assert answer.verdict == "Unhealthy"

    def test_an_applications_fault_leaves_the_gpu_healthy(self) -> None:
        application = xid(31, severity="Info", blame="Application", recommendedAction="CheckApplication")
        assert xids.analyze(nodes(node("a", xids=[application]))).verdict == "Healthy"

    @pytest.mark.parametrize(
        ("code", "meaning", "severity"), [(48, "uncorrectable", "Critical"), (999, "not in the", "Warning")]
    )
    def test_a_code_is_explained_whether_it_was_seen_or_not(self, code: int, meaning: str, severity: str) -> None:
        answer = xids.analyze(nodes(node("a")), code=code)
        assert answer.catalogue is not None
        assert answer.catalogue.docs.startswith("https://docs.nvidia.com/")
        assert meaning in answer.catalogue.meaning.lower()
        assert answer.catalogue.severity == severity
        assert meaning in answer.summary.lower()
        assert answer.verdict == "Healthy", "not seen here"
        assert xids.analyze(nodes(node("a"))).catalogue is None

    def test_none_seen_is_not_the_same_as_not_looked(self) -> None:
        blind = {"reachable": True, "capabilities": [{"reason": "NoKernelLog"}]}
        answer = xids.analyze(nodes(node("a", agent=blind)))
        assert answer.verdict == "Unknown"
        assert "No kernel log is read on a" in answer.warnings[0]


class TestExplain:
    HELD: ClassVar[dict[str, Any]] = {"allocations": [allocation("b", 0, "train")]}

    def verdict(self, *found: dict[str, Any], pod: str = "train") -> tuple[str, str, str]:
        answer = explain.explain(nodes(*found), pod=pod)
        return answer.verdict, answer.blame, answer.confidence

    def test_an_error_that_names_the_pod_weighs_most(self) -> None:
        one = node("b", **BAD, **self.HELD, xids=[xid(pod="team-a/train")])
        assert self.verdict(one) == ("Unhealthy", "Hardware", "High")

    def test_an_application_error_blames_the_job_and_not_the_gpu(self) -> None:
        own = xid(31, severity="Info", blame="Application", recommendedAction="CheckApplication", pod="team-a/train")
        answer = explain.explain(nodes(node("b", **self.HELD, xids=[own])), pod="team-a/train")
        assert (answer.verdict, answer.blame, answer.confidence) == ("Healthy", "Application", "High")
        assert answer.next is not None
        assert answer.next.action == "CheckApplication"

    def test_a_fault_of_its_gpu_is_a_medium_suspicion(self) -> None:
        assert self.verdict(node("b", **BAD, **self.HELD, findings=[finding()])) == ("Unhealthy", "Hardware", "Medium")

    def test_a_fault_of_the_other_gpu_is_not_its_fault(self) -> None:
        other = finding(subject={"gpu": 1})
        assert self.verdict(node("b", **BAD, **self.HELD, findings=[other])) == ("Healthy", "Unknown", "Low")

    def test_a_node_that_cannot_be_read_is_unknown_and_not_to_blame(self) -> None:
        one = node("b", health="Unknown", reason="Timeout", **self.HELD)
        assert self.verdict(one) == ("Unknown", "Unknown", "Low")

    def test_without_evidence_it_says_where_else_to_look(self) -> None:
        answer = explain.explain(nodes(node("b", **self.HELD)), pod="train")
        assert answer.next is not None
        assert "kubectl logs --previous" in answer.next.do

    def test_a_pod_that_ended_is_still_known_by_its_error(self) -> None:
        assert self.verdict(node("b", xids=[xid(pod="team-a/train")]))[2] == "High"

    def test_a_pod_nobody_knows_gets_the_nearest_names(self) -> None:
        with pytest.raises(Refusal, match="Nearest names: train"):
            explain.explain(nodes(node("b", **self.HELD)), pod="trian")

    def test_the_same_name_twice_asks_for_the_namespace(self) -> None:
        two = [allocation("b", 0, "train"), allocation("b", 1, "train", "team-b")]
        with pytest.raises(Refusal, match="Pass namespace"):
            explain.explain(nodes(node("b", allocations=two)), pod="train")
        assert explain.explain(nodes(node("b", allocations=two)), pod="team-b/train").pod == "team-b/train"

    def test_without_a_pod_it_lists_those_at_risk(self) -> None:
        answer = explain.explain(nodes(node("a"), node("b", **BAD, **self.HELD)))
        assert "team-a/train" in answer.summary


class TestTheRest:
    def test_inventory_groups_what_is_alike(self) -> None:
        mig = gpu("c", 0, migEnabled=True, mig=[{"uuid": "MIG-1", "instance": "gi1/ci0", "profile": "1g.10gb"}])
        answer = inventory.fleet_inventory(nodes(node("a"), node("b"), node("c", gpu_list=[mig])))
        assert [(row.gpus, row.node_count, row.mig) for row in answer.groups] == [
            (4, 2, "Unsupported"),
            (1, 1, "Enabled"),
        ]
        assert answer.groups[0].memory_gib == 80.0

    def test_a_mig_device_belongs_to_its_gpu(self) -> None:
        sick = gpu("c", 0, health="Unhealthy", mig=[{"uuid": "MIG-1", "instance": "gi1/ci0", "profile": "1g.10gb"}])
        held = {"gpuUUID": "MIG-1", "namespace": "t", "pod": "p", "container": "main"}
        answer = pods.allocation(nodes(node("c", health="Unhealthy", gpu_list=[sick], allocations=[held])))
        assert [(row.gpu, row.gpu_health) for row in answer.rows] == [("0", "Unhealthy")]
        assert "t/p" in answer.summary

    def test_a_described_node_has_everything(self) -> None:
        one = nodes(node("b", **BAD, findings=[finding()], breaker={"state": "Open", "failures": 3}))[0]
        answer = describe.node(one, now=NOW)
        assert "Circuit breaker: Open" in answer.summary
        assert answer.breaker_failures == 3
        assert len(answer.gpus) == 2
        assert {row.type for row in answer.conditions} == {"Ready", "AgentReachable"}

    def test_an_incident_has_a_beginning_victims_and_actions_in_order(self) -> None:
        second = finding(check="Temperature", recommendedAction="CheckCooling", firstSeen=ago(3600), severity="Warning")
        bad = node("b", **BAD, findings=[finding(), second], allocations=[allocation("b", 0, "train")])
        answer = incident.report(nodes(node("a"), bad, node("c", health="Unknown", reason="Timeout")), now=NOW)
        assert answer.since == ago(3600)
        assert [row.pod for row in answer.affected_pods] == ["train"]
        assert [action.partition(":")[0] for action in answer.actions] == ["CheckCooling", "DrainAndResetGPU"]
        assert answer.unknowns == ("c: Timeout",)

    def test_events_come_newest_first_and_only_as_many_as_asked(self) -> None:
        one = node("b", findings=[finding(firstSeen=ago(9))], xids=[xid(lastSeen=ago(5)), xid(48, lastSeen=ago(7))])
        newest = events.newest(nodes(one), 2, with_info=False)
        assert [row.what.split()[0] for row in newest.rows] == ["XID", "XID"]
        assert newest.total == 3


class TestFullResults:
    def test_a_fresh_full_diagnostic_is_used(self) -> None:
        answer = results.timeline(nodes(node("b")), diagnostics(full("f", "b")), HOW, now=NOW, node="b")
        assert len(answer.samples) == 12
        assert answer.needs_diagnostic is None
        topology = results.topology(nodes(node("b")), diagnostics(full("f", "b")), HOW, now=NOW, node="b")
        assert topology.links[0].links == 18

    def test_of_one_gpu_when_asked(self) -> None:
        found = diagnostics(full("f", "b"))
        answer = results.timeline(nodes(node("b")), found, HOW, now=NOW, node="b", gpu=1)
        assert {row.gpu for row in answer.samples} == {1}
        assert "6 samples of GPU 1" in answer.summary

    def test_without_one_it_names_the_exact_arguments(self) -> None:
        needs = results.timeline(nodes(node("b")), [], HOW, now=NOW, node="b").needs_diagnostic
        assert needs is not None
        assert needs.arguments == {"node": "b", "detail": "Full", "wait_s": 60}

    def test_an_old_one_is_not_used(self) -> None:
        found = diagnostics(full("f", "b"))
        assert results.newest(found, "b", now=NOW + 800) is not None
        assert results.newest(found, "b", now=NOW + 900) is None

    def test_a_node_that_cannot_be_read_needs_no_diagnostic(self) -> None:
        answer = results.timeline(nodes(node("b", health="Unknown")), [], HOW, now=NOW, node="b")
        assert answer.needs_diagnostic is None
        assert "cannot be reached" in answer.summary

    def test_a_read_only_server_gives_the_manifest(self) -> None:
        how = Diagnosing(enabled=False, namespace="team-a")
        needs = results.topology(nodes(node("b")), [], how, now=NOW, node="b").needs_diagnostic
        assert needs is not None
        assert needs.manifest is not None
        assert needs.manifest["spec"]["target"] == {"nodeNames": ["b"]}


class TestDiagnostics:
    @pytest.mark.parametrize(
        ("conditions", "mode", "done"),
        [
            ([condition("Complete", True, "Succeeded")], "Once", True),
            ([condition("Complete", False, "Running")], "Once", False),
            ([condition("Stalled", True, "NotYetSupported")], "Once", True),
            ([], "Once", False),
            ([{**condition("Complete", True, "Succeeded"), "observedGeneration": 0}], "Once", True),
            ([condition("Ready", True, "Fresh")], "Continuous", True),
            ([condition("Ready", False, "Processing")], "Continuous", False),
            ([condition("Ready", False, "NoTargets")], "Continuous", True),
        ],
    )
    def test_when_waiting_is_over(self, conditions: list[Any], mode: str, done: bool) -> None:
        one = diagnostics(diagnostic(spec={"mode": mode}, conditions=conditions))[0]
        assert asked.done(one) is done

    def test_an_answer_to_an_older_question_is_none(self) -> None:
        one = diagnostic(spec={"mode": "Once"})
        one["metadata"]["generation"] = 2
        assert asked.done(diagnostics(one)[0]) is False

    def test_stalled_says_why(self) -> None:
        one = diagnostics(diagnostic(spec={"mode": "Once"}, conditions=[condition("Stalled", True, "InvalidTarget")]))
        assert "cannot run: InvalidTarget" in asked.diagnostic(one[0]).summary

    def test_the_list_is_worst_first_and_filters_by_node(self) -> None:
        rows = [{"name": "b", "health": "Unhealthy"}]
        found = diagnostics(diagnostic("a"), diagnostic("b", verdict="Unhealthy", nodes=rows))
        answer = asked.list_diagnostics(found, now=NOW)
        assert [row.name for row in answer.rows] == ["b", "a"]
        assert [row.name for row in asked.list_diagnostics(found, now=NOW, node="b").rows] == ["b"]


class TestFreshness:
    SIGN = OperatorSign(renewed=NOW, duration_seconds=15, problem="")

    @pytest.mark.parametrize(("age", "state"), [(0, "Fresh"), (30, "Fresh"), (31, "Stale")])
    def test_a_lease_is_good_for_twice_its_duration(self, age: float, state: str) -> None:
        assert freshness.of_operator(self.SIGN, now=NOW + age, monotonic=age).state == state

    def test_a_lease_that_moves_is_fresh_whatever_the_clocks_say(self) -> None:
        sign = OperatorSign(renewed=NOW - 9999, duration_seconds=15, moved_at=100.0)
        assert freshness.of_operator(sign, now=NOW, monotonic=120.0).state == "Fresh"
        assert freshness.of_operator(sign, now=NOW, monotonic=131.0).state == "Stale"

    def test_who_may_not_read_it_does_not_know(self) -> None:
        found = freshness.of_operator(OperatorSign(problem="the Lease may not be read"), now=NOW, monotonic=0)
        assert found.state == "Unknown"
        assert "may not be read" in found.why

    @pytest.mark.parametrize(
        ("interval", "age", "state"), [("30s", 600, "Fresh"), ("30s", 601, "Stale"), ("1h", 7200, "Fresh")]
    )
    def test_a_continuous_verdict_must_be_confirmed(self, interval: str, age: float, state: str) -> None:
        one = diagnostics(diagnostic(spec={"interval": interval}, lastConfirmedAt=ago(age)))[0]
        operator = freshness.Freshness("Fresh")
        assert freshness.of_diagnostic(one, operator, now=NOW).state == state
        suspended = diagnostics(diagnostic(spec={"suspend": True}, lastConfirmedAt=ago(9999)))[0]
        assert freshness.of_diagnostic(suspended, operator, now=NOW).state == "Fresh"
