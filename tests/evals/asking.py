"""Ask the questions of the real facade and say what came of each."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mcp import Client
from mcp.types import CallToolResult
from tests.evals import fleet
from tests.evals.questions import QUESTIONS, Call, Question
from tests.evals.stage import Stage, staged

SHORT = 2
"""Calls: sixteen of twenty questions need no more."""
LARGEST = 32 << 10


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a question cost and what its answers lacked."""

    question: Question
    tools: tuple[str, ...]
    size: int
    """Bytes of all results, as sent."""
    seconds: float
    problems: tuple[str, ...]

    @property
    def calls(self) -> int:
        """How many tool calls it took."""
        return len(self.tools)


@contextmanager
def prepared() -> Iterator[Stage]:
    """The fleet of the questions, once the operator has judged all of it."""
    objects = [fleet.maintenance(), *fleet.diagnostics()]
    with staged(fleet.NODES, namespaces=fleet.NAMESPACES, not_ready=fleet.NOT_READY, objects=objects) as stage:
        stage.until(lambda: stage.health() == fleet.SETTLED and _judged(stage), "every node and diagnostic is judged")
        yield stage


def _judged(stage: Stage) -> bool:
    items = stage.kubectl.json("get", "gpudiagnostics", "-A")["items"]
    reason = stage.kubectl.json("get", "gpunode", "train-07")["status"].get("reason")
    return reason == "ConnectionRefused" and all(one.get("status", {}).get("verdict") == "Unhealthy" for one in items)


async def ask_all(client: Client) -> list[Asked]:
    """Every question, in order."""
    return [await ask(client, question) for question in QUESTIONS]


async def ask(client: Client, question: Question) -> Asked:
    """One question: its calls, then whether the answers hold the facts, as data and as text."""
    began = time.perf_counter()
    tools: list[str] = []
    size, structured, text, problems = 0, "", "", []
    before: dict[str, Any] = {}
    for call in question.calls:
        result = await client.call_tool(call.tool, dict(_arguments(call, before)))
        tools.append(call.tool)
        sent = len(result.model_dump_json(by_alias=True, exclude_none=True).encode())
        size += sent
        if sent > LARGEST:
            problems.append(f"{call.tool}: {sent} bytes")
        said = _text(result)
        if bool(result.is_error) is not call.refused:
            problems.append(f"{call.tool}: {said[:300]}")
        before = result.structured_content or {"error": said}
        structured += json.dumps(before, ensure_ascii=False)
        text += said
    problems += [f"the data lack {fact!r}" for fact in question.facts if fact not in structured]
    problems += [f"the text lacks {fact!r}" for fact in question.facts if fact not in text]
    problems += [f"it says {word!r}" for word in question.never if word in structured or word in text]
    seconds = time.perf_counter() - began
    return Asked(question=question, tools=tuple(tools), size=size, seconds=seconds, problems=tuple(problems))


def _arguments(call: Call, before: dict[str, Any]) -> Any:
    return call.arguments(before) if callable(call.arguments) else call.arguments


def _text(result: CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if block.type == "text")
