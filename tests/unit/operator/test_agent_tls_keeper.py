"""The Secret of the agents' certificate: who writes it, who only reads it, and what goes wrong."""

import base64
import logging
from pathlib import Path
from typing import Any

import pytest
from tests.unit.operator.fake_api import FakeAPI

from gpudiag_operator.agent_tls import keeper as keeping
from gpudiag_operator.agent_tls import pairs
from gpudiag_operator.agent_tls.keeper import FileTrust, ManagedTrust, keep
from gpudiag_operator.agent_tls.trust import AgentTrust, Secret, TokenFile
from gpudiag_operator.kube.errors import ApiError, ApiUnavailable

NAME = "gpudiag-agent.ops.svc"
SECRET = Secret("ops", "gpudiag-agent-tls")
NOW = 1_800_000_000.0
DAY = 86_400.0


class Replica:
    """One operator."""

    def __init__(self, api: FakeAPI, *, leads: bool = True) -> None:
        self.leads, self.now = leads, NOW
        self.trust = AgentTrust(NAME)
        self.keeper = ManagedTrust(
            api,  # type: ignore[arg-type]
            secret=SECRET,
            trust=self.trust,
            lifetime=90 * DAY,
            leads=lambda: self.leads,
            now=lambda: self.now,
        )


@pytest.fixture
def api() -> FakeAPI:
    """With the empty Secret that the manifests bring."""
    made = FakeAPI()
    made.put(SECRET.path, {"metadata": {"name": SECRET.name}, "type": "Opaque"})
    return made


def data(api: FakeAPI) -> dict[str, Any]:
    found: dict[str, Any] = api.objects[SECRET.path].get("data", {})
    return found


async def test_the_leader_fills_the_secret_and_everybody_believes_it(api: FakeAPI) -> None:
    leader, other = Replica(api), Replica(api, leads=False)
    await other.keeper.look()
    assert (other.trust.context, api.calls) == (None, [])
    assert "holds no certificate yet" in other.trust.problem
    await leader.keeper.look()
    await other.keeper.look()
    assert leader.trust.context is not None
    assert other.trust.context is not None
    assert api.calls == [("patch", SECRET.path)]
    assert leader.keeper.ends_at == pytest.approx(NOW + 90 * DAY, abs=1)


async def test_in_peace_nothing_is_written_and_the_context_stays(api: FakeAPI) -> None:
    leader = Replica(api)
    await leader.keeper.look()
    context = leader.trust.context
    for _ in range(10):
        leader.now += 30
        await leader.keeper.look()
    assert len(api.calls) == 1
    assert leader.trust.context is context, "kept connections belong to it"


async def test_a_new_leader_goes_on_where_the_old_one_stopped(api: FakeAPI) -> None:
    first = Replica(api)
    await first.keeper.look()
    first.now += 61 * DAY
    await first.keeper.look()
    assert {"next.crt", "next.key"} <= data(api).keys()
    second = Replica(api)
    second.now = first.now + 600
    await second.keeper.look()
    assert "next.crt" not in data(api)
    assert len(api.calls) == 3


async def test_of_two_leaders_for_a_moment_one_wins_and_both_believe_the_same(api: FakeAPI) -> None:
    one, two = Replica(api), Replica(api)
    behind = await api.get(SECRET.path)
    await one.keeper.look()
    real = api.get
    api.get = lambda path: _once(api, real, behind)  # type: ignore[method-assign]
    await two.keeper.look()
    assert len(api.calls) == 1, "the second patch was of an older state"
    assert two.trust.context is not None


async def _once(api: FakeAPI, real: Any, behind: dict[str, Any]) -> dict[str, Any]:
    api.get = real  # type: ignore[method-assign]
    return behind


