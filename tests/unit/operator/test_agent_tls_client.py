"""Calls to agents over real TLS: whom the operator believes, and the word for everybody else."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.unit.agent.client_certificate import made_for_clients
from tests.unit.agent.tls_world import DAY, NAME, pair
from tests.unit.operator.test_agent_client import GOOD, REPORT, SETTINGS, answer, fetch, says
from tests.unit.operator.test_agent_client import Agent as Behaving

from gpudiag_api.vocabulary import NotRead
from gpudiag_operator.agent_tls.pairs import Pair
from gpudiag_operator.agent_tls.trust import AgentTrust
from gpudiag_operator.collect.agent_client import AgentClient
from gpudiag_operator.collect.outcome import FetchError
from gpudiag_operator.collect.routes import DirectRoute
from gpudiag_operator.domain import AgentPod


@asynccontextmanager
async def tls_agent(
    folder: Path, made: Pair, *, clients: bytes | None = None
) -> AsyncIterator[tuple[Behaving, AgentPod]]:
    (folder / "crt").write_bytes(made.certificate)
    (folder / "key").write_bytes(made.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "crt", folder / "key")
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=clients.decode())
    async with listening(context) as found:
        yield found


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]


@asynccontextmanager
async def listening(
    context: ssl.SSLContext | None, serve: Serve | None = None
) -> AsyncIterator[tuple[Behaving, AgentPod]]:
    server, tasks = Behaving(says(answer(GOOD))), set[asyncio.Task[None]]()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task((serve or server.serve)(reader, writer)))

    opened = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    server.port = opened.sockets[0].getsockname()[1]
    try:
        yield server, AgentPod(name="a", uid="u", node="n1", ip="127.0.0.1", ready=True, port=server.port)
    finally:
        opened.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def operator(trust: AgentTrust | None) -> AsyncIterator[AgentClient]:
    made = AgentClient(SETTINGS, route=DirectRoute(9810, trust), token=lambda: "secret")
    try:
        yield made
    finally:
        await made.close()


def believing(*made: Pair, client: Path | None = None) -> AgentTrust:
    trust = AgentTrust(NAME, client=client)
    trust.believe(b"".join(one.authority for one in made))
    assert trust.context is not None
    return trust


async def refusal(client: AgentClient, pod: AgentPod) -> FetchError:
    with pytest.raises(FetchError) as caught:
        await fetch(client, pod, seconds=2)
    assert caught.value.ignored, "the breaker shall not count it"
    return caught.value


async def test_an_agent_of_the_services_name_is_believed_whatever_its_address(tmp_path: Path) -> None:
    made = pair()
    async with tls_agent(tmp_path, made) as (server, pod), operator(believing(made)) as client:
        assert (await fetch(client, pod, seconds=2)).report == REPORT
        assert (await fetch(client, pod, seconds=2)).report == REPORT
        assert server.connections == 1, "kept"
        assert server.header("Authorization") == "Bearer secret"


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (pair(made=-3 * DAY), "has expired"),
        (pair(made=3 * DAY), "is not valid yet"),
        (pair("gpudiag-agent.elsewhere.svc"), "is for another name"),
    ],
)
async def test_a_certificate_that_does_not_hold_is_said_and_gets_no_token(
    tmp_path: Path, made: Pair, words: str
) -> None:
    async with tls_agent(tmp_path, made) as (server, pod), operator(believing(made)) as client:
        error = await refusal(client, pod)
        assert error.reason is NotRead.IDENTITY_MISMATCH
        assert words in error.message
        assert not server.requests


async def test_one_that_nobody_vouches_for_is_said(tmp_path: Path) -> None:
    async with tls_agent(tmp_path, pair()) as (server, pod), operator(believing(pair())) as client:
        error = await refusal(client, pod)
        assert error.reason is NotRead.IDENTITY_MISMATCH
        assert "no authority that the operator knows" in error.message
        assert not server.requests


async def test_an_agent_that_speaks_plain_http_gets_no_token_and_is_said() -> None:
    async with listening(None) as (server, pod), operator(believing(pair())) as client:
        server.behave = says(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        error = await refusal_or_cut(client, pod)
        assert error.reason in {NotRead.BAD_RESPONSE, NotRead.TIMEOUT}
        assert not any("secret" in request for request in server.requests)


async def refusal_or_cut(client: AgentClient, pod: AgentPod) -> FetchError:
    with pytest.raises(FetchError) as caught:
        await fetch(client, pod, seconds=2)
    return caught.value


async def test_the_banner_of_a_plain_server_is_told_from_tls() -> None:
    async def banner(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        writer.close()

    async with listening(None, banner) as (_, pod), operator(believing(pair())) as client:
        error = await refusal(client, pod)
    assert (error.reason, "does not speak TLS" in error.message) == (NotRead.BAD_RESPONSE, True)
    assert "--tls-cert-dir" in error.message


async def test_a_handshake_that_does_not_end_is_a_timeout_and_counts() -> None:
    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            writer.close()

    async with listening(None, silent) as (_, pod), operator(believing(pair())) as client:
        began = time.monotonic()
        with pytest.raises(FetchError) as caught:
            await fetch(client, pod, seconds=2)
        assert time.monotonic() - began < 1, "within the time for a connection"
    assert (caught.value.reason, caught.value.ignored) == (NotRead.TIMEOUT, False)


async def test_as_long_as_nobody_is_believed_nobody_is_called() -> None:
    async with listening(None) as (server, pod), operator(AgentTrust(NAME)) as client:
        error = await refusal(client, pod)
        assert error.reason is NotRead.AUTH_UNAVAILABLE
        assert "no authority" in error.message
        assert server.connections == 0


async def test_new_authorities_are_taken_up_and_the_certificate_of_each_time_is_believed(tmp_path: Path) -> None:
    old, new = pair(), pair()
    trust = believing(old)
    async with operator(trust) as client:
        async with tls_agent(tmp_path, old) as (_, pod):
            assert (await fetch(client, pod, seconds=2)).report == REPORT
            trust.believe(old.authority + new.authority)
            assert (await fetch(client, pod, seconds=2)).report == REPORT
        async with tls_agent(tmp_path, new) as (_, pod):
            assert (await fetch(client, pod, seconds=2)).report == REPORT
            trust.believe(old.authority)
            assert (await refusal(client, pod)).reason is NotRead.IDENTITY_MISMATCH


async def test_mutual_tls(tmp_path: Path) -> None:
    """Here with a server that insists at once; our own agent says over HTTP that a certificate is missing."""
    made, folder = pair(), tmp_path / "client"
    folder.mkdir()
    authority, certificate, key = made_for_clients()
    async with tls_agent(tmp_path, made, clients=authority) as (_, pod):
        async with operator(believing(made)) as client:
            assert (await refusal_or_cut(client, pod)).reason is NotRead.CONNECTION_CLOSED
        (folder / "tls.crt").write_bytes(certificate)
        (folder / "tls.key").write_bytes(key)
        async with operator(believing(made, client=folder)) as client:
            assert (await fetch(client, pod, seconds=2)).report == REPORT
