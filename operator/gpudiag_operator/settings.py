"""The operator's settings: every flag, its environment twin, its default and what is allowed.

One table drives the command line, the environment and ``--help``, so that the three cannot drift apart. Nothing heavy
is imported here: ``--help`` and ``--version`` answer before kopf and aiohttp are loaded.
"""

import argparse
import os
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from gpudiag_api.version import __version__
from gpudiag_operator import values

ENVIRONMENT_PREFIX = "GPUDIAG_"
LEASE_MARGIN = 1.25
"""A leader has stopped writing, requests under way included, so much earlier than another may take its Lease."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the operator was started with. Durations are seconds."""

    kubeconfig: str | None = None
    namespace: str = "gpudiag-system"
    agent_selector: str = "app.kubernetes.io/name=gpudiag-agent"
    agent_port: int = 9810
    gpu_node_selector: str | None = None
    mirror_labels: tuple[str, ...] = ()
    metrics_addr: tuple[str, int] = ("", 9811)
    """Host (empty: every address) and port."""
    routing: str = "direct"
    """``direct`` or ``proxy``."""
    agent_token_file: str | None = None
    """Shown to agents; None: nothing is."""
    agent_tls: str = "off"
    """``off``, ``managed`` or ``files``."""
    agent_tls_secret: str = "gpudiag-agent-tls"  # noqa: S105  (its name)
    agent_cert_lifetime: float = 90 * 86_400.0
    agent_ca_file: str | None = None
    agent_client_cert_dir: str | None = None
    agent_server_name: str | None = None
    """None: ``gpudiag-agent.<namespace>.svc``."""
    node_timeout: float = 5.0
    unreachable_after: float = 15.0
    max_concurrency: int = 256
    breaker_failures: int = 3
    breaker_failure_rate: float = 0.5
    """Share of failed calls, 0 to 1."""
    breaker_min_calls: int = 10
    breaker_window: float = 60.0
    breaker_open: float = 30.0
    breaker_open_max: float = 300.0
    breaker_successes: int = 2
    write_rate: float = 20.0
    """GPUNode and Event writes per second."""
    first_fill_rate: float = 100.0
    diagnostic_write_rate: float = 20.0
    max_diagnostics: int = 500
    max_diagnostics_per_namespace: int = 20
    max_runs: int = 4
    leader_elect: bool = True
    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0
    shards: int = 1
    log_level: str = "info"
    log_format: str = "json"


@dataclass(frozen=True)
class _Flag:
    name: str
    metavar: str
    read: Callable[[str], Any]
    default: str
    """As a person would write it: read with the same function. Empty: the field's own default."""
    help: str

    @property
    def field(self) -> str:
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.field.upper()


