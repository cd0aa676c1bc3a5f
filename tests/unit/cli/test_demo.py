"""The demo tells the truth, waits with a deadline and a sign of life, and starts again what has ended."""

import io
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpudiag_cli.__main__ import main
from gpudiag_cli.demo import checkout
from gpudiag_cli.demo.look import condition
from gpudiag_cli.demo.narrator import Narrator
from gpudiag_cli.demo.programs import Program
from gpudiag_cli.demo.restart import Keeper
from gpudiag_cli.demo.stage import NODES, Stage
from gpudiag_cli.demo.story import KILLED, SICK, Story
from gpudiag_cli.errors import CommandError


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def paper() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def narrator(paper: io.StringIO, clock: Time) -> Narrator:
    return Narrator(paper, monotonic=clock, sleep=clock.sleep)


class TestNarrator:
    def test_numbers_steps_and_tells_seconds(self, narrator: Narrator, paper: io.StringIO) -> None:
        narrator.step("First")
        narrator.done("something worked", 1.26)
        narrator.step("Second")
        narrator.command("kubectl get gn", "NAME\ngpu-01\n")
        said = paper.getvalue()
        assert "1. First" in said
        assert "2. Second" in said
        assert "✓ something worked" in said
        assert "1.3 s" in said
        assert "   $ kubectl get gn\n   NAME\n   gpu-01\n" in said

    def test_a_short_wait_is_silent(self, narrator: Narrator, paper: io.StringIO, clock: Time) -> None:
        found, seconds = narrator.wait("it", lambda: "here" if clock.now >= 101 else None, within=10)
        assert found == "here"
        assert seconds == pytest.approx(1, abs=0.1)
        assert paper.getvalue() == ""

    def test_a_long_wait_shows_life(self, narrator: Narrator, paper: io.StringIO, clock: Time) -> None:
        narrator.wait("it", lambda: clock.now >= 110 or None, within=20)
        assert paper.getvalue().splitlines() == [
            "   … waiting for it: 2 s, at most 20 s",
            "   … waiting for it: 7 s, at most 20 s",
        ]

    def test_on_a_terminal_the_sign_of_life_is_one_line(self, clock: Time) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        terminal = Terminal()
        narrator = Narrator(terminal, monotonic=clock, sleep=clock.sleep)
        narrator.wait("it", lambda: clock.now >= 110 or None, within=20)
        assert "\n" not in terminal.getvalue()
        assert terminal.getvalue().endswith("\r\x1b[K")

    def test_a_wait_in_vain_says_how_things_stand(self, narrator: Narrator) -> None:
        with pytest.raises(CommandError, match=r"Waited 5 s in vain for rain\. The sky is blue\."):
            narrator.wait("rain", lambda: None, within=5, explain=lambda: "The sky is blue.")


class FakeProgram(Program):
    """A program whose end the test decides."""

    def __init__(self) -> None:
        super().__init__("operator", "nothing", [], Path("operator.log"))
        self.starts = 0
        self.status: int | None = None

    def start(self) -> None:
        self.starts += 1
        self.status = None

    @property
    def ended(self) -> int | None:
        return self.status


class TestKeeper:
    def test_starts_again_ever_less_eagerly(self, clock: Time) -> None:
        program, said = FakeProgram(), list[str]()
        keeper = Keeper([program], say=said.append, monotonic=clock)
        waits = []
        for _ in range(7):
            program.status = 1
            keeper.look()
            before, starts = clock.now, program.starts
            while program.starts == starts:
                clock.now += 0.5
                keeper.look()
            waits.append(clock.now - before)
        assert waits == [1, 2, 4, 8, 16, 30, 30]
        assert said[0] == "operator ended with status 1; it is started again in 1 s. Its log: operator.log"

    def test_forgives_one_that_ran_long(self, clock: Time) -> None:
        program, said = FakeProgram(), list[str]()
        keeper = Keeper([program], say=said.append, monotonic=clock)
        for ran in (1.0, 1.0, 100.0):
            clock.now += ran
            program.status = -9
            keeper.look()
            clock.now += 30
            keeper.look()
        assert [line.split("again in ")[1][:3] for line in said] == ["1 s", "2 s", "1 s"]
        assert "by signal 9" in said[0]

    def test_leaves_alone_what_runs(self, clock: Time) -> None:
        program = FakeProgram()
        Keeper([program], say=print, monotonic=clock).look()
        assert program.starts == 0


