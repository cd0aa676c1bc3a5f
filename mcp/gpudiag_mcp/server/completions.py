"""Completions of prompt arguments and resource addresses: names from the cache, at most 100, never an error."""

from collections.abc import Iterable, Sequence

from mcp.server import MCPServer
from mcp.types import (
    Completion,
    CompletionArgument,
    CompletionContext,
    PromptReference,
    ResourceTemplateReference,
)

from gpudiag_mcp.answers.refusals import Refusal
from gpudiag_mcp.questions.events import pod_name
from gpudiag_mcp.server.ask import Ask
from gpudiag_mcp.server.dispatch import Dispatcher

MOST = 100
_SECONDS = 5.0


def add_completions(server: MCPServer, dispatcher: Dispatcher) -> None:
    """Register them."""

    @server.completion()  # type: ignore[no-untyped-call, untyped-decorator]
    async def complete(
        ref: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        context: CompletionContext | None,
    ) -> Completion | None:
        given = (context.arguments or {}) if context is not None else {}
        try:
            known: Sequence[str] = await dispatcher.answer(
                lambda ask: _names(ask, argument.name, str(given.get("namespace", ""))), ctx=None, seconds=_SECONDS
            )
        except Refusal:
            known = ()
        return matching(known, argument.value)


def matching(known: Iterable[str], typed: str) -> Completion:
    """Names that begin with what was typed, then names that contain it."""
    names = sorted(set(known))
    found = [name for name in names if name.startswith(typed)]
    found += [name for name in names if typed in name and not name.startswith(typed)]
    return Completion(values=found[:MOST], total=len(found), has_more=len(found) > MOST)


async def _names(ask: Ask, argument: str, namespace: str) -> Sequence[str]:
    match argument:
        case "node":
            return [node.name for node in await ask.reader.nodes()]
        case "namespace":
            return [one.metadata.namespace for one in await ask.reader.diagnostics()]
        case "name":
            return [one.metadata.name for one in await ask.reader.diagnostics(namespace)]
        case "code":
            return [str(event.code) for node in await ask.reader.nodes() for event in node.status.xids]
        case "pod":
            nodes = await ask.reader.nodes()
            return [pod_name(f"{held.namespace}/{held.pod}") for node in nodes for held in node.status.allocations]
        case _:
            return ()
