"""The caller of an HTTP request: set by the gate, read where the request is served."""

from contextvars import ContextVar
from dataclasses import dataclass

from gpudiag_mcp.identity.principal import Principal
from gpudiag_mcp.identity.rights import Rights
from gpudiag_mcp.kube.api import Headers, KubeAPI, Resource


@dataclass(frozen=True)
class Authenticated:
    """A principal whose token was verified. See ``cache.reader.Caller``."""

    principal: Principal
    rights: Rights

    @property
    def name(self) -> str:
        """The user name."""
        return self.principal.username

    async def require(
        self, api: KubeAPI, verb: str, resource: Resource, *, namespace: str = "", name: str = ""
    ) -> None:
        """See ``Rights.require``."""
        await self.rights.require(api, self.principal, verb, resource, namespace=namespace, name=name)

    def headers(self) -> Headers:
        """Impersonation."""
        return self.principal.impersonation()


caller: ContextVar[Authenticated | None] = ContextVar("gpudiag_mcp_caller", default=None)
"""Who makes the present request; None outside of one, and without authentication."""
