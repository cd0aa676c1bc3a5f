"""A report as text that a person reads in ten seconds: verdict, GPUs, findings, what could not be seen. Pure."""

from collections.abc import Iterable, Sequence

from gpudiag_api.vocabulary import Action, Health, Severity
from gpudiag_api.wire import GPU, CapabilityGap, Finding, Report

_WRAP = 100
"""Longest sentence in a table; the rest is in ``--output json``."""
_MAX_FINDINGS = 40


def render(report: Report) -> str:
    """The report as text, without a newline at the end."""
    parts = [_printable(verdict(report))]
    if report.gpus:
        parts.append(_columns(_GPU_HEAD, [_gpu_row(gpu) for gpu in report.gpus]))
    loud = [finding for finding in report.findings if finding.severity is not Severity.INFO]
    quiet = [finding for finding in report.findings if finding.severity is Severity.INFO]
    if report.findings:
        shown = [*loud, *quiet][:_MAX_FINDINGS]
        parts.append(_columns(_FINDING_HEAD, [_finding_row(finding) for finding in shown]))
        left = len(report.findings) - len(shown)
        if left:
            parts[-1] += f"\n… and {left} more: --output json has all of them"
    told = [gap for gap in report.capabilities if gap.message not in parts[0]]
    if told:
        parts.append("\n".join(_gap(gap) for gap in told))
    return "\n\n".join(parts)


def verdict(report: Report) -> str:
    """One sentence: how the node is, why, and what to do next."""
    name = report.agent.node_name
    count = len(report.gpus)
    worst = next(iter(report.findings), None)
    if report.health is Health.HEALTHY or worst is None or worst.severity is Severity.INFO:
        if report.health is Health.HEALTHY:
            works = "the GPU works" if count == 1 else f"all {count} GPUs work"
            return f"{name}: Healthy. {works[0].upper()}{works[1:]}."
        why = next((gap.message for gap in report.capabilities if gap.reason.blinds), "The GPUs could not be read.")
        return f"{name}: {report.health}. {why}"
    more = sum(1 for finding in report.findings if finding.severity is not Severity.INFO) - 1
    others = f" (and {more} more)" if more > 0 else ""
    action = Action.covering(finding.action for finding in report.findings)
    following = f" Next: {action.advice}." if action.advice else ""
    return f"{name}: {report.health}. {worst.message.rstrip('.')}{others}.{following}"


_GPU_HEAD = ("GPU", "HEALTH", "SCORE", "MODEL", "PCI", "TEMP", "POWER", "UTIL", "MEMORY")
_FINDING_HEAD = ("SEVERITY", "CHECK", "REASON", "WHAT", "BLAME", "ACTION")


def _gpu_row(gpu: GPU) -> tuple[str, ...]:
    read = gpu.measurements
    return (
        str(gpu.index),
        str(gpu.health),
        _or_dash(gpu.score),
        gpu.model or "-",
        gpu.pci or "-",
        _or_dash(read.temperature_celsius, " °C"),
        _or_dash(read.power_watts, " W"),
        _or_dash(read.utilization_percent, " %"),
        _memory(gpu),
    )


def _memory(gpu: GPU) -> str:
    used, total = gpu.measurements.memory_used_bytes, gpu.memory_bytes
    return "-" if total is None else f"{_or_dash(_gib(used))}/{_or_dash(_gib(total))} GiB"


def _gib(size: int | None) -> float | None:
    return None if size is None else size / (1 << 30)


def _or_dash(value: float | None, unit: str = "") -> str:
    return "-" if value is None else f"{value:.0f}{unit}"


def _finding_row(finding: Finding) -> tuple[str, ...]:
    message = finding.message if len(finding.message) <= _WRAP else f"{finding.message[: _WRAP - 1]}…"
    return (
        str(finding.severity),
        finding.check,
        finding.reason,
        message,
        str(finding.blame),
        str(finding.action),
    )


def _gap(gap: CapabilityGap) -> str:
    return _printable(f"Not seen ({gap.reason}): {gap.message}")


def _columns(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    table = [tuple(head), *(tuple(_printable(cell) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )


def _printable(text: str) -> str:
    """Kernel lines and model names come from outside: no terminal control in a table."""
    return "".join(character if character.isprintable() else "?" for character in text)
