"""Whatever spec the API server accepts, the operator brings to Ready or says what is wrong; it never falls over it."""

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from tests.cluster.badinput.world import World, t4
from tests.cluster.soak.generated import specs

from gpudiag_cli.errors import CommandError

if TYPE_CHECKING:
    from tests.cluster.badinput.conftest import MakeWorld

pytestmark = pytest.mark.cluster

NAMES = ("gen-1", "gen-2", "gen-3")


def generated(number: int) -> list[dict[str, Any]]:
    """So many specs, the same every time."""
    found: list[dict[str, Any]] = []

    @settings(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(specs())
    def collect(spec: dict[str, Any]) -> None:
        found.append(spec)

    collect()
    return found


def offer(world: World, number: int, spec: dict[str, Any]) -> bool:
    """Whether the API server takes it."""
    body = {
        "apiVersion": "gpudiag.dev/v1alpha1",
        "kind": "GPUDiagnostic",
        "metadata": {"name": f"gen-{number}", "namespace": world.rig.namespace},
        "spec": spec,
    }
    path = f"/apis/gpudiag.dev/v1alpha1/namespaces/{world.rig.namespace}/gpudiagnostics/gen-{number}"
    try:
        world.apply(path, body)
    except CommandError:
        # 400 and 422, and 500 for what server-side apply cannot even merge.
        return False
    return True


def unanswered(world: World) -> dict[str, Any]:
    """Diagnostics whose status does not say where they stand."""
    path = f"/apis/gpudiag.dev/v1alpha1/namespaces/{world.rig.namespace}/gpudiagnostics"
    left = {}
    for item in world.get(path)["items"]:
        status = item.get("status", {})
        conditions = {one["type"]: one for one in status.get("conditions", ())}
        ready, stalled = conditions.get("Ready", {}), conditions.get("Stalled", {})
        # Named nodes that do not exist may still come: not Stalled, but the condition says what to correct.
        nobody = ready.get("reason") == "NoNodeAnswered" and "correct spec.target.nodeNames" in ready["message"]
        says = ready.get("status") == "True" or (stalled.get("status") == "True" and stalled.get("message")) or nobody
        if not says or status.get("observedGeneration") != item["metadata"]["generation"]:
            left[item["metadata"]["name"]] = (item["spec"], status.get("conditions"))
    return left


@pytest.mark.slow
def test_what_the_server_takes_the_operator_answers(make_world: "MakeWorld") -> None:
    number = 2000
    world = make_world(t4(*NAMES))
    try:
        operator = world.start("--max-diagnostics-per-namespace", "1000")
        taken = sum(offer(world, at, spec) for at, spec in enumerate(generated(number)))
        assert taken > number // 20, "the server takes hardly any: nothing is tried"
        world.until(
            lambda: unanswered(world), lambda left: not left, seconds=60, what="every accepted spec has an answer"
        )
        before = operator.metric("gpudiag_operator_writes_total")
        world.rig.steadily(lambda: operator.process.poll() is None, 3)
        assert operator.metric("gpudiag_operator_writes_total") - before <= taken * 2, "a hot loop"
    finally:
        world.close()
