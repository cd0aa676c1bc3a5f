"""Hostile bytes reach every parser and none of them raises: by hypothesis here, for hours by `make fuzz` (atheris)."""

import json
from collections.abc import Iterator
from unittest import mock

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz import targets

from gpudiag_agent.checks.counters import Counters
from gpudiag_agent.checks.infiniband.baseline import PortBaseline
from gpudiag_agent.checks.nvlink.baseline import LinkBaseline
from gpudiag_agent.inventory import Inventory

_RUNS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A good input with pieces cut out, doubled and overwritten."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 30))] = draw(st.binary(max_size=12) | st.just(bytes(data[at : at + 40])))
    return bytes(data)


@pytest.mark.parametrize("target", targets.TARGETS)
def test_noise(target: str) -> None:
    @_RUNS
    @given(st.binary(max_size=400))
    def run(data: bytes) -> None:
        targets.TARGETS[target](data)

    run()


@pytest.mark.parametrize("target", targets.TARGETS)
def test_good_input_and_what_is_near_it(target: str) -> None:
    seeds = targets.seeds(target)
    for seed in seeds:
        targets.TARGETS[target](seed)

    @_RUNS
    @given(mutated(seeds))
    def run(data: bytes) -> None:
        targets.TARGETS[target](data)

    run()


def test_a_target_sees_what_escapes() -> None:
    broken = mock.Mock(side_effect=KeyError("x"))
    with mock.patch("tests.fuzz.targets.parse", broken), pytest.raises(KeyError):
        targets.kernel_log(b"NVRM: Xid")


def _leaves(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where in a document its values are, the first of each kind."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inner is None:
        yield path
        return
    for key, one in inner:
        yield from _leaves(one, (*path, key))


def test_no_value_of_a_memory_is_beyond_what_a_report_can_carry() -> None:
    """Every number and text of it, one after the other, as no agent writes it: refused, or harmless."""
    document = msgspec.json.decode(targets.seeds("state_file")[0])
    # Of a list one element stands for all of one kind.
    kinds = {tuple(part for part in path if isinstance(part, str)): path for path in _leaves(document)}
    assert len(kinds) > 50
    for path in kinds.values():
        holder = document
        for part in path[:-1]:
            holder = holder[part]
        before = holder[path[-1]]
        extremes = ("x" * 300,) if isinstance(before, str) else (-1, -1e300, 1.8e12, 2**64)
        for extreme in extremes:
            holder[path[-1]] = extreme
            targets.state_file(json.dumps(document).encode())
        holder[path[-1]] = before


def test_a_process_id_that_no_kernel_gives() -> None:
    targets.kernel_log(b"NVRM: Xid (PCI:0000:3b:00): 31, pid=" + b"9" * 20 + b", name=x, MMU Fault")


def test_the_seeds_reach_deep() -> None:
    """Of a good memory every part is taken up; else the fuzzer would only ever see it refused."""
    document = msgspec.json.decode(targets.seeds("state_file")[0])
    assert set(document) == {"counters", "nvlinks", "infiniband", "inventory", "kernel-log"}
    Counters().load(document["counters"])
    LinkBaseline().load(document["nvlinks"])
    PortBaseline().load(document["infiniband"])
    Inventory().load(document["inventory"])
