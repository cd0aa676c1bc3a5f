"""The evals: every question is answered, in few calls; the pages and tasks written from them are current."""

from typing import Any

import pytest
import yaml
from tests.evals import table, tasks, transcript
from tests.evals.asking import LARGEST, SHORT, Asked, ask, ask_all
from tests.evals.questions import QUESTIONS, Question
from tests.evals.questions import ask as call
from tests.evals.stage import CREATING, Mode, Stage

from gpudiag_api.times import from_rfc3339

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_every_question_is_answered(stage: Stage, mode: Mode) -> None:
    # What an earlier run took would answer for this one.
    stage.kubectl("delete", "gpudiagnostics", "-A", "-l", "app.kubernetes.io/managed-by=gpudiag-mcp")
    async with stage.facade(*CREATING, mode=mode) as client:
        asked = await ask_all(client)
    print(table.page(asked))
    assert not [(one.question.slug, problem) for one in asked for problem in one.problems]
    assert len(asked) == 20
    assert sum(one.calls <= SHORT for one in asked) >= 16
    assert all(one.size <= one.calls * LARGEST for one in asked)
    if mode == "auto":
        assert not table.drift(table.PAGE.read_text(), table.page(asked)), "run `make evals`"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"facts": ("train-99",)}, "the data lack 'train-99'"),
        ({"never": ("train-02",)}, "it says 'train-02'"),
        ({"calls": (call("get_gpu_health", node="gpu-x"),)}, "NotFound"),
    ],
)
async def test_an_answer_that_lacks_a_fact_is_found_out(stage: Stage, changes: dict[str, Any], problem: str) -> None:
    question: dict[str, Any] = {
        "slug": "x",
        "asks": "?",
        "answer": "!",
        "facts": (),
        "calls": (call("get_gpu_health"),),
    }
    async with stage.facade() as client:
        asked: Asked = await ask(client, Question(**{**question, **changes}))
    assert problem in asked.problems[0]


async def test_the_read_only_server_says_what_it_would_create(stage: Stage) -> None:
    async with stage.facade() as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        answer = await client.call_tool("get_gpu_timeline", {"node": "train-06"})
    assert "create_gpu_diagnostic" not in names
    assert answer.structured_content is not None
    needs = answer.structured_content["needs_diagnostic"]
    assert needs["enabled"] is False
    assert needs["manifest"]["spec"]["target"] == {"nodeNames": ["train-06"]}


async def test_of_samples_that_do_not_fit_the_newest_are_kept(stage: Stage) -> None:
    async with stage.facade(*CREATING) as client:
        answer = await client.call_tool("create_gpu_diagnostic", {"node": "train-05", "detail": "Full", "wait_s": 60})
    data = answer.structured_content or {}
    times = [row["at"] for row in data["samples"]]
    assert from_rfc3339(data["finished_at"]) - from_rfc3339(times[0]) <= 30
    assert times == sorted(times, reverse=True)
    assert data["truncated"]


async def test_the_transcript_is_current(stage: Stage) -> None:
    fresh = await transcript.recorded(stage)
    stored = transcript.PAGE.read_text()
    assert skeleton(fresh) == skeleton(stored), "run `make evals`"
    assert all(word in fresh for word in ("XID 79", "team-llm/pretrain-1", "RebootNode"))


def skeleton(page: str) -> list[str]:
    """The page without what differs from run to run: the rows of lists, times, names and ages."""
    lines = [line.partition(":")[0] for line in page.splitlines() if line and not line.startswith(("- ", "["))]
    return list(dict.fromkeys(lines))


def test_the_tasks_for_a_model_are_current() -> None:
    wanted = tasks.generated()
    assert {path: path.read_text() for path in wanted if path.exists()} == wanted, "run `python -m tests.evals tasks`"
    assert set((tasks.HERE / "tasks").glob("*.yaml")) <= set(wanted)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.slug)
def test_a_task_is_of_the_format(question: Question) -> None:
    """Fields and steps as mcpchecker's page on the task format, v1alpha2, has them."""
    one = yaml.safe_load((tasks.HERE / "tasks" / f"{question.slug}.yaml").read_text())
    assert set(one) == {"kind", "apiVersion", "metadata", "spec"}
    assert (one["kind"], one["apiVersion"]) == ("Task", "mcpchecker/v1alpha2")
    assert one["metadata"]["difficulty"] in ("easy", "medium", "hard")
    assert set(one["spec"]) == {"verify", "prompt"}
    assert all(len(step) == 1 and set(step) <= {"script", "llmJudge"} for step in one["spec"]["verify"])
    rules = tasks.assertions(question)
    assert rules["maxToolCalls"] >= len(question.calls)


async def test_what_a_model_sees_of_the_tools_stays_small(stage: Stage) -> None:
    async with stage.facade() as client:
        tools = (await client.list_tools()).tools
    seen = [tool.model_dump_json(include={"name", "description", "input_schema"}, by_alias=True) for tool in tools]
    assert sum(map(len, seen)) <= 8 << 10
    assert all(len(tool.name) <= 32 and tool.description and tool.title and tool.output_schema for tool in tools)
