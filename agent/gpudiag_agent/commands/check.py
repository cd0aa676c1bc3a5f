"""``gpudiag-agent check``: one look at this machine, every check, a verdict and an exit status. No Kubernetes."""

import asyncio
import os
import shutil
import sys
from collections.abc import Sequence

import msgspec

from gpudiag_agent import logs, run
from gpudiag_agent import options as command_line
from gpudiag_agent.commands import table
from gpudiag_agent.configuration import ConfigurationError
from gpudiag_agent.simulated.scenario import ScenarioError
from gpudiag_api import wire
from gpudiag_api.vocabulary import Health, Severity
from gpudiag_api.wire import Report

HEALTHY, FOUND, UNKNOWN = 0, 1, 2
"""Exit statuses."""


def main(arguments: Sequence[str]) -> int:
    """Run the command; gives the exit status."""
    options, output = command_line.parse_check(arguments)
    logs.configure(options.log_level)
    try:
        report = asyncio.run(_look(options))
    except ScenarioError as error:
        return _refuse(f"--scenario: {error}", command_line.EXIT_CHECK_USAGE)
    except ConfigurationError as error:
        return _refuse(f"--config: {error}", command_line.EXIT_CHECK_USAGE)
    except KeyboardInterrupt:
        return 130
    try:
        sys.stdout.write(_written(report, output))
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has enough. Python must not try again to flush when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status(report)


def status(report: Report) -> int:
    """0 healthy, 1 a Warning or Critical finding, 2 could not tell."""
    if any(finding.severity is not Severity.INFO for finding in report.findings):
        return FOUND
    return HEALTHY if report.health is Health.HEALTHY else UNKNOWN


async def _look(options: command_line.Options) -> Report:
    return await run.make(options).once()


def _written(report: Report, output: str) -> str:
    if output == "table":
        # Whoever pipes has no width, and gets every sentence on a line of its own.
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        return f"{table.render(report, width)}\n"
    document = wire.encode(report)
    if output == "json":
        return msgspec.json.format(document, indent=2).decode() + "\n"
    return msgspec.yaml.encode(msgspec.json.decode(document)).decode()


def _refuse(sentence: str, exit_status: int) -> int:
    sys.stderr.write(f"{command_line.PROGRAM} check: {sentence}\n")
    return exit_status
