"""The flags that say who may read this agent, and over what. Imported with every start: nothing heavy."""

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

AUDIENCE = "gpudiag-agent"
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where the kubelet mounts a Pod's own token and the cluster's authorities."""
ANONYMOUS: tuple[str, ...] = ("/healthz", "/readyz", "/metrics")
NAMES = frozenset(
    {
        *("auth", "auth-audience", "allowed-service-accounts", "metrics-service-accounts", "api-server"),
        *("service-account-dir", "anonymous-paths", "tls-cert-dir", "tls-client-auth", "health-port"),
    }
)

_PATHS = (*ANONYMOUS, "/openapi.json")
_ACCOUNT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_NOBODY: tuple[str, ...] = ()
_T = TypeVar("_T")


class _Flag(Protocol):
    def __call__(self, name: str, read: Callable[[str], _T], default: _T, metavar: str, text: str, /) -> None: ...


def add(flag: _Flag, environment: Mapping[str, str], *, port: Callable[[str], int]) -> None:
    """Declare the flags.

    Args:
        flag: declares one.
        environment: every Pod's variables name the API server.
        port: reads a TCP port.
    """
    flag(
        "auth",
        _one_of("none", "tokenreview"),
        "none",
        "WAY",
        "tokenreview: answer only those who show a token that the API server vouches for; none: answer everybody "
        "(default: none; the manifests and the chart set tokenreview)",
    )
    flag("auth-audience", _word, AUDIENCE, "NAME", f"whom tokens must be meant for (default: {AUDIENCE})")
    flag(
        "allowed-service-accounts",
        accounts,
        _NOBODY,
        "NAMES",
        "who may read, as NAMESPACE/NAME joined by commas; needed with --auth tokenreview",
    )
    flag(
        "metrics-service-accounts",
        accounts,
        _NOBODY,
        "NAMES",
        "who may read /metrics and nothing else, where --anonymous-paths does not open it to everybody",
    )
    flag(
        "api-server",
        _url,
        _in_cluster(environment),
        "URL",
        "reviews the tokens (default: that of the cluster this Pod runs in)",
    )
    flag(
        "service-account-dir",
        Path,
        Path(SERVICE_ACCOUNT),
        "PATH",
        f"folder with the agent's own token and the cluster's ca.crt (default: {SERVICE_ACCOUNT})",
    )
    flag(
        "anonymous-paths",
        anonymous_paths,
        ANONYMOUS,
        "PATHS",
        f"paths that need neither token nor client certificate: some of {', '.join(_PATHS)}, joined by commas, or none "
        f"(default: {','.join(ANONYMOUS)})",
    )
    flag(
        "tls-cert-dir",
        Path,
        None,
        "PATH",
        "serve HTTPS with tls.crt and tls.key of this folder, read again when they change; until they are there the "
        "agent is not ready (default: plain HTTP)",
    )
    flag(
        "tls-client-auth",
        _one_of("none", "require"),
        "none",
        "WAY",
        "require: clients must show a certificate that ca.crt of --tls-cert-dir vouches for (default: none)",
    )
    flag(
        "health-port",
        port,
        0,
        "PORT",
        "a port that serves /healthz and /readyz alone, in plain HTTP, for the kubelet's probes; 0: none (default: 0)",
    )


def problem(given: argparse.Namespace) -> str | None:
    """What is wrong with the flags taken together, in a sentence; None: nothing."""
    if given.auth == "tokenreview" and not given.allowed_service_accounts:
        return "--auth tokenreview needs --allowed-service-accounts, for example gpudiag-system/gpudiag-operator"
    if given.auth == "tokenreview" and given.api_server is None:
        return "--auth tokenreview needs --api-server, for example https://10.96.0.1:443 (in a Pod it is found)"
    if given.tls_client_auth == "require" and given.tls_cert_dir is None:
        return "--tls-client-auth require needs --tls-cert-dir"
    if given.health_port and given.health_port == given.port:
        return "--health-port must differ from --port"
    return None


def accounts(text: str) -> tuple[str, ...]:
    """Names of service accounts."""
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if _ACCOUNT.fullmatch(name) is None:
            raise argparse.ArgumentTypeError(
                f"{name[:64]!r} is no service account: write NAMESPACE/NAME, joined by commas"
            )
    return names


def anonymous_paths(text: str) -> tuple[str, ...]:
    """Paths that anybody may read."""
    if text == "none":
        return ()
    paths = tuple(path.strip() for path in text.split(","))
    if wrong := set(paths) - set(_PATHS):
        raise argparse.ArgumentTypeError(
            f"{min(wrong)[:64]!r} is not allowed: write some of {', '.join(_PATHS)}, joined by commas, or none"
        )
    return paths


def _one_of(*allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in allowed:
            raise argparse.ArgumentTypeError(f"{text!r} is not allowed: write one of {', '.join(allowed)}")
        return text

    return read


def _word(text: str) -> str:
    if not text or len(text) > 253 or not text.isprintable() or " " in text:
        raise argparse.ArgumentTypeError(f"{text[:64]!r} is no audience: write a word such as {AUDIENCE}")
    return text


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "https" or not parts.hostname:
        raise argparse.ArgumentTypeError(f"{text[:64]!r} is no address: write https://HOST:PORT")
    return text.rstrip("/")


def _in_cluster(environment: Mapping[str, str]) -> str | None:
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        return None
    return f"https://{f'[{host}]' if ':' in host else host}:{port}"
