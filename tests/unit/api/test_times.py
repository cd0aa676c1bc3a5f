"""Times: RFC 3339 in UTC with milliseconds, read back to the millisecond."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudiag_api.times import from_rfc3339, to_rfc3339


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_767_225_599.9996, "2026-01-01T00:00:00.000Z"),
        (1_767_225_600.25, "2026-01-01T00:00:00.250Z"),
        (-62135596800, "0001-01-01T00:00:00.000Z"),
    ],
)
def test_writes_utc_with_milliseconds(seconds: float, text: str) -> None:
    assert to_rfc3339(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-01T00:00:00Z", 1_767_225_600),
        ("2026-01-01t00:00:00z", 1_767_225_600),
        ("2026-01-01T02:00:00+02:00", 1_767_225_600),
        ("2025-12-31T19:30:00-04:30", 1_767_225_600),
        ("2026-01-01T00:00:00.5Z", 1_767_225_600.5),
        ("2026-01-01T00:00:00.123456789Z", 1_767_225_600.123456789),
    ],
)
def test_reads_every_form_of_the_standard(text: str, seconds: float) -> None:
    assert from_rfc3339(text) == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-01-01",
        "2026-01-01T00:00:00",
        "2026-13-01T00:00:00Z",
        "2026-01-01T00:00:60Z",
        "2026-01-01 00:00:00Z",
        "20260101T000000Z",
        "2026-01-01T00:00:00+25:00",
        "2026-01-01T00:00:00Z\n",
    ],
)
def test_refuses_other_text_and_shows_a_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a time such as 2026-"):
        from_rfc3339(text)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 1e15, -1e15])
def test_refuses_what_no_calendar_holds(seconds: float) -> None:
    with pytest.raises(ValueError, match="Unix seconds"):
        to_rfc3339(seconds)


@given(st.floats(min_value=0, max_value=4e9))
def test_reads_back_to_the_millisecond(seconds: float) -> None:
    assert from_rfc3339(to_rfc3339(seconds)) == pytest.approx(seconds, abs=0.000501)
