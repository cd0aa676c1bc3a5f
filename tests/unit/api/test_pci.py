"""PCI addresses are parsed to numbers and written in one form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudiag_api.pci import normalise, slot


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("00000000:3B:00.0", "0000:3b:00.0"),
        ("0000:3b:00", "0000:3b:00.0"),
        ("0018:01:00", "0018:01:00.0"),
        ("0000:10:1c", "0000:10:1c.0"),
        ("3b:00.0", "0000:3b:00.0"),
        ("00010000:3b:00.0", "00010000:3b:00.0"),
    ],
)
def test_every_form_has_one_spelling(text: str, expected: str) -> None:
    assert normalise(text) == expected


def test_the_slot_leaves_the_function_out() -> None:
    assert slot("00000000:3B:00.1") == "0000:3b:00"


@pytest.mark.parametrize("text", ["", "3b", "0000:3b:40.0", "0000:3b:00.9", "gpu0"])
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a PCI address such as"):
        normalise(text)


@given(st.integers(0, 2**32 - 1), st.integers(0, 255), st.integers(0, 31), st.integers(0, 7))
def test_normalising_twice_changes_nothing(domain: int, bus: int, device: int, function: int) -> None:
    once = normalise(f"{domain:08X}:{bus:02X}:{device:02X}.{function}")
    assert normalise(once) == once
