"""HTTPS on real sockets: certificates that come late, change and are wrong; clients that mean no good."""

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.unit.agent.tls_world import NAME, believing, handshake, pair, put, tls_node, turn

from gpudiag_agent.clock import ManualClock
from gpudiag_agent.tls import certificates, listener
from gpudiag_agent.tls.certificates import Certificates
from gpudiag_agent.tls.listener import Listener

PERIOD = certificates.WATCH_PERIOD


async def get(url: str, context: ssl.SSLContext | None = None) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as client,
        client.get(url, ssl=context or True, server_hostname=NAME if context else None) as answer,
    ):
        return answer.status, await answer.text()


async def test_until_the_certificate_comes_it_is_live_but_not_ready(tmp_path: Path) -> None:
    folder, made = tmp_path / "tls", pair()
    async with tls_node(folder) as node:
        await node.look()
        assert (await get(f"{node.health}/healthz"))[0] == 200
        status, said = await get(f"{node.health}/readyz")
        assert status == 503
        assert "no tls.crt and no tls.key" in said
        with pytest.raises(OSError):  # noqa: PT011  (closed at once, whatever that looks like to the client)
            await handshake(node.port, believing(made))
        put(folder, made)
        await turn(node.clock, PERIOD)
        assert (await get(f"{node.health}/readyz"))[0] == 200
        status, body = await get(f"{node.url}/v1/report", believing(made))
        assert (status, '"nodeName":"n"' in body) == (200, True)


async def test_the_port_for_probes_tells_nothing_else(tmp_path: Path) -> None:
    put(tmp_path, pair())
    async with tls_node(tmp_path) as node:
        await node.look()
        async with aiohttp.ClientSession() as client:
            for path in ("/v1/report", "/v1/processes", "/metrics", "/openapi.json"):
                async with client.get(node.health + path) as answer:
                    assert answer.status == 404
            async with client.get(f"{node.health}/healthz") as answer:
                assert "X-Gpudiag-Sampled-At" not in answer.headers


async def test_a_renewed_certificate_is_shown_to_new_connections_and_drops_no_old_one(tmp_path: Path) -> None:
    first, second = pair(), pair()
    put(tmp_path, first)
    async with tls_node(tmp_path) as node:
        await node.look()
        both = believing(first, second)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as client:

            async def serial() -> int:
                async with client.get(f"{node.url}/v1/report", ssl=both, server_hostname=NAME) as answer:
                    await answer.read()
                    assert answer.connection is None or answer.status == 200
                    return answer.status

            assert await serial() == 200
            before = (await handshake(node.port, both))[0]["serialNumber"]
            kept = node.serving.listener
            assert kept is not None
            put(tmp_path, second)
            await turn(node.clock, PERIOD)
            assert (await handshake(node.port, both))[0]["serialNumber"] != before
            assert await serial() == 200
            # The client that was there all along still has its first connection.
            [connection] = [one for each in client.connector._conns.values() for one in each]  # type: ignore[union-attr]
            transport = connection[0].transport
            assert transport is not None
            assert transport.get_extra_info("peercert")["serialNumber"] == before


