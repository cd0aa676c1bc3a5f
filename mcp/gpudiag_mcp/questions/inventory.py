"""Which GPUs there are."""

from collections.abc import Sequence

from gpudiag_mcp.answers import untrusted
from gpudiag_mcp.answers.models import InventoryAnswer
from gpudiag_mcp.answers.rows import InventoryRow
from gpudiag_mcp.objects.node import GPUNode
from gpudiag_mcp.objects.parts import GPU
from gpudiag_mcp.questions.fleet import EXAMPLES, count_gpus, gib, gpu_row, listed, plural, unread
from gpudiag_mcp.questions.health import NO_NODES
from gpudiag_mcp.questions.pods import holders

GROUPS = 32


def fleet_inventory(nodes: Sequence[GPUNode]) -> InventoryAnswer:
    """``get_gpu_inventory`` without a node: groups of like GPUs, the largest first."""
    groups: dict[tuple[str, str, str, int | None, str], dict[str, int]] = {}
    for node in nodes:
        status = node.status
        for gpu in status.gpus:
            key = (gpu.model, status.driver_version or "", status.cuda_version or "", gpu.memory_bytes, _mig(gpu))
            members = groups.setdefault(key, {})
            members[node.name] = members.get(node.name, 0) + 1
    ordered = sorted(groups.items(), key=lambda item: (-sum(item[1].values()), item[0][0], item[0][1]))
    rows = tuple(
        InventoryRow(
            model=untrusted.model(model) or "(not known)",
            driver=untrusted.name(driver),
            cuda=untrusted.name(cuda),
            memory_gib=gib(memory),
            mig=mig,
            gpus=sum(members.values()),
            node_count=len(members),
            nodes=tuple(sorted(members)[:EXAMPLES]),
        )
        for (model, driver, cuda, memory, mig), members in ordered[:GROUPS]
    )
    gpus = count_gpus(node.status.gpu_counts for node in nodes)
    models = list(dict.fromkeys(row.model for row in rows))
    summary = f"{plural(gpus.total, 'GPU')} in {plural(len(nodes), 'node')}: {listed(models)}."
    return InventoryAnswer(
        summary=summary if nodes else NO_NODES,
        nodes=len(nodes),
        gpus=gpus,
        groups=rows,
        warnings=unread(nodes),
        truncated=len(ordered) > GROUPS,
        narrow="Pass node for the GPUs of one node." if len(ordered) > GROUPS else "",
    )


def node_inventory(node: GPUNode) -> InventoryAnswer:
    """``get_gpu_inventory`` of one node: its GPUs."""
    status = node.status
    held = holders(node)
    one = fleet_inventory([node])
    last = " (as last known: the node could not be read)" if status.health == "Unknown" else ""
    return InventoryAnswer(
        summary=f"{node.name}: {plural(len(status.gpus), 'GPU')}, driver "
        f"{untrusted.name(status.driver_version) or 'not known'}{last}.",
        nodes=1,
        gpus=one.gpus,
        groups=one.groups,
        warnings=one.warnings,
        rows=tuple(gpu_row(gpu, held.get(gpu.uuid, ())) for gpu in status.gpus),
    )


def _mig(gpu: GPU) -> str:
    return {True: "Enabled", False: "Disabled", None: "Unsupported"}[gpu.mig_enabled]
