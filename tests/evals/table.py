"""The table of the evals for people: ``docs/evals.md``, written by a run and checked against the next one."""

import re
from collections.abc import Sequence
from pathlib import Path

from tests.evals.asking import SHORT, Asked

PAGE = Path(__file__).resolve().parents[2] / "docs" / "evals.md"
TOLERANCE = 0.25
"""Sizes differ from run to run with the digits of times and ages, and with how many samples there are."""
_HEAD = """\
# Can an assistant answer the on-call engineer?

<!-- Written by `make evals`; tests/evals holds the questions. -->

Twenty questions, each as the tool calls that answer it, put to the real `gpudiag-mcp` over stdio, in front of a real
API server and operator and fourteen simulated nodes in trouble. No model takes part: what is measured is whether the
tools hold the answer, in how many calls and bytes. A question counts as answered when every fact that a person would
check is in the structured content and in the text as well, and nothing that would mislead is in either.

A call to `create_gpu_diagnostic` takes fresh samples from the nodes and waits for the result.

| Question | Calls | Bytes | Tools | Facts |
|---|--:|--:|---|---|
"""
_FOOT = """
{short} of {all} questions take at most {limit} calls; {answered} of {all} are answered; {size:.1f} KB in the middle.

## With a model

`tests/evals/tasks` holds the same questions in the format of [mcpchecker](https://github.com/mcpchecker/mcpchecker):

    make evals-up                                # the fleet of the questions, left running; prints what to export
    export KUBECONFIG=…                          # as printed; gpudiag-mcp must be on PATH
    export JUDGE_BASE_URL=… JUDGE_API_KEY=… JUDGE_MODEL_NAME=…
    mcpchecker check tests/evals/eval.yaml

Agent and judge are those of `tests/evals/eval.yaml`. Limits on calls are twice those of the scripts: a model may look
twice.
"""


def page(asked: Sequence[Asked]) -> str:
    """The whole page."""
    sizes = sorted(one.size for one in asked)
    foot = _FOOT.format(
        short=sum(one.calls <= SHORT for one in asked),
        all=len(asked),
        limit=SHORT,
        answered=sum(not one.problems for one in asked),
        size=sizes[len(sizes) // 2] / 1000,
    )
    return _HEAD + "\n".join(map(_row, asked)) + "\n" + foot


def _row(one: Asked) -> str:
    tools = ", ".join(f"`{tool}`" for tool in one.tools)
    facts = f"{len(one.question.facts)} of {len(one.question.facts)}" if not one.problems else "**not all**"
    return f"| {one.question.asks} | {one.calls} | {one.size} | {tools} | {facts} |"


def drift(stored: str, fresh: str) -> list[str]:
    """Lines that differ in more than the sizes, and sizes that differ by more than the tolerance."""
    old, new = stored.splitlines(), fresh.splitlines()
    found = [f"{len(old)} lines became {len(new)}"] if len(old) != len(new) else []
    for before, after in zip(old, new, strict=False):
        if _without_sizes(before) != _without_sizes(after) or _far(before, after):
            found.append(f"- {before}\n+ {after}")
    return found


def _far(before: str, after: str) -> bool:
    sizes = [int(found[1]) for line in (before, after) if (found := re.search(r"\| \d+ \| (\d+) \|", line))]
    return len(sizes) == 2 and abs(sizes[0] - sizes[1]) > TOLERANCE * sizes[0]


def _without_sizes(line: str) -> str:
    return re.sub(r"[\d.]+ KB", "", re.sub(r"(\| \d+ \|) \d+ \|", r"\1", line))