async def test_a_wrong_renewal_changes_nothing_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, other = pair(), pair()
    put(tmp_path, good)
    async with tls_node(tmp_path) as node:
        await node.look()
        held = node.serving.certificates
        assert held is not None
        broken = [
            (other.certificate, good.key, "tls.key is not the key of tls.crt"),
            (b"no certificate", good.key, ""),
            (good.certificate, b"", ""),
        ]
        for certificate, key, words in broken:
            put(tmp_path, type(good)(certificate=certificate, key=key, authority=good.authority))
            await turn(node.clock, PERIOD)
            assert held.problem is not None
            assert words in held.problem
            assert (await get(f"{node.url}/readyz", believing(good)))[0] == 200
        put(tmp_path, other)
        await turn(node.clock, PERIOD)
        assert held.problem is None
        assert (await get(f"{node.url}/readyz", believing(other)))[0] == 200


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    made = pair()
    key = serialization.load_pem_private_key(made.key, password=None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    put(tmp_path, type(made)(certificate=made.certificate, key=locked, authority=made.authority))
    held = Certificates(tmp_path, mutual=False, clock=ManualClock())
    assert held.context is None
    assert "must not be encrypted" in (held.problem or "")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_1_2_and_1_3_are_spoken(tmp_path: Path, version: ssl.TLSVersion) -> None:
    made = pair()
    put(tmp_path, made)
    context = believing(made)
    context.minimum_version = context.maximum_version = version
    async with tls_node(tmp_path) as node:
        assert (await handshake(node.port, context))[1] == version.name.replace("_", ".")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_nothing_older_is(tmp_path: Path) -> None:
    made = pair()
    put(tmp_path, made)
    context = believing(made)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with tls_node(tmp_path) as node:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await handshake(node.port, context)


class TestMutual:
    """--tls-client-auth require."""

    async def test_a_client_without_a_certificate_gets_no_answer_and_one_with_it_does(self, tmp_path: Path) -> None:
        made, client = pair(), tmp_path / "client"
        put(tmp_path / "server", made)
        client.mkdir()
        write_client(tmp_path / "server", client)
        async with tls_node(tmp_path / "server", "--tls-client-auth", "require") as node:
            await node.look()
            status, said = await get(f"{node.url}/v1/report", believing(made))
            assert status == 401
            assert "no client certificate was shown" in said
            assert (await get(f"{node.url}/v1/report", believing(made, client=client)))[0] == 200
            assert (await get(f"{node.url}/metrics", believing(made)))[0] == 200, "open, as it is said to be"
            assert (await get(f"{node.health}/readyz"))[0] == 200

    async def test_a_certificate_that_nobody_vouches_for_gets_no_connection(self, tmp_path: Path) -> None:
        made, stranger = pair(), tmp_path / "stranger"
        put(tmp_path / "server", made)
        put(stranger, pair())
        async with tls_node(tmp_path / "server", "--tls-client-auth", "require") as node:
            await node.look()
            for path in ("/v1/report", "/metrics"):
                with pytest.raises((aiohttp.ClientError, OSError)):
                    await get(node.url + path, believing(made, client=stranger))

    @pytest.mark.parametrize(
        "wrong",
        [{"days_ago": 3}, {"days_ago": -3}, {"use": ExtendedKeyUsageOID.SERVER_AUTH}],
        ids=["expired", "not valid yet", "a server's"],
    )
    async def test_a_certificate_that_does_not_hold_gets_no_connection(
        self, tmp_path: Path, wrong: dict[str, Any]
    ) -> None:
        made, client = pair(), tmp_path / "client"
        put(tmp_path / "server", made)
        client.mkdir()
        write_client(tmp_path / "server", client, **wrong)
        async with tls_node(tmp_path / "server", "--tls-client-auth", "require") as node:
            await node.look()
            with pytest.raises((aiohttp.ClientError, OSError)):
                await get(f"{node.url}/v1/report", believing(made, client=client))
            assert (await get(f"{node.url}/metrics", believing(made)))[0] == 200

    async def test_without_the_authority_it_is_not_ready(self, tmp_path: Path) -> None:
        put(tmp_path, pair())
        (tmp_path / "ca.crt").unlink()
        held = Certificates(tmp_path, mutual=True, clock=ManualClock())
        assert "no ca.crt" in (held.unready or "")


class TestHostile:
    """Clients that mean no good; the agent goes on answering."""

    async def test_plain_http_gets_no_answer(self, tmp_path: Path) -> None:
        made = pair()
        put(tmp_path, made)
        async with tls_node(tmp_path) as node:
            await node.look()
            reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
            writer.write(b"GET /v1/report HTTP/1.1\r\nHost: n\r\n\r\n")
            async with asyncio.timeout(5):
                said = await reader.read()
            assert b"nodeName" not in said
            assert b"HTTP/" not in said
            writer.close()
            assert (await get(f"{node.url}/v1/report", believing(made)))[0] == 200
            assert node.serving.listener is not None
            assert node.serving.listener.failed_handshakes == 1

    async def test_a_handshake_that_takes_too_long_is_ended(self) -> None:
        slow = Rig(seconds=0.05)
        async with slow:
            reader, writer = await asyncio.open_connection("127.0.0.1", slow.port)
            writer.write(b"\x16\x03\x01")  # the beginning of a record, and no more
            async with asyncio.timeout(5):
                assert await reader.read() == b""
            writer.close()
        assert slow.listener.failed_handshakes == 1

    async def test_handshakes_at_once_are_bounded(self) -> None:
        rig = Rig(seconds=60)
        async with rig:
            idle = [await asyncio.open_connection("127.0.0.1", rig.port) for _ in range(listener.MOST_HANDSHAKES)]
            await until(lambda: len(rig.listener._handshakes) == listener.MOST_HANDSHAKES)
            reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
            async with asyncio.timeout(5):
                assert await reader.read() == b""
            assert rig.listener.turned_away == 1
            for _, one in (*idle, (reader, writer)):
                one.close()

    async def test_connections_are_bounded(self) -> None:
        rig = Rig(seconds=5, served=listener.MOST_CONNECTIONS)
        async with rig:
            reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
            async with asyncio.timeout(5):
                assert await reader.read() == b""
            writer.close()
        assert rig.listener.turned_away == 1


class Rig:
    """A listener that serves nobody in particular."""

    def __init__(self, *, seconds: float, served: int = 0) -> None:
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.port = self._sock.getsockname()[1]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.listener = Listener(
            self._sock,
            protocols=asyncio.Protocol,
            connections=lambda: range(served),
            context=lambda: context,
            clock=ManualClock(),
            handshake_seconds=seconds,
        )

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self.listener.run())

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._sock.close()


async def until(true: object) -> None:
    async with asyncio.timeout(5):
        while not true():  # type: ignore[operator]
            await asyncio.sleep(0.001)


def write_client(server: Path, client: Path, **how: Any) -> None:
    """A certificate for clients; its authority is added to the server's ca.crt, whose own stays."""
    from tests.unit.agent.client_certificate import made_for_clients  # noqa: PLC0415

    authority, certificate, key = made_for_clients(**how)
    (server / "..data" / "ca.crt").write_bytes(authority)
    (client / "tls.crt").write_bytes(certificate)
    (client / "tls.key").write_bytes(key)
