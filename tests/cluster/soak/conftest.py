"""Worlds as in ``badinput``; each run has one of its own and closes it."""

from collections.abc import Sequence

import pytest
from tests.cluster.badinput.conftest import MakeWorld
from tests.cluster.badinput.world import World
from tests.cluster.operator.conftest import Rig

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
