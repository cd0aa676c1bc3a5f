"""kopf's side: one thin handler that hands each event of a GPUDiagnostic on.

Only ``on.event``: kopf then keeps no state of its own, so it writes neither annotations nor finalizers, and Git sees
its objects as it wrote them. Whatever decides or writes is elsewhere and needs no kopf to be tested.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from random import uniform
from typing import Any

import kopf

from gpudiag_api.kinds import GROUP, VERSION

Deliver = Callable[[str | None, Mapping[str, Any]], None]
"""Takes the type of an event (None: part of a list) and the object."""
Login = Callable[[], Awaitable[kopf.AiohttpSession]]


class EndlessBackoffs:
    """Delays between attempts of one request: doubling from half a second to 5 s, jittered, without end.

    kopf's own list ends after 54 s, and with it the operator. kopf iterates it anew for each request, and must not
    find a length.
    """

    def __iter__(self) -> Iterator[float]:
        """Start from the shortest."""
        step = 0.5
        while True:
            yield step * uniform(0.5, 1.0)  # noqa: S311  (spreads load, protects nothing)
            step = min(step * 2, 5.0)


def registry(deliver: Deliver, login: Login) -> kopf.OperatorRegistry:
    """Handlers of their own registry: nothing global, so tests and several operators do not meet."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers, id="login")
    async def log_in(**_: Any) -> kopf.AiohttpSession:
        return await login()

    @kopf.on.event(GROUP, VERSION, "gpudiagnostics", registry=handlers, id="feed")
    async def feed(event: Mapping[str, Any], **_: Any) -> None:
        deliver(event["type"], event["object"])

    return handlers


def settings() -> kopf.OperatorSettings:
    """What this operator wants of kopf (facts/kopf.md, section 4)."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.watching.chunk_size = 500
    chosen.watching.server_timeout = 290
    chosen.watching.inactivity_timeout = 120
    chosen.networking.request_timeout = 30
    chosen.networking.connect_timeout = 5
    chosen.networking.error_backoffs = EndlessBackoffs()
    chosen.execution.default_backoff = 5
    # The kinds are there before kopf starts (sync.first_list), so it needs no right to watch definitions.
    chosen.scanning.disabled = True
    chosen.queueing.exit_timeout = 0.5
    # The thread ends with the process; kopf shall not kill a process that is not its own.
    chosen.process.ultimate_exiting_timeout = None
    return chosen
