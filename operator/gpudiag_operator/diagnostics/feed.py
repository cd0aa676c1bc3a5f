"""kopf in a thread and an event loop of its own.

On its way out kopf cancels every task that its loop started after it, whoever's they are, and it does so too when it
dies. In its own loop those are its own tasks alone, so the collector's connections and pending writes are not at its
mercy. Events cross over one at a time; a few per second are nothing.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable

import aiohttp
import kopf

from gpudiag_operator.diagnostics import handlers
from gpudiag_operator.kube.access import Access, load_access
from gpudiag_operator.kube.retry import Backoff

log = logging.getLogger(__name__)

STOP_SECONDS = 2.0
LOGIN_SECONDS = 5.0
"""At least so long between two log-ins."""
_IDENTITY = "gpudiag-operator"
"""kopf would ask for the name of the user, which a bare number (OpenShift gives any) does not have, and end. It is for
kopf's peers, and there are none."""
_SETTLED_SECONDS = 300.0
"""kopf that ran for so long was well: its next fault is a first one."""


class FeedError(Exception):
    """kopf's watch died of something that waiting does not cure."""


class KopfFeed:
    """Runs kopf until cancelled and hands its events to this loop.

    Args:
        deliver: called in the loop that ``run`` was called in, with the event's type and the object.
        kubeconfig: as for ``load_access``.
    """

    def __init__(self, deliver: handlers.Deliver, *, kubeconfig: str | None) -> None:
        self._deliver = deliver
        self._kubeconfig = kubeconfig
        self._backoff = Backoff()
        self.ready = threading.Event()
        """kopf has started."""

    async def run(self) -> None:
        """Feed until cancelled; then kopf is gone, too.

        Raises:
            FeedError: kopf ended by itself.
        """
        while True:
            began = time.monotonic()
            error = await self._once()
            if not _may_pass(error):
                raise FeedError(f"the watch of GPUDiagnostics died: {error!r}") from error
            if time.monotonic() - began > _SETTLED_SECONDS:
                self._backoff.reset()
            delay = self._backoff.next()
            log.warning("the watch of GPUDiagnostics ended, again in %.1f s: %r", delay, error)
            await asyncio.sleep(delay)

    async def _once(self) -> BaseException | None:
        """One life of kopf; gives what it died of."""
        here = asyncio.get_running_loop()
        ended: asyncio.Future[BaseException | None] = here.create_future()

        def report(error: BaseException | None) -> None:
            if not ended.done():
                ended.set_result(error)

        life = _Life(lambda kind, body: _post(here, self._deliver, kind, body), self._kubeconfig, self.ready)
        thread = threading.Thread(
            target=lambda: _post(here, report, life.run()), name="kopf", daemon=True
        )  # a daemon: a kopf that hangs must not keep the process
        thread.start()
        try:
            return await asyncio.shield(ended)
        finally:
            if not ended.done():
                life.stop()
                await _wait(ended)


class _Life:
    """One run of kopf, in its thread."""

    def __init__(self, deliver: handlers.Deliver, kubeconfig: str | None, ready: threading.Event) -> None:
        self._deliver = deliver
        self._kubeconfig = kubeconfig
        self._ready = ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._stopped = threading.Event()
        self._logged_in_at: float | None = None

    def run(self) -> BaseException | None:
        """Run to the end; gives the exception, None when stopped."""
        try:
            asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001  (reported to the loop that judges it)
            return error
        return None

    def stop(self) -> None:
        """Ask it to end; from another thread."""
        self._stopped.set()
        if self._loop is not None and self._stop is not None:
            _post(self._loop, self._stop.set)

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._stopped.is_set():
            return
        await kopf.operator(
            registry=handlers.registry(self._deliver, self._login),
            settings=handlers.settings(),
            identity=_IDENTITY,  # type: ignore[arg-type]  # kopf keeps its name for such a str to itself
            standalone=True,
            clusterwide=True,
            stop_flag=self._stop,
            ready_flag=self._ready,
        )

    async def _login(self) -> kopf.AiohttpSession:
        """Credentials as everywhere in this operator, asked for with each request (tokens rotate).

        kopf asks again after each 401, at once and for ever, so haste is taken out here.
        """
        now = time.monotonic()
        if self._logged_in_at is not None and now - self._logged_in_at < LOGIN_SECONDS:
            await asyncio.sleep(LOGIN_SECONDS)
        self._logged_in_at = time.monotonic()
        access = await load_access(kubeconfig=self._kubeconfig)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=8, ssl=access.ssl or True),
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=(_authorize(access),),
            proxy=access.proxy,
        )
        return kopf.AiohttpSession(server=access.host, aiohttp_session=session)


def _authorize(access: Access) -> aiohttp.ClientMiddlewareType:
    async def authorize(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        authorization = await access.authorization()
        if authorization is not None:
            request.headers["Authorization"] = authorization
        if access.server_hostname is not None:
            request.server_hostname = access.server_hostname
        return await send(request)

    return authorize


def _post(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *arguments: object) -> None:
    """Call in another thread's loop; nothing to do when that loop is closed already."""
    try:
        loop.call_soon_threadsafe(call, *arguments)
    except RuntimeError:
        log.debug("dropped a call for a loop that is closed")


async def _wait(ended: "asyncio.Future[BaseException | None]") -> None:
    try:
        await asyncio.wait_for(ended, STOP_SECONDS)
    except TimeoutError:
        log.warning("kopf did not end within %.0f s and is left behind", STOP_SECONDS)


def _may_pass(error: BaseException | None) -> bool:
    """Whether a new try makes sense: the server's trouble, not ours; a kind that is gone or a bug is not cured so."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return status in (401, 403, 409, 410, 429) or status >= 500
    # An error inside a stream arrives as kopf's private WatchingError; a new list and watch is the cure for those.
    if type(error).__name__ == "WatchingError":
        return True
    return isinstance(error, aiohttp.ClientError | OSError | TimeoutError | kopf.LoginError)
