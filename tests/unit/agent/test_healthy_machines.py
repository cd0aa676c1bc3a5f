"""A healthy machine has no finding, whatever its GPUs can and cannot say: real pynvml, real child, every check.

Machines without a state file of their own are variants of one, with what sets them apart.
"""

import time

import pytest

from gpudiag_agent.assess import Assessor
from gpudiag_agent.checks.registry import all_checks
from gpudiag_api.vocabulary import Health
from gpudiag_api.wire import AgentInfo

from .conftest import Boot, Open

VARIANTS: dict[str, tuple[str, dict[str, str | int]]] = {
    "H100": ("h100-8", {}),
    "A100 with MIG": ("a100-8-mig", {}),
    "T4": ("t4-1", {}),
    "idle H100": ("h100-8", {"gpu.*.reasons": 1, "gpu.*.utilization": 0, "gpu.*.pstate": 8}),
    "H100 at its power cap": ("h100-8", {"gpu.*.reasons": 4}),
    "B200": ("h100-8", {"gpu.*.name": "NVIDIA B200", "gpu.*.field.194": "sint:-3"}),
    "GB200: other PCI domains, no memory of its own": (
        "h100-8",
        {
            "count": 2,
            "gpu.*.name": "NVIDIA GB200",
            "gpu.0.pci": "00000008:01:00.0",
            "gpu.1.pci": "00000018:01:00.0",
            "gpu.*.memory.total": "",
        },
    ),
    "L40S": ("t4-1", {"gpu.0.name": "NVIDIA L40S", "gpu.0.field.194": "sint:-2", "gpu.0.margin": 44}),
    "an old driver that lacks most functions": (
        "t4-1",
        {
            f"missing.nvml{function}": 1
            for function in (
                "DeviceGetCurrentClocksEventReasons",
                "DeviceGetCurrentClocksThrottleReasons",
                "DeviceGetEccMode",
                "DeviceGetFieldValues",
                "DeviceGetMarginTemperature",
                "DeviceGetMemoryInfo_v2",
                "DeviceGetMigMode",
                "DeviceGetPerformanceState",
                "DeviceGetRemappedRows",
                "DeviceGetSerial",
                "DeviceGetTemperatureV",
                "DeviceGetTotalEccErrors",
                "SystemGetCudaDriverVersion_v2",
            )
        },
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
async def test_no_finding_and_no_gap(boot: Boot, open_source: Open, variant: str) -> None:
    machine, values = VARIANTS[variant]
    boot(machine).set(values)
    source = open_source(deadline=10)
    assessor = Assessor(agent=AgentInfo(version="1", node_name="n"), checks=all_checks(10))
    for _ in range(3):
        assessor.sampled(await source.sample())
        report = assessor.report(time.time())
        assert report is not None
        assert report.findings == ()
        assert report.capabilities == ()
        assert {gpu.health for gpu in report.gpus} == {Health.HEALTHY}
