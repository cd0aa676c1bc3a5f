"""Where the cluster of the suite comes from: an existing one, kind, or a node of this machine, by what there is."""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e import kind
from tests.e2e.cluster import CRDS, Cluster, clean
from tests.e2e.onenode import images, toolbox
from tests.e2e.onenode.node import Node

from gpudiag_api.version import __version__
from gpudiag_cli.controlplane import ControlPlaneError
from gpudiag_cli.controlplane.binaries import find_binaries

NAMESPACE, RELEASE_NAMESPACE = "gpudiag-system", "gpu-health"
"""Where kustomize installs, and where Helm does."""
ASSISTANTS = "assistants"
NAMESPACES = (NAMESPACE, RELEASE_NAMESPACE, ASSISTANTS)
IMAGES = tuple(f"gpudiag-{part}:{__version__}" for part in ("agent", "operator", "mcp"))
OLDEST = (1, 31)


@dataclass(frozen=True)
class Choice:
    """Which provider, and why not the ones before it."""

    provider: str
    """existing, kind, one-node, or empty: none can run."""
    passed_over: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = f"runs on: {self.provider}" if self.provider else "NO CLUSTER TO TEST ON, nothing was run"
        return ". ".join((said, *self.passed_over))


def choose(kubeconfig: str | None, *, no_kind: str | None, no_node: str | None) -> Choice:
    """The provider.

    Args:
        kubeconfig: that was named on the command line.
        no_kind: why kind cannot run, None: it can.
        no_node: the same of a node of this machine.
    """
    if kubeconfig:
        return Choice("existing")
    if no_kind is None:
        return Choice("kind")
    over = [f"kind NOT RUN: {no_kind}"]
    if no_node is None:
        return Choice("one-node", tuple(over))
    return Choice("", (*over, f"one-node cluster NOT RUN: {no_node}", "Name a cluster: make e2e CLUSTER=KUBECONFIG"))


def chosen(config: pytest.Config) -> Choice:
    """The provider of this test run, on this machine."""
    if kubeconfig := config.getoption("kubeconfig"):
        return choose(kubeconfig, no_kind="", no_node="")
    no_kind = kind.missing()
    return choose(None, no_kind=no_kind, no_node=toolbox.missing() if no_kind else None)


@contextlib.contextmanager
def on_this_machine(folder: Path) -> Iterator[Cluster]:
    """A real one-node cluster with the images of this checkout."""
    try:
        programs = toolbox.programs()
    except ControlPlaneError as error:
        pytest.skip(f"NO CLUSTER TO TEST ON, nothing was run. The parts of a node cannot be had here: {error}")
    (folder / "images").mkdir()
    try:
        built = images.build(folder / "images", programs.node)
        (folder / "node").mkdir()
        with Node(folder / "node", programs, temporary=[folder / "images"]) as node:
            for archive in built.values():
                node.load(archive)
            yield Cluster("one-node", programs.control.kubectl, node.run, folder, node, built)
    finally:
        shutil.rmtree(folder / "images", ignore_errors=True)


@contextlib.contextmanager
def on_kind(request: pytest.FixtureRequest, folder: Path) -> Iterator[Cluster]:
    """A cluster that pytest-kind makes and takes away."""
    kind.prepare(request.config.option)
    made = request.getfixturevalue("kind_cluster")
    for image in IMAGES:
        made.load_docker_image(image)
    with on_existing(made.kubeconfig_path.resolve(), folder, provider="kind") as cluster:
        yield cluster


@contextlib.contextmanager
def on_existing(kubeconfig: Path, folder: Path, *, provider: str = "existing") -> Iterator[Cluster]:
    """A cluster that is there, has the images and nothing of gpudiag, and is left like that."""
    kubectl = find_binaries(controller_manager=False).kubectl

    def run(
        command: list[str | Path], *, stdin: str = "", check: bool = True, timeout: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "KUBECTL_KUBERC": "false"}
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=False, env=environment, timeout=timeout
        )
        assert not check or done.returncode == 0, f"{command[:9]}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done

    cluster = Cluster(provider, kubectl, run, folder)
    if wrong := problems(cluster, kubeconfig):
        pytest.fail("\n".join([f"The cluster of {kubeconfig} cannot be used:", *wrong]), pytrace=False)
    try:
        yield cluster
    finally:
        clean(cluster, *NAMESPACES)


def problems(cluster: Cluster, kubeconfig: Path) -> list[str]:
    """What is wrong with a cluster for this suite, and what to do, in sentences."""
    if not kubeconfig.is_file():
        return [f"There is no file {kubeconfig}."]
    said = cluster.kubectl("version", "--output=json", "--request-timeout=15s", check=False)
    version = json.loads(said.stdout or "{}").get("serverVersion")
    if version is None:
        return [f"Its API server does not answer: {said.stderr.strip()[-300:]}"]
    wrong = []
    if (int(version["major"]), int(version["minor"].rstrip("+"))) < OLDEST:
        wrong.append(f"It is Kubernetes {version['gitVersion']}; gpudiag needs {'.'.join(map(str, OLDEST))} or newer.")
    if found := [*cluster.existing("crd", *CRDS), *cluster.existing("namespace", *NAMESPACES)]:
        wrong.append(f"It has {', '.join(found)} already; the suite installs and removes these: take them away first.")
    for node in cluster.json("get", "nodes")["items"]:
        there = {name.split("/")[-1] for image in node["status"].get("images", []) for name in image.get("names", [])}
        if absent := [image for image in IMAGES if image not in there]:
            wrong.append(
                f"Node {node['metadata']['name']} lacks {', '.join(absent)}: run make images and load them there "
                "(kind load docker-image, or ctr --namespace k8s.io images import)."
            )
    return wrong
