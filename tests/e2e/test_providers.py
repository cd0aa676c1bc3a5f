"""Which cluster the suite takes, what it says when there is none, and pytest-kind as far as it goes without Docker."""

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pytest_kind import KindCluster
from tests.e2e import kind, providers
from tests.e2e.cluster import ROOT, Cluster, clean
from tests.e2e.onenode import janitor, toolbox

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PATIENCE = 60.0


def test_a_cluster_that_was_named_goes_before_everything() -> None:
    assert providers.choose("k", no_kind=None, no_node=None).provider == "existing"


def test_kind_goes_before_a_node_of_this_machine() -> None:
    assert providers.choose(None, no_kind=None, no_node=None).provider == "kind"


def test_without_docker_a_node_of_this_machine_is_used_and_says_that_kind_was_not() -> None:
    choice = providers.choose(None, no_kind="no Docker", no_node=None)
    assert str(choice) == "runs on: one-node. kind NOT RUN: no Docker"


def test_where_nothing_can_run_every_reason_is_given_and_what_to_do() -> None:
    said = str(providers.choose(None, no_kind="no Docker", no_node="a node needs root"))
    assert said.startswith("NO CLUSTER TO TEST ON, nothing was run")
    for part in ("no Docker", "a node needs root", "make e2e CLUSTER="):
        assert part in said


def test_without_root_there_is_no_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert toolbox.missing() == "a node needs root"


def test_without_its_tools_there_is_no_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (toolbox.missing() or "").startswith("not on PATH: unshare, nsenter")
    assert kind.missing() == "no Docker (docker is not on PATH)"


def stand_in(path: Path, text: str) -> Path:
    """A program that notes its arguments beside itself."""
    path.write_text(f'#!/bin/sh\necho "$0 $@" >> "{path.parent}/calls"\n{text}\n', encoding="utf-8")
    path.chmod(0o755)
    return path


KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "kind",
    "contexts": [{"name": "kind", "context": {"cluster": "kind", "user": "kind"}}],
    "clusters": [{"name": "kind", "cluster": {"server": "https://127.0.0.1:1"}}],
    "users": [{"name": "kind", "user": {"token": "t"}}],
}


def test_pytest_kind_is_loaded_and_its_old_programs_are_replaced(
    pytestconfig: pytest.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pytestconfig.pluginmanager.hasplugin("pytest-kind")
    option = argparse.Namespace(kind_bin=None, kind_kubectl_bin=None, cluster_name=kind.PLUGIN_DEFAULT_NAME)
    assert pytestconfig.getoption("cluster_name") == option.cluster_name
    assert pytestconfig.getoption("kind_bin") is None
    writes = f"case $4 in --kubeconfig=*) echo '{json.dumps(KUBECONFIG)}' > \"${{4#*=}}\";; esac"
    ours = stand_in(tmp_path / "kind", f'test "$1" != create || {writes}')
    kind.override(option, kind=ours, kubectl=stand_in(tmp_path / "kubectl", "echo v1"))
    # As the plug-in's own fixture makes it.
    monkeypatch.chdir(tmp_path)
    programs = {"kind_path": Path(option.kind_bin), "kubectl_path": Path(option.kind_kubectl_bin)}
    cluster = KindCluster(option.cluster_name, **programs)
    cluster.create()
    cluster.load_docker_image(providers.IMAGES[0])
    assert cluster.kubectl("version") == "v1\n"
    cluster.delete()
    calls = (tmp_path / "calls").read_text(encoding="utf-8").replace(f"{tmp_path}/", "").splitlines()
    assert calls[0] == "kind get clusters"
    assert calls[1].startswith("kind create cluster --name=gpudiag-e2e --kubeconfig=")
    assert calls[2] == f"kind load docker-image --name gpudiag-e2e {providers.IMAGES[0]}"
    assert calls[3] == "kubectl version"
    assert calls[4].startswith("kind delete cluster --name=gpudiag-e2e")


def test_programs_that_the_user_names_stay(tmp_path: Path) -> None:
    option = argparse.Namespace(kind_bin="/k", kind_kubectl_bin="/c", cluster_name="mine")
    kind.override(option, kind=tmp_path, kubectl=tmp_path)
    assert option == argparse.Namespace(kind_bin="/k", kind_kubectl_bin="/c", cluster_name="mine")


def test_kind_itself_is_of_the_version_that_is_pinned() -> None:
    said = subprocess.run([kind.program(), "version"], capture_output=True, text=True, check=True, timeout=30).stdout
    pinned = re.search(r"sigs.k8s.io/kind (v\S+)", (ROOT / "tools" / "kind" / "go.mod").read_text(encoding="utf-8"))
    assert pinned is not None
    assert said.startswith(f"kind {pinned[1]} ")


def test_kind_can_run_here() -> None:
    if (reason := kind.missing()) is not None:
        pytest.skip(f"KIND NOT RUN: {reason}")


def unusable(kubeconfig: Path, folder: Path) -> str:
    """Why a cluster cannot be used."""
    with pytest.raises(pytest.fail.Exception) as found, providers.on_existing(kubeconfig, folder):
        pass
    return str(found.value)


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert f"There is no file {tmp_path / 'none'}" in unusable(tmp_path / "none", tmp_path)


def test_a_cluster_that_does_not_answer_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "dead").write_text(json.dumps(KUBECONFIG), encoding="utf-8")
    assert "Its API server does not answer: " in unusable(tmp_path / "dead", tmp_path)


def test_what_a_cluster_must_have_and_must_not_have(cluster: Cluster, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "any"
    kubeconfig.touch()
    clean(cluster, *providers.NAMESPACES)
    assert providers.problems(cluster, kubeconfig) == []
    cluster.kubectl("create", "namespace", providers.NAMESPACE)
    (found,) = providers.problems(cluster, kubeconfig)
    assert found.startswith(f"It has {providers.NAMESPACE} already")
    cluster.kubectl("delete", "namespace", providers.NAMESPACE)


NODE_THAT_WAITS = """
import signal, sys, time
from pathlib import Path
from tests.e2e.onenode import toolbox
from tests.e2e.onenode.node import Node
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
with Node(Path(sys.argv[1]), toolbox.programs()) as node:
    print(node.init, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_node_ends_with_the_run_that_started_it_however_that_ends(end: signal.Signals, tmp_path: Path) -> None:
    if (reason := toolbox.missing()) is not None:
        pytest.skip(f"ONE-NODE CLUSTER NOT RUN: {reason}")
    command = [sys.executable, "-c", NODE_THAT_WAITS, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as run:
        assert run.stdout is not None
        init = int(run.stdout.readline())
        assert janitor.cgroups(f"gpudiag-e2e-{run.pid}")
        assert processes_with(tmp_path)
        run.send_signal(end)
        try:
            run.wait(PATIENCE)
        finally:
            run.kill()
    deadline = time.monotonic() + PATIENCE
    while left := [*janitor.cgroups(f"gpudiag-e2e-{run.pid}"), *processes_with(tmp_path), *tmp_path.glob("containerd")]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    assert not Path(f"/proc/{init}/root").exists(), "it runs: one that has ended and waits to be reaped has no root"
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")


def processes_with(folder: Path) -> list[str]:
    """Processes of this machine that name a folder: servers, shims, the janitor."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in (words := path.read_bytes()):
                found.append(words.decode(errors="replace"))
    return found
