"""Whom the operator believes to be an agent: those who show the service's name, vouched for by these authorities."""

import ssl
from pathlib import Path

import msgspec

CERTIFICATE, KEY = "tls.crt", "tls.key"


class AgentTrust:
    """The TLS context for connections to agents; made anew when authorities or the own certificate change.

    Args:
        server_name: that an agent's certificate must carry.
        client: folder with the certificate to show to agents that ask for one; None: none.
    """

    def __init__(self, server_name: str, *, client: Path | None = None) -> None:
        self.server_name = server_name
        self.context: ssl.SSLContext | None = None
        """None: nobody is believed yet, so nobody is called."""
        self.problem = "no authority for the agents' certificates is known yet"
        """Why there is no context, or not the newest; empty: there is."""
        self._client = client
        self._loaded: tuple[bytes, object] | None = None

    def believe(self, bundle: bytes) -> None:
        """Use these authorities (PEM); what cannot be used changes nothing but ``problem``."""
        wanted = (bundle, self._stamps())
        if wanted == self._loaded:
            return
        try:
            self.context = self._make(bundle)
        except (OSError, ValueError) as error:
            self.problem = f"the authorities for the agents' certificates cannot be used: {str(error)[:200]}"
        else:
            self._loaded, self.problem = wanted, ""

    def _make(self, bundle: bytes) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(cadata=bundle.decode("ascii", "replace"))
        if self._client is not None:
            folder = (self._client / CERTIFICATE).resolve().parent
            context.load_cert_chain(folder / CERTIFICATE, folder / KEY)
        return context

    def _stamps(self) -> object:
        if self._client is None:
            return None
        return [_stamp(self._client / name) for name in (CERTIFICATE, KEY)]


class TokenFile:
    """The operator's token for agents: a projected volume, which the kubelet renews before it ends.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: object = None
        self._token = ""

    def __call__(self) -> str:
        """The token as it is now; read again when the file is another one.

        Raises:
            OSError: it cannot be read, or holds nothing.
        """
        found = self._path.stat()
        stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
        if stamp != self._seen:
            token = self._path.read_bytes()[:_MOST].decode("ascii", "replace").strip()
            if not token or not token.isprintable():
                raise OSError(f"{self._path} holds no token")
            self._token, self._seen = token, stamp
        return self._token


_MOST = 16 * 1024


class Secret(msgspec.Struct, frozen=True):
    """Where a Secret is."""

    namespace: str
    name: str

    @property
    def collection(self) -> str:
        """Path of the Secrets beside it."""
        return f"/api/v1/namespaces/{self.namespace}/secrets"

    @property
    def path(self) -> str:
        """Its path."""
        return f"{self.collection}/{self.name}"


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