class TestProgram:
    @pytest.fixture
    def program(self, tmp_path: Path) -> Iterator[Program]:
        (tmp_path / "patient.py").write_text(
            "import os, time; print('on', os.environ['X'], flush=True); time.sleep(60)"
        )
        program = Program("patient", "patient", [], tmp_path / "log", {"PYTHONPATH": str(tmp_path), "X": "stage"})
        yield program
        program.kill()

    def test_is_started_with_its_environment_and_stopped(self, program: Program) -> None:
        program.start()
        deadline = time.monotonic() + 10
        while "on stage" not in program.log.read_text() and time.monotonic() < deadline:
            assert program.ended is None
        program.stop()
        assert "on stage" in program.log.read_text()
        assert program.ended is None
        program.stop()

    def test_that_ends_by_itself_is_noticed(self, tmp_path: Path) -> None:
        program = Program("gone", "there_is_no_such_module", [], tmp_path / "log")
        program.start()
        assert program.child is not None
        assert program.child.process.wait(10) == 1
        assert program.ended == 1
        assert "No module named" in program.log.read_text()


class Look:
    """What the API server would say."""

    def __init__(self) -> None:
        gpus = [{"index": index, "pci": f"0000:0{index}:00.0", "health": "Healthy"} for index in range(8)]
        self.statuses: dict[str, dict[str, Any]] = {
            name: {
                "health": "Healthy",
                "reason": "AllHealthy",
                "gpus": [dict(gpu) for gpu in gpus],
                "conditions": [{"type": "AgentReachable", "status": "True", "reason": "Reachable"}],
                "breaker": {"state": "Closed"},
            }
            for name in NODES
        }
        self.verdict = "Healthy"
        self.failed = 0

    def node(self, name: str) -> dict[str, Any]:
        return self.statuses.get(name, {})

    def nodes(self) -> dict[str, dict[str, Any]]:
        return self.statuses

    def diagnostic(self, name: str, namespace: str) -> dict[str, Any]:
        assert (name, namespace) == ("fleet", "gpudiag-system")
        nodes = {"targeted": len(NODES), "reporting": len(NODES) - self.failed, "failed": self.failed}
        return {"verdict": self.verdict, "summary": {"nodes": nodes}}


