"""How to reach an API server: its address and the TLS context, from one context of a kubeconfig."""

import base64
import binascii
import os
import ssl
import tempfile
from dataclasses import dataclass
from urllib.parse import urlsplit

from gpudiag_mcp.kube.credentials import Credential, Credentials
from gpudiag_mcp.kube.errors import AccessError
from gpudiag_mcp.kube.kubeconfig import Context, Entry


@dataclass(frozen=True)
class Access:
    """What a client needs; ``tls`` is None for plain HTTP."""

    server: str
    tls: ssl.SSLContext | None
    server_name: str
    proxy: str
    credentials: Credentials
    impersonate: str
    """``users[].as`` of the kubeconfig: the user to act as; empty: none."""


async def open_access(context: Context) -> Access:
    """Read certificates and run the credential plugin of a context.

    Raises:
        AccessError: something is missing or unreadable; the message says what.
    """
    server = context.cluster.text("server").rstrip("/")
    if urlsplit(server).scheme not in ("http", "https"):
        raise AccessError(f"The cluster {context.cluster_name!r} of the kubeconfig names no server with http(s)://.")
    credentials = Credentials(context)
    tls = _tls(context, await credentials.current()) if server.startswith("https") else None
    return Access(
        server=server,
        tls=tls,
        server_name=context.cluster.text("tls-server-name"),
        proxy=context.cluster.text("proxy-url"),
        credentials=credentials,
        impersonate=context.user.text("as"),
    )


def _tls(context: Context, credential: Credential) -> ssl.SSLContext:
    authority = _pem(context.cluster, "certificate-authority")
    try:
        tls = ssl.create_default_context(cadata=authority or None)
        if context.cluster.fields.get("insecure-skip-tls-verify") is True:
            tls.check_hostname = False
            tls.verify_mode = ssl.CERT_NONE
        certificate = credential.certificate or _pem(context.user, "client-certificate")
        key = credential.key or _pem(context.user, "client-key")
        if certificate and key:
            # ssl takes a client certificate from a file only; the key must not outlive this call on disk.
            with tempfile.NamedTemporaryFile("w", encoding="ascii") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(f"{certificate}\n{key}\n")
                file.flush()
                tls.load_cert_chain(file.name)
    except (ssl.SSLError, ValueError) as error:
        raise AccessError(f"A certificate of the context {context.name!r} cannot be used: {error}.") from None
    return tls


def _pem(entry: Entry, field: str) -> str:
    try:
        if data := entry.text(f"{field}-data"):
            return base64.b64decode(data).decode("ascii")
        path = entry.path(field)
        return "" if path is None else path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError, binascii.Error) as error:
        raise AccessError(f"The kubeconfig's {field} cannot be read: {error}.") from None
