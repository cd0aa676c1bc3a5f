"""The command line: every flag, its environment twin, and a sentence for every mistake.

Imports nothing heavy: ``--help`` and a wrong flag answer at once.
"""

import argparse
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

import msgspec

from gpudiag_api import durations
from gpudiag_api.version import __version__

PROGRAM = "gpudiag-agent"
EXIT_USAGE = 2
"""Exit status for a wrong flag, variable or scenario: what argparse and most Unix tools use."""
DEFAULT_PORT = 9810

_SHORTEST, _LONGEST = 1.0, 3600.0
_DESCRIPTION = """\
Looks at the NVIDIA GPUs of this node, judges them, and serves the verdict over HTTP.
It reads NVML, the kernel log and the PCI bus; it changes nothing and holds no GPU.
"""
_EPILOGUE = """\
Every flag can be given as an environment variable: --node-name is GPUDIAG_NODE_NAME. A flag wins.

examples:
  gpudiag-agent --source simulated --host 127.0.0.1
      eight healthy GPUs that are not there; then: curl localhost:9810/v1/report
  gpudiag-agent --source simulated --scenario my.yaml
      GPUs and faults from a file that may change while the agent runs
  gpudiag-agent --node-name "$NODE_NAME"
      what the DaemonSet runs
  mkfifo log; gpudiag-agent --source simulated --kmsg log &
  echo 'NVRM: Xid (PCI:0000:04:00): 79, GPU has fallen off the bus.' > log
      a kernel line by hand: the report shows it within 0.2 s

exit status: 0 stopped by a signal, 1 failed while running, 2 wrong usage.
"""

_T = TypeVar("_T")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent was asked to do."""

    node_name: str
    host: str
    """Empty: all addresses, IPv4 and IPv6."""
    port: int
    source: str
    scenario: str | None
    kmsg: Path | None
    """None: no kernel log (a simulated node has its own)."""
    interval: float
    """Seconds between samples."""
    sysfs_pci: Path
    log_level: str


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the page of usage around it."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"{self.prog}: {message} (try {self.prog} --help)\n")


def parse(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Options:
    """Read flags and variables.

    Raises:
        SystemExit: 0 for ``--help`` and ``--version``, 2 for wrong usage, with the sentence on stderr.
    """
    parser = _parser(environment)
    given = parser.parse_args(arguments)
    simulated = given.source == "simulated"
    if given.scenario is not None and not simulated:
        parser.error("--scenario needs --source simulated")
    kmsg = given.kmsg or (None if simulated else Path("/dev/kmsg"))
    return Options(**{**vars(given), "kmsg": kmsg})


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description=_DESCRIPTION,
        epilog=_EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        exit_on_error=True,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")

    def flag(name: str, read: Callable[[str], _T], default: _T, metavar: str, text: str) -> None:
        variable = "GPUDIAG_" + name.upper().replace("-", "_")
        value = default
        if environment.get(variable):
            try:
                value = read(environment[variable])
            except argparse.ArgumentTypeError as error:
                parser.error(f"environment variable {variable}: {error}")
        parser.add_argument(f"--{name}", type=read, default=value, metavar=metavar, help=text)

    flag("node-name", _node_name, _hostname(), "NAME", "name of the Kubernetes node (default: the host name)")
    flag("host", _host, "", "ADDRESS", "address to listen on, such as 127.0.0.1 or :: (default: all)")
    flag("port", _port, DEFAULT_PORT, "PORT", f"TCP port; 0 takes a free one and logs it (default: {DEFAULT_PORT})")
    flag("source", _source, "nvml", "SOURCE", "nvml: the real GPUs; simulated: those of a scenario (default: nvml)")
    flag(
        "scenario",
        _text,
        None,
        "FILE",
        "simulated GPUs: a YAML or JSON file, or a built-in name: h100-8, a100-8-mig, t4-1 (default: h100-8)",
    )
    flag(
        "kmsg",
        Path,
        None,
        "PATH",
        "kernel log: a device, FIFO or file of /dev/kmsg records, or of plain kernel lines "
        "(default: /dev/kmsg; with --source simulated the scenario's own lines)",
    )
    flag("interval", _interval, 10.0, "DURATION", "time between samples, 1s to 1h (default: 10s)")
    flag(
        "sysfs-pci",
        Path,
        Path("/sys/bus/pci/devices"),
        "PATH",
        "where the PCI bus shows its devices, to find GPUs that the driver does not list "
        "(default: /sys/bus/pci/devices; not used with --source simulated)",
    )
    flag("log-level", _log_level, "info", "LEVEL", "debug, info, warning or error (default: info)")
    return parser


def _hostname() -> str:
    return socket.gethostname().lower()[:253]


def _text(text: str) -> str:
    return text


def _node_name(text: str) -> str:
    if not text or len(text) > 253 or not all(c.isascii() and (c.isalnum() or c in "-.") for c in text):
        raise argparse.ArgumentTypeError(f"{text[:64]!r} is no node name: letters, digits, - and ., at most 253")
    return text


def _host(text: str) -> str:
    if any(c.isspace() for c in text):
        raise argparse.ArgumentTypeError(f"{text!r} is no address: write an IP address or a host name")
    return text.removeprefix("[").removesuffix("]")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 0xFFFF):
        raise argparse.ArgumentTypeError(f"{text!r} is no TCP port: write a number from 0 to 65535")
    return int(text)


def _source(text: str) -> str:
    return _one_of(text, ("nvml", "simulated"))


def _log_level(text: str) -> str:
    return _one_of(text.lower(), ("debug", "info", "warning", "error"))


def _one_of(text: str, allowed: tuple[str, ...]) -> str:
    if text not in allowed:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: write one of {', '.join(allowed)}")
    return text


def _interval(text: str) -> float:
    try:
        seconds = durations.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not _SHORTEST <= seconds <= _LONGEST:
        raise argparse.ArgumentTypeError(f"{text} is not allowed: write 1s to 1h")
    return seconds
