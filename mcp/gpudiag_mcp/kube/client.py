"""The API client: raw JSON over HTTP, through the client library that the MCP SDK brings along.

A list is read page by page and a watch line by line, so only what is kept is decoded. No request is without a
deadline. There is no way here to change or delete an object.
"""

import ipaddress
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
import msgspec
from opentelemetry import propagate

from gpudiag_api.version import __version__
from gpudiag_mcp.kube.access import Access
from gpudiag_mcp.kube.api import Headers, JSONObject, Page, Resource, WatchEvent
from gpudiag_mcp.kube.asked import Asked
from gpudiag_mcp.kube.errors import ApiError, ApiUnavailable

T = TypeVar("T")

MAX_LINE_BYTES = 4 << 20
"""Bound of one watch line: etcd holds objects of at most 1.5 MiB, JSON escapes included this is ample."""
MAX_BODY_BYTES = 64 << 20
"""Bound of one answer: a page of 500 GPUNodes of 64 KiB is 32 MiB."""
_ERROR_BODY_BYTES = 64 << 10


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


class _Line(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Status(msgspec.Struct):
    reason: str = ""
    message: str = ""
    code: int = 500


_list_decoder = msgspec.json.Decoder(_List)
_line_decoder = msgspec.json.Decoder(_Line)
_status_decoder = msgspec.json.Decoder(_Status)


class KubeClient:
    """The one implementation of ``KubeAPI``. Make it inside a running loop; ``close`` it."""

    def __init__(self, access: Access, *, request_seconds: float = 15.0) -> None:
        self._access = access
        self._timeout = httpx2.Timeout(request_seconds, connect=10.0)
        self._http = httpx2.AsyncClient(
            base_url=access.server,
            verify=access.tls if access.tls is not None else ssl.create_default_context(),
            proxy=access.proxy or None,
            # Proxies of the environment are for what is beyond this machine.
            trust_env=not _is_loopback(access.server),
            headers={"Accept": "application/json", "User-Agent": f"gpudiag-mcp/{__version__}"},
            follow_redirects=False,
            timeout=self._timeout,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def pages(self, resource: Resource, *, namespace: str = "", limit: int = 500) -> AsyncGenerator[Page, None]:
        """See ``KubeAPI.pages``."""
        query = {"limit": str(limit)}
        while True:
            asked = Asked("list", resource, namespace=namespace)
            page = _decode(_list_decoder, await self._body("GET", asked, query))
            query["continue"] = page.metadata.continue_
            final = not page.metadata.continue_
            yield Page(page.items or [], page.metadata.resource_version, final)
            if final:
                return

    async def watch(
        self, resource: Resource, *, resource_version: str, timeout_seconds: int
    ) -> AsyncGenerator[WatchEvent | None, None]:
        """See ``KubeAPI.watch``."""
        query = {
            "watch": "true",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(timeout_seconds),
        }
        asked = Asked("watch", resource)
        # The server ends the watch; a server that does not is caught by the time without a byte.
        limits = httpx2.Timeout(timeout_seconds + 15.0, connect=10.0)
        async with self._answer("GET", asked, query, timeout=limits) as response:
            yield None
            rest = b""
            async for chunk in response.aiter_bytes():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line:
                        yield _event(line, asked)
                if len(rest) > MAX_LINE_BYTES:
                    raise ApiUnavailable(f"watch of {resource.plural}: a line of more than {MAX_LINE_BYTES} bytes")

    async def get(self, resource: Resource, name: str, *, namespace: str = "") -> bytes:
        """See ``KubeAPI.get``."""
        return await self._body("GET", Asked("get", resource, namespace=namespace, name=name), {})

    async def create(
        self,
        resource: Resource,
        body: JSONObject,
        *,
        namespace: str = "",
        dry_run: bool = False,
        headers: Headers = (),
    ) -> bytes:
        """See ``KubeAPI.create``."""
        query = {"fieldValidation": "Strict", "fieldManager": "gpudiag-mcp"} | ({"dryRun": "All"} if dry_run else {})
        asked = Asked("create", resource, namespace=namespace, name=str(body.get("metadata", {}).get("name", "")))
        return await self._body("POST", asked, query, content=msgspec.json.encode(body), headers=headers)

    async def _body(
        self,
        method: str,
        asked: Asked,
        query: Mapping[str, str],
        *,
        content: bytes | None = None,
        headers: Headers = (),
    ) -> bytes:
        async with self._answer(method, asked, query, content=content, headers=headers) as response:
            return await _bounded(response, MAX_BODY_BYTES)

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        asked: Asked,
        query: Mapping[str, str],
        *,
        content: bytes | None = None,
        headers: Headers = (),
        timeout: httpx2.Timeout | None = None,  # noqa: ASYNC109  (passed on, not awaited on)
    ) -> AsyncIterator[httpx2.Response]:
        """One request; transport errors, also while the caller reads, become ApiUnavailable."""
        own = _with(await self._identity(), headers)
        if content is not None:
            own.append(("Content-Type", "application/json"))
        if self._http.is_closed:
            raise ApiUnavailable(f"{asked.text}: the connection was closed meanwhile; repeat the call")
        extensions: dict[str, Any] = {}
        if self._access.server_name:
            extensions["sni_hostname"] = self._access.server_name
        try:
            async with self._http.stream(
                method,
                asked.path,
                params=query,
                content=content,
                headers=[(name.encode("ascii"), value.encode()) for name, value in own],
                timeout=timeout or self._timeout,
                extensions=extensions,
            ) as response:
                if response.status_code >= 300:
                    raise await _error(response, asked)
                yield response
        except httpx2.TimeoutException as error:
            raise ApiUnavailable(f"{asked.text}: no answer in time") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise ApiUnavailable(f"{asked.text}: {str(error)[:300] or type(error).__name__}") from error

    async def _identity(self) -> dict[str, str]:
        token = (await self._access.credentials.current()).token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if self._access.impersonate:
            headers["Impersonate-User"] = self._access.impersonate
        propagate.inject(headers)  # traceparent and tracestate of the call that this request serves
        return headers


def _with(own: Mapping[str, str], more: Headers) -> list[tuple[str, str]]:
    """Both; a field of ``more`` replaces ours of that name."""
    replaced = {name.lower() for name, _ in more}
    return [(name, value) for name, value in own.items() if name.lower() not in replaced] + list(more)


def _is_loopback(server: str) -> bool:
    name = urlsplit(server).hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _event(line: bytes, asked: Asked) -> WatchEvent:
    event = _decode(_line_decoder, line)
    match event.type:
        case "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK":
            return WatchEvent(event.type, event.object)
        case "ERROR":
            status = _status(bytes(event.object))
            raise asked.error(status.code, status.reason, status.message)
        case _:
            raise ApiUnavailable(f"watch: unknown event type {event.type[:40]!r}")


async def _bounded(response: httpx2.Response, limit: int) -> bytes:
    parts, size = [], 0
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > limit:
            raise ApiUnavailable(f"an answer of more than {limit} bytes")
        parts.append(chunk)
    return b"".join(parts)


async def _error(response: httpx2.Response, asked: Asked) -> ApiError:
    after = response.headers.get("Retry-After", "")
    status = _status(await _bounded(response, _ERROR_BODY_BYTES))
    seconds = float(after) if after.isdecimal() else None
    return asked.error(response.status_code, status.reason, status.message, seconds)


def _status(body: bytes) -> _Status:
    try:
        return _status_decoder.decode(body)
    except msgspec.DecodeError:
        return _Status(message=body[:200].decode(errors="replace"))


def _decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.DecodeError as error:
        raise ApiUnavailable(f"not what an API server says: {error}") from error