_GROUPS: dict[str, tuple[_Flag, ...]] = {
    "Where": (
        _Flag(
            "kubeconfig",
            "PATH",
            values.file,
            "",
            "kubeconfig file; without it $KUBECONFIG, the Pod's own, ~/.kube/config",
        ),
        _Flag("namespace", "NAME", values.name, "gpudiag-system", "namespace of the agents' Pods and of this operator"),
        _Flag("metrics-addr", "H:P", values.address, ":9811", "address of /healthz, /readyz and /metrics"),
    ),
    "Which nodes and agents": (
        _Flag(
            "agent-selector",
            "LABELS",
            values.selector,
            "app.kubernetes.io/name=gpudiag-agent",
            "label selector of the agents' Pods",
        ),
        _Flag("agent-port", "PORT", values.port, "9810", "port of an agent whose Pod names no port 'http'"),
        _Flag("gpu-node-selector", "LABELS", values.selector, "", "more nodes to take for GPU nodes, by label"),
        _Flag("mirror-labels", "KEYS", values.words, "", "Node labels to copy to GPUNodes, joined by commas"),
    ),
    "Reading the agents": (
        _Flag(
            "routing",
            "WAY",
            values.choice("direct", "proxy"),
            "direct",
            "direct: to Pod IPs; proxy: through the API server, where Pod IPs cannot be reached (small fleets)",
        ),
        _Flag(
            "agent-token-file",
            "PATH",
            values.path,
            "",
            "service account token to show to agents, audience gpudiag-agent; read again when it changes",
        ),
        _Flag(
            "agent-tls",
            "WAY",
            values.choice("off", "managed", "files"),
            "off",
            "off: plain HTTP; managed: HTTPS by a Secret that the leader fills and renews; files: --agent-ca-file",
        ),
        _Flag("agent-tls-secret", "NAME", values.object_name, "gpudiag-agent-tls", "that Secret, in --namespace"),
        _Flag(
            "agent-cert-lifetime",
            "DURATION",
            values.duration("10m", "87600h"),
            "2160h",
            "of a certificate in it; a new one is made when a third is left",
        ),
        _Flag(
            "agent-ca-file", "PATH", values.path, "", "authorities of the agents' certificates, with --agent-tls files"
        ),
        _Flag(
            "agent-client-cert-dir",
            "PATH",
            values.path,
            "",
            "folder with tls.crt and tls.key to show to agents that ask for a certificate (mutual TLS)",
        ),
        _Flag(
            "agent-server-name",
            "NAME",
            values.dns_name,
            "",
            "in the agents' certificate; without it gpudiag-agent.NAMESPACE.svc",
        ),
        _Flag(
            "node-timeout",
            "DURATION",
            values.duration("100ms", "1m"),
            "5s",
            "one call to one agent, beyond its long poll",
        ),
        _Flag(
            "unreachable-after",
            "DURATION",
            values.duration("0s", "10m"),
            "15s",
            "a silent agent makes its node Unknown after",
        ),
        _Flag(
            "max-concurrency",
            "N",
            values.whole(1, 10_000),
            "256",
            "agents connected to or read from at the same moment",
        ),
        _Flag(
            "breaker-failures", "N", values.whole(1, 1000), "3", "failures in a row that open a node's circuit breaker"
        ),
        _Flag("breaker-failure-rate", "PERCENT", values.percent, "50%", "failed calls within the window that open it"),
        _Flag(
            "breaker-min-calls", "N", values.whole(1, 10_000), "10", "calls within the window before the rate counts"
        ),
        _Flag("breaker-window", "DURATION", values.duration("1s", "1h"), "60s", "window of the rate"),
        _Flag(
            "breaker-open", "DURATION", values.duration("1s", "1h"), "30s", "how long it stays open; doubles from there"
        ),
        _Flag("breaker-open-max", "DURATION", values.duration("1s", "24h"), "5m", "how long it stays open at most"),
        _Flag("breaker-successes", "N", values.whole(1, 100), "2", "successes in a row that close it"),
    ),
    "Writing resources": (
        _Flag(
            "write-rate", "N", values.number(0.1, 1000), "20", "writes per second to GPUNodes, their Events included"
        ),
        _Flag("first-fill-rate", "N", values.number(0.1, 10_000), "100", "the same while a new fleet is filled in"),
        _Flag("diagnostic-write-rate", "N", values.number(0.1, 1000), "20", "writes per second to GPUDiagnostics"),
        _Flag("max-diagnostics", "N", values.whole(1, 100_000), "500", "GPUDiagnostics served; the oldest come first"),
        _Flag("max-diagnostics-per-namespace", "N", values.whole(1, 100_000), "20", "the same in one namespace"),
        _Flag("max-runs", "N", values.whole(1, 100), "4", "diagnostics of mode Once that run at the same time"),
    ),
    "Several replicas": (
        _Flag(
            "leader-elect",
            "BOOL",
            values.boolean,
            "true",
            "act only while holding the Lease; false where nothing else can run one",
        ),
        _Flag(
            "lease-duration",
            "DURATION",
            values.duration("2s", "10m"),
            "15s",
            "a Lease not renewed for so long may be taken by another replica",
        ),
        _Flag(
            "renew-deadline",
            "DURATION",
            values.duration("1s", "10m"),
            "10s",
            "a leader that could not renew for so long stops writing",
        ),
        _Flag("retry-period", "DURATION", values.duration("100ms", "1m"), "2s", "time between renewals"),
        _Flag(
            "shards",
            "N",
            values.whole(1, 64),
            "1",
            "parts of the fleet, each read by one replica; the same for all replicas, stop them all to change it",
        ),
    ),
    "Logs": (
        _Flag(
            "log-level",
            "LEVEL",
            values.choice("debug", "info", "warning", "error"),
            "info",
            "debug, info, warning, error",
        ),
        _Flag("log-format", "FORMAT", values.choice("json", "text"), "json", "json (one object per line) or text"),
    ),
}

