"""Asks the kubelet over its pod-resources socket.

A new connection per call, every 10 s or so over a unix socket, costs nothing that a kept one would save, and knows
nothing of a kubelet that was restarted in between.
"""

import asyncio
import errno
import socket
from pathlib import Path

from gpudiag_agent.attribution import http2, pod_resources
from gpudiag_agent.attribution.model import PodDevices
from gpudiag_agent.attribution.protobuf import MalformedError

DEADLINE = 5.0
"""Seconds for one call, connecting included."""
_ABSENT = "The kubelet's socket {path} is not there: mount its folder, or name it with --pod-resources."
_DENIED = "The kubelet's socket {path} may not be opened: run as root."
_REFUSED = "Nobody listens on {path}: the kubelet is not running, or this is not its pod-resources socket."


class UnavailableError(Exception):
    """The kubelet could not be asked; the message is a sentence for people."""


async def ask(path: Path, *, deadline: float = DEADLINE) -> PodDevices:
    """Who holds which GPU, and how many there are to hold.

    Raises:
        UnavailableError: no socket, no access, no answer in time, or an answer that makes no sense.
    """
    answer = await _call(path, pod_resources.LIST, deadline)
    try:
        # In a thread: the largest answer there may be takes seconds to read.
        held = await asyncio.to_thread(pod_resources.parse_list, answer)
    except MalformedError as error:
        raise UnavailableError(f"The kubelet at {path} answered nonsense: {error}.") from error
    try:
        answer = await _call(path, pod_resources.GET_ALLOCATABLE, deadline)
        allocatable = await asyncio.to_thread(pod_resources.parse_allocatable, answer)
    except (MalformedError, UnavailableError):
        # Kubelets before 1.23 have no such call; who holds what stands without it.
        allocatable = None
    return PodDevices(held=held, allocatable_gpus=allocatable)


async def _call(path: Path, method: str, deadline: float) -> bytes:
    try:
        async with asyncio.timeout(deadline):
            return await _exchange(path, http2.Call(method, timeout=max(1, round(deadline))))
    except TimeoutError as error:
        raise UnavailableError(f"The kubelet at {path} gave no answer within {deadline:g} s.") from error
    except OSError as error:
        raise UnavailableError(_sentence(path, error)) from error
    except http2.CallError as error:
        raise UnavailableError(f"The kubelet at {path} {error}.") from error


async def _exchange(path: Path, call: http2.Call) -> bytes:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
        await loop.sock_connect(connection, str(path))
        await loop.sock_sendall(connection, call.opening())
        while call.answer is None:
            data = await loop.sock_recv(connection, 65536)
            if not data:
                raise http2.CallError("hung up without an answer")
            reply = call.feed(data)
            if reply:
                await loop.sock_sendall(connection, reply)
            # A server that always has more to say keeps nobody else waiting, and not past the deadline.
            await asyncio.sleep(0)
        return call.answer


def _sentence(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return _ABSENT.format(path=path)
    if error.errno in (errno.EACCES, errno.EPERM):
        return _DENIED.format(path=path)
    if error.errno == errno.ECONNREFUSED:
        return _REFUSED.format(path=path)
    return f"The kubelet at {path} could not be asked: {error.strerror or error}."
