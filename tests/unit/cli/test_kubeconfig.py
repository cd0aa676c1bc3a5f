"""The few fields of a kubeconfig that our commands read, and what is said when they are not there."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from gpudiag_cli import kubeconfig
from gpudiag_cli.errors import CommandError


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(user: dict[str, Any] | None = None, **cluster: Any) -> Path:
        path = tmp_path / "kubeconfig"
        document = {
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:8001/", **cluster}}],
            "users": [{"name": "u", "user": user or {}}],
        }
        path.write_text(yaml.safe_dump(document))
        return path

    return write


def test_token(write: Any) -> None:
    assert kubeconfig.load(write({"token": "secret"})) == kubeconfig.Access("http://127.0.0.1:8001", None, "secret")


def test_token_file_beside_the_kubeconfig(write: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    assert kubeconfig.load(write({"tokenFile": "token"})).token == "secret"


def test_insecure_server(write: Any) -> None:
    access = kubeconfig.load(write(**{"server": "https://127.0.0.1:1", "insecure-skip-tls-verify": True}))
    assert access.tls is not None
    assert not access.tls.check_hostname


def test_environment_names_the_file(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write({"token": "mine"})
    monkeypatch.setenv("KUBECONFIG", f"{path}:/elsewhere")
    assert kubeconfig.load().token == "mine"


def test_home_is_the_last_resort(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(CommandError, match=r"\.kube/config cannot be read: No such file.*--kubeconfig"):
        kubeconfig.load()


def test_a_credential_program_is_refused_with_a_way_out(write: Any) -> None:
    with pytest.raises(CommandError, match=r"from a program.*kubectl create token"):
        kubeconfig.load(write({"exec": {"command": "login"}}))


@pytest.mark.parametrize("text", ["", "[]", "current-context: a", "current-context: a\ncontexts: []"])
def test_an_incomplete_one_is_said(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(CommandError, match="no complete current context"):
        kubeconfig.load(path)


def test_what_is_not_yaml_is_said(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text("{")
    with pytest.raises(CommandError, match="is not YAML"):
        kubeconfig.load(path)
