"""Samples from NVML with a deadline, whatever the driver does.

    answered in time                  the sample
    silent past the deadline          SIGKILL; the child is replaced, with a growing pause between attempts
    not dead 2 s after SIGKILL        it is in state D: abandoned. None is started beside it; its end is the probe

At most one abandoned child exists, and while it does every look answers ``DriverHung`` at once.
"""

import asyncio
import signal
import time
from collections.abc import Callable

import msgspec

from gpudiag_agent.nvml.process import Child, ChildDiedError, NVMLChild, Spawn
from gpudiag_agent.sample import GPUSample, Sample, SourceFault
from gpudiag_api.vocabulary import Capability

_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_START_SECONDS = 15.0
"""A new child imports Python first; on a busy node that takes seconds and says nothing about the driver."""


class NVMLSource:
    """A ``Source`` over a killable child process.

    Args:
        deadline: seconds that one look may take.
        grace: seconds that a killed child may take to die before it is abandoned.
        spawn: starts a child; tests put their own here.
        monotonic: clock of the pauses between attempts, in seconds.
    """

    def __init__(
        self,
        *,
        deadline: float = 5.0,
        grace: float = 2.0,
        spawn: Spawn = NVMLChild.spawn,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deadline = deadline
        self._grace = grace
        self._spawn = spawn
        self._monotonic = monotonic
        self._child: Child | None = None
        self._fresh = True
        self._abandoned: asyncio.Task[int] | None = None
        self._failures = 0
        self._not_before = 0.0
        self._hung = _fault("The driver has not answered yet.")
        self._known: dict[int, GPUSample] = {}
        self._lock = asyncio.Lock()

    @property
    def child_pid(self) -> int | None:
        """Process id of the child that is asked, None while there is none."""
        return None if self._child is None else self._child.pid

    async def sample(self) -> Sample:
        """See ``Source``. One look at a time; a second caller waits for the first."""
        async with self._lock:
            if self._abandoned is not None and not self._abandoned.done():
                return self._hung
            self._abandoned = None
            if self._child is None and self._monotonic() < self._not_before:
                return self._hung
            return self._named(await self._look())

    async def close(self) -> None:
        """See ``Source``."""
        child, self._child = self._child, None
        if child is not None:
            await self._end(child)
        if self._abandoned is not None:
            self._abandoned.cancel()

    async def _look(self) -> Sample:
        child = self._child
        if child is None:
            try:
                child = self._child = await self._spawn()
            except OSError as error:
                return _fault(f"The process that reads NVML could not be started: {error}.")
            self._fresh = True
        limit = max(self._deadline, _START_SECONDS) if self._fresh and self._failures == 0 else self._deadline
        answered = False
        try:
            async with asyncio.timeout(limit):
                sample = await child.sample()
            answered = True
        except TimeoutError:
            return await self._replace(child, f"The driver did not answer within {limit:g} s")
        except ChildDiedError:
            return await self._replace(child, None)
        finally:
            if not answered and self._child is child:
                # Cancelled in the middle: the answer that still comes would be taken for the next one.
                child.kill()
                self._child = None
        self._fresh, self._failures = False, 0
        return sample

    async def _replace(self, child: Child, what: str | None) -> Sample:
        self._child = None
        pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2**self._failures)
        self._failures += 1
        self._not_before = self._monotonic() + pause
        code = await self._end(child)
        if what is None:
            what = f"The NVIDIA library ended the process that reads it ({_ending(code)})"
        stuck = "; the process cannot be killed, it hangs in the kernel" if code is None else ""
        self._hung = _fault(f"{what}{stuck}. Look for NVRM in dmesg, then reboot the node.")
        return self._hung

    async def _end(self, child: Child) -> int | None:
        """Kill; the exit code, or None when the child had to be abandoned."""
        child.kill()
        waiting = asyncio.ensure_future(child.wait())
        done, _ = await asyncio.wait({waiting}, timeout=self._grace)
        if done:
            return waiting.result()
        self._abandoned = waiting
        return None

    def _named(self, sample: Sample) -> Sample:
        """Give a GPU that will not say who it is the identity it had at the same index before."""
        if sample.fault is not None:
            return sample
        present = {gpu.uuid for gpu in sample.gpus}
        gpus = tuple(gpu if gpu.uuid else self._as_known(gpu, present) for gpu in sample.gpus)
        self._known |= {gpu.index: gpu for gpu in gpus if gpu.uuid}
        return msgspec.structs.replace(sample, gpus=gpus)

    def _as_known(self, gpu: GPUSample, present: set[str]) -> GPUSample:
        known = self._known.get(gpu.index)
        if known is None or known.uuid in present:
            return gpu
        return msgspec.structs.replace(gpu, uuid=known.uuid, pci=known.pci, model=known.model, serial=known.serial)


def _fault(message: str) -> Sample:
    return Sample(taken_at=time.time(), fault=SourceFault(Capability.DRIVER_HUNG, message))


def _ending(code: int | None) -> str:
    if code is None:
        return "no exit code"
    if code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"
