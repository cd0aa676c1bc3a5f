"""Every "no" as a sentence that an assistant can act on: what happened, and what to do next."""

import difflib
from collections.abc import Iterable

from gpudiag_api.kinds.base import GROUP
from gpudiag_mcp.answers import untrusted
from gpudiag_mcp.kube.errors import AccessError, ApiError, ApiUnavailable

NEAREST = 5


class Refusal(Exception):  # noqa: N818  (an answer, not a mistake)
    """A question that cannot be answered; ``code`` is one word, ``message`` says what happened and what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


def nearest(wanted: str, known: Iterable[str]) -> list[str]:
    """Names that look like ``wanted``, the most alike first, at most five."""
    names = list(dict.fromkeys(known))
    close = difflib.get_close_matches(wanted, names, n=NEAREST, cutoff=0.5)
    close += [name for name in names if wanted and wanted in name and name not in close]
    return close[:NEAREST]


def not_found(kind: str, wanted: str, known: Iterable[str], *, list_with: str) -> Refusal:
    """There is no such thing; the nearest names, and the tool that lists them all."""
    names = list(known)
    near = nearest(wanted, names)
    if near:
        hint = f"Nearest names: {', '.join(near)}."
    elif names:
        hint = f"There are {len(names)}, none with a similar name; {list_with} lists them."
    else:
        hint = f"There are none at all; {list_with} shows what there is."
    return Refusal("NotFound", f"there is no {kind} {untrusted.text(wanted, 80)!r}. {hint}")


def from_api(error: ApiError, *, identity: str, cluster: str) -> Refusal:
    """An answer of the API server, for the assistant.

    Args:
        error: with what was asked.
        identity: who asked.
        cluster: where.
    """
    what = f"{error.verb} {error.resource}{f' in namespace {error.namespace}' if error.namespace else ''}"
    match error.status:
        case 401:
            message = f"{cluster} does not accept the credentials. Log in again, then repeat the call."
            return Refusal("Unauthorized", message)
        case 403 if "cannot impersonate" in error.message:
            return Refusal(
                "NotPermitted",
                "this server may not act for you, so nothing was created. Its administrator must grant its service "
                "account impersonate (see docs/assistants.md).",
            )
        case 403:
            return Refusal("Forbidden", _forbidden(error, what, identity or "this identity", cluster))
        case 404 if error.kind_missing or "requested resource" in error.message:
            return Refusal(
                "NotInstalled",
                f"{cluster} does not know {error.resource}.{error.group}. Install gpudiag there "
                "(kubectl apply -k manifests/base), or pass another context.",
            )
        case 404:
            where = f" in namespace {error.namespace}" if error.namespace else ""
            return Refusal(
                "NotFound", f"{error.resource} {error.name!r}{where} is not there. List what there is first."
            )
        case 409 if error.already_exists:
            return Refusal(
                "AlreadyExists",
                f"{error.resource} {error.name!r} exists in namespace {error.namespace}. "
                "Read it with get_gpu_diagnostic, or pass another name.",
            )
        case 410:
            return Refusal("Expired", "the list moved on. List again without continue_token.")
        case 422 | 400:
            why = untrusted.text(error.message)
            return Refusal("Invalid", f"the API server refuses the object: {why} Correct that argument and repeat.")
        case 429:
            seconds = f"{error.retry_after:.0f} s" if error.retry_after else "a few seconds"
            return Refusal("TooManyRequests", f"{cluster} is busy. Repeat the call in {seconds}.")
        case _:
            said = untrusted.text(error.message) or "no reason given"
            return Refusal("ServerError", f"{what}: {cluster} answered {error.status} ({said}). Repeat the call later.")


def _forbidden(error: ApiError, what: str, identity: str, cluster: str) -> str:
    role = "Role" if error.namespace else "ClusterRole"
    flag = f" -n {error.namespace}" if error.namespace else ""
    verbs = error.verb if error.verb in ("create", "get") else "get,list,watch"
    group = f".{error.group}" if error.group else ""
    ready = (
        " (the ClusterRole gpudiag-viewer has it)"
        if error.group == GROUP and error.verb != "create"
        else " (the ClusterRole gpudiag-editor has it)"
        if error.group == GROUP
        else ""
    )
    narrower = (
        " Or pass the namespace argument of one that you may read."
        if error.resource == "gpudiagnostics" and not error.namespace
        else ""
    )
    return (
        f"{identity} may not {what} in {cluster}. Ask its administrator for this rule{ready}: "
        f"kubectl create {role.lower()} gpudiag-access --verb={verbs} --resource={error.resource}{group}{flag}, "
        f"bound to that identity.{narrower}"
    )


def from_unavailable(error: ApiUnavailable, *, context: str) -> Refusal:
    """The API server did not answer."""
    return Refusal(
        "Unavailable",
        f"the cluster of context {context or '(current)'} cannot be reached ({untrusted.text(str(error))}). "
        "Check the network or VPN, then repeat the call.",
    )


def from_access(error: AccessError) -> Refusal:
    """No configuration or credential; the error is a sentence already."""
    return Refusal("NoAccess", untrusted.text(str(error), 600))


def timed_out(seconds: float, reached: str) -> Refusal:
    """The call's own deadline passed."""
    return Refusal(
        "Timeout", f"no answer within {seconds:g} s while {reached}. Repeat the call, or ask about one node."
    )
