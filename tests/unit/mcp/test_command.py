"""The facade is not built; its command says so instead of pretending."""

import pytest

from gpudiag_api.version import __version__
from gpudiag_mcp.__main__ import main


def test_it_says_that_it_is_not_part_of_this_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["gpudiag-mcp"])
    assert main() == 1
    assert "not part of this version" in capsys.readouterr().err


def test_it_tells_its_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["gpudiag-mcp", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().out == f"gpudiag-mcp {__version__}\n"
