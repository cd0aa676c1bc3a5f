"""The demo with everything real: control plane, agents over the NVML stand-in, simulator, operator."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpudiag_cli.controlplane import ControlPlaneError
from gpudiag_cli.demo.look import condition
from gpudiag_cli.demo.narrator import Narrator
from gpudiag_cli.demo.restart import Keeper
from gpudiag_cli.demo.stage import NODES, Stage
from gpudiag_cli.demo.story import KILLED, SICK, Story
from gpudiag_cli.errors import CommandError

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """Everything up to the healthy fleet, as `up` leaves it."""
    stage = Stage()
    try:
        story = Story(stage, Narrator(io.StringIO()))
        story.control_plane()
        story.nodes()
        yield stage
    except (CommandError, ControlPlaneError) as error:
        pytest.fail(f"{error}\n{stage.stop(keep_logs=True)}", pytrace=False)
    finally:
        stage.stop()


def until(stage: Stage, what: str, look: object, within: float = 30.0) -> None:
    assert callable(look)
    Narrator(io.StringIO()).wait(what, lambda: look() or None, within=within)


def test_plain_kubectl_answers_in_our_namespace(stage: Stage) -> None:
    assert stage.kubectl("get", "gpud", "--output=name").split() == ["gpudiagnostic.gpudiag.dev/fleet"]
    assert len(stage.kubectl("get", "gn", "--output=name").split()) == len(NODES)


def test_an_xid_is_shown(stage: Stage) -> None:
    paper = io.StringIO()
    Story(stage, Narrator(paper)).sick_gpu()
    assert f"in the status of GPUNode {SICK}: GPULost" in paper.getvalue()


def test_a_line_in_the_scenario_is_a_fault(stage: Stage) -> None:
    with stage.scenario.open("a") as file:
        file.write("  - {node: gpu-04, fault: hot, gpu: 3}\n")
    until(stage, "a hot GPU", lambda: stage.look.node("gpu-04").get("health") == "Degraded")
    assert stage.look.node("gpu-04")["reason"] == "Overheating"


def test_an_operator_that_dies_is_started_again_and_knows_what_it_knew(stage: Stage) -> None:
    said = list[str]()
    keeper = Keeper(stage.programs, say=said.append)
    assert stage.operator.child is not None
    stage.operator.child.process.kill()
    stage.operator.child.process.wait(5)
    # What happens while nobody watches is seen afterwards.
    stage.agents[KILLED].kill()

    def unknown() -> bool:
        keeper.look()
        return condition(stage.look.node(KILLED), "AgentReachable")[0] == "False"

    until(stage, "the operator to notice", unknown, within=60)
    assert "operator ended by signal 9" in said[0]
    assert stage.look.node(SICK)["health"] == "Unhealthy"
    stage.agents[KILLED].start()


def test_a_program_that_ends_ends_the_demo_with_its_log(stage: Stage) -> None:
    assert stage.simulator is not None
    assert stage.simulator.child is not None
    stage.simulator.child.process.send_signal(signal.SIGTERM)
    stage.simulator.child.process.wait(10)
    with pytest.raises(CommandError, match=r"The simulator ended with status 0\. Its log said last:"):
        stage.check()
    stage.simulator.start()
    stage.check()


@pytest.mark.slow
def test_up_runs_until_interrupted_and_leaves_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-u", "-m", "gpudiag_cli", "up"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        said = ""
        deadline = time.monotonic() + 90
        while "Ctrl-C ends everything" not in said:
            line = process.stdout.readline()
            assert line, said
            assert time.monotonic() < deadline, said
            said += line
        process.send_signal(signal.SIGTERM)
        said += process.communicate(timeout=30)[0]
        assert process.returncode == 0, said
    assert f"export KUBECONFIG={tmp_path}" in said
    assert "Three things to try" in said
    assert list(tmp_path.iterdir()) == []
