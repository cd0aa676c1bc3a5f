"""The API client: raw JSON over aiohttp, with the official package's configuration (see :mod:`.access`).

Requests are made here rather than by the package's transport for chunked reading: a watch is read line by line with
a bound on the line, a list page by page without decoding what is not kept. No request is without a timeout.
"""

import ipaddress
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar
from urllib.parse import urlencode, urlsplit

import aiohttp
import msgspec
from yarl import URL

from gpudiag_operator.kube.access import Access
from gpudiag_operator.kube.api import JSONObject, Page, WatchEvent
from gpudiag_operator.kube.errors import ApiError, ApiUnavailable
from gpudiag_operator.kube.retry import retrying
from gpudiag_operator.kube.status import status_error

T = TypeVar("T")

MAX_LINE_BYTES = 4 << 20
"""Bound of one watch line: etcd holds objects of at most 1.5 MiB, JSON escapes included this is ample."""

_CONNECT_SECONDS = 10.0
_MERGE_PATCH = "application/merge-patch+json"


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


class _Line(msgspec.Struct):
    type: str
    object: msgspec.Raw


_list_decoder = msgspec.json.Decoder(_List)
_line_decoder = msgspec.json.Decoder(_Line)
_object_decoder = msgspec.json.Decoder(dict[str, Any])


class KubeClient:
    """The one implementation of ``KubeAPI``. Make it inside a running loop; ``close`` it."""

    def __init__(self, access: Access, *, request_seconds: float = 30.0, user_agent: str = "gpudiag-operator") -> None:
        self._access = access
        self._timeout = aiohttp.ClientTimeout(total=request_seconds, sock_connect=_CONNECT_SECONDS)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=64, ssl=access.ssl or True),
            headers={"Accept": "application/json", "User-Agent": user_agent},
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=1 << 20,
            # Proxies of the environment are for what is beyond this machine.
            trust_env=not _is_loopback(access.host),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def list_pages(
        self, path: str, *, label_selector: str = "", field_selector: str = "", limit: int = 500
    ) -> AsyncGenerator[Page, None]:
        """See ``KubeAPI.list_pages``."""
        query = _selectors(label_selector, field_selector) | {"limit": str(limit)}
        while True:
            body = await retrying(lambda: self._request("GET", path, query))
            page = _decode(_list_decoder, body)
            query["continue"] = page.metadata.continue_
            final = not page.metadata.continue_
            yield Page(items=page.items or [], resource_version=page.metadata.resource_version, final=final)
            if final:
                return

    async def watch(
        self,
        path: str,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        initial_events: bool = False,
        timeout_seconds: int = 290,
        inactivity_seconds: float = 120.0,
    ) -> AsyncGenerator[WatchEvent, None]:
        """See ``KubeAPI.watch``."""
        query = _selectors(label_selector, field_selector) | {
            "watch": "true",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(timeout_seconds),
        }
        if initial_events:
            query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        # The server ends the watch; beyond that a total bound only catches a server that does not.
        limits = aiohttp.ClientTimeout(
            total=timeout_seconds + 60, sock_connect=_CONNECT_SECONDS, sock_read=inactivity_seconds
        )
        async with self._answer("GET", path, query, limits=limits) as response:
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line:
                        yield _event(line)
                if len(rest) > MAX_LINE_BYTES:
                    raise ApiUnavailable(f"watch of {path}: a line of more than {MAX_LINE_BYTES} bytes")
        if rest.strip():
            raise ApiUnavailable(f"watch of {path}: cut in the middle of a line")

    async def get(self, path: str) -> dict[str, Any]:
        """See ``KubeAPI.get``."""
        return _decode(_object_decoder, await retrying(lambda: self._request("GET", path)))

    async def create(self, path: str, body: JSONObject) -> dict[str, Any]:
        """See ``KubeAPI.create``."""
        return _decode(_object_decoder, await self._request("POST", path, body=body))

    async def patch(self, path: str, body: JSONObject, *, resource_version: str | None = None) -> dict[str, Any]:
        """See ``KubeAPI.patch``."""
        if resource_version is not None:
            metadata = {**body.get("metadata", {}), "resourceVersion": resource_version}
            body = {**body, "metadata": metadata}
        return _decode(_object_decoder, await self._request("PATCH", path, body=body, content_type=_MERGE_PATCH))

    async def patch_status(self, path: str, body: JSONObject, *, resource_version: str | None = None) -> dict[str, Any]:
        """See ``KubeAPI.patch_status``."""
        return await self.patch(f"{path}/status", body, resource_version=resource_version)

    async def delete(self, path: str, *, uid: str | None = None, resource_version: str | None = None) -> None:
        """See ``KubeAPI.delete``."""
        wanted = {"uid": uid, "resourceVersion": resource_version}
        preconditions = {name: value for name, value in wanted.items() if value}
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": preconditions}
        await self._request("DELETE", path, body=options)

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: JSONObject | None = None,
        content_type: str = "application/json",
    ) -> bytes:
        async with self._answer(method, path, query, body=body, content_type=content_type) as response:
            return await response.read()

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: JSONObject | None = None,
        content_type: str = "application/json",
        limits: aiohttp.ClientTimeout | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request; transport errors, also while the caller reads, become ApiUnavailable."""
        payload = None if body is None else msgspec.json.encode(body)
        url = URL(f"{self._access.host}{path}{'?' + urlencode(query) if query else ''}", encoded=True)
        try:
            for may_refresh in (True, False):
                async with self._session.request(
                    method,
                    url,
                    data=payload,
                    headers=await self._headers(None if payload is None else content_type),
                    timeout=limits or self._timeout,
                    server_hostname=self._access.server_hostname,
                    proxy=self._access.proxy,
                    allow_redirects=False,
                ) as response:
                    if response.status == 401 and may_refresh:
                        # Refused before anything was done, so repeating is safe for writes, too.
                        await self._access.refresh()
                        continue
                    if response.status >= 300:
                        raise await _error(response)
                    yield response
                    return
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            said = str(error) or type(error).__name__
            raise ApiUnavailable(f"{method} {path}: {said}") from error

    async def _headers(self, content_type: str | None) -> dict[str, str]:
        headers = {} if content_type is None else {"Content-Type": content_type}
        authorization = await self._access.authorization()
        if authorization is not None:
            headers["Authorization"] = authorization
        return headers


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    query = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {key: value for key, value in query.items() if value}


def _event(line: bytes) -> WatchEvent:
    event = _decode(_line_decoder, line)
    match event.type:
        case "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK":
            return WatchEvent(event.type, event.object)
        case "ERROR":
            raise status_error(bytes(event.object), 500, None)
        case _:
            raise ApiUnavailable(f"watch: unknown event type {event.type[:40]!r}")


async def _error(response: aiohttp.ClientResponse) -> ApiError:
    asked = response.headers.get("Retry-After", "")
    body = await response.content.read(64 << 10)
    return status_error(body, response.status, float(asked) if asked.isdecimal() else None)


def _decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.DecodeError as error:
        raise ApiUnavailable(f"not what an API server says: {error}") from error


def _is_loopback(host: str) -> bool:
    name = urlsplit(host).hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
