"""Run the official conformance suite against gpudiag-mcp on both wires and print what every scenario said.

    python -m tests.conformance.run

A wire is right when every scenario passes that its baseline does not list, every listed one fails (a stale entry is an
error of its own), and the scenarios of ``MUST_PASS`` have passed with at least one check that succeeded.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.served import cluster, over_http
from tests.conformance.toolbox import Toolbox, ToolboxError, installed

HERE = Path(__file__).resolve().parent
SUITE_SECONDS = 120
MUST_PASS = {
    "2025-11-25": (
        "server-initialize",
        "ping",
        "completion-complete",
        "tools-list",
        "tools-call-error",
        "resources-list",
        "prompts-list",
        "dns-rebinding-protection",
    ),
    "2026-07-28": (
        "server-stateless",
        "tools-list",
        "tools-call-error",
        "completion-complete",
        "resources-list",
        "sep-2164-resource-not-found",
        "prompts-list",
        "dns-rebinding-protection",
        "caching",
        "http-header-validation",
        "http-custom-header-server-validation",
    ),
}
"""What a domain server can pass, by wire. ``server-session-lifecycle`` has nothing to check without sessions."""
VACUOUS = frozenset({"tools-call-simple-text", "tools-call-error"})
"""They pass because an unknown tool is a tool error, which is what both look for."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What one scenario said: how many checks succeeded, and those that did not, with their reasons."""

    name: str
    passed: int
    problems: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A run of the suite on one wire."""

    wire: str
    code: int
    scenarios: tuple[Scenario, ...]
    verdict: str
    """The suite's own words about the baseline."""

    def wrong(self) -> list[str]:
        """What is not as it must be; empty when all is well."""
        found = [] if self.code == 0 else [f"the suite ended with {self.code}: {self.verdict}"]
        ran = {one.name: one for one in self.scenarios}
        listed = {entry.partition(":")[0] for entry in baseline(self.wire) if ":" not in entry}
        found += [
            f"{name} must pass and did not"
            for name in MUST_PASS[self.wire]
            if name not in ran or not ran[name].passed or name in listed
        ]
        return found


def baseline(wire: str) -> list[str]:
    """The entries of a baseline: ``scenario`` or ``scenario:check``."""
    text = (HERE / f"baseline-{wire}.yml").read_text()
    return re.findall(r"^  - (\S+)", text, re.MULTILINE)


def run(toolbox: Toolbox, url: str, wire: str, folder: Path) -> Outcome:
    """The whole suite on one wire."""
    results = folder / wire
    command = toolbox.conformance(
        *("server", "--url", url, "--suite", "all", "--spec-version", wire, "--output-dir", results),
        *("--expected-failures", HERE / f"baseline-{wire}.yml"),
    )
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=SUITE_SECONDS,
        env=toolbox.environment(folder),
        cwd=folder,
    )
    said = re.sub(r"\x1b\[[0-9;]*m", "", ended.stdout + ended.stderr)
    return Outcome(wire=wire, code=ended.returncode, scenarios=tuple(_scenarios(results)), verdict=_verdict(said))


def _scenarios(results: Path) -> Iterable[Scenario]:
    for file in sorted(results.glob("server-*/checks.json"), key=lambda path: path.stat().st_mtime_ns):
        checks = json.loads(file.read_text())
        name = re.sub(r"^server-(.*)-\d{4}-\d\d-\d\dT[\d-]+Z$", r"\1", file.parent.name)
        bad = [check for check in checks if check["status"] in ("FAILURE", "WARNING")]
        yield Scenario(
            name=name,
            # Whether the messages fit the schema says nothing about the scenario's own subject.
            passed=sum(check["status"] == "SUCCESS" and check["id"] != "wire-schema-valid" for check in checks),
            problems=tuple(f"{check['id']}: {check.get('errorMessage') or check['status']}" for check in bad),
        )


def _verdict(said: str) -> str:
    """What follows the totals: unexpected failures and stale entries, or that there are none."""
    _, _, rest = said.rpartition("\nTotal:")
    lines = [line.strip() for line in rest.splitlines()[1:] if line.strip() and not line.lstrip().startswith("~")]
    return " / ".join(line for line in lines if not line.startswith("Expected failures"))[:1500] or said[-500:]


def table(outcome: Outcome) -> str:
    """One line per scenario."""
    excused = baseline(outcome.wire)
    lines = [f"wire {outcome.wire}: {outcome.verdict}"]
    for one in outcome.scenarios:
        partly = [entry for entry in excused if entry.startswith(f"{one.name}:")]
        word = "baseline" if one.name in excused else "pass but" if partly else "FAILED" if one.problems else "pass"
        if word == "pass" and not one.passed:
            word = "no check"
        note = " (vacuous)" if one.name in VACUOUS and word == "pass" else ""
        why = f"  {one.problems[0][:100]}" if one.problems else ""
        lines.append(f"  {word:<9} {one.name:<45} {one.passed:>2} checks{note}{why}")
    return "\n".join(lines)


def main() -> int:
    """Run both wires; gives the exit status."""
    try:
        toolbox = installed()
    except ToolboxError as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 1
    wrong = []
    with tempfile.TemporaryDirectory(prefix="gpudiag-conformance-") as name:
        folder = Path(name)
        with cluster() as plane, over_http(plane.kubeconfig, folder / "facade.log") as url:
            for wire in MUST_PASS:
                outcome = run(toolbox, url, wire, folder)
                print(table(outcome), flush=True)
                wrong += [f"{wire}: {what}" for what in outcome.wrong()]
    print("conformance: " + ("; ".join(wrong) if wrong else "both wires are as their baselines say"))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
