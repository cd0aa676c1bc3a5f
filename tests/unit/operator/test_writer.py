"""The writer of diagnostics' statuses: newest wins, worst first, an outage is waited for, what is gone is dropped."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable

import pytest

from gpudiag_api.kinds import GPUDiagnosticStatus
from gpudiag_operator.diagnostics import writer
from gpudiag_operator.diagnostics.registry import Key
from gpudiag_operator.diagnostics.writer import WORKERS, StatusWriter
from gpudiag_operator.kube.errors import ApiError, ApiUnavailable
from gpudiag_operator.kube.retry import Backoff
from gpudiag_operator.publish.diagnostic import DiagnosticRef


def status(verdict: str, message: str = "") -> GPUDiagnosticStatus:
    return GPUDiagnosticStatus(verdict=verdict, message=message)


class Publisher:
    """Answers by what a test put in ``answers``; else the write is accepted."""

    def __init__(self) -> None:
        self.accepted: list[tuple[str, str]] = []
        self.attempts = 0
        self.answers: list[Exception | bool] = []
        self.gate: asyncio.Event | None = None

    async def publish(
        self, ref: DiagnosticRef, *, previous: GPUDiagnosticStatus | None, status: GPUDiagnosticStatus
    ) -> bool:
        self.attempts += 1
        if self.gate is not None:
            await self.gate.wait()
        answer = self.answers.pop(0) if self.answers else True
        if isinstance(answer, Exception):
            raise answer
        if answer:
            self.accepted.append((ref.name, status.verdict))
        return answer


class Rig:
    def __init__(self) -> None:
        self.publisher = Publisher()
        self.gone: list[tuple[Key, str]] = []
        self.writer = StatusWriter(
            self.publisher,
            gone=lambda key, uid: self.gone.append((key, uid)),
            backoff=Backoff(initial=0.001, cap=0.001, rng=random.Random(1)),
        )

    def submit(self, name: str, verdict: str, *, uid: str = "u") -> None:
        self.writer.submit(Key("ns", name), uid, previous=None, status=status(verdict))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.001)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    task = asyncio.create_task(made.writer.run())
    yield made
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_what_waits_is_replaced_by_the_newest(rig: Rig) -> None:
    rig.publisher.gate = asyncio.Event()
    rig.submit("a", "Healthy")
    await rig.until(lambda: rig.publisher.attempts == 1)
    rig.submit("a", "Degraded")
    rig.submit("a", "Unhealthy")
    assert rig.writer.depth == 1
    rig.publisher.gate.set()
    await rig.until(lambda: rig.writer.depth == 0)
    assert rig.publisher.accepted == [("a", "Healthy"), ("a", "Unhealthy")]


async def test_the_worst_goes_first(rig: Rig) -> None:
    rig.publisher.gate = asyncio.Event()
    for number in range(WORKERS):
        rig.submit(f"busy{number}", "Healthy")
    await rig.until(lambda: rig.publisher.attempts == WORKERS)
    for name, verdict in (("h", "Healthy"), ("u", "Unhealthy"), ("d", "Degraded")):
        rig.submit(name, verdict)
    rig.publisher.gate.set()
    await rig.until(lambda: rig.writer.depth == 0)
    assert [name for name, _ in rig.publisher.accepted if not name.startswith("busy")] == ["u", "d", "h"]


@pytest.mark.parametrize(
    "error", [ApiUnavailable("no answer"), ApiError(429), ApiError(503), ApiError(409, "Conflict"), ApiError(403)]
)
async def test_what_may_pass_is_tried_again_with_the_newest(rig: Rig, error: Exception) -> None:
    rig.publisher.answers = [error, error]
    rig.publisher.gate = asyncio.Event()
    rig.submit("a", "Healthy")
    await rig.until(lambda: rig.publisher.attempts == 1)
    rig.submit("a", "Unhealthy")
    rig.publisher.gate.set()
    await rig.until(lambda: rig.writer.depth == 0)
    assert rig.publisher.accepted == [("a", "Unhealthy")]


async def test_an_object_that_is_gone_is_told_and_dropped(rig: Rig) -> None:
    rig.publisher.answers = [False]
    rig.submit("a", "Healthy", uid="u1")
    await rig.until(lambda: rig.writer.depth == 0)
    assert rig.gone == [(Key("ns", "a"), "u1")]


async def test_a_status_that_is_refused_is_an_error_and_tried_again_later(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody's webhook may be away, or the CRD older than the operator."""
    monkeypatch.setattr(writer, "REFUSED_SECONDS", 0.01)
    rig.publisher.answers = [ApiError(422, "Invalid", "status.nodes: too long")]
    rig.submit("a", "Healthy")
    await rig.until(lambda: rig.writer.depth == 0)
    assert "too long" in caplog.text
    assert (rig.publisher.attempts, rig.publisher.accepted) == (2, [("a", "Healthy")])


async def test_forgotten_is_not_written(rig: Rig) -> None:
    rig.publisher.gate = asyncio.Event()
    rig.submit("a", "Healthy")
    await rig.until(lambda: rig.publisher.attempts == 1)
    rig.submit("a", "Unhealthy")
    rig.writer.forget(Key("ns", "a"))
    rig.publisher.gate.set()
    await rig.until(lambda: rig.writer.depth == 0)
    assert rig.publisher.accepted == [("a", "Healthy")]
