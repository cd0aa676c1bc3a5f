"""W3C trace context of calls to agents: the trace is the run's, whoever records it."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

CallSpans = Callable[[str, str, str], AbstractContextManager[str]]
"""Around one call: takes the node, the path and the run id (empty: a poll), gives the ``traceparent`` to send."""


@contextmanager
def unrecorded(_node: str, _path: str, run_id: str) -> Iterator[str]:
    """No span: the ids travel all the same, so that the agent's log can be found from the run."""
    yield traceparent(run_id)


def traceparent(run_id: str) -> str:
    """The header of a call that nobody records (W3C Trace Context, §3.2); of a poll: of a trace of its own."""
    trace = trace_id(run_id) if run_id else os.urandom(16).hex()
    return f"00-{trace}-{os.urandom(8).hex()}-01"


def trace_id(run_id: str) -> str:
    """32 hex digits that every process derives alike from the run; the run's own digits where it is a UUID."""
    digits = run_id.replace("-", "").lower()
    if len(digits) == 32 and not digits.strip("0123456789abcdef") and digits.strip("0"):
        return digits
    return hashlib.blake2b(run_id.encode(), digest_size=16).hexdigest()
