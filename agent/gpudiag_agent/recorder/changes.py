"""What happened between two reports, in sentences for a timeline. Pure."""

from collections.abc import Iterator

from gpudiag_api.wire import Finding, Report, TimelineEvent


def changes(before: Report | None, after: Report, at: str) -> Iterator[TimelineEvent]:
    """New XIDs, raised and cleared findings, changes of health and driver; ``at`` in RFC 3339.

    Of the first report everything is new, and its health is no change.
    """
    counts = {event.id: event.count for event in before.xids} if before else {}
    for event in reversed(after.xids):
        if counts.get(event.id, 0) < event.count:
            text = f"XID {event.code} {event.name}: {event.message}"[:1024]
            yield TimelineEvent(at=event.last_seen, kind="xid", message=text, gpu_index=event.subject.gpu_index)
    old = {finding.key: finding for finding in before.findings} if before else {}
    new = {finding.key: finding for finding in after.findings}
    for key, finding in new.items():
        if key not in old:
            yield _about(finding, "raised", finding.message, at)
    for key, finding in old.items():
        if key not in new:
            yield _about(finding, "cleared", f"{finding.reason} is over.", at)
    if before is None:
        return
    if before.health != after.health:
        yield TimelineEvent(at=at, kind="health", message=f"The node went from {before.health} to {after.health}.")
    if before.driver.version != after.driver.version:
        text = f"The driver went from {before.driver.version} to {after.driver.version}."
        yield TimelineEvent(at=at, kind="driver", message=text)


def _about(finding: Finding, kind: str, message: str, at: str) -> TimelineEvent:
    return TimelineEvent(at=at, kind=kind, message=message, gpu_index=finding.subject.gpu_index)