async def test_a_secret_that_is_missing_is_made_where_that_is_allowed() -> None:
    api = FakeAPI()
    await Replica(api).keeper.look()
    assert api.calls == [("create", SECRET.path), ("patch", SECRET.path)]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (ApiError(403, "Forbidden", "no"), "grant get and patch on it"),
        (ApiUnavailable("no route"), "cannot be read: no route"),
        (ApiError(500, "InternalError", "etcd"), "cannot be used"),
    ],
)
async def test_what_goes_wrong_is_said_once_and_what_is_believed_stays(
    api: FakeAPI, fault: ApiError | ApiUnavailable, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    replica = Replica(api)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            api.faults.append(fault)
            await replica.keeper.look()
    assert caplog.text.count(words) == 1
    assert words in replica.trust.problem
    await replica.keeper.look()
    context = replica.trust.context
    assert context is not None
    api.faults.append(fault)
    await replica.keeper.look()
    assert replica.trust.context is context


async def test_a_standby_without_a_secret_says_what_to_do() -> None:
    replica = Replica(FakeAPI(), leads=False)
    await replica.keeper.look()
    assert "apply the manifests" in replica.trust.problem


@pytest.mark.parametrize("value", ["%%%", 7, None])
async def test_data_that_is_no_base64_is_as_good_as_none(api: FakeAPI, value: Any) -> None:
    api.put(SECRET.path, {"metadata": {"name": SECRET.name}, "data": {"tls.crt": value, "ca.crt": value}})
    leader = Replica(api)
    await leader.keeper.look()
    assert leader.trust.context is not None
    base64.b64decode(data(api)["tls.crt"], validate=True)


async def test_it_looks_more_often_as_long_as_nobody_is_believed(api: FakeAPI) -> None:
    replica, slept = Replica(api), list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise StopAsyncIteration

    api.faults.append(ApiUnavailable("not yet"))
    with pytest.raises(StopAsyncIteration):
        await keep(replica.keeper, sleep=sleep)
    assert slept == [keeping.SOON_SECONDS, keeping.SOON_SECONDS, keeping.LOOK_SECONDS]


class TestFiles:
    """Authorities, certificates and tokens that somebody else renews."""

    async def test_a_bundle_is_read_again_when_it_changes(self, tmp_path: Path) -> None:
        trust, path = AgentTrust(NAME), tmp_path / "ca.crt"
        reader = FileTrust(path, trust)
        await reader.look()
        assert "--agent-ca-file" in trust.problem
        path.write_bytes(pairs.issue(NAME, now=NOW, lifetime=DAY).authority)
        await reader.look()
        first = trust.context
        assert first is not None
        await reader.look()
        assert trust.context is first
        path.write_bytes(pairs.issue(NAME, now=NOW, lifetime=DAY).authority)
        await reader.look()
        assert trust.context is not first

    @pytest.mark.parametrize(
        "content", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
    )
    async def test_a_bundle_that_is_none_changes_nothing(self, tmp_path: Path, content: bytes) -> None:
        trust, path = AgentTrust(NAME), tmp_path / "ca.crt"
        reader = FileTrust(path, trust)
        path.write_bytes(pairs.issue(NAME, now=NOW, lifetime=DAY).authority)
        await reader.look()
        good = trust.context
        path.write_bytes(content)
        await reader.look()
        assert trust.context is good
        assert "cannot be used" in trust.problem

    def test_a_token_is_read_again_when_the_file_is_another(self, tmp_path: Path) -> None:
        path = tmp_path / "token"
        path.write_text("one\n")
        token = TokenFile(path)
        assert token() == "one"
        (tmp_path / "new").write_text("two")
        (tmp_path / "new").rename(path)
        assert token() == "two"

    @pytest.mark.parametrize("content", [None, "", " \n", "a\nb"])
    def test_a_file_without_a_token_is_said(self, tmp_path: Path, content: str | None) -> None:
        if content is not None:
            (tmp_path / "token").write_text(content)
        with pytest.raises(OSError):  # noqa: PT011  (what it says is the system's)
            TokenFile(tmp_path / "token")()
