"""The description of the HTTP contract, OpenAPI 3.1. The report's schema comes from the type that encodes it."""

from collections.abc import Mapping
from typing import Any

import msgspec

from gpudiag_agent.recorder.recorder import MAX_POINTS
from gpudiag_agent.recorder.xid_log import MAX_EVENTS
from gpudiag_api.version import __version__
from gpudiag_api.wire import ProcessesAnswer, Report, TimelineAnswer, TopologyAnswer, XIDsAnswer

_ID = {"type": "string", "maxLength": 128}
_HEADERS: dict[str, object] = {
    "X-Request-Id": {"description": "The caller's, or a new one.", "schema": _ID},
    "X-Gpudiag-Sampled-At": {
        "description": "When NVML last answered, by the node's clock (compare with Date). Absent if it never did.",
        "schema": {"type": "string", "format": "date-time"},
    },
}
_ETAG: dict[str, object] = {
    "ETag": {"description": "Weak; over the report's meaning, not its values.", "schema": {"type": "string"}}
}
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "requestId": _ID,
    },
}


def _answer(
    description: str, content: Mapping[str, object] | None = None, more: Mapping[str, object] | None = None
) -> dict[str, object]:
    body: dict[str, object] = {"content": content} if content else {}
    return {"description": description, "headers": {**_HEADERS, **(more or {})}, **body}


def _problem(description: str) -> dict[str, object]:
    return _answer(description, {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}})


_BEARER = {
    "securitySchemes": {
        "serviceAccountToken": {
            "type": "http",
            "scheme": "bearer",
            "description": "Of an allowed service account, for the agent's audience; also as X-Gpudiag-Authorization.",
        }
    }
}
_REFUSALS = {
    "401": _problem("There is no token, or no good one."),
    "403": _problem("The token's account may not read."),
    "503": _problem("There is no report yet, or (AuthUnavailable) the token cannot be checked now."),
}


def _parameter(name: str, place: str, description: str, **schema: object) -> dict[str, object]:
    return {"name": name, "in": place, "description": description, "schema": schema}


def _get(summary: str, answers: dict[str, object], parameters: list[object] | None = None) -> dict[str, object]:
    refused = _problem("An unknown query parameter, or a value that is not allowed.")
    responses: dict[str, object] = {**answers, "400": refused}
    return {"get": {"summary": summary, "parameters": parameters or [], "responses": responses}}


def _detail(
    summary: str,
    schema: dict[str, object],
    parameters: list[object] | None = None,
    more: dict[str, object] | None = None,
) -> dict[str, object]:
    answers = {
        "200": _answer(f"{summary}.", {"application/json": {"schema": schema}}),
        "503": _problem("The first sample is not finished."),
    }
    return _get(summary, {**answers, **(more or {})}, parameters)


def _timeline(schema: dict[str, object]) -> dict[str, object]:
    parameters: list[object] = [
        _parameter("minutes", "query", "How far back.", type="integer", minimum=1, maximum=30, default=30),
        _parameter("gpu", "query", "Index of the only GPU to show.", type="integer", minimum=0, maximum=255),
        _parameter(
            "points", "query", "At most so many per GPU.", type="integer", minimum=1, maximum=MAX_POINTS, default=60
        ),
    ]
    return _detail("The flight recorder", schema, parameters, {"404": _problem("There is no such GPU.")})


def _xids(schema: dict[str, object]) -> dict[str, object]:
    parameters: list[object] = [
        _parameter("since", "query", "The cursor of an earlier answer.", type="string", maxLength=63, default=""),
        _parameter(
            "limit", "query", "At most so many events.", type="integer", minimum=1, maximum=MAX_EVENTS, default=100
        ),
    ]
    return _detail("XID errors: what is new or has repeated since a cursor", schema, parameters)


def document(*, tokens: bool = False) -> bytes:
    """The description as JSON.

    Args:
        tokens: whether the agent asks for bearer tokens.
    """
    json_object = {"application/json": {"schema": {"type": "object"}}}
    types = (Report, TimelineAnswer, XIDsAnswer, TopologyAnswer, ProcessesAnswer)
    references, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    reference, timeline, xids, topology, processes = references
    report = _get(
        "The node's report",
        {
            "200": _answer("The report.", {"application/json": {"schema": reference}}, _ETAG),
            "304": _answer("Its meaning is still that of If-None-Match.", more=_ETAG),
            "503": _problem("The first sample is not finished, or too many requests wait."),
        },
        [
            _parameter("If-None-Match", "header", "ETag of the report the caller has.", type="string"),
            _parameter(
                "wait",
                "query",
                "With If-None-Match: answer when the meaning changes, or after this long. At most 60s.",
                type="string",
                pattern="^(0|(60|[1-5]?[0-9])s)$",
                default="0s",
                examples=["30s"],
            ),
            _parameter("fresh", "query", "Sample first, at most once a second.", type="boolean", default=False),
        ],
    )
    whole: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "gpudiag agent",
            "version": __version__,
            "summary": "GPU health of one node.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/v1/report": report,
            "/v1/timeline": _timeline(timeline),
            "/v1/xids": _xids(xids),
            "/v1/topology": _detail("How the GPUs reach each other, and where they sit", topology),
            "/v1/processes": _detail("The processes on the GPUs, with their Pods", processes),
            "/healthz": _get("Whether the process is alive", {"200": _answer("It is.", json_object)}),
            "/readyz": _get(
                "Whether there is a report",
                {"200": _answer("There is.", json_object), "503": _problem("Not yet.")},
            ),
            "/metrics": _get(
                "Metrics for Prometheus", {"200": _answer("Metrics.", {"text/plain": {"schema": {"type": "string"}}})}
            ),
            "/openapi.json": _get("This description", {"200": _answer("It.", json_object)}),
        },
        "components": {"schemas": {**schemas, "Problem": _PROBLEM}, **(_BEARER if tokens else {})},
    }
    if tokens:
        for path, operations in whole["paths"].items():
            if path.startswith("/v1/"):
                operations["get"]["security"] = [{"serviceAccountToken": []}]
                operations["get"]["responses"] |= _REFUSALS
    return msgspec.json.encode(whole)
