"""Whether an answer is about the present: a live HTTP server over a dead sampler must be seen. Pure.

Both times come from the node, so the operator's clock does not matter.
"""

from email.utils import parsedate_to_datetime
from functools import lru_cache

from gpudiag_api.times import from_rfc3339
from gpudiag_api.vocabulary import NotRead
from gpudiag_api.wire import Report
from gpudiag_operator.collect.outcome import FetchError

SLACK_SECONDS = 60.0
INTERVALS = 3


def check_fresh(report: Report, *, sampled_at: str | None, date: str | None, now: float) -> None:
    """Refuse an answer whose sample is older than max(60 s, 3 sampling intervals).

    Args:
        report: what the answer carries, or what it confirms (304).
        sampled_at: header X-Gpudiag-Sampled-At (RFC 3339); None: NVML never answered, which a capability explains.
        date: header Date; None or unreadable: ``now`` stands in.
        now: Unix seconds here.

    An agent that says itself that it cannot read its driver is not refused: then NVML has not answered for long, and
    its capability and what it saw in the kernel log are the better reason.

    Raises:
        FetchError: StaleSample, or BadResponse for a time that cannot be read.
    """
    if sampled_at is None or any(gap.reason.blinds for gap in report.capabilities):
        return
    try:
        sampled = from_rfc3339(sampled_at)
    except ValueError:
        raise FetchError(NotRead.BAD_RESPONSE, "X-Gpudiag-Sampled-At is not an RFC 3339 time") from None
    said = None if date is None else _http_date(date)
    age = (now if said is None else said) - sampled
    limit = max(SLACK_SECONDS, INTERVALS * report.agent.sampling_interval_seconds)
    if age > limit:
        raise FetchError(NotRead.STALE_SAMPLE, f"the agent's last sample is {age:.0f}s old (limit {limit:.0f}s)")


@lru_cache(maxsize=128)  # thousands of answers carry the same second
def _http_date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None
