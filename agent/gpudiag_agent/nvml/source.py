"""Samples from NVML with a deadline, whatever the driver does.

    answered in time                  the sample
    silent past the deadline          SIGKILL; the child is replaced, with a growing pause between attempts
    not dead 2 s after SIGKILL        it is in state D: abandoned. None is started beside it; its end is the probe
    a fault of the driver or library  the child is let go: the next look loads the library afresh, because a process
                                      keeps the library it has loaded, and the folders it found missing

At most one child that is not dead exists besides none, also when a look is cancelled: the next look waits for the end
of the last child first.

Words: ``DriverHung`` when a call does not return, or the library crashes the child. ``PermissionDenied``, the word for
what the node does to the agent, when the child could not be started, was killed by somebody else, or failed by itself.
"""

import asyncio
import time
from collections.abc import Callable

import msgspec

from gpudiag_agent.nvml import verdicts
from gpudiag_agent.nvml.lasting import Lasting
from gpudiag_agent.nvml.process import Child, ChildDiedError, NVMLChild, Spawn
from gpudiag_agent.sample import GPUSample, Sample, SourceFault
from gpudiag_api.vocabulary import Capability

_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_FULL_FACTOR = 2
"""A full look reads flash memory, and the first may have to wake the GPUs; a hang is still told in three deadlines."""
_FAREWELL_SECONDS = 0.5
"""A child that is not in a call ends within milliseconds of being let go."""


