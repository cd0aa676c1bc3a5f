"""One fleet per test module; each module starts the operator as it needs it."""

from collections.abc import Callable, Iterator, Sequence

import pytest
from tests.cluster.badinput.world import World
from tests.cluster.operator.conftest import Rig

from gpudiag_cli.controlplane import ControlPlane, Kubectl
from gpudiag_cli.simulator import NodeSpec

MakeWorld = Callable[[Sequence[NodeSpec]], World]


@pytest.fixture(scope="module")
def make_world(
    control_plane: ControlPlane, kubectl: Kubectl, crds: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeWorld]:
    """Makes the module's fleet on the shared control plane; all is removed at the end."""
    made: list[World] = []

    def make(specs: Sequence[NodeSpec]) -> World:
        made.append(World(Rig(control_plane, kubectl, tmp_path_factory.mktemp("world")), specs))
        return made[-1]

    try:
        yield make
    finally:
        for world in made:
            world.close()
