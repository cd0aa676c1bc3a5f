"""Errors of NVSwitches as findings: one per switch, code and link.

| what | finding | severity | cleared by |
|---|---|---|---|
| the driver says Fatal, or the code always is | ``SXid<code>`` | Critical | reboot; driver loaded anew |
| a potentially fatal code that is not | ``SXid<code>`` | Warning | a day without it; reboot; driver loaded anew |
| 10004, a switch is too hot | ``SXid10004`` | Warning | 10005; a day without it; reboot |
| an unknown code, non-fatal | ``UnclassifiedSXid`` | Info | a day without it |
| corrected errors | none | | |
| a critical code of this boot that two earlier boots had | ``SwitchFaultSurvivesReboots`` | Critical | as the code |
"""

from collections.abc import Iterable

from gpudiag_agent.checks.base import Memoryless, Problem, View, Witness, evidence
from gpudiag_agent.checks.sxid import catalogue
from gpudiag_agent.checks.xid.catalogue import Verdict
from gpudiag_agent.checks.xid.history import Burst
from gpudiag_agent.checks.xid.workflow import REBOOTS
from gpudiag_api.vocabulary import Action, Blame, Check, Severity
from gpudiag_api.wire import Subject

SPAN = 86400.0
"""Seconds after which an error that is not critical is over."""


class SXIDRule(Memoryless):
    """See the module."""

    name = Check.SXID
    needs = Witness.KERNEL_LOG

    def judge(self, view: View) -> Iterable[Problem]:
        """What the switches complain of."""
        groups: dict[tuple[int, str, str], list[Burst]] = {}
        for burst in view.switch_history:
            if burst.boot == view.boot and not burst.cleared:
                groups.setdefault((burst.code, burst.pci, _link(burst)), []).append(burst)
        for (code, pci, link), group in groups.items():
            verdict = max((_verdict(burst) for burst in group), key=lambda one: one.severity.badness)
            last = max(burst.last for burst in group)
            if verdict.action is Action.NONE or (verdict.severity is not Severity.CRITICAL and view.now - last >= SPAN):
                continue
            yield _problem(code, pci, link, group, verdict)
            boots = {burst.boot for burst in view.switch_history if burst.code == code and burst.pci == pci}
            if verdict.severity is Severity.CRITICAL and len(boots) > REBOOTS:
                yield _survivor(code, pci, group, len(boots))


def _verdict(burst: Burst) -> Verdict:
    return catalogue.verdict(burst.code, fatal=burst.mark.startswith("fatal"))


def _link(burst: Burst) -> str:
    return burst.mark.partition(" ")[2]


def _problem(code: int, pci: str, link: str, group: list[Burst], verdict: Verdict) -> Problem:
    entry = catalogue.lookup(code)
    count = sum(burst.count for burst in group)
    where = f"NVSwitch {pci}" + (f" link {link}" if link else "")
    times = "" if count == 1 else f", {count} times"
    return Problem(
        check=Check.SXID,
        reason="UnclassifiedSXid" if entry.kind == "Unclassified" else f"SXid{code}",
        severity=verdict.severity,
        blame=verdict.blame,
        action=verdict.action,
        message=f"{where}: SXid {code}, {entry.name}{times}: {group[-1].message}",
        subject=Subject(pci=pci, link=f"nvlink {link}" if link else None),
        evidence=(evidence("sxid", code), evidence("count", count)),
        since=min(burst.first for burst in group),
        until=max(burst.last for burst in group),
        count=count,
    )


def _survivor(code: int, pci: str, group: list[Burst], boots: int) -> Problem:
    return Problem(
        check=Check.SXID,
        reason="SwitchFaultSurvivesReboots",
        severity=Severity.CRITICAL,
        blame=Blame.HARDWARE,
        action=Action.RUN_DIAGNOSTICS,
        message=f"NVSwitch {pci}: SXid {code} is back after {boots - 1} reboots: have the hardware inspected.",
        subject=Subject(pci=pci),
        evidence=(evidence("sxid", code), evidence("boots", boots, threshold=REBOOTS)),
        since=min(burst.first for burst in group),
        until=max(burst.last for burst in group),
    )
