"""The command line: every flag, its environment twin ``GPUDIAG_<FLAG>``, its default, and what is allowed."""

import argparse
import ipaddress
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from gpudiag_api.version import __version__

_DESCRIPTION = """\
Answers an assistant's questions about the GPUs of a cluster, from the resources of gpudiag.

It talks to the Kubernetes API only, with your own rights, and changes nothing. With --allow-create it may
create GPUDiagnostics that run once and delete themselves.
"""
_EXAMPLES = """\
examples:
  gpudiag-mcp                                       on standard input and output, current kubeconfig
  claude mcp add gpus -- gpudiag-mcp                the same, as one line of client configuration
  gpudiag-mcp --allow-create --create-namespaces team-a
  gpudiag-mcp --transport http --host 0.0.0.0       for many users, in the cluster; each with a token of their own

Every flag has an environment twin: --allow-create is GPUDIAG_ALLOW_CREATE=true.
"""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_HOST = re.compile(r"([A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(:([0-9]{1,5}|\*))?", re.ASCII)
_TRUE = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "": False}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command was started with."""

    transport: str = "stdio"
    host: str = "127.0.0.1"
    port: int = 9812
    metrics_addr: tuple[str, int] | None = None
    """None: nowhere (stdio)."""
    auth: str = "tokenreview"
    audience: str = "gpudiag-mcp"
    insecure_no_auth: bool = False
    service_name: str = "gpudiag-mcp"
    allowed_hosts: tuple[str, ...] = ()
    """Host headers that are accepted besides loopback and the Service's names."""
    state_keys: Path | None = None
    calls_per_minute: int = 120
    max_requests: int = 64
    stop_seconds: int = 10
    kubeconfig: Path | None = None
    namespace: str = "gpudiag-system"
    """Where the operator, and so its Lease, is."""
    allow_create: bool = False
    create_namespaces: tuple[str, ...] = ()
    """Empty: the context's own namespace."""
    create_max_active: int = 5
    create_per_minute: int = 6
    allow_unattended_create: bool = False
    log_level: str = "info"


class CannotStartError(Exception):
    """Something that the options name cannot be used; the message is a sentence."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"gpudiag-mcp: {message}. See gpudiag-mcp --help.\n")


def parse(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> Options:
    """Read the command line and the environment; a flag wins over its twin.

    Raises:
        SystemExit: after --help and --version (0), or with a sentence that says what to write instead (2).
    """
    parser = _parser()
    for action in parser._actions:  # noqa: SLF001  (argparse offers no public way to list its flags)
        twin = f"GPUDIAG_{action.dest.upper()}"
        if action.dest not in ("help", "version") and twin in environ:
            action.default = _from_environment(parser, action, twin, environ[twin])
    given = Options(**vars(parser.parse_args(arguments)))
    if given.transport != "http":
        return given
    if given.auth == "none" and not given.insecure_no_auth and not is_loopback(given.host):
        parser.error(
            f"--auth none on {given.host} would give everyone who reaches it this process's own rights; write "
            "--auth tokenreview, or --host 127.0.0.1, or --insecure-no-auth if something else authenticates"
        )
    return replace(given, metrics_addr=given.metrics_addr or ("127.0.0.1", 9813))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address to listen on."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _from_environment(parser: argparse.ArgumentParser, action: argparse.Action, twin: str, text: str) -> object:
    if action.nargs == 0:
        if text.lower() not in _TRUE:
            parser.error(f"{twin} must be true or false, not {text!r}")
        return _TRUE[text.lower()]
    try:
        value = action.type(text) if callable(action.type) else text
    except (argparse.ArgumentTypeError, ValueError) as error:
        parser.error(f"{twin}: {error}")
    if action.choices is not None and value not in action.choices:
        parser.error(f"{twin} must be one of {', '.join(map(str, action.choices))}, not {text!r}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gpudiag-mcp",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--transport", choices=("stdio", "http"), default="stdio", help="how the client connects (default stdio)")
    add("--kubeconfig", metavar="PATH", type=Path, help="default: $KUBECONFIG, the Pod's own, ~/.kube/config")
    add("--namespace", metavar="NAME", type=_name, default="gpudiag-system", help="the operator's (gpudiag-system)")
    add("--log-level", choices=("debug", "info", "warning", "error"), default="info", help="(default info)")
    add("--version", action="version", version=f"gpudiag-mcp {__version__}", help="show the version")
    http = parser.add_argument_group("with --transport http")
    http.add_argument("--host", metavar="H", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    http.add_argument("--port", metavar="P", type=_port, default=9812, help="(default 9812)")
    http.add_argument("--metrics-addr", metavar="H:P", type=_address, help="(default 127.0.0.1:9813; with stdio: none)")
    http.add_argument(
        "--auth",
        choices=("tokenreview", "none"),
        default="tokenreview",
        help="tokenreview (default): the API server verifies bearer tokens; none: every caller has our own rights",
    )
    http.add_argument("--audience", metavar="NAME", default="gpudiag-mcp", help="of the tokens (default gpudiag-mcp)")
    http.add_argument("--insecure-no-auth", action="store_true", help="allow --auth none on any address")
    http.add_argument(
        "--service-name", metavar="NAME", type=_name, default="gpudiag-mcp", help="the Service's (default gpudiag-mcp)"
    )
    http.add_argument(
        "--allowed-hosts",
        metavar="A,B:*",
        type=_hosts,
        default=(),
        help="Host headers, as host, host:port or host:*; loopback and the Service's names are allowed in any case",
    )
    http.add_argument(
        "--state-keys", metavar="PATH", type=Path, help="keys that replicas share, one a line, each of 32 bytes or more"
    )
    http.add_argument(
        "--calls-per-minute", metavar="N", type=_number(100_000), default=120, help="per principal (default 120)"
    )
    http.add_argument("--max-requests", metavar="N", type=_number(10_000), default=64, help="at once (default 64)")
    http.add_argument(
        "--stop-seconds", metavar="N", type=_number(3600), default=10, help="for requests in flight (default 10)"
    )
    create = parser.add_argument_group("creating diagnostics (off by default; RBAC decides in any case)")
    create.add_argument("--allow-create", action="store_true", help="offer create_gpu_diagnostic")
    create.add_argument(
        "--create-namespaces", metavar="A,B", type=_names, default=(), help="allowed; default: that of the context"
    )
    create.add_argument(
        "--create-max-active",
        metavar="N",
        type=_number(1000),
        default=5,
        help="that run at once, per cluster (default 5)",
    )
    create.add_argument(
        "--create-per-minute", metavar="N", type=_number(1000), default=6, help="per principal (default 6)"
    )
    create.add_argument(
        "--allow-unattended-create",
        action="store_true",
        help="also where the client cannot ask its user; otherwise that is refused",
    )
    if sys.version_info >= (3, 14):
        parser.color = False
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; write a number from 0 to 65535")
    return int(text)


def _number(most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a limit; write a number from 1 to {most}")
        return int(text)

    return number


def _hosts(text: str) -> tuple[str, ...]:
    hosts = tuple(one.strip() for one in text.split(",") if one.strip())
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise argparse.ArgumentTypeError(
                f"{host!r} is not a host; write host, host:port or host:*, for example mcp.example.com:*"
            )
    return hosts


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address; write host:port, for example 0.0.0.0:9813")
    return host.strip("[]"), _port(port)


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a namespace; write lower-case letters, digits and '-'")
    return text


def _names(text: str) -> tuple[str, ...]:
    return tuple(_name(one.strip()) for one in text.split(",") if one.strip())
