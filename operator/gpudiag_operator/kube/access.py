"""Where the API server is and who we are: configuration and authentication by the official ``kubernetes`` package.

The package reads kubeconfig and in-cluster files, runs credential plugins, refreshes tokens and builds the TLS
context. It does not make the requests: its generated API decodes whole lists into models (757 MB for 5,000 Nodes),
and its transport changed in each of the last two major versions, while configuration stayed.
"""

import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from kubernetes.aio import config
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject

_DEFAULT_KUBECONFIG = str(Path("~/.kube/config").expanduser())

RELOAD_SECONDS = 300.0
"""How long the credentials of a kubeconfig are used before it is read again (token files, plugins rotate them)."""


class Access(Protocol):
    """What a client needs to make requests."""

    host: str
    """Scheme, address, port and perhaps a path: ``https://10.0.0.1:6443``."""
    ssl: ssl.SSLContext | None
    server_hostname: str | None
    proxy: str | None

    async def authorization(self) -> str | None:
        """The value of the Authorization header, refreshed when due; None for client certificates."""
        ...

    async def refresh(self) -> None:
        """Get credentials anew: the server refused the present ones."""
        ...


@dataclass
class _OfficialAccess:
    host: str
    ssl: ssl.SSLContext | None
    server_hostname: str | None
    proxy: str | None
    settings: Any
    kubeconfig: str | None
    context: str | None
    monotonic: Callable[[], float] = time.monotonic
    loaded_at: float = field(default_factory=time.monotonic)

    async def authorization(self) -> str | None:
        if self.kubeconfig is not None and self.monotonic() - self.loaded_at > RELOAD_SECONDS:
            await self.refresh()
        # In a Pod the package's own hook reads the token file again every minute.
        value: str | None = await self.settings.get_api_key_with_prefix("BearerToken", alias="authorization")
        return value

    async def refresh(self) -> None:
        self.settings = await _load(self.kubeconfig, self.context)
        self.loaded_at = self.monotonic()


async def load_access(*, kubeconfig: str | None = None, context: str | None = None) -> Access:
    """Find the API server: the given kubeconfig, ``$KUBECONFIG``, the Pod we run in, ``~/.kube/config``.

    Args:
        kubeconfig: path of a kubeconfig file; None searches in the order above.
        context: name of the context in it; None is its current one.

    Raises:
        kubernetes.aio.config.ConfigException: no usable configuration; the message says what is missing.
    """
    path = kubeconfig or os.environ.get("KUBECONFIG")
    if path is None and "KUBERNETES_SERVICE_HOST" not in os.environ:
        path = _DEFAULT_KUBECONFIG
    settings = await _load(path, context)
    transport: Any = RESTClientObject(settings)  # builds the TLS context; opens nothing
    return _OfficialAccess(
        host=settings.host.rstrip("/"),
        ssl=transport.ssl_context if settings.host.startswith("https") else None,
        server_hostname=settings.tls_server_name,
        proxy=settings.proxy,
        settings=settings,
        kubeconfig=path,
        context=context,
    )


async def _load(path: str | None, context: str | None) -> Any:
    settings: Any = Configuration()
    loaders: Any = config  # untyped
    if path is None:
        loaders.load_incluster_config(client_configuration=settings)
    else:
        await loaders.load_kube_config(
            config_file=path, context=context, client_configuration=settings, persist_config=False
        )
    return settings
