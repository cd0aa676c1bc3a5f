"""What `gpudiag-agent check` prints: verdict first, then evidence, then the next action."""

import msgspec
import pytest

from gpudiag_agent.commands.table import render, verdict
from gpudiag_api.vocabulary import Action, Blame, Capability, Health, Severity
from gpudiag_api.wire import GPU, AgentInfo, CapabilityGap, Finding, Measurements, Report, Subject

BUS = "0000:52:00.0"


def gpu(index: int, health: Health = Health.HEALTHY) -> GPU:
    return GPU(
        index=index,
        uuid=f"GPU-{index}",
        pci=BUS,
        model="Tesla T4",
        memory_bytes=16 << 30,
        health=health,
        score=100,
        measurements=Measurements(temperature_celsius=41.4, memory_used_bytes=3 << 30),
    )


def finding(severity: Severity = Severity.CRITICAL, message: str = "GPU 1 is lost.") -> Finding:
    return Finding(
        check="GPULost",
        reason="GPULost",
        severity=severity,
        blame=Blame.HARDWARE,
        action=Action.REBOOT_NODE,
        message=message,
        first_seen="",
        last_seen="",
    )


def report(**values: object) -> Report:
    agent = AgentInfo(version="1", node_name="gpu-01")
    made = Report(version="1.0", agent=agent, health=Health.HEALTHY, gpus=(gpu(0), gpu(1)))
    return msgspec.structs.replace(made, **values)


HUNG = CapabilityGap(reason=Capability.DRIVER_HUNG, message="NVML did not answer.")
NO_LOG = CapabilityGap(reason=Capability.NO_KERNEL_LOG, message="/dev/kmsg: permission denied.")
INFO = finding(Severity.INFO, "ECC is off.")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "gpu-01: Healthy. All 2 GPUs work."),
        ({"gpus": (gpu(0),)}, "gpu-01: Healthy. The GPU works."),
        ({"findings": (INFO,)}, "gpu-01: Healthy. All 2 GPUs work."),
        (
            {"health": Health.UNHEALTHY, "findings": (finding(), finding(), INFO)},
            "gpu-01: Unhealthy. GPU 1 is lost (and 1 more). Next: drain the node and reboot it.",
        ),
        ({"health": Health.UNKNOWN, "capabilities": (NO_LOG, HUNG)}, "gpu-01: Unknown. NVML did not answer."),
        ({"health": Health.UNKNOWN, "gpus": ()}, "gpu-01: Unknown. The GPUs could not be read."),
    ],
)
def test_the_first_line_is_the_verdict(values: dict[str, object], says: str) -> None:
    assert verdict(report(**values)) == says
    assert render(report(**values)).splitlines()[0] == says


def test_the_table_lines_up() -> None:
    lines = render(report()).splitlines()
    assert lines[2:] == [
        "GPU   HEALTH    SCORE   MODEL      PCI            TEMP    POWER   UTIL   MEMORY",
        "0     Healthy   100     Tesla T4   0000:52:00.0   41 °C   -       -      3/16 GiB",
        "1     Healthy   100     Tesla T4   0000:52:00.0   41 °C   -       -      3/16 GiB",
    ]


def test_loud_findings_come_before_quiet_ones() -> None:
    text = render(report(health=Health.UNHEALTHY, findings=(INFO, finding())))
    assert text.index("Critical") < text.index("Info")


def test_what_could_not_be_seen_is_said() -> None:
    assert render(report(capabilities=(NO_LOG,))).endswith("Not seen (NoKernelLog): /dev/kmsg: permission denied.")


def test_a_flood_of_findings_is_cut_and_says_so() -> None:
    text = render(report(findings=tuple(finding() for _ in range(100))))
    assert text.count("GPULost   GPULost") == 40
    assert "… and 60 more: --output json has all of them" in text