class NVMLSource:
    """A ``Source`` over a killable child process.

    Args:
        deadline: seconds that one look may take; a full one (``lasting``) twice that.
        start_deadline: seconds that a new child may take to start Python, which says nothing about the driver.
        grace: seconds that a killed child may take to die before it is abandoned.
        spawn: starts a child; tests put their own here.
        monotonic: clock of the pauses between attempts, in seconds.
    """

    def __init__(
        self,
        *,
        deadline: float = 5.0,
        start_deadline: float = 15.0,
        grace: float = 2.0,
        spawn: Spawn = NVMLChild.spawn,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deadline = deadline
        self._start_deadline = start_deadline
        self._grace = grace
        self._spawn = spawn
        self._monotonic = monotonic
        self._child: Child | None = None
        self._dying: asyncio.Task[int] | None = None
        self._abandon_at = 0.0
        self._failures = 0
        self._not_before = float("-inf")
        self._fault = verdicts.silent(deadline)
        self._known: dict[int, GPUSample] = {}
        self._lasting = Lasting(monotonic)
        self._lock = asyncio.Lock()
        self._closed = False

    @property
    def child_pid(self) -> int | None:
        """Process id of the child that is asked, None while there is none."""
        return None if self._child is None else self._child.pid

    @property
    def abandoned(self) -> bool:
        """Whether a child that SIGKILL does not end is being waited for."""
        return self._dying is not None and not self._dying.done() and self._seconds_to_die() <= 0

    async def sample(self) -> Sample:
        """See ``Source``. One look at a time; a second caller waits for the first."""
        async with self._lock:
            if self._closed:
                return _faulty(verdicts.CLOSED)
            if not await self._is_dead():
                return _faulty(self._fault)
            if self._child is not None and self._child.ended:
                # Between two looks, so not in a call: somebody ended it, and nothing is to be learnt from that.
                self._child.release()
                self._child = None
            if self._child is None and self._monotonic() < self._not_before:
                return _faulty(self._fault)
            full = self._lasting.due
            return self._lasting.complete(self._named(await self._look(full=full)), full=full)

    async def close(self) -> None:
        """See ``Source``. A look that is under way is ended; an unkillable child costs ``grace``, then is left."""
        self._closed = True
        if self._child is not None and self._lock.locked():
            self._condemn(self._child)
        async with self._lock:
            child, self._child = self._child, None
            if child is not None and await self._leaves(child) is None:
                await self._end(child)
            await self._is_dead()
        if self._dying is not None:
            self._dying.cancel()

    async def _look(self, *, full: bool) -> Sample:
        answered = False
        deadline = self._deadline * (_FULL_FACTOR if full else 1)
        try:
            child = await self._ready_child()
            async with asyncio.timeout(deadline):
                sample = await child.sample(full=full)
            answered = True
        except _NotStartedError:
            return await self._replace(verdicts.slow_start(self._start_deadline))
        except TimeoutError:
            return await self._replace(verdicts.silent(deadline))
        except ChildDiedError as error:
            return await self._mourn(str(error))
        except OSError as error:
            return self._failed(verdicts.not_started(error))
        finally:
            if not answered and self._child is not None:
                # Cancelled in the middle: the answer that still comes would be taken for the next one.
                self._condemn(self._child)
                self._fault = verdicts.silent(deadline)
        self._failures = 0
        if sample.fault is not None and sample.fault.reason is not Capability.NO_GPUS:
            self._child = None
            if await self._leaves(child) is None:
                await self._end(child)
        return sample

    async def _ready_child(self) -> Child:
        if self._child is None:
            self._child = child = await self._spawn()
            if self._closed:
                raise ChildDiedError("closed meanwhile")
            try:
                async with asyncio.timeout(self._start_deadline):
                    await child.ready()
            except TimeoutError:
                raise _NotStartedError from None
        return self._child

    async def _mourn(self, said: str) -> Sample:
        """Why a child ended before it answered: its exit code tells, so it is not killed meanwhile."""
        child = self._child
        code = None if child is None else await self._leaves(child)
        if code is None:
            return await self._replace(verdicts.nonsense(said))
        self._child = None
        return self._failed(verdicts.ended(code, said))

    async def _replace(self, fault: SourceFault) -> Sample:
        """End the child, which did not answer as it should."""
        dead = self._child is None or await self._end(self._child)
        if self._closed:
            return _faulty(verdicts.CLOSED)
        return self._failed(fault if dead else verdicts.stuck(fault))

    def _failed(self, fault: SourceFault) -> Sample:
        pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** min(self._failures, 10))
        self._failures += 1
        self._not_before = self._monotonic() + pause
        self._fault = fault
        return _faulty(fault)

    async def _end(self, child: Child) -> bool:
        """Kill; whether it is dead, or had to be abandoned."""
        self._condemn(child)
        return await self._is_dead()

    async def _leaves(self, child: Child) -> int | None:
        """Let a child end by itself; its exit code, or None when it does not."""
        child.release()
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                return await child.wait()
        except TimeoutError:
            return None
        except asyncio.CancelledError:
            self._condemn(child)
            raise

    def _condemn(self, child: Child) -> None:
        """Kill without waiting: from here on the child counts as dying, whoever is cancelled."""
        # Let go as well: one that could not be killed then ends by itself when the driver lets go of it.
        child.release()
        child.kill()
        if self._child is child:
            self._child = None
        if self._dying is None:
            self._dying = asyncio.create_task(child.wait(), name="end of the NVML child")
            self._abandon_at = asyncio.get_running_loop().time() + self._grace

    async def _is_dead(self) -> bool:
        """Whether no killed child is left; waits until the grace of one that is has passed."""
        dying = self._dying
        if dying is not None and not dying.done():
            await asyncio.wait({dying}, timeout=max(0.0, self._seconds_to_die()))
        if dying is None or dying.done():
            self._dying = None
            return True
        self._fault = verdicts.stuck(self._fault)
        return False

    def _seconds_to_die(self) -> float:
        return self._abandon_at - asyncio.get_running_loop().time()

    def _named(self, sample: Sample) -> Sample:
        """Give a GPU that will not say who it is the identity it had at the same index before."""
        if sample.fault is not None:
            return sample
        present = {gpu.uuid for gpu in sample.gpus}
        gpus = tuple(self._as_known(gpu, present) for gpu in sample.gpus)
        self._known |= {gpu.index: gpu for gpu in gpus if gpu.uuid}
        return msgspec.structs.replace(sample, gpus=gpus)

    def _as_known(self, gpu: GPUSample, present: set[str]) -> GPUSample:
        known = self._known.get(gpu.index)
        if not gpu.errors or known is None:
            return gpu
        if gpu.uuid != known.uuid and (gpu.uuid or known.uuid in present):
            return gpu
        return msgspec.structs.replace(
            gpu,
            uuid=known.uuid,
            pci=gpu.pci or known.pci,
            model=gpu.model or known.model,
            serial=gpu.serial or known.serial,
        )


class _NotStartedError(Exception):
    """A new child did not greet in time."""


def _faulty(fault: SourceFault) -> Sample:
    return Sample(taken_at=time.time(), fault=fault)
