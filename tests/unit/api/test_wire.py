"""The wire report: camelCase outside, bounded, and refused with the name of the field."""

import msgspec
import pytest

from gpudiag_api import wire
from gpudiag_api.meaning import etag
from gpudiag_api.vocabulary import Action, Blame, Capability, Health, Severity

NOW = "2026-11-21T03:00:00.000Z"
GPU = wire.GPU(index=0, uuid="GPU-1", pci="0000:3b:00.0", model="NVIDIA H100", health=Health.HEALTHY)
FINDING = wire.Finding(
    check="XID",
    reason="XID79",
    severity=Severity.CRITICAL,
    blame=Blame.HARDWARE,
    action=Action.REBOOT_NODE,
    message="GPU 0 has fallen off the bus",
    subject=wire.Subject(gpu_index=0, gpu_uuid="GPU-1"),
    first_seen=NOW,
    last_seen=NOW,
)
REPORT = wire.Report(
    version=wire.WIRE_VERSION,
    agent=wire.AgentInfo(version="0.1.0", node_name="node-1"),
    health=Health.HEALTHY,
    gpus=(GPU,),
)


def changed(**fields: object) -> wire.Report:
    return msgspec.structs.replace(REPORT, **fields)


def test_a_report_survives_the_wire() -> None:
    report = changed(findings=(FINDING,))
    assert wire.decode(wire.encode(report)) == report


def test_names_on_the_wire_are_kubernetes_camel_case() -> None:
    text = wire.encode(changed(findings=(FINDING,))).decode()
    assert '"gpuUUID":"GPU-1"' in text
    assert '"nodeName":"node-1"' in text


def test_unknown_fields_of_a_newer_minor_are_ignored() -> None:
    body = wire.encode(REPORT)[:-1] + b',"future":{"a":1}}'
    assert wire.decode(body) == REPORT


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b'{"wireVersion":"1.0"}', "agent"),
        (b'{"wireVersion":"1.0","agent":{"version":"1","nodeName":7}}', r"\$\.agent\.nodeName"),
        (b'{"wireVersion":"1.0","agent":{"version":"1","nodeName":"n"},"health":"Fine"}', r"\$\.health"),
    ],
)
def test_a_wrong_field_is_named(body: bytes, named: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=named):
        wire.decode(body)


def test_lists_are_bounded() -> None:
    report = msgspec.json.encode(changed(gpus=(GPU,) * 65))
    with pytest.raises(msgspec.ValidationError, match="length <= 64"):
        wire.decode(report)


@pytest.mark.parametrize(
    ("version", "accepted"),
    [
        *(("1.1", True), ("1.2", True), ("1.3", True)),
        *(("1.0", False), ("1.4", False), ("2.2", False), ("0.2", False), ("", False), ("one", False), ("1", False)),
    ],
)
def test_one_minor_version_apart_is_read(monkeypatch: pytest.MonkeyPatch, *, version: str, accepted: bool) -> None:
    monkeypatch.setattr(wire, "WIRE_VERSION", "1.2")
    assert wire.accepts(version) is accepted


@pytest.mark.parametrize(
    "same",
    [
        changed(gpus=(msgspec.structs.replace(GPU, measurements=wire.Measurements(temperature_celsius=71)),)),
        changed(sampled_at=NOW),
    ],
)
def test_measurements_and_times_are_not_meaning(same: wire.Report) -> None:
    assert etag(same) == etag(REPORT)


@pytest.mark.parametrize(
    "other",
    [
        changed(health=Health.UNKNOWN),
        changed(gpus=()),
        changed(findings=(FINDING,)),
        changed(driver=wire.Driver(version="570.1")),
        changed(capabilities=(wire.CapabilityGap(reason=Capability.DRIVER_HUNG),)),
        changed(allocations=(wire.Allocation(gpu_uuid="GPU-1", namespace="a", pod="p", container="c"),)),
    ],
)
def test_a_change_of_meaning_changes_the_tag(other: wire.Report) -> None:
    assert etag(other) != etag(REPORT)


def test_counts_and_evidence_of_a_finding_are_not_meaning() -> None:
    repeated = msgspec.structs.replace(FINDING, count=9, last_seen="2026-11-21T04:00:00.000Z", message="again")
    assert etag(changed(findings=(repeated,))) == etag(changed(findings=(FINDING,)))


def test_the_tag_is_weak_and_quoted() -> None:
    assert etag(REPORT).startswith('W/"')
    assert etag(REPORT).endswith('"')
