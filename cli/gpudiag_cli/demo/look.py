"""Reading objects from the API server again and again without a process each time: what waits look at."""

import json
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import Any

from gpudiag_cli import kubeconfig

_GPUDIAG = "/apis/gpudiag.dev/v1alpha1"
_TIMEOUT_SECONDS = 5.0


class Look:
    """Reads with the credentials of a kubeconfig; what cannot be read now is None, as it may come."""

    def __init__(self, path: Path) -> None:
        self._access = kubeconfig.load(path)

    def get(self, path: str) -> dict[str, Any] | None:
        """An object or list by its path."""
        request = urllib.request.Request(self._access.server + path)  # noqa: S310 (our own kubeconfig's server)
        if self._access.token:
            request.add_header("Authorization", f"Bearer {self._access.token}")
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS, context=self._access.tls) as response:  # noqa: S310
                found: dict[str, Any] = json.load(response)
                return found
        except urllib.error.HTTPError as error:
            with error:
                if error.code in {HTTPStatus.NOT_FOUND, HTTPStatus.TOO_MANY_REQUESTS} or error.code >= 500:
                    return None
                raise
        except OSError:
            return None

    def node(self, name: str) -> dict[str, Any]:
        """Status of a GPUNode; empty as long as there is none."""
        found = self.get(f"{_GPUDIAG}/gpunodes/{name}") or {}
        return found.get("status") or {}

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Status of every GPUNode by name."""
        found = self.get(f"{_GPUDIAG}/gpunodes") or {}
        return {item["metadata"]["name"]: item.get("status") or {} for item in found.get("items", [])}

    def diagnostic(self, name: str, namespace: str) -> dict[str, Any]:
        """Status of a GPUDiagnostic; empty as long as there is none."""
        found = self.get(f"{_GPUDIAG}/namespaces/{namespace}/gpudiagnostics/{name}") or {}
        return found.get("status") or {}


def condition(status: dict[str, Any], kind: str) -> tuple[str, str]:
    """Status and reason of a condition; ("", "") where it is not set."""
    for each in status.get("conditions") or ():
        if each["type"] == kind:
            return each["status"], each.get("reason", "")
    return "", ""