class FakeStage(Stage):
    """A stage on which a fault does what the test says."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory.rmdir()
        self.directory = directory
        self.look = Look()  # type: ignore[assignment]
        self.agents = {KILLED: FakeProgram()}

    def check(self) -> None:
        kernel = self.kmsg(SICK).read_text() if self.kmsg(SICK).exists() else ""
        if "): 79, " in kernel:
            self.fall_off_the_bus()

    def fall_off_the_bus(self) -> None:
        sick = self.look.node(SICK)
        sick.update(health="Unhealthy", reason="GPULost", recommendedAction="RebootNode", xids=[{"code": 79}])
        sick["gpus"][2]["health"] = "Unhealthy"
        self.look.verdict = "Unhealthy"  # type: ignore[attr-defined]

    def kubectl(self, *arguments: str) -> str:
        return f"<{' '.join(arguments)}>"


@pytest.fixture
def stage(tmp_path: Path) -> FakeStage:
    return FakeStage(tmp_path)


@pytest.fixture
def story(stage: FakeStage, narrator: Narrator) -> Story:
    return Story(stage, narrator)


class TestStory:
    def test_shows_an_xid_in_status(self, story: Story, stage: FakeStage, paper: io.StringIO) -> None:
        story.sick_gpu()
        said = paper.getvalue()
        assert stage.kmsg(SICK).read_text() == "NVRM: Xid (PCI:0000:02:00): 79, GPU has fallen off the bus.\n"
        assert f"GPUNode {SICK}: GPULost, RebootNode" in said
        assert "<get gn --field-selector status.health=Unhealthy>" in said

    def test_blame_of_another_gpu_ends_it(
        self, story: Story, stage: FakeStage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stage.look.node(SICK)["gpus"][5]["health"] = "Unhealthy"
        with pytest.raises(CommandError, match=r"not so that no other GPU is blamed: expected \[2\], found \[2, 5\]"):
            story.sick_gpu()

    def test_a_fault_that_does_not_turn_up_ends_it(
        self, story: Story, stage: FakeStage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stage, "fall_off_the_bus", lambda: None)
        with pytest.raises(CommandError, match=rf"in vain for {SICK} to be Unhealthy.*fleet is Healthy.*{NODES[-1]} H"):
            story.sick_gpu()

    def test_shows_a_dead_agent(self, story: Story, stage: FakeStage, paper: io.StringIO) -> None:
        self.kill(stage)
        story.dead_agent()
        said = paper.getvalue()
        assert f"{KILLED} is Unknown: ConnectionRefused" in said
        assert "every other node is still reported" in said

    def test_a_neighbour_that_is_lost_too_ends_it(self, story: Story, stage: FakeStage) -> None:
        self.kill(stage)
        stage.look.node("gpu-05")["conditions"][0]["status"] = "False"
        with pytest.raises(CommandError, match=r"every other node is still read: expected \[\], found \['gpu-05'\]"):
            story.dead_agent()

    def kill(self, stage: FakeStage) -> None:
        stage.fall_off_the_bus()
        stage.look.node(KILLED).update(
            health="Unknown",
            conditions=[{"type": "AgentReachable", "status": "False", "reason": "ConnectionRefused"}],
            breaker={"state": "Open"},
        )
        stage.look.failed = 1  # type: ignore[attr-defined]


def test_a_condition_that_is_not_set_is_empty() -> None:
    assert condition({}, "Ready") == ("", "")


class TestCommand:
    def test_help_teaches(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="0"):
            main(["--help"])
        said = capsys.readouterr().out
        assert "examples:" in said
        assert "exit status:" in said

    def test_help_is_quick(self) -> None:
        def once() -> float:
            started = time.monotonic()
            subprocess.run([sys.executable, "-m", "gpudiag_cli", "--help"], check=True, capture_output=True)
            return time.monotonic() - started

        assert min(once() for _ in range(3)) < 0.5

    def test_lists_machines_and_faults(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["simulate", "--list"]) == 0
        said = capsys.readouterr().out
        assert "h100-8" in said
        assert "xid-79" in said

    def test_mistakes_are_sentences(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        assert main(["simulate", "--scenario", str(tmp_path / "none.yaml")]) == 1
        assert "error: The scenario" in capsys.readouterr().err
        assert main(["simulate", "--kubeconfig", str(tmp_path / "none")]) == 1
        assert "Give one with --kubeconfig" in capsys.readouterr().err

    def test_demo_needs_a_checkout(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(checkout, "FLEET", tmp_path / "fleet.yaml")
        assert main(["demo"]) == 1
        said = capsys.readouterr().err
        assert "run this from a checkout" in said
        assert "logs" not in said

    def test_interrupted_demo_leaves_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stages = list[Stage]()

        def interrupt(self: Story) -> None:
            stages.append(self._stage)
            raise KeyboardInterrupt

        monkeypatch.setattr(Story, "control_plane", interrupt)
        assert main(["demo"]) == 130
        assert main(["up"]) == 0
        assert not [stage for stage in stages if stage.directory.exists()]
