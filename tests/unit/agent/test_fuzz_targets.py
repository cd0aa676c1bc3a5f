"""Hostile bytes reach every parser and none of them raises: by hypothesis here, for hours by `make fuzz` (atheris)."""

from unittest import mock

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz import targets

from gpudiag_agent.checks.counters import Counters
from gpudiag_agent.checks.nvlink.baseline import LinkBaseline

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


def test_the_seeds_reach_deep() -> None:
    """Of a good memory every part is taken up; else the fuzzer would only ever see it refused."""
    document = msgspec.json.decode(targets.seeds("state_file")[0])
    assert set(document) == {"counters", "nvlinks", "kernel-log"}
    Counters().load(document["counters"])
    LinkBaseline().load(document["nvlinks"])