_EXAMPLES = """\
examples:
  gpudiag-operator
      in a cluster: serviceaccount, namespace gpudiag-system, metrics on :9811
  gpudiag-operator --kubeconfig ~/.kube/config --log-format text --metrics-addr 127.0.0.1:9811
      on a laptop, where the agents' Pod IPs can be reached
  GPUDIAG_LOG_LEVEL=debug gpudiag-operator --unreachable-after 1m
      every flag has an environment twin; the flag wins

Exit status: 0 after SIGTERM or SIGINT, 1 when a part of it died, 2 for wrong settings.
"""


class _Parser(argparse.ArgumentParser):
    """argparse with one sentence instead of a page when something is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parse(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings; prints help, version or what is wrong.

    Args:
        arguments: the command line without the program; default: the process's own.
        environment: default: the process's own. An empty variable counts as not set.

    Raises:
        SystemExit: 0 after --help and --version, 2 for wrong settings.
    """
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    environment = os.environ if environment is None else environment
    found: dict[str, Any] = {}
    for flag in (flag for flags in _GROUPS.values() for flag in flags):
        named, text = f"--{flag.name}", given[flag.field]
        if text is None and environment.get(flag.variable):
            named, text = flag.variable, environment[flag.variable]
        if text is None:
            text = flag.default
            if not text:
                continue
        try:
            found[flag.field] = flag.read(text)
        except values.WrongValue as allowed:
            parser.error(f"{named} must be {allowed}, not {text!r}")
    if (wrong := _contradiction(found)) is not None:
        parser.error(wrong)
    return Settings(**found)


def _contradiction(found: Mapping[str, Any]) -> str | None:
    """What is wrong with the settings taken together; None: nothing."""
    if found["breaker_open_max"] < found["breaker_open"]:
        return "--breaker-open-max must be at least --breaker-open"
    if found["lease_duration"] < LEASE_MARGIN * found["renew_deadline"]:
        return f"--lease-duration must be at least {LEASE_MARGIN:g} times --renew-deadline"
    if found["renew_deadline"] < 2 * found["retry_period"]:
        return "--renew-deadline must be at least twice --retry-period"
    if found["shards"] > 1 and not found["leader_elect"]:
        return "--shards needs --leader-elect true: the Leases say whose shard is whose"
    if (found["agent_tls"] == "files") != ("agent_ca_file" in found):
        return "--agent-tls files and --agent-ca-file need each other"
    if found["agent_tls"] == "off" and "agent_client_cert_dir" in found:
        return "--agent-client-cert-dir needs --agent-tls managed or files"
    return None


def _parser() -> _Parser:
    parser = _Parser(
        prog="gpudiag-operator",
        description=textwrap.dedent(
            """\
            Reads the gpudiag agents of a cluster, keeps one GPUNode per GPU node and answers GPUDiagnostics.
            Needs the CustomResourceDefinitions of gpudiag.dev; survives any outage of the API server."""
        ),
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
        usage="gpudiag-operator [flags]",
    )
    for title, flags in _GROUPS.items():
        group = parser.add_argument_group(title)
        for flag in flags:
            said = f"{flag.help}{f' (default {flag.default})' if flag.default else ''}; ${flag.variable}"
            group.add_argument(f"--{flag.name}", metavar=flag.metavar, help=said.replace("%", "%%"))
    others = parser.add_argument_group("Other")
    others.add_argument("-h", "--help", action="help", help="show this page")
    version = f"gpudiag-operator {__version__}"
    others.add_argument("--version", action="version", version=version, help="show the version")
    if sys.version_info >= (3, 14):
        parser.color = False
    return parser
