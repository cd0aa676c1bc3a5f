"""Resources: the same answers under addresses, for hosts that show resources. JSON, of the current context."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError

from gpudiag_mcp.answers.models import Answer
from gpudiag_mcp.answers.refusals import Refusal
from gpudiag_mcp.server import tools
from gpudiag_mcp.server.ask import Ask
from gpudiag_mcp.server.dispatch import Dispatcher
from gpudiag_mcp.server.tools import ToolSpec

_JSON = "application/json"


def add_resources(server: MCPServer, dispatcher: Dispatcher) -> None:
    """Register them."""

    async def read(run: Callable[..., Awaitable[Answer]], **arguments: Any) -> str:
        spec = ToolSpec(run=run, title="", answer=Answer)
        try:
            fitted = await dispatcher.fitted(spec, arguments, ctx=None)
        except Refusal as refusal:
            missing = refusal.code in ("NotFound", "Invalid")
            raise (ResourceNotFoundError if missing else ResourceError)(str(refusal)) from refusal
        return msgspec.json.encode(fitted.structured).decode()

    @server.resource("gpudiag://fleet", name="fleet", title="Health of the fleet", mime_type=_JSON)
    async def fleet() -> str:
        """Verdict, worst nodes, findings, what to do."""
        return await read(tools.get_gpu_health)

    @server.resource("gpudiag://nodes/{node}", name="node", title="A GPU node", mime_type=_JSON)
    async def node(node: str) -> str:
        """Everything known of a GPU node."""
        return await read(tools.describe_gpu_node, node=node)

    @server.resource(
        "gpudiag://diagnostics/{namespace}/{name}", name="diagnostic", title="A GPUDiagnostic", mime_type=_JSON
    )
    async def diagnostic(namespace: str, name: str) -> str:
        """Verdict, findings and nodes of a GPUDiagnostic."""
        return await read(tools.get_gpu_diagnostic, namespace=namespace, name=name)

    @server.resource("gpudiag://xids/{code}", name="xid", title="An XID code on this fleet", mime_type=_JSON)
    async def xid(code: str) -> str:
        """Where an XID code was seen, how bad it is, whose fault, what to do."""
        if not code.isascii() or not code.isdecimal() or not 0 < int(code) <= 65535:
            raise ResourceNotFoundError(f"{code[:40]!r} is not an XID code: write a number from 1 to 65535")

        async def of_code(ask: Ask) -> Answer:
            return await tools.analyze_xid_errors(ask, code=int(code))

        return await read(of_code)
