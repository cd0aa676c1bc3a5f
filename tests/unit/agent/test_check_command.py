"""`gpudiag-agent check` as a person runs it: a table, an exit status, no Kubernetes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from gpudiag_agent.commands.check import status
from gpudiag_api.vocabulary import Action, Blame, Health, Severity
from gpudiag_api.wire import AgentInfo, Finding, Report
from gpudiag_cli import nvmlfake

SICK = "gpus: [{index: 3, remapFailure: true}]\ndefaults: {remapFailure: false}\n"


def check(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("GPUDIAG_")}
    command = [sys.executable, "-m", "gpudiag_agent", "check", *arguments]
    return subprocess.run(command, env={**own, **(env or {})}, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def sick(tmp_path: Path) -> str:
    file = tmp_path / "sick.yaml"
    file.write_text(f"model: NVIDIA H100 80GB HBM3\ncount: 8\n{SICK}")
    return str(file)


def test_a_healthy_machine(nvml_library: Path, tmp_path: Path) -> None:
    machine = nvmlfake.Machine.create("h100-8", tmp_path / "machine.state")
    said = check("--kmsg", "none", "--journal", "none", "--node-name", "gpu-01", env=machine.environment(nvml_library))
    assert said.returncode == 0, said.stderr
    first, _, table = said.stdout.partition("\n")
    assert first == "gpu-01: Healthy. All 8 GPUs work."
    assert table.count("NVIDIA H100 80GB HBM3") == 8


def test_a_lost_gpu_is_named_and_the_others_are_judged(nvml_library: Path, tmp_path: Path) -> None:
    machine = nvmlfake.Machine.create("h100-8", tmp_path / "machine.state")
    machine.set({"gpu.2.lost": True})
    said = check("--kmsg", "none", "--journal", "none", "--node-name", "gpu-01", env=machine.environment(nvml_library))
    assert said.returncode == 1, said.stderr
    assert said.stdout.startswith("gpu-01: Unhealthy. GPU 2 ")
    assert "Next: drain the node and reboot it." in said.stdout
    assert said.stdout.count("   Healthy     100") == 7


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_machines_get_the_whole_report(sick: str, form: str) -> None:
    said = check("--source", "simulated", "--scenario", sick, "--output", form)
    assert said.returncode == 1
    read = json.loads if form == "json" else msgspec.yaml.decode
    report = msgspec.convert(read(said.stdout), Report)
    assert [finding.check for finding in report.findings] == ["RowRemap"]
    assert report.findings[0].subject.gpu_index == 3


def test_a_machine_without_a_driver_could_not_be_told(tmp_path: Path) -> None:
    said = check("--kmsg", "none", env={"LD_LIBRARY_PATH": str(tmp_path)})
    assert said.returncode == 2
    assert "libnvidia-ml.so.1 could not be loaded" in said.stdout
    assert "Install the driver" in said.stdout
    assert said.stderr == ""


def test_kernel_lines_of_this_boot_count(tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    log.write_text("NVRM: Xid (PCI:0000:04:00): 79, pid=1, name=x, GPU has fallen off the bus.\n")
    said = check("--source", "simulated", "--kmsg", str(log))
    assert said.returncode == 1
    assert "(kernel log: XID 79)" in said.stdout


def test_a_gpu_that_only_the_kernel_log_knows_has_a_row_and_no_place_in_the_report(tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    log.write_text("NVRM: Xid (PCI:0000:fe:00): 79, pid=1, name=x, GPU has fallen off the bus.\n")
    said = check("--source", "simulated", "--kmsg", str(log))
    assert "Unhealthy   -       -" in said.stdout
    assert said.stdout.count("0000:fe:00.0   -") == 1
    report = json.loads(check("--source", "simulated", "--kmsg", str(log), "--output", "json").stdout)
    assert "0000:fe:00.0" not in {gpu["pci"] for gpu in report["gpus"]}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--output", "xml"], "invalid choice: 'xml'"),
        (["--port", "1"], "unrecognized arguments: --port"),
        (["--source", "simulated", "--scenario", "no-such"], "--scenario"),
        (["--config", "/no/such/file"], "--config"),
    ],
)
def test_wrong_usage_is_64_and_one_sentence(arguments: list[str], says: str) -> None:
    said = check(*arguments)
    assert said.returncode == 64
    assert says in said.stderr
    assert said.stderr.count("\n") == 1
    assert said.stdout == ""


def test_help_teaches() -> None:
    said = check("--help")
    assert said.returncode == 0
    assert "exit status: 0 healthy; 1 a Warning or Critical finding; 2 could not tell; 64 wrong usage" in said.stdout
    assert "kubectl debug" in said.stdout


def test_a_reader_that_has_enough_is_no_error() -> None:
    command = f"{sys.executable} -m gpudiag_agent check --source simulated --output json | head -c 1"
    said = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert (said.stdout, said.stderr) == ("{", "")


def finding(severity: Severity) -> Finding:
    return Finding(
        check="XID",
        reason="XID31",
        severity=severity,
        blame=Blame.APPLICATION,
        action=Action.NONE,
        message="",
        first_seen="",
        last_seen="",
    )


@pytest.mark.parametrize(
    ("health", "severities", "expected"),
    [
        (Health.HEALTHY, [], 0),
        (Health.HEALTHY, [Severity.INFO], 0),
        (Health.DEGRADED, [Severity.WARNING, Severity.INFO], 1),
        (Health.UNHEALTHY, [Severity.CRITICAL], 1),
        (Health.UNKNOWN, [Severity.INFO], 2),
        (Health.UNKNOWN, [Severity.WARNING], 1),
    ],
)
def test_exit_status(health: Health, severities: list[Severity], expected: int) -> None:
    agent = AgentInfo(version="0", node_name="n")
    assert (
        status(Report(version="1.0", agent=agent, health=health, findings=tuple(map(finding, severities)))) == expected
    )
