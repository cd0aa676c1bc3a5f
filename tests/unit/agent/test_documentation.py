"""Every check has a page with a runbook, and the pages and the rules speak of the same reasons."""

import re
from pathlib import Path

import pytest

from gpudiag_api import documentation
from gpudiag_api.vocabulary import Action, Blame, Check, Severity

ROOT = Path(__file__).resolve().parents[3]
SECTIONS = ("## What it looks at", "## Findings", "## Runbook", "## References")
ROW = re.compile(r"^\| `[^`]+` \|")


@pytest.mark.parametrize("check", list(Check))
def test_a_page_has_its_sections(check: Check) -> None:
    page = (ROOT / documentation.of(check)).read_text()
    assert page.startswith(f"# {check}\n")
    positions = [page.find(section) for section in SECTIONS]
    assert -1 not in positions, f"{SECTIONS[positions.index(-1)]} is missing"
    assert positions == sorted(positions)


@pytest.mark.parametrize("check", list(Check))
def test_its_words_are_those_of_the_vocabulary(check: Check) -> None:
    page = (ROOT / documentation.of(check)).read_text()
    rows = [line for line in page.splitlines() if ROW.match(line)]
    assert rows, "no finding is described"
    for line in rows:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        severities = re.findall(r"[A-Z]\w+", cells[1])
        assert severities, line
        assert set(severities) <= set(map(str, Severity)), line
        assert set(re.findall(r"[A-Z]\w+", cells[2])) <= set(map(str, Blame)), line
        assert set(re.findall(r"`(\w+)`", cells[3])) <= set(map(str, Action)), line


def test_no_page_is_left_of_a_check_that_is_gone() -> None:
    pages = {path.name for path in (ROOT / documentation.FOLDER).glob("*.md")} - {"README.md"}
    assert pages == {f"{documentation.slug(check)}.md" for check in Check}


def test_slugs_are_unique_and_lose_no_letter() -> None:
    slugs = [documentation.slug(check) for check in Check]
    assert len(set(slugs)) == len(slugs)
    assert [slug.replace("-", "") for slug in slugs] == [check.lower() for check in Check]


def test_the_index_names_every_page() -> None:
    index = (ROOT / documentation.FOLDER / "README.md").read_text()
    for check in Check:
        assert f"[{check}]({documentation.slug(check)}.md)" in index, check
