"""What is asked of the API server: for the path of the request, and for the sentence about its failure."""

from gpudiag_mcp.kube.api import Resource
from gpudiag_mcp.kube.errors import ApiError


class Asked:
    """A verb and what it is about."""

    def __init__(self, verb: str, resource: Resource, *, namespace: str = "", name: str = "") -> None:
        self.verb, self.resource, self.namespace, self.name = verb, resource, namespace, name
        self.path = resource.path(namespace=namespace, name="" if verb == "create" else name)
        self.text = f"{verb} {resource.plural}{f' {name}' if name else ''}"

    def error(self, status: int, reason: str, message: str, retry_after: float | None = None) -> ApiError:
        """An answer of the API server to this request."""
        return ApiError(
            status,
            reason,
            message,
            retry_after=retry_after,
            verb=self.verb,
            resource=self.resource.plural,
            group=self.resource.group,
            namespace=self.namespace,
            name=self.name,
        )
