"""The flags of tokens and TLS to agents, and the parts they make."""

import pytest
from tests.unit.operator.fake_api import FakeAPI

from gpudiag_operator import settings
from gpudiag_operator.agent_tls.keeper import FileTrust, ManagedTrust
from gpudiag_operator.agent_tls.made import CertificateCollector, make_keeper, make_token, make_trust
from gpudiag_operator.collect.routes import DirectRoute, ProxyRoute
from gpudiag_operator.domain import AgentPod
from gpudiag_operator.settings import Settings

POD = AgentPod(name="a", uid="u", node="n", ip="fd00::7", ready=True)


def parse(*arguments: str) -> Settings:
    return settings.parse(arguments, {})


def test_the_bare_command_is_plain_and_shows_nothing() -> None:
    asked = parse()
    assert make_trust(asked) is None
    assert make_keeper(asked, None, api=FakeAPI(), leads=bool) is None  # type: ignore[arg-type]
    assert make_token(asked)() is None
    assert DirectRoute(9810).place(POD).base == "http://[fd00::7]:9810"


def test_the_agents_name_follows_the_namespace_unless_it_is_given() -> None:
    trust = make_trust(parse("--agent-tls", "managed", "--namespace", "ops"))
    assert trust is not None
    assert trust.server_name == "gpudiag-agent.ops.svc"
    assert DirectRoute(9810, trust).place(POD).base == "https://[fd00::7]:9810"
    named = make_trust(parse("--agent-tls", "managed", "--agent-server-name", "Agents.example"))
    assert named is not None
    assert named.server_name == "agents.example"


def test_each_way_has_its_keeper() -> None:
    for flags, kind in (
        (("--agent-tls", "managed"), ManagedTrust),
        (("--agent-tls", "files", "--agent-ca-file", "/ca"), FileTrust),
    ):
        asked = parse(*flags)
        assert isinstance(make_keeper(asked, make_trust(asked), api=FakeAPI(), leads=bool), kind)  # type: ignore[arg-type]


def test_through_the_proxy_the_api_server_is_told_to_speak_tls() -> None:
    class Access:
        host, ssl, server_hostname = "https://api:6443", None, None

    way = "https://api:6443/api/v1/namespaces/ops/pods"
    plain, tls = (ProxyRoute(Access(), namespace="ops", port=9810, tls=tls) for tls in (False, True))  # type: ignore[arg-type]
    assert plain.place(POD).base == f"{way}/a:9810/proxy"
    assert tls.place(POD).base == f"{way}/https:a:9810/proxy"


@pytest.mark.parametrize(("ends_at", "samples"), [(None, []), (5.0, [5.0])])
def test_the_end_of_the_certificate_is_exported_where_it_is_known(ends_at: float | None, samples: list[float]) -> None:
    [family] = CertificateCollector(lambda: ends_at).collect()
    assert [sample.value for sample in family.samples] == samples


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--agent-tls", "on"], "off, managed, files"),
        (["--agent-tls", "files"], "--agent-ca-file need each other"),
        (["--agent-ca-file", "/ca"], "--agent-ca-file need each other"),
        (["--agent-client-cert-dir", "/c"], "needs --agent-tls"),
        (["--agent-token-file", "token"], "an absolute path"),
        (["--agent-cert-lifetime", "1m"], "from 10m"),
        (["--agent-server-name", "a b"], "a DNS name"),
        (["--agent-tls-secret", "Secret"], "the name of an object"),
    ],
)
def test_wrong_usage_says_what_to_write(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(*arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err
