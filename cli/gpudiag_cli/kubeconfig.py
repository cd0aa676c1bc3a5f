"""Where the API server is and who we are: the few fields of a kubeconfig that a command of ours needs.

The official client would be 60 MB of imports for three fields, and this part does without it.
"""

import base64
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gpudiag_cli.errors import CommandError


@dataclass(frozen=True)
class Access:
    """What a request needs: ``server`` (URL without a trailing slash), TLS context, bearer token."""

    server: str
    tls: ssl.SSLContext | None
    token: str | None


def load(path: Path | None = None) -> Access:
    """Read the current context of a kubeconfig: the given file, else ``$KUBECONFIG``, else ``~/.kube/config``.

    Raises:
        CommandError: no such file, or it does not say how to reach a server; the message names what is missing.
    """
    path = path or default_path()
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        why = error.strerror
        raise CommandError(f"The kubeconfig {path} cannot be read: {why}. Give one with --kubeconfig.") from None
    except yaml.YAMLError as error:
        raise CommandError(f"The kubeconfig {path} is not YAML: {error}.") from None
    try:
        context = _named(document, "contexts", document["current-context"])["context"]
        cluster = _named(document, "clusters", context["cluster"])["cluster"]
        user = _named(document, "users", context["user"]).get("user") or {}
        server = str(cluster["server"]).rstrip("/")
    except (KeyError, TypeError) as error:
        raise CommandError(f"The kubeconfig {path} has no complete current context: {error} is missing.") from None
    if "exec" in user or "auth-provider" in user:
        raise CommandError(
            f"The kubeconfig {path} gets its credentials from a program, which this command does not run. "
            "Use one with a token or a client certificate, for example of `kubectl create token`."
        )
    tls = _tls(cluster, user, path.parent) if server.startswith("https") else None
    return Access(server, tls, _token(user, path.parent))


def default_path() -> Path:
    """Where kubectl would look: the first file of ``$KUBECONFIG``, else ``~/.kube/config``."""
    named = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    return Path(named) if named else Path("~/.kube/config").expanduser()


def _named(document: Any, kind: str, name: str) -> dict[str, Any]:
    for entry in document[kind]:
        if entry["name"] == name:
            found: dict[str, Any] = entry
            return found
    raise KeyError(f"{kind}[name={name}]")


def _token(user: dict[str, Any], base: Path) -> str | None:
    if "token" in user:
        return str(user["token"])
    if "tokenFile" in user:
        return Path(base, user["tokenFile"]).read_text(encoding="utf-8").strip()
    return None


def _tls(cluster: dict[str, Any], user: dict[str, Any], base: Path) -> ssl.SSLContext:
    authority = _bytes(cluster, "certificate-authority", base)
    context = ssl.create_default_context(cadata=authority.decode() if authority else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _bytes(user, "client-certificate", base), _bytes(user, "client-key", base)
    if certificate and key:
        # ssl takes a client certificate from a file only; the key must not outlive this call on disk.
        with tempfile.NamedTemporaryFile() as file:
            file.write(certificate + b"\n" + key)
            file.flush()
            context.load_cert_chain(file.name)
    return context


def _bytes(entry: dict[str, Any], field: str, base: Path) -> bytes | None:
    if data := entry.get(f"{field}-data"):
        return base64.b64decode(data)
    if name := entry.get(field):
        return Path(base, name).read_bytes()
    return None
