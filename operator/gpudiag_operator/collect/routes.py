"""The two ways to an agent: straight to its Pod's IP, or through the API server's Pod proxy.

Direct is the default: one kept connection per node, nothing in between. The proxy is for an operator that cannot reach
Pod IPs (a laptop, an overlay that drops its traffic); there every agent costs the API server a connection and the bytes
of its answers, so it is for small fleets. It refuses Pods with a loopback address (measured), and it strips
``Authorization``, which is its own: the agent's token travels as ``X-Gpudiag-Authorization``.
"""

import ssl
from typing import Protocol

import msgspec

from gpudiag_api.vocabulary import NotRead
from gpudiag_operator.agent_tls.trust import AgentTrust
from gpudiag_operator.collect import classify
from gpudiag_operator.collect.outcome import FetchError
from gpudiag_operator.domain import AgentPod
from gpudiag_operator.kube.access import Access


class Place(msgspec.Struct, frozen=True):
    """Where an agent is called."""

    base: str
    """Scheme, host, port and perhaps a path, without a slash at the end."""
    where: str
    """For people."""


class Secured(msgspec.Struct, frozen=True):
    """TLS of a call."""

    context: ssl.SSLContext | None = None
    """None: whatever the library takes, which only matters for plain HTTP."""
    server_name: str | None = None
    """That the certificate must carry; None: that of the address."""


PLAIN = Secured()


class Route(Protocol):
    """How calls reach agents."""

    token_header: str
    """The header that carries the agent's token."""

    def place(self, pod: AgentPod) -> Place:
        """Where that Pod's agent is called."""
        ...

    def secured(self) -> "Secured":
        """How the server at that place is verified.

        Raises:
            FetchError: it cannot be yet, so nobody must be called.
        """
        ...

    async def headers(self) -> dict[str, str]:
        """Headers of every call besides the agent's token."""
        ...

    def refused(self, code: int, body: bytes, where: str) -> FetchError:
        """What a status other than 200 and 304 means.

        Args:
            code: the status.
            body: the beginning of the answer.
            where: ``Place.where``.
        """
        ...


class DirectRoute:
    """To the Pod's IP.

    Args:
        port: of an agent whose Pod names none.
        trust: whom to believe over HTTPS; None: plain HTTP.
    """

    token_header = "Authorization"  # noqa: S105  (a header's name)

    def __init__(self, port: int, trust: AgentTrust | None = None) -> None:
        self._port = port
        self._scheme = "http" if trust is None else "https"
        self._trust = trust
        self._secured = PLAIN

    def place(self, pod: AgentPod) -> Place:
        """See ``Route``."""
        host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
        where = f"{host}:{pod.port or self._port}"
        return Place(f"{self._scheme}://{where}", where)

    def secured(self) -> Secured:
        """See ``Route``."""
        if self._trust is None:
            return PLAIN
        if (context := self._trust.context) is None:
            advice = "see the operator's log, and --agent-tls"
            raise FetchError(
                NotRead.AUTH_UNAVAILABLE, f"agents cannot be verified: {self._trust.problem}", advice=advice
            )
        if context is not self._secured.context:
            self._secured = Secured(context, self._trust.server_name)
        return self._secured

    async def headers(self) -> dict[str, str]:
        """See ``Route``."""
        return {}

    def refused(self, code: int, body: bytes, where: str) -> FetchError:
        """See ``Route``."""
        return classify.status(code, body, where)


class _Status(msgspec.Struct):
    """The little that is read of an API server's own error (``metav1.Status``)."""

    kind: str = ""
    message: str = ""


_status_decoder = msgspec.json.Decoder(_Status)


class ProxyRoute:
    """Through the API server: needs the right to ``get`` ``pods/proxy`` in the agents' namespace.

    Args:
        access: where the API server is and who we are.
        namespace: of the agents' Pods.
        port: of an agent whose Pod names none.
        tls: whether agents speak TLS; the API server does not verify them (it does not for any Pod).
    """

    token_header = "X-Gpudiag-Authorization"  # noqa: S105  (a header's name)

    def __init__(self, access: Access, *, namespace: str, port: int, tls: bool = False) -> None:
        self._secured = Secured(access.ssl, access.server_hostname)
        self._access = access
        self._scheme = "https:" if tls else ""
        self._namespace = namespace
        self._port = port

    def place(self, pod: AgentPod) -> Place:
        """See ``Route``."""
        path = f"/api/v1/namespaces/{self._namespace}/pods/{self._scheme}{pod.name}:{pod.port or self._port}/proxy"
        return Place(self._access.host + path, f"the API server's proxy to Pod {self._namespace}/{pod.name}")

    def secured(self) -> Secured:
        """See ``Route``."""
        return self._secured

    async def headers(self) -> dict[str, str]:
        """See ``Route``."""
        value = await self._access.authorization()
        return {} if value is None else {"Authorization": value}

    def refused(self, code: int, body: bytes, where: str) -> FetchError:
        """See ``Route``. What the API server itself says is told from what the agent says."""
        said = _status(body)
        if said is None:
            return classify.status(code, body, where)
        what = f"{where} answered HTTP {code}: {classify.short(said)}"
        if code in (401, 403):
            return FetchError(
                NotRead.UNAUTHORIZED, what, advice='grant the operator the verb "get" on pods/proxy in that namespace'
            )
        if code == 404:
            return FetchError(NotRead.AGENT_NOT_READY, what, advice="the Pod is gone; its successor will be read")
        if code == 429:
            return FetchError(
                NotRead.TIMEOUT, what, ignored=True, advice="the API server sheds load; use --routing=direct"
            )
        if "refused" in said:
            return FetchError(NotRead.CONNECTION_REFUSED, what)
        return FetchError(NotRead.TIMEOUT, what)


def _status(body: bytes) -> str | None:
    """The message of the API server's own error, None when it is somebody else's."""
    try:
        found = _status_decoder.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    return found.message if found.kind == "Status" else None
