"""Whatever happens between operator and API server: when it is over, the state is that of a day without faults.

`make soak SEEDS=1-50` runs more and appends what they met to `docs/soak.json`.
"""

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.cluster.soak.drama import CONVERGED_SECONDS, Drama, difference, specs
from tests.cluster.soak.plan import FAMILIES, plan

if TYPE_CHECKING:
    from tests.cluster.badinput.conftest import MakeWorld

pytestmark = pytest.mark.cluster

QUICK, SLOW = (1, 2, 3), range(4, 34)
RECORD = "GPUDIAG_SOAK_RECORD"
"""A file that gets a line of JSON per seed."""


def seeds(text: str | None) -> list[int]:
    """``4-8`` as five numbers."""
    first, _, last = (text or "").partition("-")
    return list(range(int(first), int(last or first) + 1)) if first else []


@pytest.fixture(scope="module")
def undisturbed(make_world: "MakeWorld") -> dict[str, Any]:
    """Statuses and Events of a run without a fault."""
    world = make_world(specs())
    drama = Drama(world, None)
    drama.play()
    state = settled(drama)
    told = drama.told()
    world.close()
    return {"state": state, "told": told}


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


def weather(seed: int, make_world: "MakeWorld", undisturbed: dict[str, Any]) -> dict[str, Any]:
    """One run; gives what it met."""
    world = make_world(specs())
    drama = Drama(world, seed)
    try:
        drama.play()
        began = time.monotonic()
        wanted = undisturbed["state"]
        while differs := difference(wanted, drama.seen()):
            late = time.monotonic() - began > CONVERGED_SECONDS
            assert not late, f"seed {seed} ({drama.plan}):\n" + "\n".join(differs[:20]) + f"\n{world.log()}"
            time.sleep(0.2)
        seconds = time.monotonic() - began
        told = drama.told()
        for node, reasons in undisturbed["told"].items():
            missing = reasons.keys() - told[node].keys()
            assert not missing, f"seed {seed}: never told of {node}: {missing}\n{world.log()}"
        drama.check_bounds()
        assert drama.plan is not None
        assert drama.storm is not None
        return {
            "seed": seed,
            "families": list(drama.plan.families),
            "faults": sum(drama.storm.delivered.values()),
            "kills": drama.kills,
            "convergedSeconds": round(seconds, 1),
        }
    finally:
        drama.end()
        world.close()


@pytest.mark.parametrize("seed", QUICK)
def test_a_seed(seed: int, make_world: "MakeWorld", undisturbed: dict[str, Any]) -> None:
    weather(seed, make_world, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(os.environ.get("GPUDIAG_SOAK_SEEDS")) or SLOW)
def test_more_seeds(seed: int, make_world: "MakeWorld", undisturbed: dict[str, Any]) -> None:
    met = weather(seed, make_world, undisturbed)
    if record := os.environ.get(RECORD):
        with Path(record).open("a") as file:
            file.write(json.dumps(met) + "\n")


def test_a_seed_makes_the_same_plan_again_and_all_families_occur() -> None:
    plans = [plan(seed, ("n",), 8) for seed in range(40)]
    assert plans == [plan(seed, ("n",), 8) for seed in range(40)]
    assert {family for one in plans for family in one.families} == set(FAMILIES)
    assert any(moment == "before" for one in plans for _, moment in one.kills)
    assert any(moment == "after" for one in plans for _, moment in one.kills)
