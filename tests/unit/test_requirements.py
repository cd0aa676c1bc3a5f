"""What each image holds: every part carries only what it needs, pinned with hashes and free of hosts."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PINNED = re.compile(r"^([a-z0-9][a-z0-9._-]*)==\S+ \\$", re.MULTILINE)


def pinned(part: str) -> set[str]:
    return set(PINNED.findall((ROOT / "requirements" / f"{part}.txt").read_text()))


def test_the_agent_carries_no_operator_library() -> None:
    assert not pinned("agent") & {"kopf", "kubernetes", "pydantic", "mcp"}
    assert {"aiohttp", "msgspec", "nvidia-ml-py", "prometheus-client"} <= pinned("agent")


def test_the_facade_carries_no_kopf() -> None:
    assert "kopf" not in pinned("mcp")
    assert "mcp" in pinned("mcp")


def test_nvml_comes_from_nvidias_distribution_and_not_from_the_deprecated_shim() -> None:
    assert "pynvml" not in pinned("agent")


@pytest.mark.parametrize("part", ["agent", "operator", "mcp", "dev"])
def test_requirements_are_pinned_with_hashes_and_name_no_host(part: str) -> None:
    text = (ROOT / "requirements" / f"{part}.txt").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert lines
    assert all(PINNED.match(line) for line in lines)
    assert text.count("--hash=sha256:") >= len(lines)
    assert "://" not in text
    assert "--index-url" not in text
