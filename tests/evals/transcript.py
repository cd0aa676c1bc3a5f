"""One incident, solved over stdio: what is asked, called and answered, word for word, as a page for people."""

import json
from pathlib import Path
from typing import Any

from mcp import Client
from tests.evals.stage import CREATING, Stage

PAGE = Path(__file__).resolve().parents[2] / "docs" / "assistants-transcript.md"
_HEAD = """\
# One incident, over stdio

<!-- Written by `make evals`; tests/evals/transcript.py holds the steps. -->

A GPU fell off the bus under a training job. What follows is every tool call that an assistant needs, with the text of
the answers as `gpudiag-mcp --allow-create` gave them over stdio in front of a real API server, a real operator and
simulated nodes. The sentences in between are written by hand; an assistant finds its own.
"""
STEPS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (
        "**On call, 03:12:** the fleet alert fired. What is wrong?",
        "get_gpu_health",
        {},
    ),
    (
        "The worst node is train-02: a GPU is lost, blame Hardware. Whose pod does it hit, and who is to blame?",
        "explain_failure",
        {"node": "train-02"},
    ),
    (
        "team-llm/pretrain-1 holds the lost GPU and XID 79 names it. Before anyone drains a node: is it still so?",
        "create_gpu_diagnostic",
        {"node": "train-02", "wait_s": 60, "reason": "verify before the drain"},
    ),
    (
        "Measured now, still lost. The ticket:",
        "get_incident_report",
        {"node": "train-02"},
    ),
)
_FOOT = """
**What to do:** tell team-llm that pretrain-1 lost its GPU to the hardware, not to its code; `kubectl drain train-02`,
reboot it, and ask again. Four calls; nothing was changed but the diagnostic, which deletes itself after 15 minutes.
"""


async def recorded(stage: Stage) -> str:
    """The page."""
    async with stage.facade(*CREATING) as client:
        return _HEAD + "".join([await _step(client, *step) for step in STEPS]) + _FOOT


async def _step(client: Client, words: str, tool: str, arguments: dict[str, Any]) -> str:
    result = await client.call_tool(tool, arguments)
    text = "\n".join(block.text for block in result.content if block.type == "text")
    if result.is_error:
        raise AssertionError(f"{tool}: {text}")
    return f"\n{words}\n\n```\n> {tool} {json.dumps(arguments)}\n\n{text}\n```\n"
