"""From a call to a result: one place for deadlines, refusals, provenance, size, and the shape that the SDK wants."""

import asyncio
import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

from mcp.server.elicitation import ElicitationResult
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp.server.mcpserver.tools import Tool
from mcp.types import CallToolResult, TextContent, ToolAnnotations

from gpudiag_mcp import logs
from gpudiag_mcp.answers import refusals, untrusted
from gpudiag_mcp.answers.fit import Fitted, fit
from gpudiag_mcp.answers.refusals import Refusal
from gpudiag_mcp.cache.reader import Caller, OwnIdentity
from gpudiag_mcp.create.policy import Provenance
from gpudiag_mcp.kube.errors import AccessError, ApiError, ApiUnavailable
from gpudiag_mcp.server.ask import Ask, Progress, begin
from gpudiag_mcp.server.creation import Approval, ask_user
from gpudiag_mcp.server.schemas import lean
from gpudiag_mcp.server.tools import ToolSpec
from gpudiag_mcp.service import Service

log = logging.getLogger(__name__)

CallerOf = Callable[[], Awaitable[Caller]]
"""Who makes the present call (a context variable holds it); raises Refusal when that cannot be told."""

_OBJECT = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", re.ASCII)
_POD = re.compile(rf"({_OBJECT.pattern}/)?{_OBJECT.pattern}", re.ASCII)
_NAMES = {"node": _OBJECT, "namespace": _OBJECT, "name": _OBJECT, "pod": _POD}


async def own_identity() -> Caller:
    """The caller of stdio."""
    return OwnIdentity()


class Dispatcher:
    """Runs questions for callers.

    Args:
        service: the parts.
        caller_of: who makes a call.
    """

    def __init__(self, service: Service, caller_of: CallerOf = own_identity) -> None:
        self.service = service
        self._caller_of = caller_of

    async def answer(
        self,
        question: Callable[[Ask], Awaitable[Any]],
        *,
        ctx: Context[Any, Any] | None,
        context: str = "",
        seconds: float = 15.0,
        what: str = "reading the cluster",
    ) -> Any:
        """Ask, with every way of failing turned into a Refusal."""
        identity = ""
        try:
            async with asyncio.timeout(seconds):
                caller = await self._caller_of()
                identity = caller.name
                ask = await begin(self.service, caller, context, self._provenance(ctx, caller), _progress(ctx))
                identity = identity or ask.reader.place.identity
                with logs.bound(cluster=ask.reader.place.cluster, identity=identity):
                    log.info("asked")
                    return await question(ask)
        except ApiError as error:
            if error.status == 401:
                await self.service.caches.invalidate(context)
            raise refusals.from_api(error, identity=identity, cluster=f"cluster {context or '(current)'}") from error
        except AccessError as error:
            await self.service.caches.invalidate(context)
            raise refusals.from_access(error) from error
        except ApiUnavailable as error:
            raise refusals.from_unavailable(error, context=context) from error
        except TimeoutError as error:
            raise refusals.timed_out(seconds, what) from error

    async def fitted(
        self,
        spec: ToolSpec,
        arguments: Mapping[str, Any],
        *,
        ctx: Context[Any, Any] | None,
        context: str = "",
    ) -> Fitted:
        """The answer of a tool, within its limits.

        Raises:
            Refusal: it cannot be answered.
        """
        check_names({**arguments, "context": context})

        async def question(ask: Ask) -> Fitted:
            answer = await spec.run(ask, **arguments)
            warnings = (*answer.warnings, *dict.fromkeys(ask.reader.warnings))
            if warnings != answer.warnings:
                answer = answer.model_copy(update={"warnings": warnings})
            return fit(answer, ask.source())

        seconds = spec.deadline(dict(arguments))
        fitted: Fitted = await self.answer(question, ctx=ctx, context=context, seconds=seconds)
        return fitted

    def bind(self, spec: ToolSpec, *, read_only: bool = True) -> Tool:
        """The tool for the SDK: its signature without ``ask``, with ``context`` where there are several."""
        many = len(self.service.contexts) > 1

        async def call(**arguments: Any) -> CallToolResult:
            ctx = arguments.pop("ctx")
            context = arguments.pop("context", "")
            try:
                fitted = await self.fitted(spec, arguments, ctx=ctx, context=context)
            except Refusal as refusal:
                return refused(refusal)
            except Exception:
                log.exception("a bug in %s", spec.name)
                bug = f"a bug in this server; its log has the details under correlation id {logs.correlation_id()}."
                return refused(Refusal("Internal", bug))
            return CallToolResult(
                content=[TextContent(type="text", text=fitted.text)], structured_content=fitted.structured
            )

        _sign(call, spec, many=many, approval=None if read_only else self._approval())
        tool = Tool.from_function(
            call,
            name=spec.name,
            title=spec.title,
            description=inspect.getdoc(spec.run),
            annotations=ToolAnnotations(
                title=spec.title,
                read_only_hint=read_only,
                destructive_hint=False,
                idempotent_hint=True,
                open_world_hint=False,
            ),
        )
        tool.parameters = {**lean(tool.parameters), "additionalProperties": False}
        tool.fn_metadata.output_schema = lean(tool.fn_metadata.output_schema or {})
        return tool

    def _approval(self) -> Callable[..., Awaitable[Approval | Elicit[Approval]]]:
        async def approval(ctx: Context[Any, Any]) -> Approval | Elicit[Approval]:
            params = ctx.request_context.params or {}
            arguments = dict(params.get("arguments") or {})
            context = str(arguments.pop("context", ""))
            try:
                check_names({**arguments, "context": context})
                question: Callable[[Ask], Awaitable[Any]] = lambda ask: ask_user(ask, ctx, arguments)  # noqa: E731
                asked: Approval | Elicit[Approval] = await self.answer(question, ctx=ctx, context=context)
            except Refusal as refusal:
                raise ToolError(str(refusal)) from refusal
            return asked

        return approval

    def _provenance(self, ctx: Context[Any, Any] | None, caller: Caller) -> Provenance:
        client = ""
        params = None if ctx is None else getattr(ctx.session, "client_params", None)
        if params is not None and params.client_info is not None:
            client = f"{params.client_info.name} {params.client_info.version}"
        return Provenance(
            principal=caller.name, client=untrusted.text(client, 64), correlation_id=logs.correlation_id()
        )


