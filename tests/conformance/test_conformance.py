"""The official conformance suite on both wires; and the tools that run it."""

import json
import re
from pathlib import Path

import pytest
from tests.conformance import toolbox as toolboxes
from tests.conformance.run import HERE, MUST_PASS, baseline, run, table
from tests.conformance.toolbox import Toolbox, ToolboxError, installed

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("wire", sorted(MUST_PASS))
def test_what_a_domain_server_can_pass_passes(toolbox: Toolbox, url: str, tmp_path: Path, wire: str) -> None:
    outcome = run(toolbox, url, wire, tmp_path)
    print(table(outcome))
    assert not outcome.wrong(), table(outcome)


@pytest.mark.parametrize("wire", sorted(MUST_PASS))
def test_every_entry_of_a_baseline_has_a_reason(wire: str) -> None:
    """A comment before its group, or behind it."""
    explained = False
    for line in (HERE / f"baseline-{wire}.yml").read_text().partition("server:")[2].splitlines():
        if line.startswith("  #"):
            explained = True
        assert explained or not line.startswith("  - "), line
    assert not set(MUST_PASS[wire]) & set(baseline(wire))


def test_a_stale_entry_of_a_baseline_is_an_error(
    toolbox: Toolbox, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = tmp_path / "baseline-2025-11-25.yml"
    stale.write_text((HERE / stale.name).read_text() + "  - ping\n")
    monkeypatch.setattr("tests.conformance.run.HERE", tmp_path)
    outcome = run(toolbox, url, "2025-11-25", tmp_path)
    assert "tale" in outcome.verdict
    assert "ping" in outcome.verdict
    assert outcome.wrong()


def test_every_package_is_pinned_by_version_and_hash_and_no_registry_is_named() -> None:
    wanted = json.loads((HERE / "package.json").read_text())
    versions = [*wanted["dependencies"].values(), *wanted["optionalDependencies"].values()]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+(-[a-z]+\.\d+)?", version) for version in versions)
    packages = json.loads((HERE / "package-lock.json").read_text())["packages"]
    assert all("integrity" in one and "resolved" not in one for name, one in packages.items() if name)
    assert "https://" not in re.sub(r'"deprecated": ".*"', "", (HERE / "package-lock.json").read_text())


def test_without_a_registry_a_sentence_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setattr(toolboxes, "PAUSE_SECONDS", 0.0)
    said: list[str] = []
    with pytest.raises(ToolboxError, match=r"could not install the conformance suite in 4 attempts: .*ECONNREFUSED"):
        installed(say=said.append)
    assert len([line for line in said if "again in" in line]) == 3
    assert [path.name for path in (tmp_path / "gpudiag").iterdir()] == []


def test_without_npm_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolboxError, match="Install npm, run again"):
        installed(say=lambda _: None)
