"""The fleet that the questions are about: fourteen nodes in the state in which on-call engineers find them."""

import time
from typing import Any

import msgspec
from tests.evals.agents import STORY_SECONDS, Edit, Prepared, held

from gpudiag_api import wire
from gpudiag_api.times import to_rfc3339
from gpudiag_api.vocabulary import Action, Blame, Check, Health, Severity
from gpudiag_cli.simulator.faults import Fault

SYSTEM = "gpudiag-system"
NAMESPACES = ("team-llm", "team-vision", "team-serve")
OLD_DRIVER = "535.247.01"
ALL = range(8)


def old_driver(report: wire.Report) -> wire.Report:
    """A node that was left out of the last update."""
    return msgspec.structs.replace(report, driver=wire.Driver(version=OLD_DRIVER, cuda_version="12.2"))


def links_down(gpu: int) -> Edit:
    """Two NVLinks of a GPU went down, as the agent's check says it."""

    def edit(report: wire.Report) -> wire.Report:
        sick = report.gpus[gpu]
        seen = to_rfc3339(time.time() - STORY_SECONDS)
        finding = wire.Finding(
            check=Check.NVLINK,
            reason="LinkDown",
            severity=Severity.CRITICAL,
            blame=Blame.HARDWARE,
            action=Action.DRAIN_AND_RESET_GPU,
            message=f"GPU {gpu}: NVLinks 4, 7 are down and had been up. Jobs over several GPUs fail or crawl.",
            subject=wire.Subject(gpu_index=gpu, gpu_uuid=sick.uuid, pci=sick.pci),
            evidence=(wire.Evidence(name="linksDown", value="4, 7"),),
            first_seen=seen,
            last_seen=seen,
        )
        gpus = tuple(
            msgspec.structs.replace(one, health=Health.UNHEALTHY) if one is sick else one for one in report.gpus
        )
        return msgspec.structs.replace(report, health=Health.UNHEALTHY, gpus=gpus, findings=(*report.findings, finding))

    return edit


NODES = (
    Prepared(name="train-01", edits=(held("team-llm/pretrain-0", *ALL),)),
    Prepared(
        name="train-02", faults=((Fault.XID_79, 3),), edits=(held("team-llm/pretrain-1", *ALL),)
    ),  # GPU 3 fell off the bus, under a job
    Prepared(name="train-03", faults=((Fault.ECC, 5),), edits=(held("team-vision/finetune-7", 4, 5),)),
    Prepared(name="train-04", faults=((Fault.XID_31, 1),), edits=(held("team-vision/debug-2", 1),)),
    Prepared(name="train-05", faults=((Fault.HOT, 2),)),
    Prepared(name="train-06", faults=((Fault.ROW_REMAP_PENDING, 6),)),
    Prepared(name="train-07", faults=((Fault.REFUSE, 0),)),  # no agent answers
    Prepared(name="train-08", faults=((Fault.DRIVER_HUNG, 0),)),
    Prepared(name="train-09", faults=((Fault.THROTTLED, 0),)),  # under maintenance
    Prepared(name="train-10"),  # its kubelet is silent
    Prepared(name="train-11", edits=(links_down(2),)),
    Prepared(name="infer-01", machine="l40s-4", edits=(held("team-serve/chat-0", 0), held("team-serve/chat-1", 1))),
    Prepared(name="infer-02", machine="a100-8-mig"),
    Prepared(name="infer-03", machine="t4-1", edits=(old_driver,)),
)
NOT_READY = frozenset({"train-10"})
SETTLED = {
    "train-01": "Healthy",
    "train-02": "Unhealthy",
    "train-03": "Unhealthy",
    "train-04": "Healthy",
    "train-05": "Degraded",
    "train-06": "Degraded",
    "train-07": "Unknown",
    "train-08": "Unknown",
    "train-09": "Degraded",
    "train-10": "Unknown",
    "train-11": "Unhealthy",
    "infer-01": "Healthy",
    "infer-02": "Healthy",
    "infer-03": "Healthy",
}
"""What the operator makes of them, once it has read them all."""


def diagnostics() -> list[dict[str, Any]]:
    """What people had asked before the night began."""
    return [
        _diagnostic("fleet", SYSTEM, {}),
        _diagnostic("pool", "team-vision", {"target": {"nodeNames": ["train-03", "train-04"]}}),
        _diagnostic("preflight", "team-llm", {"mode": "Once", "target": {"nodeNames": ["train-01", "train-02"]}}),
    ]


def maintenance() -> dict[str, Any]:
    """Somebody works on train-09."""
    return {
        "apiVersion": "gpudiag.dev/v1alpha1",
        "kind": "GPUNode",
        "metadata": {"name": "train-09"},
        "spec": {"maintenance": {"reason": "new power supply", "until": "2035-01-01T00:00:00Z"}},
    }


def _diagnostic(name: str, namespace: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "gpudiag.dev/v1alpha1",
        "kind": "GPUDiagnostic",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
