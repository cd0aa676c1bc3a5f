"""Durations: what Go writes is read, what is written is read back, everything else is refused with a sentence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudiag_api import durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("30s", 30),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("5.s", 5),
        ("500ms", 0.5),
        ("1h30m", 5400),
        ("1h0m0s", 3600),
        ("24h", 86400),
        ("10us", 1e-5),
        ("10µs", 1e-5),
        ("10μs", 1e-5),
        ("7ns", 7e-9),
        ("0.3s", 0.3),
        ("1m1ms", 60.001),
    ],
)
def test_reads_what_go_writes(text: str, seconds: float) -> None:
    assert durations.parse(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "30", "s", "-1s", "+1s", "1 s", " 1s", "1s ", "1d", "1S", "1..5s", "1e3s", "٣s", "1s\n", "9" * 80]
)
def test_refuses_everything_else_and_says_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a duration: .* 30s") as caught:
        durations.parse(text)
    assert len(str(caught.value)) < 250


def test_refuses_more_than_go_can_hold() -> None:
    with pytest.raises(ValueError, match="too long"):
        durations.parse("99999999999h")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (30, "30s"),
        (90, "1m30s"),
        (3600, "1h"),
        (5400, "1h30m"),
        (0.5, "500ms"),
        (1.5, "1.5s"),
        (60.5, "1m0.5s"),
        (0.000_001_5, "1.5us"),
        (86400, "24h"),
    ],
)
def test_writes_for_people(seconds: float, text: str) -> None:
    assert durations.format(seconds) == text


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 1e300])
def test_writes_no_nonsense(seconds: float) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        durations.format(seconds)


@given(st.integers(min_value=0, max_value=2**50))
def test_what_is_written_is_read_back(nanoseconds: int) -> None:
    assert durations.parse(durations.format(nanoseconds / 1e9)) == nanoseconds / 1e9


@given(st.text(max_size=100))
def test_any_text_gives_seconds_or_a_sentence(text: str) -> None:
    try:
        seconds = durations.parse(text)
    except ValueError:
        with pytest.raises(ValueError, match="duration"):
            durations.parse(text)
    else:
        assert seconds >= 0
