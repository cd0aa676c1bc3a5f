"""The description of the HTTP side, OpenAPI 3.1. The protocol and ``tools/list`` describe what goes over ``/mcp``."""

from typing import Any

from gpudiag_api.version import __version__

_ID = {"description": "A string or an integer; with anything else the message counts as a notification."}
_REQUEST: dict[str, Any] = {
    "type": "object",
    "required": ["jsonrpc", "method"],
    "properties": {
        "jsonrpc": {"const": "2.0"},
        "id": _ID,
        "method": {"type": "string", "examples": ["tools/list", "tools/call"]},
        "params": {"type": ["object", "null"]},
    },
}
_TEXT = {"text/plain": {"schema": {"type": "string"}}}
_JSON = {"application/json": {"schema": {"type": "object"}}}


def _answer(description: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"description": description, "content": content or {**_JSON, **_TEXT}}


def _get(summary: str, answers: dict[str, Any]) -> dict[str, Any]:
    return {"get": {"summary": summary, "security": [], "responses": answers}}


def document(path: str) -> dict[str, Any]:
    """The description; ``path`` is that of the protocol."""
    call = {
        "summary": "One message of the Model Context Protocol, streamable HTTP, stateless",
        "requestBody": {"required": True, "content": {"application/json": {"schema": _REQUEST}}},
        "responses": {
            "200": _answer("The answer, alone or as the last of a stream.", {**_JSON, "text/event-stream": {}}),
            "202": {"description": "A notification was taken."},
            "400": _answer("No message of the protocol."),
            "401": _answer("No token, or one that the API server does not accept for this audience."),
            "403": _answer("The Origin is not allowed."),
            "404": _answer("A method that does not exist."),
            "406": _answer("Accept must name application/json and text/event-stream."),
            "408": _answer("The body did not arrive in time."),
            "413": _answer("The body is too large."),
            "415": _answer("The body is not JSON."),
            "421": _answer("The Host is not one of this server's."),
            "429": _answer("Too many requests; Retry-After says when."),
            "431": _answer("The headers are too large."),
            "503": _answer("Too many requests at once, or the API server cannot verify tokens."),
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "gpudiag-mcp",
            "version": __version__,
            "summary": "GPU diagnostics for assistants.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}, {}],
        "paths": {
            path: {"post": call},
            "/healthz": _get("Whether the process is alive", {"200": _answer("It is.", _TEXT)}),
            "/readyz": _get(
                "Whether questions can be answered, with detail per backend",
                {"200": _answer("They can.", _JSON), "503": _answer("Not yet.", _JSON)},
            ),
            "/openapi.json": _get("This description", {"200": _answer("It.", _JSON)}),
        },
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }
