"""Twenty questions of an on-call engineer, each as the tool calls that answer it and the facts the answer must hold.

The scripts are what an assistant does that reads the tools' descriptions: the first call follows from the question,
the next one from what the answer before said (``needs_diagnostic``, a nearest name). Facts are words that a person
would check; each must be in the structured content *and* in the text, as hosts show either.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Body = Mapping[str, Any]
Arguments = Mapping[str, Any] | Callable[[Body], Mapping[str, Any]]
"""Arguments, or how they follow from the structured content (or error text) of the answer before."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One tool call of a script."""

    tool: str
    arguments: Arguments
    refused: bool = False
    """The answer is an error that says what to do next."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question, its script, and the facts of its answer."""

    slug: str
    asks: str
    """The words of the engineer: the prompt, for a model."""
    calls: tuple[Call, ...]
    facts: tuple[str, ...]
    """In the answers of the script together."""
    never: tuple[str, ...] = ()
    """What no answer may say."""
    answer: str
    """For a judge: what a right answer contains."""
    difficulty: str = "easy"


def ask(tool: str, **arguments: Any) -> Call:
    """A call with fixed arguments."""
    return Call(tool=tool, arguments=arguments)


def as_needed(body: Body) -> Mapping[str, Any]:
    """The arguments that ``needs_diagnostic`` holds, as they are."""
    arguments: Mapping[str, Any] = body["needs_diagnostic"]["arguments"]
    return arguments


def nearest(body: Body) -> Mapping[str, Any]:
    """The first of the nearest names that an error offers."""
    names: str = body["error"].partition("Nearest names: ")[2]
    return {"node": names.partition(",")[0].rstrip(".")}


CREATE = "create_gpu_diagnostic"
DIAGNOSE = Call(tool=CREATE, arguments=as_needed)

