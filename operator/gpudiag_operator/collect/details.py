"""What a full run asks an agent beyond its report: flight recorder, topology, processes.

A part that does not come is named, not fatal: the report was read, and three parts of four are better than none.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from gpudiag_api import wire
from gpudiag_operator.collect.outcome import FetchError
from gpudiag_operator.domain import NodeDetails

Get = Callable[[str], Awaitable[bytes]]
"""Asks the agent for a path and gives the bounded, decompressed body; raises FetchError."""

_POINTS = 60
"""Points per GPU that a status shows (design, section 4.1)."""

_Part = TypeVar("_Part", wire.TimelineAnswer, wire.TopologyAnswer, wire.ProcessesAnswer)

_timeline = msgspec.json.Decoder(wire.TimelineAnswer)
_topology = msgspec.json.Decoder(wire.TopologyAnswer)
_processes = msgspec.json.Decoder(wire.ProcessesAnswer)


async def fetch_details(node: str, get: Get) -> NodeDetails:
    """Ask for all parts, one after the other over one agent's connection.

    Args:
        node: the name that every answer must carry.
        get: see there.
    """
    missing: list[str] = []

    async def part(path: str, decoder: "msgspec.json.Decoder[_Part]") -> _Part | None:
        try:
            answer = decoder.decode(await get(path))
        except FetchError as error:
            missing.append(f"{path.partition('?')[0]}: {error.reason}: {error.message}")
            return None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            missing.append(f"{path.partition('?')[0]}: BadResponse: {error}")
            return None
        if answer.node_name != node:
            missing.append(f"{path.partition('?')[0]}: IdentityMismatch: it reports for node {answer.node_name!r}")
            return None
        return answer

    return NodeDetails(
        timeline=await part(f"/v1/timeline?points={_POINTS}", _timeline),
        topology=await part("/v1/topology", _topology),
        processes=await part("/v1/processes", _processes),
        missing=tuple(missing),
    )
