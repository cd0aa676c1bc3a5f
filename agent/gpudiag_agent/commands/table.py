"""A report as text that a person reads in ten seconds: verdict, GPUs, findings, what could not be seen. Pure."""

import textwrap
from collections.abc import Iterable, Sequence

from gpudiag_api.vocabulary import Action, Check, Health, Severity
from gpudiag_api.wire import GPU, CapabilityGap, Finding, Report

_MAX_FINDINGS = 40
_NARROW = 40
"""Columns of a terminal that must be left for a sentence; else it stands below its row."""
_INDENT = 4


def render(report: Report, width: int | None = None) -> str:
    """The report as text, without a newline at the end.

    Args:
        report: what to show.
        width: of the terminal, in columns, into which sentences are folded; None: every sentence on one line.
    """
    parts = [_folded(_printable(verdict(report)), width)]
    rows = [*map(_gpu_row, report.gpus), *_unlisted(report)]
    if rows:
        parts.append(_columns(_GPU_HEAD, rows))
    loud = [finding for finding in report.findings if finding.severity is not Severity.INFO]
    quiet = [finding for finding in report.findings if finding.severity is Severity.INFO]
    if report.findings:
        shown = [*loud, *quiet][:_MAX_FINDINGS]
        parts.append(_columns(_FINDING_HEAD, [_finding_row(finding) for finding in shown], width))
        left = len(report.findings) - len(shown)
        if left:
            parts[-1] += f"\n… and {left} more: --output json has all of them"
    told = [gap for gap in report.capabilities if gap.message not in verdict(report)]
    if told:
        parts.append("\n".join(_folded(_gap(gap), width) for gap in told))
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


_GAP = "   "
_GPU_HEAD = ("GPU", "HEALTH", "SCORE", "MODEL", "PCI", "TEMP", "POWER", "UTIL", "MEMORY")
_FINDING_HEAD = ("SEVERITY", "CHECK", "REASON", "BLAME", "ACTION", "WHAT")
_OF_OTHERS = frozenset({Check.SXID, Check.INFINIBAND})
"""Checks whose findings are about a device that is no GPU."""


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


def _unlisted(report: Report) -> list[tuple[str, ...]]:
    """Rows of GPUs that only the kernel log or the PCI bus knows: NVML does not list them, so the report cannot."""
    listed = {gpu.pci for gpu in report.gpus}
    found: dict[str, list[Health]] = {}
    for finding in report.findings:
        pci = finding.subject.pci
        if pci and pci not in listed and finding.check not in _OF_OTHERS:
            found.setdefault(pci, [Health.UNKNOWN]).append(finding.severity.health)
    blank = ("-",) * (len(_GPU_HEAD) - 5)
    return [("-", str(Health.worst(parts)), "-", "-", pci, *blank) for pci, parts in sorted(found.items())]


def _memory(gpu: GPU) -> str:
    used, total = gpu.measurements.memory_used_bytes, gpu.memory_bytes
    return "-" if total is None else f"{_or_dash(_gib(used))}/{_or_dash(_gib(total))} GiB"


def _gib(size: int | None) -> float | None:
    return None if size is None else size / (1 << 30)


def _or_dash(value: float | None, unit: str = "") -> str:
    return "-" if value is None else f"{value:.0f}{unit}"


def _finding_row(finding: Finding) -> tuple[str, ...]:
    return (
        str(finding.severity),
        finding.check,
        finding.reason,
        str(finding.blame),
        str(finding.action),
        finding.message,
    )


def _gap(gap: CapabilityGap) -> str:
    return _printable(f"Not seen ({gap.reason}): {gap.message}")


def _columns(head: Sequence[str], rows: Iterable[Sequence[str]], width: int | None = None) -> str:
    """Cells below each other; with a width the last are folded: under their heading, or under their row."""
    table = [tuple(head), *(tuple(_printable(cell) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    if width is None:
        return "\n".join(_joined(row, widths) for row in table)
    left = sum(widths[:-1]) + len(_GAP) * (len(head) - 1)
    if width - left >= min(_NARROW, widths[-1]):
        return "\n".join(_folded(_joined(row, widths), width, left) for row in table)
    below = (f"{' ' * _INDENT}{row[-1]}" for row in table)
    rows_and_below = zip((_joined(row[:-1], widths[:-1]) for row in table), below, strict=True)
    return "\n".join(f"{row}\n{_folded(last, width, _INDENT)}" for row, last in rows_and_below)


def _joined(row: Sequence[str], widths: Sequence[int]) -> str:
    return _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _folded(line: str, width: int | None, indent: int = 0) -> str:
    """A line in lines of that width. What stands before ``indent`` is left as it is."""
    if width is None or len(line) <= width:
        return line
    room = max(width - indent, 1)
    words = textwrap.wrap(line[indent:], room, break_on_hyphens=False)
    return "\n".join(f"{line[:indent] if not number else ' ' * indent}{part}" for number, part in enumerate(words))


def _printable(text: str) -> str:
    """Kernel lines and model names come from outside: no terminal control in a table."""
    return "".join(character if character.isprintable() else "?" for character in text)
