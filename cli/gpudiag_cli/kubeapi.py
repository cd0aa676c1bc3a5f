"""Requests to the API server for what kubectl does one by one: thousands of objects within seconds."""

import asyncio
import json
from collections.abc import Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import aiohttp

from gpudiag_cli.errors import CommandError
from gpudiag_cli.kubeconfig import Access

FIELD_MANAGER = "gpudiag-cli"
_PARALLEL = 32
_WORTH_ANOTHER_TRY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, *(status for status in HTTPStatus if status >= 500)})
_ATTEMPTS = 4
_BACKOFF_SECONDS = 0.5


_TIMEOUT = aiohttp.ClientTimeout(total=30)


class APIError(CommandError):
    """The API server refused a request; ``status`` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class KubeAPI:
    """A connection to one API server; an asynchronous context manager."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        headers = {"Authorization": f"Bearer {self._access.token}"} if self._access.token else {}
        tls = True if self._access.tls is None else self._access.tls
        self._session = aiohttp.ClientSession(
            headers=headers, connector=aiohttp.TCPConnector(limit=_PARALLEL, ssl=tls), timeout=_TIMEOUT
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        """Read an object or a list.

        Raises:
            APIError: the server refused it; status 404 where there is no such thing.
            CommandError: the server does not answer.
        """
        return await self._request("GET", path, query)

    async def apply(self, path: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Server-side apply: create the object or make it so; our fields are taken from other owners.

        Raises:
            APIError: the server refused it.
            CommandError: the server does not answer.
        """
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        # JSON is YAML, and YAML is what server-side apply is called.
        return await self._request("PATCH", path, query, json.dumps(manifest), "application/apply-patch+yaml")

    async def merge(self, path: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        """JSON merge patch.

        Raises:
            APIError: the server refused it.
            CommandError: the server does not answer.
        """
        query = {"fieldManager": FIELD_MANAGER}
        return await self._request("PATCH", path, query, json.dumps(patch), "application/merge-patch+json")

    async def delete(self, path: str) -> None:
        """Delete an object at once, as a kubelet would confirm it; one that is gone already is no error.

        Raises:
            APIError: the server refused it.
            CommandError: the server does not answer.
        """
        try:
            await self._request("DELETE", path, {"gracePeriodSeconds": "0", "propagationPolicy": "Background"})
        except APIError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise

    async def _request(
        self, method: str, path: str, query: Mapping[str, str], body: str | None = None, kind: str | None = None
    ) -> dict[str, Any]:
        assert self._session is not None, "use `async with`"
        headers = {"Content-Type": kind} if kind else {}
        url, last = self._access.server + path, ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(_BACKOFF_SECONDS * 2**attempt)
            try:
                async with self._session.request(method, url, params=query, data=body, headers=headers) as response:
                    text = await response.text()
                    if response.ok:
                        answer: dict[str, Any] = json.loads(text)
                        return answer
                    last = _message(text, response.status)
                    if response.status not in _WORTH_ANOTHER_TRY:
                        raise APIError(f"The API server refused {method} {path}: {last}", response.status)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                last = str(error) or type(error).__name__
        raise CommandError(f"The API server at {self._access.server} does not answer: {last}")


def _message(text: str, status: int) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {status}"
