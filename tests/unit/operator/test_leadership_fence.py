"""The fence: no write begins or goes on when this process may not be the leader any more."""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudiag_operator.kube.api import KubeAPI
from gpudiag_operator.kube.errors import ApiUnavailable
from gpudiag_operator.leadership.fence import Fence, FencedAPI, boottime

PATH = "/apis/gpudiag.dev/v1alpha1/gpunodes/n1"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Server:
    """Answers when told to."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.ended: list[str] = []
        self.go = asyncio.Event()
        self.go.set()

    async def _do(self, what: str) -> dict[str, Any]:
        self.began.append(what)
        await self.go.wait()
        self.ended.append(what)
        return {}

    async def get(self, path: str) -> dict[str, Any]:
        return await self._do("get")

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return await self._do("create")

    async def patch(self, path: str, body: Mapping[str, Any], *, resource_version: str | None = None) -> dict[str, Any]:
        return await self._do("patch")

    async def patch_status(
        self, path: str, body: Mapping[str, Any], *, resource_version: str | None = None
    ) -> dict[str, Any]:
        return await self._do("patch_status")

    async def delete(self, path: str, *, uid: str | None = None, resource_version: str | None = None) -> None:
        await self._do("delete")


class Rig:
    def __init__(self) -> None:
        self.clock = Clock()
        self.fence = Fence(self.clock)
        self.server = Server()
        self.written: list[tuple[str, str]] = []
        self.api = FencedAPI(cast("KubeAPI", self.server), lambda *what: self.written.append(what), self.fence)

    def calls(self) -> dict[str, Any]:
        return {
            "create": lambda: self.api.create(PATH, {}),
            "patch": lambda: self.api.patch(PATH, {}),
            "patch_status": lambda: self.api.patch_status(PATH, {}),
            "delete": lambda: self.api.delete(PATH),
        }


@pytest.fixture
async def rig() -> Rig:
    return Rig()


async def test_without_a_lease_nothing_is_written_and_everything_read(rig: Rig) -> None:
    for call in rig.calls().values():
        with pytest.raises(ApiUnavailable, match="held back"):
            await call()
    await rig.api.get(PATH)
    assert rig.server.began == ["get"]


async def test_while_the_lease_is_fresh_all_is_written_and_counted(rig: Rig) -> None:
    rig.fence.extend("lease", 110)
    for call in rig.calls().values():
        await call()
    assert rig.server.ended == list(rig.calls())
    assert rig.written == [("gpunodes", "create"), ("gpunodes", "patch"), ("gpunodes", "patch"), ("gpunodes", "delete")]


async def test_it_closes_by_itself(rig: Rig) -> None:
    rig.fence.extend("lease", 110)
    rig.clock.now = 110
    with pytest.raises(ApiUnavailable, match="held back"):
        await rig.api.patch(PATH, {})
    assert rig.server.began == []


async def test_the_lease_renewed_longest_ago_counts(rig: Rig) -> None:
    rig.fence.extend("shard-0", 110)
    rig.fence.extend("shard-1", 105)
    rig.clock.now = 106
    assert rig.fence.left() == 0
    rig.fence.extend("shard-1", 112)
    assert rig.fence.left() == 4


async def test_a_write_under_way_is_given_up_when_it_closes(rig: Rig) -> None:
    rig.server.go.clear()
    rig.fence.extend("lease", rig.clock.now + 0.05)
    with pytest.raises(ApiUnavailable, match="given up"):
        await rig.api.patch(PATH, {})
    assert (rig.server.ended, rig.written) == ([], [])


async def test_a_renewal_gives_a_write_under_way_more_time(rig: Rig) -> None:
    rig.server.go.clear()
    rig.fence.extend("lease", rig.clock.now + 0.05)
    write = asyncio.create_task(rig.api.patch(PATH, {}))
    await asyncio.sleep(0)
    rig.fence.extend("lease", rig.clock.now + 30)
    asyncio.get_running_loop().call_later(0.1, rig.server.go.set)
    await write
    assert rig.server.ended == ["patch"]


async def test_at_the_end_writes_under_way_may_finish_and_none_begins(rig: Rig) -> None:
    rig.server.go.clear()
    rig.fence.extend("lease", rig.clock.now + 30)
    write = asyncio.create_task(rig.api.patch(PATH, {}))
    await asyncio.sleep(0)
    closing = asyncio.create_task(rig.fence.close(5))
    await asyncio.sleep(0)
    with pytest.raises(ApiUnavailable):
        await rig.api.create(PATH, {})
    rig.fence.extend("lease", rig.clock.now + 60)
    with pytest.raises(ApiUnavailable):
        await rig.api.create(PATH, {})
    rig.server.go.set()
    await closing
    await write
    assert rig.server.ended == ["patch"]


async def test_a_write_that_hangs_does_not_hold_up_the_end(rig: Rig) -> None:
    rig.server.go.clear()
    rig.fence.extend("lease", rig.clock.now + 30)
    write = asyncio.create_task(rig.api.patch(PATH, {}))
    await asyncio.sleep(0)
    await asyncio.wait_for(rig.fence.close(0.01), 5)
    with pytest.raises(ApiUnavailable):
        await write


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 20), st.floats(0, 12)), max_size=30))
def test_it_is_never_open_longer_than_any_lease_allows(steps: list[tuple[str, float, float]]) -> None:
    clock = Clock()
    fence = Fence(clock)
    until: dict[str, float] = {}

    async def extend(lease: str, when: float) -> None:
        fence.extend(lease, when)

    for lease, passes, for_seconds in steps:
        clock.now += passes
        until[lease] = clock.now + for_seconds
        with asyncio.Runner() as runner:
            runner.run(extend(lease, until[lease]))
        assert fence.left() == max(0.0, min(until.values()) - clock.now)


def test_the_clock_counts_on() -> None:
    assert 0 < boottime() <= boottime()
