"""A release says what it is: its tag fits the version, and its notes are those of the changelog."""

import pytest
from tools.release import CHANGELOG, notes

from gpudiag_api.version import __version__

LOG = """# Changelog

## Unreleased

- later

## 1.2.3 - 2026-02-01

### Added

- this

## 1.2.2 - 2026-01-01

- before
"""


def test_the_notes_are_the_section_of_the_version() -> None:
    assert notes("v1.2.3", LOG, "1.2.3") == "### Added\n\n- this\n"
    assert notes("v1.2.2", LOG, "1.2.2") == "- before\n"


@pytest.mark.parametrize(
    ("tag", "version", "said"),
    [
        ("v1.2.4", "1.2.3", "does not fit version 1.2.3"),
        ("1.2.3", "1.2.3", "tag v1.2.3"),
        ("v1.2.30", "1.2.30", "has nothing under '## 1.2.30 - YYYY-MM-DD'"),
        ("v1x2.3", "1x2.3", "has nothing under"),
    ],
)
def test_what_does_not_fit_is_said(tag: str, version: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        notes(tag, LOG, version)


def test_the_changelog_has_a_place_for_what_comes() -> None:
    text = CHANGELOG.read_text()
    assert "\n## Unreleased\n" in text or f"\n## {__version__} - " in text
