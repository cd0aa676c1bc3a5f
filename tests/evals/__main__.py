"""`python -m tests.evals`: ask the questions, write the pages; `up` leaves the fleet running for a model.

python -m tests.evals             prints the table, writes docs/evals.md and docs/assistants-transcript.md
python -m tests.evals tasks       writes tests/evals/tasks and eval.yaml from the questions
python -m tests.evals up          until Ctrl-C
"""

import asyncio
import contextlib
import signal
import sys
import time

from tests.evals import table, tasks, transcript
from tests.evals.asking import Asked, ask_all, prepared
from tests.evals.stage import CREATING, Stage, StageError

from gpudiag_cli.controlplane import ControlPlaneError


def main() -> int:
    """Run the command; gives its exit status."""
    what = sys.argv[1] if len(sys.argv) > 1 else "ask"
    if what not in ("ask", "tasks", "up"):
        print(__doc__, file=sys.stderr)
        return 2
    if what == "tasks":
        return tasks.write()
    try:
        with prepared() as stage:
            return up(stage) if what == "up" else asking(stage)
    except (ControlPlaneError, StageError) as error:
        print(f"evals: {error}", file=sys.stderr)
        return 1


def asking(stage: Stage) -> int:
    """Ask, print, write."""
    asked = asyncio.run(_ask(stage))
    fresh = table.page(asked)
    print(fresh)
    for one in asked:
        print(f"{'ok ' if not one.problems else 'BAD'} {one.question.slug:<22} {one.seconds * 1000:7.0f} ms")
        for problem in one.problems:
            print(f"      {problem}")
    if any(one.problems for one in asked):
        print("evals: not every question is answered; docs/evals.md stays as it is")
        return 1
    table.PAGE.write_text(fresh, encoding="utf-8")
    transcript.PAGE.write_text(asyncio.run(transcript.recorded(stage)), encoding="utf-8")
    print(f"wrote {table.PAGE.name} and {transcript.PAGE.name}")
    return 0


async def _ask(stage: Stage) -> list[Asked]:
    async with stage.facade(*CREATING) as client:
        return await ask_all(client)


def up(stage: Stage) -> int:
    """Leave it running until interrupted."""
    print(f"export KUBECONFIG={stage.kubeconfig}")
    print("The fleet of the questions is up; Ctrl-C ends it.", file=sys.stderr, flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            stage.plane.check()
            time.sleep(2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
