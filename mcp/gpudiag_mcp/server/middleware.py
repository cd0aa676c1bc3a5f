"""Around every message: trace and correlation id, metrics, and the refusal of arguments that a tool does not take."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver.prompts import Prompt
from mcp.server.mcpserver.tools import Tool
from mcp.shared.exceptions import MCPError
from mcp.types import INVALID_PARAMS, CallToolResult, TextContent
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gpudiag_mcp import logs, tracing
from gpudiag_mcp.answers import untrusted
from gpudiag_mcp.answers.refusals import Refusal, nearest
from gpudiag_mcp.metrics import Metrics
from gpudiag_mcp.server.dispatch import refused

log = logging.getLogger(__name__)


class Watch:
    """The middleware of a server.

    Args:
        tools: what can be called, by name.
        prompts: what can be asked for, by name.
        metrics: told of every tool call.
        monotonic: seconds of a clock that does not jump.
    """

    def __init__(
        self,
        tools: Mapping[str, Tool],
        prompts: Mapping[str, Prompt],
        metrics: Metrics,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tools = tools
        self._prompts = prompts
        self._metrics = metrics
        self._monotonic = monotonic

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """One message."""
        with tracing.call() as trace_id, logs.bound(correlationID=trace_id, method=ctx.method):
            if ctx.method == "prompts/get":
                self._check_prompt(ctx.params or {})
            if ctx.method != "tools/call":
                return await call_next(ctx)
            name = str((ctx.params or {}).get("name", ""))
            tool = name if name in self._tools else "unknown"
            with logs.bound(tool=tool):
                return await self._call(tool, ctx, call_next)

    async def _call(self, tool: str, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        metrics, began, status = self._metrics, self._monotonic(), "error"
        metrics.active.inc()
        try:
            result: HandlerResult = self._refusal(tool, ctx)
            if result is None:
                result = _plain(tool, await call_next(ctx))
            status = "refused" if _is_error(result) else "ok"
            metrics.response_bytes.labels(tool).observe(_size(result))
            return result
        finally:
            took = self._monotonic() - began
            metrics.active.dec()
            metrics.requests.labels(tool, status).inc()
            metrics.duration.labels(tool).observe(took)
            log.info("%s in %.1f ms", status, took * 1000)

    def _check_prompt(self, params: Mapping[str, Any]) -> None:
        """The SDK calls a prompt that does not exist an internal error.

        Raises:
            MCPError: invalid params, with what there is.
        """
        name = str(params.get("name", ""))
        prompt = self._prompts.get(name)
        if prompt is None:
            message = f"there is no prompt {untrusted.text(name, 80)!r}; there are: {', '.join(self._prompts)}"
            raise MCPError(INVALID_PARAMS, message)
        known = [argument.name for argument in prompt.arguments or ()]
        unknown = [str(key) for key in (params.get("arguments") or {}) if key not in known]
        if unknown:
            shown = untrusted.text(unknown[0], 80)
            raise MCPError(INVALID_PARAMS, f"{name} has no argument {shown!r}; it has: {', '.join(known) or 'none'}")

    def _refusal(self, tool: str, ctx: ServerRequestContext[Any, Any]) -> CallToolResult | None:
        arguments = (ctx.params or {}).get("arguments")
        if tool == "unknown" or not isinstance(arguments, Mapping):
            return None  # the SDK answers
        known = sorted(self._tools[tool].parameters["properties"])
        unknown = [str(name) for name in arguments if name not in known]
        if not unknown:
            return self._misfit(self._tools[tool], arguments)
        shown = untrusted.text(unknown[0], 80)
        near = nearest(unknown[0][:80], known)
        hint = f" Did you mean {near[0]}?" if near else ""
        listed = ", ".join(known) or "none"
        return refused(Refusal("UnknownArgument", f"{tool} has no argument {shown!r}.{hint} It has: {listed}."))

    @staticmethod
    def _misfit(tool: Tool, arguments: Mapping[str, Any]) -> CallToolResult | None:
        """The SDK would say the same with an address of the validation library and a repetition of the input."""
        try:
            tool.fn_metadata.validate_arguments(dict(arguments))
        except ValidationError as error:
            said = "; ".join(_complaint(one) for one in error.errors()[:5])
            return refused(Refusal("Invalid", f"{said}. Correct the argument and repeat the call."))
        return None


def _complaint(error: ErrorDetails) -> str:
    where = ".".join(map(str, error["loc"])) or "arguments"
    return f"{untrusted.text(where, 80)}: {untrusted.text(error['msg'], 160)}"


def _plain(tool: str, result: HandlerResult) -> HandlerResult:
    """A refusal that came out of a resolver, without what the SDK writes before it."""
    before = f"Error executing tool {tool}: "
    if isinstance(result, CallToolResult) and result.is_error and isinstance(first := result.content[0], TextContent):
        first.text = first.text.removeprefix(before)
    return result


def _is_error(result: HandlerResult) -> bool:
    if isinstance(result, CallToolResult):
        return bool(result.is_error)
    return isinstance(result, dict) and result.get("isError") is True


def _size(result: HandlerResult) -> int:
    """Bytes of a result, the protocol's envelope apart."""
    wire = result.model_dump(mode="json", by_alias=True) if isinstance(result, BaseModel) else (result or {})
    return sum(len(msgspec.json.encode(wire.get(part))) for part in ("content", "structuredContent"))
