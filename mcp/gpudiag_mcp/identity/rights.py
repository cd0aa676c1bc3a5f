"""What a principal may do: the API server's own answer (SubjectAccessReview), kept for at most 30 s."""

import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec

from gpudiag_mcp.answers.refusals import Refusal
from gpudiag_mcp.identity.principal import Principal
from gpudiag_mcp.identity.remembered import Remembered
from gpudiag_mcp.kube.api import SUBJECT_ACCESS_REVIEWS, KubeAPI, Resource
from gpudiag_mcp.kube.errors import ApiError, ApiUnavailable

log = logging.getLogger(__name__)

ALLOWED_SECONDS = 30.0
DENIED_SECONDS = 5.0
"""Short, so that a right that was just given helps at once."""
MOST = 8192

_Question = tuple[Principal, str, Resource, str, str]


class _Status(msgspec.Struct, frozen=True):
    allowed: bool = False
    denied: bool = False
    reason: str = ""


class _Review(msgspec.Struct, frozen=True):
    status: _Status = _Status()


class Rights:
    """Rights of principals.

    Args:
        monotonic: seconds of a clock that does not jump.
    """

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._known: Remembered[_Question, bool] = Remembered(most=MOST, monotonic=monotonic)

    async def require(
        self, api: KubeAPI, principal: Principal, verb: str, resource: Resource, *, namespace: str = "", name: str = ""
    ) -> None:
        """Refuse what the principal may not do. A right for single names is asked for only where the general one lacks.

        Raises:
            ApiError: 403, with what was asked.
            ApiUnavailable: the API server does not answer, and the answer is not known.
            Refusal: this server itself may not ask.
        """
        if await self._allowed(api, (principal, verb, resource, namespace, "")):
            return
        if name and await self._allowed(api, (principal, verb, resource, namespace, name)):
            return
        raise ApiError(
            403,
            "Forbidden",
            verb=verb,
            resource=resource.plural,
            group=resource.group,
            namespace=namespace,
            name=name,
        )

    async def _allowed(self, api: KubeAPI, question: _Question) -> bool:
        return await self._known.ask(question, lambda: self._review(api, question))

    async def _review(self, api: KubeAPI, question: _Question) -> tuple[bool, float]:
        try:
            status = msgspec.json.decode(
                await api.create(SUBJECT_ACCESS_REVIEWS, _body(*question)), type=_Review
            ).status
        except ApiError as error:
            log.error("rights cannot be checked: %s; this process needs create subjectaccessreviews", error)  # noqa: TRY400
            raise Refusal(
                "NotPermitted",
                "this server may not ask the API server what you may do, so it shows nothing. Its administrator must "
                "grant it create subjectaccessreviews.authorization.k8s.io.",
            ) from error
        except msgspec.DecodeError as error:
            raise ApiUnavailable(f"not what an API server says: {error}") from error
        allowed = status.allowed and not status.denied
        return allowed, ALLOWED_SECONDS if allowed else DENIED_SECONDS


def _body(principal: Principal, verb: str, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
    about = {
        "verb": verb,
        "group": resource.group,
        "version": resource.version,
        "resource": resource.plural,
        "namespace": namespace,
        "name": name,
    }
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": principal.username,
            "uid": principal.uid,
            "groups": list(principal.groups),
            "extra": {key: list(values) for key, values in principal.extra},
            "resourceAttributes": {key: value for key, value in about.items() if value},
        },
    }