def refused(refusal: Refusal) -> CallToolResult:
    """A refusal as a tool error: the model reads it and can act on it."""
    return CallToolResult(content=[TextContent(type="text", text=str(refusal))], is_error=True)


def check_names(arguments: Mapping[str, Any]) -> None:
    """Refuse names that no object can have, before they go anywhere.

    Raises:
        Refusal: naming the argument.
    """
    for key, value in arguments.items():
        if not isinstance(value, str) or not value:
            continue
        pattern = _NAMES.get(key)
        if pattern is not None and not pattern.fullmatch(value):
            shown = untrusted.text(value, 80)
            raise Refusal("Invalid", f"{key} {shown!r} is not a name: lower-case letters, digits, '-' and '.'.")
        if len(value) > 2048:
            raise Refusal("Invalid", f"{key} is longer than 2048 characters. Pass a shorter one.")


def _progress(ctx: Context[Any, Any] | None) -> Progress:
    async def report(gone: float, total: float, message: str) -> None:
        if ctx is not None:
            await ctx.report_progress(gone, total, message)

    return report


def _sign(
    call: Callable[..., Any],
    spec: ToolSpec,
    *,
    many: bool,
    approval: Callable[..., Any] | None,
) -> None:
    """Give ``call`` the signature that the SDK makes a schema of."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        parameter.replace(kind=keyword)
        for name, parameter in inspect.signature(spec.run).parameters.items()
        if name not in ("ask", "approval")
    ]
    if many:
        parameters.append(inspect.Parameter("context", keyword, default="", annotation=str))
    if approval is not None:
        annotation = Annotated[ElicitationResult[Approval], Resolve(approval)]
        parameters.append(inspect.Parameter("approval", keyword, annotation=annotation))
    parameters.append(inspect.Parameter("ctx", keyword, annotation=Context))
    returned: Any = Annotated[CallToolResult, spec.answer]
    call.__signature__ = inspect.Signature(parameters, return_annotation=returned)  # type: ignore[attr-defined]
    call.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": returned}
    call.__name__ = spec.name
