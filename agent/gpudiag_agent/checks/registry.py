"""The one list of checks. A new check adds its folder and one line here (and its word to the vocabulary)."""

from gpudiag_agent.checks.base import Check
from gpudiag_agent.checks.driver.rule import Driver
from gpudiag_agent.checks.ecc_uncorrectable.rule import ECCUncorrectable
from gpudiag_agent.checks.gpu_count.rule import GPUCount
from gpudiag_agent.checks.gpu_lost.rule import GPULost
from gpudiag_agent.checks.row_remap.rule import RowRemap
from gpudiag_agent.checks.temperature.rule import Temperature
from gpudiag_agent.checks.throttling.rule import Throttling
from gpudiag_agent.checks.xid.rule import XIDRule


def all_checks(interval: float) -> tuple[Check, ...]:
    """A fresh set of every check.

    Args:
        interval: seconds between samples.
    """
    return (
        GPUCount(),
        GPULost(),
        Driver(),
        ECCUncorrectable(),
        RowRemap(),
        Temperature(),
        Throttling(interval),
        XIDRule(),
    )
