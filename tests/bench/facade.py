"""The facade over 1,000 nodes: every fleet question, from the cached objects to the finished result.

A fifth of the nodes is not Healthy, each with findings, XID errors and pods on all GPUs: the answers are at their
largest. Measured is what a call costs beyond the protocol (the SDK's own 0.6 to 3 ms per call are not in it).
"""

import asyncio
import random
import time
from typing import Any

from tests.bench.context import Context
from tests.bench.facade_wire import through_the_protocol
from tests.bench.result import Result, spread
from tests.unit.mcp.world import FakeAPI, allocation, diagnostic, finding, node, service, xid

from gpudiag_mcp.answers.fit import LIMIT
from gpudiag_mcp.server.dispatch import Dispatcher
from gpudiag_mcp.server.tools import READ_ONLY

NODES, GPUS, ROUNDS = 1000, 8, 25
TARGET_MS = 30.0
HIT_MS = 1.0


def run(context: Context) -> list[Result]:
    """Measure."""
    count = 50 if context.quick else NODES
    return asyncio.run(_measure(count)) + asyncio.run(through_the_protocol(_fleet(count), [diagnostic()]))


async def _measure(count: int) -> list[Result]:
    one = service(FakeAPI(*_fleet(count), diagnostic()))
    dispatcher = Dispatcher(one)
    results: list[Result] = []
    async with one.running():
        began = time.perf_counter()
        await one.caches.use("")
        fill = (time.perf_counter() - began) * 1000
        for spec in READ_ONLY:
            if spec.name in ("get_gpu_diagnostic", "wait_for_gpu_diagnostic"):
                continue  # not about the fleet
            times, size = [], 0
            for _ in range(ROUNDS):
                began = time.perf_counter()
                fitted = await dispatcher.fitted(spec, {}, ctx=None)
                times.append((time.perf_counter() - began) * 1000)
                size = fitted.size
            results += [
                Result(
                    name=f"facade, {count} nodes, {spec.name}, median",
                    measured=spread(times)["median"],
                    unit="ms",
                    target=TARGET_MS,
                    details={"ms": spread(times), "bytes": size},
                ),
                Result(
                    name=f"facade, {count} nodes, {spec.name}, size",
                    measured=size / 1024,
                    unit="KiB",
                    target=LIMIT / 1024,
                    gates=True,
                ),
            ]
        hits = []
        for _ in range(1000):
            began = time.perf_counter()
            await one.caches.use("")
            hits.append((time.perf_counter() - began) * 1000)
    results.append(
        Result(
            name="facade, cache hit, p99", measured=spread(hits)["p99"], unit="ms", target=HIT_MS, details=spread(hits)
        )
    )
    results.append(Result(name=f"facade, filling the cache with {count} nodes", measured=fill, unit="ms"))
    return results


def _fleet(count: int) -> list[dict[str, Any]]:
    rng = random.Random(7)
    return [
        _node(at, rng.choices(("Healthy", "Degraded", "Unhealthy", "Unknown"), (80, 8, 8, 4))[0]) for at in range(count)
    ]


def _node(at: int, health: str) -> dict[str, Any]:
    name = f"gpu-node-{at:04d}.eu-west-1.compute.internal"
    team = f"team-{at % 40}"
    status: dict[str, Any] = {"allocations": [allocation(name, gpu, f"train-{at}-{gpu}", team) for gpu in range(GPUS)]}
    if health != "Healthy":
        status |= {
            "reason": "VolatileUncorrectableErrors",
            "recommendedAction": "DrainAndResetGPU",
            "findings": [finding(subject={"gpu": gpu}) for gpu in range(3)],
            "xids": [
                xid(pod=f"{team}/train-{at}-0"),
                xid(31, severity="Info", blame="Application", recommendedAction="CheckApplication"),
            ],
        }
    return node(name, health=health, gpus=GPUS, **status)
