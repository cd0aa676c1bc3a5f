"""Keeps the trust in agents current: from the Secret that the leader itself fills and renews, or from a file.

Every replica reads, since each may call agents; only the leader writes. It never ends: whatever goes wrong is said
and tried again, and what is believed meanwhile stays.
"""

import asyncio
import base64
import binascii
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from gpudiag_operator.agent_tls.trust import AgentTrust, Secret
from gpudiag_operator.kube.api import KubeAPI
from gpudiag_operator.kube.errors import ApiError, ApiUnavailable

log = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
SOON_SECONDS = 2.0
_MOST = 1 << 20

Sleep = Callable[[float], Awaitable[None]]


class FileTrust:
    """Authorities from a file that somebody else renews: cert-manager, a mounted Secret.

    Args:
        path: of the bundle, PEM.
        trust: told of it.
    """

    def __init__(self, path: Path, trust: AgentTrust) -> None:
        self._path = path
        self.trust = trust
        self.ends_at: float | None = None
        """Not known here: the agents' certificate is another's."""

    async def look(self) -> None:
        """Read it."""
        try:
            with self._path.open("rb") as file:
                bundle = file.read(_MOST)
        except OSError as error:
            self.trust.problem = f"--agent-ca-file {self._path} cannot be read: {error.strerror}"
            return
        self.trust.believe(bundle)


class ManagedTrust:
    """The Secret of the agents' certificate.

    Args:
        api: where it is.
        secret: which one it is.
        trust: told of its authorities.
        lifetime: of a certificate, seconds.
        leads: whether this process may write.
        now: Unix seconds.
    """

    def __init__(
        self,
        api: KubeAPI,
        *,
        secret: Secret,
        trust: AgentTrust,
        lifetime: float,
        leads: Callable[[], bool],
        now: Callable[[], float],
    ) -> None:
        self._api = api
        self._secret = secret
        self.trust = trust
        self._lifetime = lifetime
        self._leads = leads
        self._now = now
        self._said = ""
        self.ends_at: float | None = None
        """When the agents' certificate ends, Unix seconds; None: there is none yet."""

    async def look(self) -> None:
        """Read the Secret, believe its authorities, and as the leader take the next step."""
        try:
            found = await self._read()
            stored = _data(found)
            self._believe(stored)
            if self._leads() and await self._step(found, stored):
                self._believe(_data(await self._read()))
        except ApiError as error:
            self._say(_advice(error, self._secret))
        except ApiUnavailable as error:
            self._say(f"the Secret {self._secret.name} cannot be read: {error}")
        else:
            self._said = ""

    async def _read(self) -> dict[str, Any]:
        try:
            return await self._api.get(self._secret.path)
        except ApiError as error:
            if not error.not_found or not self._leads():
                raise
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": self._secret.name}, "type": "Opaque"}
        return await self._api.create(self._secret.collection, body)

    async def _step(self, found: dict[str, Any], stored: dict[str, bytes]) -> bool:
        from gpudiag_operator.agent_tls import rotation  # noqa: PLC0415  (cryptography: only where it is needed)

        now, name = self._now(), self.trust.server_name
        step = rotation.plan(stored, server_name=name, now=now, lifetime=self._lifetime)
        if step is None:
            return False
        data = {key: None if value is None else _encoded(value) for key, value in step.change.items()}
        try:
            # Only on top of what was read: two leaders for a moment must not mix their keys.
            await self._api.patch(
                self._secret.path, {"data": data}, resource_version=found["metadata"]["resourceVersion"]
            )
        except ApiError as error:
            if error.conflict:
                return True
            raise
        log.info("Secret %s: %s", self._secret.name, step.what)
        return True

    def _believe(self, stored: dict[str, bytes]) -> None:
        from gpudiag_operator.agent_tls import rotation  # noqa: PLC0415

        if bundle := stored.get(rotation.BUNDLE):
            self.trust.believe(bundle)
        elif self.trust.context is None:
            self.trust.problem = f"the Secret {self._secret.name} holds no certificate yet"
        self.ends_at = rotation.ends_at(stored, server_name=self.trust.server_name, now=self._now())

    def _say(self, what: str) -> None:
        """Once, not every half minute."""
        if self.trust.context is None:
            self.trust.problem = what
        if what != self._said:
            self._said = what
            log.warning("%s", what)


Keeper = FileTrust | ManagedTrust


async def keep(keeper: Keeper, *, sleep: Sleep = asyncio.sleep) -> None:
    """Look every half minute until cancelled; more often as long as nobody is believed."""
    while True:
        await sleep(LOOK_SECONDS if keeper.trust.context is not None else SOON_SECONDS)
        await keeper.look()


def _data(found: dict[str, Any]) -> dict[str, bytes]:
    decoded = {}
    for key, value in (found.get("data") or {}).items():
        try:
            decoded[str(key)] = base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError, ValueError):
            continue
    return decoded


def _encoded(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _advice(error: ApiError, secret: Secret) -> str:
    if error.status == 403:
        return f"the Secret {secret.name} is not ours to use: grant get and patch on it ({error.message})"
    if error.not_found:
        return f"there is no Secret {secret.name} in {secret.namespace}: apply the manifests, or wait for the leader"
    return f"the Secret {secret.name} cannot be used: {error}"
