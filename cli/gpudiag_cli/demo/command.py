"""`kubectl-gpudiag demo` shows everything and ends; `kubectl-gpudiag up` leaves it running."""

import contextlib
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

from gpudiag_cli.controlplane import ControlPlaneError
from gpudiag_cli.demo.narrator import Narrator
from gpudiag_cli.demo.restart import Keeper
from gpudiag_cli.demo.stage import Stage
from gpudiag_cli.demo.story import SICK, Story, xid_line
from gpudiag_cli.errors import CommandError

_LOOK_SECONDS = 0.5


def demo() -> int:
    """Show everything; gives the exit status: 0 when all that was shown was so.

    Raises:
        CommandError: something was not so; the message says what, and where the logs are.
    """
    narrator = Narrator()
    narrator.say("gpudiag: GPU diagnostics as Kubernetes resources.")
    narrator.say("This takes about a minute, needs neither a GPU nor a cluster, and leaves nothing behind.")

    def show(stage: Stage) -> None:
        story = Story(stage, narrator)
        story.control_plane()
        story.nodes()
        story.sick_gpu()
        story.dead_agent()
        story.recovery()
        narrator.say(f"All of this was so, and took {narrator.elapsed:.0f} s. To try things yourself: make up")

    _on_stage(show)
    return 0


def up() -> int:
    """Start everything and keep it running until interrupted; gives the exit status.

    Raises:
        CommandError: it does not start, or the control plane ended; the message says where the logs are.
    """
    narrator = Narrator()
    narrator.say("gpudiag: a fleet to play with. It needs neither a GPU nor a cluster; Ctrl-C ends it.")

    def show(stage: Stage) -> None:
        story = Story(stage, narrator)
        story.control_plane()
        story.nodes()
        _invite(stage, narrator)
        keeper = Keeper(stage.programs, say=narrator.note)
        while True:
            stage.plane.check()
            keeper.look()
            time.sleep(_LOOK_SECONDS)

    try:
        _on_stage(show)
    except KeyboardInterrupt:
        narrator.say("\nAll stopped, nothing left behind.")
    return 0


def _invite(stage: Stage, narrator: Narrator) -> None:
    narrator.step("Yours. In another terminal:")
    narrator.gap()
    narrator.say(f"export KUBECONFIG={stage.kubeconfig}")
    if not shutil.which("kubectl"):
        narrator.say(f'export PATH="{stage.plane.kubectl.parent}:$PATH"')
    narrator.gap()
    narrator.say("Three things to try:")
    narrator.gap()
    narrator.note("the fleet, and one line for each node")
    narrator.command("kubectl get gpud,gn")
    narrator.note("a GPU that is too hot, on a simulated node; take the line out of the file again, and it cools down")
    narrator.command(f"echo '  - {{node: gpu-03, fault: hot, gpu: 5}}' >> {stage.scenario}; kubectl get gn --watch")
    narrator.note("a line of the kernel log, on a node with a real agent, and what is made of it")
    narrator.command(f"echo '{xid_line(stage, 79)}' >> {stage.kmsg(SICK)}; sleep 2; kubectl describe gn {SICK}")
    narrator.say(f"Logs are in {stage.directory}. Ctrl-C ends everything.")


def _on_stage(show: Callable[[Stage], None]) -> None:
    """Run with a stage that is torn down whatever happens; keep the logs of a failure."""
    stage = Stage()
    with _signals(signal.SIGTERM, signal.SIGHUP, does=_interrupt):
        try:
            show(stage)
        except (CommandError, ControlPlaneError) as error:
            logs = stage.stop(keep_logs=True)
            where = f"\nThe logs of everything that ran are in {logs}." if logs else ""
            raise CommandError(f"{error}{where}") from None
        finally:
            # A second Ctrl-C must not leave half of it running.
            with _signals(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, does=signal.SIG_IGN):
                stage.stop()


@contextlib.contextmanager
def _signals(*numbers: int, does: Callable[[int, FrameType | None], NoReturn] | signal.Handlers) -> Iterator[None]:
    """Handle signals in one way for a while."""
    before = [signal.signal(number, does) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
