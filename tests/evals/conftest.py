"""The prepared fleet, once for all tests of this folder."""

from collections.abc import Iterator

import pytest
from tests.evals.asking import prepared
from tests.evals.stage import Stage, StageError

from gpudiag_cli.controlplane import ControlPlaneError


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """Control plane, fourteen nodes, operator: all judged."""
    try:
        with prepared() as one:
            yield one
    except (ControlPlaneError, StageError) as error:
        pytest.fail(str(error), pytrace=False)
