"""Samples and reports of the last half hour: what ``GET /v1/timeline`` answers from.

Bounded whatever happens: :data:`SPAN` seconds, :data:`MAX_GPUS` GPUs, :data:`MAX_EVENTS` events. Eight GPUs need well
below 4 MB, also at one sample per second.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator

from gpudiag_agent.recorder.changes import changes
from gpudiag_agent.recorder.ring import Moment, Ring
from gpudiag_agent.sample import Sample
from gpudiag_api import wire
from gpudiag_api.times import from_rfc3339, to_rfc3339
from gpudiag_api.wire import GPUTimeline, Report, TimelineEvent, TimelinePoint

SPAN = 1800.0
"""Seconds that are kept."""
MAX_GPUS = 64
MAX_EVENTS = 256
MAX_POINTS = 360
"""Points of one GPU in an answer: half an hour at a point every 5 s."""


class Recorder:
    """Remembers samples, and what changed between reports.

    Args:
        interval: seconds between samples.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._capacity = math.ceil(SPAN / interval) + 1
        self._rings: dict[str, Ring] = {}
        self._index: dict[str, int] = {}
        self._events: deque[tuple[float, TimelineEvent]] = deque(maxlen=MAX_EVENTS)
        self._last: Report | None = None

    def sampled(self, sample: Sample) -> None:
        """Keep a finished sample, in which every GPU is named; one that failed leaves a hole in the line."""
        for gpu in sample.gpus:
            if gpu.uuid not in self._rings and len(self._rings) >= MAX_GPUS:
                self._forget_one(keep={gpu.uuid for gpu in sample.gpus})
            if gpu.uuid in self._rings or len(self._rings) < MAX_GPUS:
                self._rings.setdefault(gpu.uuid, Ring(self._capacity)).add(sample.taken_at, gpu)
                self._index[gpu.uuid] = gpu.index

    def reported(self, report: Report, now: float) -> None:
        """Keep what changed since the last report; ``now`` in Unix seconds."""
        before, self._last = self._last, report
        for event in changes(before, report, to_rfc3339(now)):
            # What an earlier life of the agent heard, or the log held already, happened when it happened.
            self._events.append((min(now, from_rfc3339(event.at)), event))

    def timeline(
        self, *, node_name: str, now: float, minutes: float = SPAN / 60, gpu: int | None = None, points: int = 60
    ) -> wire.TimelineAnswer:
        """The last minutes, averaged to at most so many points per GPU.

        Args:
            node_name: of this node.
            now: Unix time in seconds.
            minutes: how far back.
            gpu: index of the only GPU to show; None: all.
            points: at most so many per GPU, up to :data:`MAX_POINTS`.
        """
        since = now - min(minutes * 60, SPAN)
        step = max(self._interval, math.ceil((now - since) / points))
        shown = sorted(
            ((self._index[uuid], uuid, ring) for uuid, ring in self._rings.items()), key=lambda entry: entry[:2]
        )
        return wire.TimelineAnswer(
            version=wire.WIRE_VERSION,
            node_name=node_name,
            step_seconds=step,
            gpus=tuple(
                GPUTimeline(gpu_index=index, gpu_uuid=uuid, points=found)
                for index, uuid, ring in shown
                if gpu in {None, index} and (found := tuple(_points(ring.moments(since), step))[-points:])
            ),
            events=tuple(event for at, event in self._events if at > since and gpu in {None, event.gpu_index}),
        )

    @property
    def gpus(self) -> frozenset[int]:
        """Indices of the GPUs of the last half hour."""
        return frozenset(self._index.values())

    def _forget_one(self, keep: Iterable[str]) -> None:
        """Make room: boards were swapped. The GPU that was seen longest ago goes."""
        gone = [uuid for uuid in self._rings if uuid not in set(keep)]
        if gone:
            del self._rings[gone[0]], self._index[gone[0]]


def _points(moments: Iterable[Moment], step: float) -> Iterator[TimelinePoint]:
    """Averages over steps that begin at whole multiples of ``step``, so that a second request gives the same points."""
    bucket: list[Moment] = []
    for moment in moments:
        if bucket and moment.at // step != bucket[0].at // step:
            yield _point(bucket)
            bucket = []
        bucket.append(moment)
    if bucket:
        yield _point(bucket)


def _point(bucket: list[Moment]) -> TimelinePoint:
    memory = _mean([moment.memory_used_bytes for moment in bucket])
    return TimelinePoint(
        at=to_rfc3339(bucket[-1].at),
        temperature_celsius=_mean([moment.temperature_celsius for moment in bucket]),
        power_watts=_mean([moment.power_watts for moment in bucket]),
        utilization_percent=_mean([moment.utilization_percent for moment in bucket]),
        memory_used_bytes=None if memory is None else int(memory),
        sm_clock_mhz=_mean([moment.sm_clock_mhz for moment in bucket]),
        throttled=any(moment.throttled for moment in bucket),
    )


def _mean(values: list[float | None]) -> float | None:
    given = [value for value in values if value is not None]
    return round(sum(given) / len(given), 1) if given else None