def test_text_from_a_kernel_line_cannot_steer_the_terminal() -> None:
    text = render(report(health=Health.UNHEALTHY, findings=(finding(message="x\x1b[2J\u202ey" + "z" * 500),)))
    assert "\x1b" not in text
    assert "\u202e" not in text


LONG = "GPU 1 (0000:52:00.0) is lost. " + "Only a reboot of the node brings it back, says every witness there is. " * 3


def test_a_pipe_gets_the_whole_sentence_on_one_line() -> None:
    lines = render(report(health=Health.UNHEALTHY, findings=(finding(message=LONG),))).splitlines()
    assert lines[-1] == f"Critical   GPULost   GPULost   Hardware   RebootNode   {LONG.rstrip()}"


@pytest.mark.parametrize("width", [40, 72, 80, 100, 140, 400])
def test_a_terminal_gets_the_whole_sentence_in_its_width(width: int) -> None:
    made = report(health=Health.UNHEALTHY, findings=(finding(message=LONG),), capabilities=(NO_LOG,))
    sick = render(msgspec.structs.replace(made, gpus=()), width)
    *_, table, gap = sick.split("\n\n")
    head, *lines = table.splitlines()
    assert head.startswith("SEVERITY   CHECK     REASON    BLAME      ACTION")
    assert LONG.split() == " ".join(lines).split()[-len(LONG.split()) :]
    assert " ".join(gap.split()) == "Not seen (NoKernelLog): /dev/kmsg: permission denied."
    assert max(map(len, sick.splitlines())) <= max(width, len("Critical   GPULost   GPULost   Hardware   RebootNode"))


def test_a_wide_terminal_folds_under_the_heading_and_a_narrow_one_below_the_row() -> None:
    sick = report(health=Health.UNHEALTHY, gpus=(), findings=(finding(message=LONG),))
    head, first, second, *_ = render(sick, 140).split("\n\n")[1].splitlines()
    column = head.index("WHAT")
    assert first[column:].startswith("GPU 1 (0000:52:00.0) is lost.")
    assert second[:column].strip() == ""
    assert second[column] != " "
    _, _, row, below, *_ = render(sick, 80).split("\n\n")[1].splitlines()
    assert row == "Critical   GPULost   GPULost   Hardware   RebootNode"
    assert below.startswith("    GPU 1 (0000:52:00.0) is lost.")


class TestGPUsThatNVMLDoesNotList:
    """A report names GPUs that were read; people also ask for those that were not."""

    @staticmethod
    def about(pci: str, severity: Severity = Severity.CRITICAL, check: str = "GPULost") -> Finding:
        return msgspec.structs.replace(finding(severity), check=check, subject=Subject(pci=pci))

    def rows(self, *findings: Finding) -> list[str]:
        text = render(report(health=Health.UNHEALTHY, findings=findings))
        return [" ".join(line.split()) for line in text.split("\n\n")[1].splitlines()[3:]]

    def test_one_that_the_kernel_log_names_has_a_row(self) -> None:
        assert self.rows(self.about("0000:04:00.0")) == ["- Unhealthy - - 0000:04:00.0 - - - -"]

    def test_one_row_however_many_findings_name_it_and_the_worst_counts(self) -> None:
        said = (self.about("0000:04:00.0", Severity.WARNING), self.about("0000:04:00.0"), self.about("0000:05:00.0"))
        assert [row.split()[1] for row in self.rows(*said)] == ["Unhealthy", "Unhealthy"]

    def test_nothing_worse_is_known_of_one_that_is_not_critical_than_that_it_was_not_read(self) -> None:
        assert self.rows(self.about("0000:04:00.0", Severity.WARNING))[0].split()[1] == "Unknown"

    def test_one_that_is_listed_has_no_second_row(self) -> None:
        assert self.rows(self.about(BUS)) == []

    @pytest.mark.parametrize("check", ["SXID", "InfiniBand"])
    def test_a_switch_or_a_port_is_no_gpu(self, check: str) -> None:
        assert self.rows(self.about("0000:06:00.0", check=check)) == []
