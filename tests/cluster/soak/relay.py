"""The proxy between the operator and one agent: bytes pass, or are refused, kept, garbled, delayed or cut.

Below HTTP, where networks break; what a broken agent itself says is the simulator's business.
"""

import asyncio
from dataclasses import replace
from itertools import count

from gpudiag_cli.simulator import Member

FAULTS = ("refuse", "hang", "garbage", "slow", "cut")
"""Connections that are there are reset first. slow: each piece comes 0.3 s late; cut: reset in mid-body."""
_GARBAGE = b"\x15\x03\x01\x00\x02\x02\x0a" * 40
_PIECE = 65_536
_LATE_SECONDS = 0.3
_numbers = count(1)


class Relay:
    """Listens on an address of its own, as a Pod does."""

    def __init__(self, behind: Member) -> None:
        self._behind = behind
        self._fault = ""
        self._address, self._port = "", 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def member(self) -> Member:
        """The agent as discovery shall find it."""
        return replace(self._behind, address=self._address, port=self._port)

    async def open(self) -> None:
        self._address = _address()
        await self._listen()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._reset()

    async def fault(self, what: str) -> None:
        """From now on; '' ends it."""
        self._fault = what
        if what == "refuse":
            await self.close()
            return
        self._reset()
        if self._server is None:
            await self._listen()

    async def move(self) -> None:
        """To another address, the same port: who knows the old one meets nobody."""
        await self.close()
        await self.open()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, self._address, self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    def _reset(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            match self._fault:
                case "hang":
                    await reader.read(-1)
                case "garbage":
                    await reader.read(100)
                    writer.write(_GARBAGE)
                    await writer.drain()
                case _:
                    await self._pass(reader, writer)
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._behind.address, self._behind.port)
        pumps = {asyncio.create_task(_pump(reader, back)), asyncio.create_task(self._pump_back(there, writer))}
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            back.transport.abort()

    async def _pump_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_PIECE):
            if self._fault == "slow":
                await asyncio.sleep(_LATE_SECONDS)
            if self._fault == "cut":
                writer.write(data[: len(data) // 2])
                await writer.drain()
                return
            writer.write(data)
            await writer.drain()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_PIECE):
        writer.write(data)
        await writer.drain()


def _address() -> str:
    number = next(_numbers)
    return f"127.{251 + number // 62_500 % 3}.{number // 250 % 250}.{number % 250 + 1}"
