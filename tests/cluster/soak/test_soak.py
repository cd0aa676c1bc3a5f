"""Whatever happens between operator and API server: when it is over, the state is that of a day without faults.

`make soak SEEDS=1-50` runs more and appends what they met to `docs/soak.json`.
"""

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.cluster.soak.drama import CONVERGED_SECONDS, Drama, difference
from tests.cluster.soak.ledger import Ledger
from tests.cluster.soak.plan import FAMILIES, PLAN, plan
from tests.cluster.soak.stage import NAMES

if TYPE_CHECKING:
    from tests.cluster.soak.stage import MakeStage

pytestmark = pytest.mark.cluster

QUICK, SLOW = (1, 2, 3), range(4, 34)
RECORD = "GPUDIAG_SOAK_RECORD"
"""A file that gets a line of JSON per seed."""


def seeds(text: str | None) -> list[int]:
    """``4-8`` as five numbers."""
    first, _, last = (text or "").partition("-")
    return list(range(int(first), int(last or first) + 1)) if first else []


@pytest.fixture(scope="module")
def undisturbed(make_stage: "MakeStage") -> dict[str, Any]:
    """Statuses and Events of a run without a fault."""
    stage = make_stage()
    drama = Drama(stage, None)
    try:
        drama.play()
        return {"state": settled(drama), "told": drama.told()}
    finally:
        drama.end()
        stage.close()


def settled(drama: Drama) -> Any:
    """The state once nothing moves for two seconds."""
    last, since = drama.seen(), time.monotonic()
    deadline = since + 60
    while time.monotonic() - since < 2:
        assert time.monotonic() < deadline, "it does not settle"
        time.sleep(0.2)
        now = drama.seen()
        if now != last:
            last, since = now, time.monotonic()
    return last


def weather(seed: int, make_stage: "MakeStage", undisturbed: dict[str, Any]) -> dict[str, Any]:
    """One run; gives what it met."""
    stage = make_stage()
    drama = Drama(stage, seed)
    try:
        drama.play()
        began = time.monotonic()
        wanted = undisturbed["state"]
        while differs := difference(wanted, drama.seen()):
            drama.look()
            late = time.monotonic() - began > CONVERGED_SECONDS
            assert not late, f"seed {seed} ({drama.plan}):\n" + "\n".join(differs[:20]) + f"\n{stage.world.log()}"
            time.sleep(0.2)
        seconds = time.monotonic() - began
        told = drama.told()
        for node, reasons in undisturbed["told"].items():
            missing = reasons.keys() - told[node].keys()
            assert not missing, f"seed {seed}: never told of {node}: {missing}\n{stage.world.log()}"
        drama.check_bounds()
        return {
            "plan": PLAN,
            "seed": seed,
            "families": list(drama.plan.families),
            "faults": drama.faults(),
            "kills": [f"{moment} write {number}" for number, moment in drama.weather.killed],
            "convergedSeconds": round(seconds, 1),
        }
    finally:
        drama.end()
        stage.close()


@pytest.mark.parametrize("seed", QUICK)
def test_a_seed(seed: int, make_stage: "MakeStage", undisturbed: dict[str, Any]) -> None:
    weather(seed, make_stage, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(os.environ.get("GPUDIAG_SOAK_SEEDS")) or SLOW)
def test_more_seeds(seed: int, make_stage: "MakeStage", undisturbed: dict[str, Any]) -> None:
    met = weather(seed, make_stage, undisturbed)
    if record := os.environ.get(RECORD):
        with Path(record).open("a") as file:
            file.write(json.dumps(met) + "\n")


def test_a_seed_makes_the_same_plan_again_and_all_families_occur() -> None:
    plans = [plan(seed, NAMES[:5], 10) for seed in range(60)]
    assert plans == [plan(seed, NAMES[:5], 10) for seed in range(60)]
    assert {family for one in plans for family in one.families} == set(FAMILIES)
    assert {moment for one in plans for _, moment in one.kills} == {"before", "after"}
    assert all(one.replicas == 2 for one in plans if one.partition)
    for one in plans:
        assert [one.dice("GET", number).random() for number in range(3)] == [
            one.dice("GET", number).random() for number in range(3)
        ]


def test_who_writes_without_the_lease_is_found() -> None:
    ledger = Ledger()

    def wrote(writer: str, what: str, revision: int, **spec: str) -> None:
        body = {"metadata": {"resourceVersion": str(revision)}, "spec": spec}
        ledger.wrote(writer, what, body, known=ledger.newest)

    wrote("a", "POST /leases", 10, holderIdentity="a")
    wrote("a", "PATCH /gpunodes/n/status", 12)
    wrote("b", "PATCH /leases/l", 20, holderIdentity="b")
    wrote("b", "PATCH /gpunodes/n/status", 22)
    wrote("a", "PATCH /gpunodes/n/status", 15)  # older than what was seen: it changed nothing
    assert ledger.intruders() == []
    wrote("a", "PATCH /gpunodes/n/status", 25)
    assert [line.split(" did ")[0] for line in ledger.intruders()] == ["a"]
    wrote("b", "PATCH /leases/l", 30)
    wrote("b", "POST /events", 31)
    assert ledger.intruders()[-1].endswith("held by nobody")
