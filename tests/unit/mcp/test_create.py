"""What may be created, and that it is created once."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.mcp.world import NOW, Clock, condition, diagnostic, diagnostics

from gpudiag_api.kinds import GPUDiagnostic
from gpudiag_mcp.answers.refusals import Refusal
from gpudiag_mcp.create.policy import RETRY_SECONDS, Policy, Provenance, Rate, Request, check, manifest, names

WHO = Provenance(principal="alice", client="tester 1.0", correlation_id="abc")


def made(request: Request) -> dict[str, Any]:
    return manifest(request, namespace="team-a", name="mcp-1", provenance=WHO)


def test_it_is_once_with_a_ttl_and_its_origin() -> None:
    body = made(Request(node="gpu-a", detail="Full", reason="ticket 12"))
    assert body["spec"] == {
        "mode": "Once",
        "detail": "Full",
        "deadline": "30s",
        "ttlAfterFinished": "15m",
        "target": {"nodeNames": ["gpu-a"]},
    }
    assert body["metadata"]["annotations"] == {
        "mcp.gpudiag.dev/requested-by": "alice",
        "mcp.gpudiag.dev/reason": "ticket 12",
        "mcp.gpudiag.dev/client": "tester 1.0",
        "mcp.gpudiag.dev/correlation-id": "abc",
    }


@given(
    st.sampled_from([{"node": "a"}, {"pod": "p"}, {}]),
    st.sampled_from(["Summary", "Full"]),
    st.integers(1, 600),
    st.integers(60, 86400),
)
def test_whatever_is_asked_it_is_an_object_of_the_kind(target: Any, detail: str, deadline: int, ttl: int) -> None:
    body = made(Request(**target, detail=detail, deadline_s=deadline, ttl_s=ttl, checks=("XID",)))
    spec = GPUDiagnostic.model_validate_json(json.dumps({"spec": body["spec"]})).spec
    assert spec.mode == "Once"
    assert spec.ttl_after_finished


@given(st.floats(0, 1e9), st.floats(0, RETRY_SECONDS - 1))
def test_a_retry_finds_the_first_one_over_any_boundary(start: float, later: float) -> None:
    request = Request(node="gpu-a")
    first, _ = names(request, "team-a", "alice", start)
    assert first in names(request, "team-a", "alice", start + later)


def test_another_request_or_another_person_gets_another_name() -> None:
    base = names(Request(node="a"), "team-a", "alice", NOW)[0]
    assert names(Request(node="b"), "team-a", "alice", NOW)[0] != base
    assert names(Request(node="a"), "team-a", "bob", NOW)[0] != base
    assert names(Request(node="a"), "team-a", "alice", NOW + 3 * RETRY_SECONDS)[0] != base
    assert names(Request(node="a", name="mine"), "team-a", "alice", NOW) == ("mine", "mine")


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (Request(node="a", pod="p"), "exclude each other"),
        (Request(node="gpu-00x"), "nearest names: gpu-00"),
        (Request(detail="Full"), "at most 10 nodes and there are 12. Pass node or pod"),
        (Request(checks=("XIDs",)), "nearest: XID"),
        (Request(deadline_s=0), "deadline_s must be from 1 to 600"),
        (Request(ttl_s=10), "ttl_s must be from 60 to 86400"),
    ],
)
def test_what_would_not_run_is_refused_with_what_to_pass(request_: Request, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        check(request_, [f"gpu-{at:02}" for at in range(12)])


def test_only_allowed_namespaces_and_by_default_the_contexts_own() -> None:
    assert Policy().namespace("", "team-a") == "team-a"
    assert Policy(namespaces=("x", "y")).namespace("", "team-a") == "x"
    with pytest.raises(Refusal, match="creates diagnostics in x, y only, not in 'kube-system'"):
        Policy(namespaces=("x", "y")).namespace("kube-system", "team-a")


def test_only_so_many_at_once_and_only_its_own_count() -> None:
    running = diagnostic("r", spec={"mode": "Once"}, conditions=[condition("Complete", False, "Running")])
    running["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "gpudiag-mcp"}
    other = diagnostic("o", spec={"mode": "Once"}, conditions=[])
    policy = Policy(max_active=1)
    policy.room(diagnostics(other, diagnostic()))
    with pytest.raises(Refusal, match="the limit is 1"):
        policy.room(diagnostics(other, running))


def test_only_so_many_a_minute_and_each_principal_for_itself() -> None:
    clock = Clock()
    rate = Rate(2, clock)
    for _ in range(2):
        rate.take("alice")
    with pytest.raises(Refusal, match="Repeat in 60 s"):
        rate.take("alice")
    rate.take("bob")
    clock.now += 60
    rate.take("alice")


def test_principals_are_bounded() -> None:
    rate = Rate(1, Clock())
    for at in range(3000):
        rate.take(str(at))
    assert len(rate._times) <= 1024
