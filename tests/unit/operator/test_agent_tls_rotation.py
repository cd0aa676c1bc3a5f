"""The certificate of the agents: never one that somebody does not believe, at any moment of its renewal."""

import random
from bisect import bisect_right

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudiag_operator.agent_tls import pairs, rotation

NAME = "gpudiag-agent.gpudiag-system.svc"
HOUR, DAY = 3600.0, 86_400.0
EPOCH = 1_800_000_000.0
KUBELET, REPLICA = 120.0, 45.0
"""Seconds that a changed Secret takes to come to an agent, and to another replica."""

Data = dict[str, bytes]


def apply(stored: Data, step: rotation.Step) -> Data:
    merged: dict[str, bytes | None] = {**stored, **step.change}
    return {key: value for key, value in merged.items() if value is not None}


def plan(stored: Data, now: float, lifetime: float = 90 * DAY) -> rotation.Step | None:
    return rotation.plan(stored, server_name=NAME, now=now, lifetime=lifetime)


def settled(now: float = EPOCH, lifetime: float = 90 * DAY) -> Data:
    step = plan({}, now, lifetime)
    assert step is not None
    return apply({}, step)


def test_an_empty_secret_gets_a_certificate_at_once_and_then_there_is_peace() -> None:
    stored = settled()
    assert stored.keys() == {"tls.crt", "tls.key", "ca.crt", "since"}
    assert plan(stored, EPOCH + 1) is None
    assert plan(stored, EPOCH + 59 * DAY) is None
    ends = rotation.ends_at(stored, server_name=NAME, now=EPOCH)
    assert ends == pytest.approx(EPOCH + 90 * DAY, abs=1)


def test_a_renewal_takes_three_steps_each_after_its_time() -> None:
    stored, now = settled(), EPOCH + 61 * DAY
    first = plan(stored, now)
    assert first is not None
    assert first.change.keys() == {"ca.crt", "next.crt", "next.key"}
    published = apply(stored, first)
    assert published["tls.crt"] == stored["tls.crt"], "nobody serves it yet"
    assert pairs.count(published["ca.crt"]) == 2
    assert plan(published, now + 599) is None

    second = plan(published, now + 600)
    assert second is not None
    served = apply(published, second)
    assert served["tls.crt"] == published["next.crt"]
    assert served["ca.crt"] == published["ca.crt"], "some agents show the old one still"
    assert not served.keys() & {"next.crt", "next.key"}
    assert plan(served, now + 1199) is None

    third = plan(served, now + 1200)
    assert third is not None
    done = apply(served, third)
    assert pairs.count(done["ca.crt"]) == 1
    assert plan(done, now + 1201) is None


@pytest.mark.parametrize(
    "damage",
    [
        {"tls.crt": b"nonsense"},
        {"tls.key": b""},
        {"tls.key": pairs.issue(NAME, now=EPOCH, lifetime=DAY).key},
        {"ca.crt": b""},
        {"ca.crt": pairs.issue(NAME, now=EPOCH, lifetime=DAY).authority},
        {"tls.crt": pairs.issue("other.svc", now=EPOCH, lifetime=DAY).certificate},
    ],
)
def test_what_agents_cannot_serve_is_replaced_and_its_authority_is_believed_no_more(damage: Data) -> None:
    stored = settled()
    step = plan({**stored, **damage}, EPOCH + 1)
    assert step is not None
    assert pairs.count(step.change["ca.crt"] or b"") == 1
    assert stored["ca.crt"] != step.change["ca.crt"]
    assert plan(apply(stored, step), EPOCH + 2) is None


@pytest.mark.parametrize("now", [EPOCH + 91 * DAY, EPOCH - 2 * HOUR])
def test_one_that_does_not_hold_now_is_replaced(now: float) -> None:
    assert plan(settled(), now) is not None


def test_after_a_leaked_key_emptying_the_secret_is_enough() -> None:
    stored = settled()
    again = settled(EPOCH + 5)
    assert again["ca.crt"] != stored["ca.crt"]
    assert pairs.count(again["ca.crt"]) == 1


def test_an_authoritys_key_is_nowhere() -> None:
    stored = settled()
    assert b"".join(stored.values()).count(b"PRIVATE KEY-----\n") == 2, "begin and end of one key"
    assert b"CERTIFICATE" not in stored["tls.key"]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([6 * HOUR, 12 * HOUR, 36 * HOUR]))
def test_at_no_moment_does_anybody_meet_a_certificate_that_it_does_not_believe(seed: int, lifetime: float) -> None:
    """Leaders come and go (an hour at a time nobody acts); kubelets and replicas are late, each by its own measure."""
    rng, now = random.Random(seed), EPOCH
    stored: Data = {}
    times: list[float] = []
    history: list[Data] = []
    while now < EPOCH + 2 * lifetime:
        if (step := plan(stored, now, lifetime)) is not None:
            stored = apply(stored, step)
            times.append(now)
            history.append(stored)
        now += 30 if rng.random() < 0.995 else HOUR

    def seen(at: float) -> Data:
        return history[max(0, bisect_right(times, at) - 1)]

    assert len(history) > 3
    for moment in sorted(when + lag for when in times for lag in (0, 1, REPLICA, REPLICA + 1, KUBELET, KUBELET + 1)):
        for agent_lag in (0, KUBELET):
            for replica_lag in (0, REPLICA):
                agent, replica = seen(moment - agent_lag), seen(moment - replica_lag)
                believed = pairs.examine(
                    agent["tls.crt"], agent["tls.key"], bundle=replica["ca.crt"], server_name=NAME, now=moment
                )
                assert believed is not None, f"{moment - EPOCH:.0f} s after the start"
