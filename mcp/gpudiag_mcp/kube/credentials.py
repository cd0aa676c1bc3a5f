"""Who we are: bearer tokens, token files and credential plugins of a kubeconfig user.

Client certificates are part of the TLS context (:mod:`.access`). The plugins of ``users[].exec`` speak
``client.authentication.k8s.io/v1`` or ``v1beta1``; what they print is kept until it expires.
"""

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpudiag_api.times import from_rfc3339
from gpudiag_mcp.kube.errors import AccessError
from gpudiag_mcp.kube.kubeconfig import Context

TOKEN_FILE_SECONDS = 60.0
"""How long the content of a token file is used: the kubelet rotates it at 80 % of its life."""
PLUGIN_SECONDS = 60.0
_EARLY_SECONDS = 30.0
"""A plugin's credential is renewed this long before it expires."""


@dataclass(frozen=True)
class Credential:
    """A bearer token, or a client certificate with its key (PEM), or neither; ``until`` in Unix seconds."""

    token: str = field(default="", repr=False)
    certificate: str = field(default="", repr=False)
    key: str = field(default="", repr=False)
    until: float = float("inf")


class Credentials:
    """The credentials of a context, renewed when due."""

    def __init__(self, context: Context, *, clock: Callable[[], float] = time.time) -> None:
        self._context = context
        self._clock = clock
        self._held: Credential | None = None
        self._lock = asyncio.Lock()

    async def current(self) -> Credential:
        """The present credential.

        Raises:
            AccessError: a file cannot be read, or the plugin fails; the message says which.
        """
        async with self._lock:
            if self._held is None or self._clock() >= self._held.until:
                self._held = await self._load()
            return self._held

    async def _load(self) -> Credential:
        user = self._context.user
        if "auth-provider" in user.fields:
            raise AccessError(
                f"The user {self._context.user_name!r} has an auth-provider, which Kubernetes removed in 1.26; "
                "use a credential plugin (exec)."
            )
        if (path := user.path("tokenFile")) is not None:
            return Credential(token=_read(path), until=self._clock() + TOKEN_FILE_SECONDS)
        if token := user.text("token"):
            return Credential(token=token)
        plugin = user.fields.get("exec")
        if isinstance(plugin, Mapping):
            return await _run(plugin, self._context)
        return Credential()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AccessError(f"The token file {path} cannot be read: {error}.") from None


async def _run(plugin: Mapping[str, Any], context: Context) -> Credential:
    command = str(plugin.get("command") or "")
    version = str(plugin.get("apiVersion") or "client.authentication.k8s.io/v1")
    if not command:
        raise AccessError(f"The user {context.user_name!r} has an exec section without a command.")
    if "/" in command:
        command = str(Path(context.user.base, command))
    info = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}}
    if plugin.get("provideClusterInfo"):
        info["spec"] = {"interactive": False, "cluster": {"server": context.cluster.text("server")}}
    own = {str(item["name"]): str(item["value"]) for item in plugin.get("env") or []}
    environ = {**os.environ, **own, "KUBERNETES_EXEC_INFO": json.dumps(info)}
    try:
        process = await asyncio.create_subprocess_exec(
            command,
            *map(str, plugin.get("args") or []),
            env=environ,
            # Our standard input and output are the protocol; a plugin must not see them.
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise AccessError(f"The credential plugin {command} cannot be started: {error.strerror}.") from None
    try:
        async with asyncio.timeout(PLUGIN_SECONDS):
            out, said = await process.communicate()
    except TimeoutError:
        raise AccessError(f"The credential plugin {command} did not answer within {PLUGIN_SECONDS:.0f} s.") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        why = said.decode(errors="replace").strip().splitlines()[-1:] or ["it says nothing"]
        raise AccessError(f"The credential plugin {command} failed ({why[0][:200]}); log in again with it.")
    return _credential(out, command)


def _credential(out: bytes, command: str) -> Credential:
    try:
        status = json.loads(out)["status"]
        expires = status.get("expirationTimestamp")
        found = Credential(
            token=str(status.get("token") or ""),
            certificate=str(status.get("clientCertificateData") or ""),
            key=str(status.get("clientKeyData") or ""),
            until=from_rfc3339(expires) - _EARLY_SECONDS if expires else float("inf"),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise AccessError(f"The credential plugin {command} printed no ExecCredential.") from None
    if not found.token and not found.certificate:
        raise AccessError(f"The credential plugin {command} gave neither a token nor a certificate.")
    return found