QUESTIONS = (
    Question(
        slug="fleet-health",
        asks="Is the GPU fleet all right? Tell me the worst nodes.",
        calls=(ask("get_gpu_health"),),
        facts=("Unhealthy", "train-02", "train-03", "train-11", "3 Unhealthy, 3 Unknown, 3 Degraded of 14 nodes"),
        answer="The fleet is Unhealthy: train-02, train-03 and train-11 are Unhealthy, three nodes cannot be read.",
    ),
    Question(
        slug="which-gpu",
        asks="Which GPU of node train-02 is bad, and what do I do about it?",
        calls=(ask("get_gpu_health", node="train-02"),),
        facts=("GPULost", "0000:61:00.0", "Hardware", "RebootNode", "team-llm/pretrain-1"),
        answer="GPU 3 of train-02 is lost (hardware). Drain the node and reboot it.",
    ),
    Question(
        slug="pod-hardware",
        asks="Pod pretrain-1 in namespace team-llm crashed. Is it the hardware or our job?",
        calls=(ask("explain_failure", pod="pretrain-1", namespace="team-llm"),),
        facts=("Hardware", "XID 79", "GPU_HAS_FALLEN_OFF_THE_BUS", "confidence High", "RebootNode", "train-02"),
        answer="The hardware: XID 79 on train-02 names the pod; GPU 3 fell off the bus. Drain and reboot the node.",
    ),
    Question(
        slug="pod-application",
        asks="Pod team-vision/debug-2 died with an illegal memory access. Do we have a bad GPU?",
        calls=(ask("explain_failure", pod="team-vision/debug-2"),),
        facts=("Application", "XID 31", "CheckApplication", "its GPUs show no fault"),
        never=("RebootNode", "DrainAndResetGPU"),
        answer="No: XID 31 is the application's fault and the GPU shows none. Look at the application.",
    ),
    Question(
        slug="pods-at-risk",
        asks="Which pods run on GPUs that are broken right now?",
        calls=(ask("explain_failure"),),
        facts=("team-llm/pretrain-1", "team-vision/finetune-7", "train-02", "train-03"),
        answer="team-llm/pretrain-1 on train-02 and team-vision/finetune-7 on train-03.",
    ),
    Question(
        slug="xids-by-blame",
        asks="Which XID errors do we have in the fleet, and which of them are hardware?",
        calls=(ask("analyze_xid_errors"),),
        facts=("2 XID codes", "GPU_HAS_FALLEN_OFF_THE_BUS", "Hardware", "FIFO_ERROR_MMU_ERR_FLT", "Application"),
        answer="XID 79 on train-02 is hardware, XID 31 on train-04 is an application's.",
    ),
    Question(
        slug="one-xid",
        asks="Somebody pasted 'Xid 31'. Where did it happen and must I take a node out?",
        calls=(ask("analyze_xid_errors", code=31),),
        facts=("train-04", "team-vision/debug-2", "Application", "CheckApplication"),
        never=("RebootNode",),
        answer="On train-04, pod team-vision/debug-2. It is the application's; no node has to go.",
    ),
    Question(
        slug="unknown-nodes",
        asks="Which nodes can you not judge at the moment, and why?",
        calls=(ask("list_gpu_nodes", health="Unknown"),),
        facts=("train-07", "train-08", "train-10", "DriverHung", "NodeNotReady", "3 nodes with health Unknown"),
        answer="train-07 (agent does not answer), train-08 (driver hangs), train-10 (node not ready).",
    ),
    Question(
        slug="why-unknown",
        asks="Why is train-07 Unknown? Is its GPU broken?",
        calls=(ask("describe_gpu_node", node="train-07"),),
        facts=("Unknown", "Its data is not fresh", "Circuit breaker: Open"),
        never=("Healthy: train-07", "blame=Hardware"),
        answer="Its agent cannot be reached (circuit breaker open), so nothing is known about its GPUs.",
    ),
    Question(
        slug="driver-skew",
        asks="Do all GPU nodes run the same driver version? Which one does not?",
        calls=(ask("describe_gpu_node"), ask("get_gpu_inventory")),
        facts=("535.247.01", "570.133.20", "infer-03"),
        answer="No: infer-03 runs 535.247.01, the others 570.133.20.",
    ),
    Question(
        slug="who-is-on-it",
        asks="I want to drain train-03. Whose pods hold its GPUs?",
        calls=(ask("get_pod_gpu_allocation", node="train-03"),),
        facts=("finetune-7", "team-vision", "2 GPU or MIG devices of 8 GPUs"),
        answer="team-vision/finetune-7 holds two of its eight GPUs.",
    ),
    Question(
        slug="maintenance",
        asks="Is anybody working on a GPU node at the moment?",
        calls=(ask("list_gpu_nodes"),),
        facts=("train-09", "maintenance"),
        answer="train-09 is under maintenance.",
    ),
    Question(
        slug="temperature-over-time",
        asks="How hot was GPU 2 of train-05 in the last minutes?",
        calls=(ask("get_gpu_timeline", node="train-05"), DIAGNOSE),
        facts=("88.0", "Temperature", "CheckCooling", "Overheating"),
        answer="88 degrees Celsius, over its slowdown limit of 87. Check the cooling.",
        difficulty="medium",
    ),
    Question(
        slug="topology",
        asks="How are the GPUs of train-01 connected with each other?",
        calls=(ask("get_nvlink_topology", node="train-01"), DIAGNOSE),
        facts=("NVSwitch", "18", "No finding about links or fabric on train-01"),
        answer="Through NVSwitches, 18 NVLinks each, without any finding.",
        difficulty="medium",
    ),
    Question(
        slug="processes",
        asks="Which processes are on the GPUs of infer-01 right now?",
        calls=(ask(CREATE, node="infer-01", detail="Full", wait_s=60, reason="which processes"),),
        facts=("python3", "team-serve/chat-0", "team-serve/chat-1", "4001"),
        answer="python3 of team-serve/chat-0 (pid 4001) and of team-serve/chat-1 (pid 4002).",
        difficulty="medium",
    ),
    Question(
        slug="still-bad",
        asks="Measure train-03 again: is it still bad?",
        calls=(ask(CREATE, node="train-03", wait_s=60, reason="is it still bad"),),
        facts=("Unhealthy", "1 of 1 node answered", "ECCUncorrectable", "DrainAndResetGPU"),
        answer="Yes, measured now: uncorrectable memory errors. Drain the node and reset the GPU.",
        difficulty="medium",
    ),
    Question(
        slug="my-job",
        asks="Measure the GPUs of our pod pretrain-0 (namespace team-llm) now. Are they fine?",
        calls=(ask(CREATE, pod="pretrain-0", namespace="team-llm", wait_s=60),),
        facts=("Healthy", "0 of 8 GPUs not Healthy", "pod pretrain-0"),
        never=("Unhealthy",),
        answer="Yes: all eight GPUs of the pod are Healthy, measured now.",
        difficulty="medium",
    ),
    Question(
        slug="typo",
        asks="What is wrong with tain-02?",
        calls=(
            Call(tool="get_gpu_health", arguments={"node": "tain-02"}, refused=True),
            Call(tool="get_gpu_health", arguments=nearest),
        ),
        facts=("GPULost", "train-02"),
        answer="There is no tain-02; train-02 has lost GPU 3.",
    ),
    Question(
        slug="preflight",
        asks="Did a preflight of team-llm pass tonight? What did it say, and does its verdict still hold?",
        calls=(
            ask("list_gpu_diagnostics", namespace="team-llm"),
            ask("get_gpu_diagnostic", namespace="team-llm", name="preflight"),
            ask(CREATE, node="train-02", wait_s=60, reason="does the preflight still hold"),
        ),
        facts=("preflight", "2 of 2 nodes answered", "1 of 16 GPUs not Healthy", "GPULost", "1 of 1 node answered"),
        answer="It did not pass: train-02 has a lost GPU, and measured again it still has.",
        difficulty="hard",
    ),
    Question(
        slug="incident",
        asks="Write the ticket for tonight's worst node: since when, whose pods, what to do. Verify it first.",
        calls=(
            ask("get_gpu_health"),
            ask(CREATE, node="train-02", detail="Full", wait_s=60, reason="ticket"),
            ask("get_incident_report", node="train-02"),
        ),
        facts=("1 node affected since", "team-llm", "pretrain-1", "XID 79", "RebootNode", "Drain the node"),
        answer="train-02: GPU 3 lost with XID 79, team-llm/pretrain-1 is affected; drain and reboot.",
        difficulty="hard",
    ),
)
