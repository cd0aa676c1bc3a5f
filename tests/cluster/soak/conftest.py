"""Worlds as in ``badinput``, with a relay before each agent; each run has one of its own and closes it."""

from collections.abc import Sequence

import pytest
from tests.cluster.badinput.conftest import MakeWorld
from tests.cluster.badinput.world import World
from tests.cluster.operator.conftest import Rig
from tests.cluster.soak.clock import build
from tests.cluster.soak.stage import MakeStage, Stage

from gpudiag_cli.controlplane import ControlPlane, Kubectl
from gpudiag_cli.simulator import NodeSpec


@pytest.fixture(scope="module")
def make_world(
    control_plane: ControlPlane, kubectl: Kubectl, crds: list[str], tmp_path_factory: pytest.TempPathFactory
) -> MakeWorld:
    """Makes fleets on the shared control plane."""

    def make(specs: Sequence[NodeSpec]) -> World:
        return World(Rig(control_plane, kubectl, tmp_path_factory.mktemp("soak")), specs)

    return make


@pytest.fixture(scope="module")
def make_stage(
    control_plane: ControlPlane, kubectl: Kubectl, crds: list[str], tmp_path_factory: pytest.TempPathFactory
) -> MakeStage:
    """Makes stages on the shared control plane."""
    library = build(tmp_path_factory.mktemp("clock"))

    def make() -> Stage:
        return Stage(Rig(control_plane, kubectl, tmp_path_factory.mktemp("soak")), library)

    return make
