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

from gpudiag_agent import access_options
from gpudiag_api import durations
from gpudiag_api.version import __version__

PROGRAM = "gpudiag-agent"
EXIT_USAGE = 2
"""Exit status for a wrong flag, variable or scenario: what argparse and most Unix tools use."""
EXIT_CHECK_USAGE = 64
"""The same for ``check``, where 2 says that it could not tell: EX_USAGE of sysexits.h."""
DEFAULT_PORT = 9810
POD_RESOURCES = "/var/lib/kubelet/pod-resources/kubelet.sock"
KMSG = "/dev/kmsg"
JOURNAL = "/var/log/journal"

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
  gpudiag-agent check
      look once, here and now, print a table and end
  mkfifo log; gpudiag-agent --source simulated --kmsg log &
  echo 'NVRM: Xid (PCI:0000:04:00): 79, GPU has fallen off the bus.' > log
      a kernel line by hand: the report shows it within 0.2 s

  gpudiag-agent xid 79
      what an XID means, on any machine; see gpudiag-agent xid --help

exit status: 0 stopped by a signal, 1 failed while running, 2 wrong usage.
"""

_CHECK_DESCRIPTION = """\
Looks once at the NVIDIA GPUs of this machine, runs every check, and says what is wrong and what to do.
It needs no Kubernetes and changes nothing. Run it as root: the kernel log is closed to others.
"""
_CHECK_EPILOGUE = """\
examples:
  gpudiag-agent check
  gpudiag-agent check --output json | jq .findings
  kubectl debug node/NODE --image IMAGE --profile=sysadmin -- gpudiag-agent check
  gpudiag-agent check --source simulated --scenario my.yaml

exit status: 0 healthy; 1 a Warning or Critical finding; 2 could not tell; 64 wrong usage.
"""
_OF_A_SERVER = (
    frozenset({"host", "port", "interval", "state-dir", "dcgm-metrics", "nvml-events"}) | access_options.NAMES
)
"""Flags without a meaning for a single look."""

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
    """None: not read (a simulated node has lines of its own)."""
    interval: float
    """Seconds between samples."""
    sysfs_pci: Path
    log_level: str
    sysfs_infiniband: Path = Path("/sys/class/infiniband")
    pod_resources: Path | None = None
    """The kubelet's socket; None: it is not asked."""
    proc: Path = Path("/proc")
    pod_logs: Path = Path("/var/log/pods")
    config: Path | None = None
    """The thresholds file; None: the defaults."""
    journal: Path | None = None
    """Read where the kernel log cannot be; None: nothing is."""
    state_dir: Path | None = None
    """None: what the agent knows ends with the process."""
    nvml_events: bool = False
    """Whether XIDs are heard from NVML as well."""
    dcgm_metrics: str = "off"
    """``off``, or the name of the host label of the series with dcgm-exporter's names."""
    auth: str = "none"
    """``none`` or ``tokenreview``."""
    auth_audience: str = access_options.AUDIENCE
    allowed_service_accounts: tuple[str, ...] = ()
    """``namespace/name``."""
    metrics_service_accounts: tuple[str, ...] = ()
    """Those that may read ``/metrics`` alone."""
    api_server: str | None = None
    """Reviews tokens."""
    service_account_dir: Path = Path(access_options.SERVICE_ACCOUNT)
    anonymous_paths: tuple[str, ...] = access_options.ANONYMOUS
    """Paths that need no token."""
    tls_cert_dir: Path | None = None
    """None: plain HTTP."""
    tls_client_auth: str = "none"
    """``none`` or ``require``."""
    health_port: int = 0
    """0: probes are answered on ``port`` only."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the page of usage around it."""

    usage_status = EXIT_USAGE

    def error(self, message: str) -> NoReturn:
        self.exit(self.usage_status, f"{self.prog}: {message} (try {self.prog} --help)\n")


