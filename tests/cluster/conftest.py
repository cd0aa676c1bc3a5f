"""One real API server for all cluster tests of a run, and a kubectl that talks to it."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from tests.cluster.manifests.audit import ONLY_WHERE_ALLOWED, asked_beyond, audited, granted_anywhere

from gpudiag_cli.controlplane import ControlPlane, ControlPlaneError, Kubectl

CRDS = Path(__file__).resolve().parents[2] / "crds"


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Shared: a test that stops or pauses it starts one of its own.

    It keeps an audit log: whatever the operators of all these tests ask for must be what its roles grant. A client that
    a test uses by itself gets a User-Agent of its own.
    """
    folder = tmp_path_factory.mktemp("audit")
    try:
        binaries, log = audited(folder)
        plane = ControlPlane.start(binaries=binaries)
    except ControlPlaneError as error:
        pytest.fail(str(error), pytrace=False)
    with plane:
        yield plane
        plane.check()
        granted = granted_anywhere(plane.client(), folder, "gpudiag-operator")
        assert asked_beyond(log, "gpudiag-operator", granted) <= ONLY_WHERE_ALLOWED


@pytest.fixture(scope="session")
def kubectl(control_plane: ControlPlane) -> Kubectl:
    """The administrator's kubectl: `kubectl("get", "nodes")`, `kubectl.json(...)`, `kubectl.apply({...})`."""
    return control_plane.client()


@pytest.fixture(scope="session")
def crds(control_plane: ControlPlane, kubectl: Kubectl) -> list[str]:
    """The project's kinds, established and known to the garbage collector; gives the names of the definitions."""
    if not list(CRDS.glob("*.yaml")):
        pytest.fail(f"{CRDS} holds no generated CustomResourceDefinitions", pytrace=False)
    applied = kubectl("apply", "--server-side", "--output=name", "--filename", CRDS).stdout.split()
    names = [name for name in applied if name.startswith("customresourcedefinition")]
    kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)
    control_plane.restart_controller_manager()
    return names


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[str]:
    """A namespace for one test."""
    name = f"test-{uuid4().hex[:8]}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")
