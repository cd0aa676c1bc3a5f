"""What an image gets of ours: its parts, their commands, nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest
from tools.install_parts import install


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "packages").mkdir()
    (tmp_path / "bin").mkdir()
    install(["api", "agent"], packages=tmp_path / "packages", scripts=tmp_path / "bin", python=sys.executable)
    return tmp_path


def test_an_image_gets_its_own_parts_only(folder: Path) -> None:
    assert {path.name for path in (folder / "packages").iterdir()} == {"gpudiag_api", "gpudiag_agent"}
    assert not list((folder / "packages").rglob("__pycache__"))


def test_the_agent_is_a_command_as_kubectl_debug_calls_it(folder: Path) -> None:
    assert [path.name for path in (folder / "bin").iterdir()] == ["gpudiag-agent"]
    command: list[str | Path] = [folder / "bin" / "gpudiag-agent", "xid", "79"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    assert "79" in said