def parse(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Options:
    """Read flags and variables.

    Raises:
        SystemExit: 0 for ``--help`` and ``--version``, 2 for wrong usage, with the sentence on stderr.
    """
    parser = _parser(environment)
    return _options(parser, parser.parse_args(arguments))


def parse_check(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> tuple[Options, str]:
    """Read the flags of ``gpudiag-agent check``; gives the options and the form of the output.

    Raises:
        SystemExit: 0 for ``--help``, 64 for wrong usage, with the sentence on stderr.
    """
    parser = _parser(environment, check=True)
    given = parser.parse_args(arguments)
    output: str = given.output
    del given.output
    if given.pod_resources is None and not Path(POD_RESOURCES).exists():
        given.pod_resources = "none"  # A machine without a kubelet lacks nothing.
    return _options(parser, given), output


def _options(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Options:
    simulated = given.source == "simulated"
    if given.scenario is not None and not simulated:
        parser.error("--scenario needs --source simulated")
    if (wrong := access_options.problem(given)) is not None:
        parser.error(wrong)
    kmsg, journal = _kernel_log(given.kmsg, given.journal, simulated=simulated)
    kubelet = given.pod_resources or ("none" if simulated else POD_RESOURCES)
    pod_resources = None if kubelet == "none" else Path(kubelet)
    events = given.nvml_events == "on" and not simulated
    return Options(
        **{**vars(given), "kmsg": kmsg, "journal": journal, "pod_resources": pod_resources, "nvml_events": events}
    )


def _parser(environment: Mapping[str, str], *, check: bool = False) -> argparse.ArgumentParser:
    """The flags of the server, or those of them that a single look needs."""
    parser = _Parser(
        prog=f"{PROGRAM} check" if check else PROGRAM,
        description=_CHECK_DESCRIPTION if check else _DESCRIPTION,
        epilog=_CHECK_EPILOGUE if check else _EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        exit_on_error=True,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    if check:
        parser.usage_status = EXIT_CHECK_USAGE
        parser.add_argument(
            "--output", choices=("table", "json", "yaml"), default="table", help="table, json or yaml (default: table)"
        )

    def flag(name: str, read: Callable[[str], _T], default: _T, metavar: str, text: str) -> None:
        variable = "GPUDIAG_" + name.upper().replace("-", "_")
        value = default
        if environment.get(variable):
            try:
                value = read(environment[variable])
            except argparse.ArgumentTypeError as error:
                parser.error(f"environment variable {variable}: {error}")
        if check and name in _OF_A_SERVER:
            parser.set_defaults(**{name.replace("-", "_"): default})
            return
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
        _text,
        None,
        "PATH",
        "kernel log: a device, FIFO or file of /dev/kmsg records, or of plain kernel lines; none: only the journal "
        f"(default: {KMSG}; with --source simulated the scenario's own lines)",
    )
    flag(
        "journal",
        _text,
        None,
        "PATH",
        "read where the kernel log cannot be: a folder of journal files (needs journalctl), or a FIFO or file of what "
        f"'journalctl -o export' writes; none: nothing (default: {JOURNAL}; none where --kmsg names a log)",
    )
    flag(
        "nvml-events",
        _switch,
        "off",
        "SWITCH",
        "on: hear XIDs from NVML as well, where the kernel log is closed; keeps every GPU open, so that resets and "
        "changes of MIG mode are refused while the agent runs (default: off)",
    )
    flag(
        "state-dir",
        _folder,
        None,
        "PATH",
        "folder for what must survive a restart: how far the kernel log was read, the XIDs before, counters of errors "
        "(default: none, a restart reads the kernel log from its beginning)",
    )
    flag(
        "config",
        Path,
        None,
        "FILE",
        "thresholds of the checks: a YAML or JSON file, read again when it changes (default: built-in thresholds)",
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
    flag(
        "sysfs-infiniband",
        Path,
        Path("/sys/class/infiniband"),
        "PATH",
        "where the kernel shows InfiniBand and RoCE adapters "
        "(default: /sys/class/infiniband; not used with --source simulated)",
    )
    flag(
        "dcgm-metrics",
        _dcgm_metrics,
        "off",
        "LABEL",
        "also serve readings under dcgm-exporter's names, for existing dashboards: off, or the spelling of its host "
        "label, hostname or Hostname (default: off)",
    )
    flag(
        "pod-resources",
        _text,
        None,
        "PATH",
        "the kubelet's socket that says which pod holds which GPU; none: do not ask "
        f"(default: {POD_RESOURCES}; none with --source simulated)",
    )
    flag("proc", Path, Path("/proc"), "PATH", "a procfs that shows the node's own processes (default: /proc)")
    flag(
        "pod-logs",
        Path,
        Path("/var/log/pods"),
        "PATH",
        "where the kubelet keeps pod logs: its folders give processes the names of their pods (default: /var/log/pods)",
    )
    access_options.add(flag, environment, port=_port)
    level = "error" if check else "info"
    flag("log-level", _log_level, level, "LEVEL", f"debug, info, warning or error (default: {level})")
    return parser


def _hostname() -> str:
    return socket.gethostname().lower()[:253]


def _text(text: str) -> str:
    return text


def _folder(text: str) -> Path:
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no folder: name one, or a path where one can be made")
    return path


def _kernel_log(kmsg: str | None, journal: str | None, *, simulated: bool) -> tuple[Path | None, Path | None]:
    """The kernel log, and the journal for where it cannot be read. A log that was named has no substitute."""
    if journal is None:
        journal = "none" if simulated or kmsg not in {None, "none"} else JOURNAL
    if kmsg is None:
        kmsg = "none" if simulated else KMSG
    return (None if kmsg == "none" else Path(kmsg)), (None if journal == "none" else Path(journal))


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


def _switch(text: str) -> str:
    return _one_of(text, ("on", "off"))


def _dcgm_metrics(text: str) -> str:
    return _one_of(text, ("off", "hostname", "Hostname"))


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
