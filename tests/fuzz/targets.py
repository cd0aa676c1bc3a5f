"""What hostile bytes reach, as functions of bytes. An exception that escapes from one of them is a bug.

Only what the documentation of a function says it raises is caught here.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qsl

import msgspec

from gpudiag_agent import configuration
from gpudiag_agent.assess import Assessor
from gpudiag_agent.attribution import http2, pod_resources
from gpudiag_agent.attribution.protobuf import MalformedError
from gpudiag_agent.checks.counters import Counters
from gpudiag_agent.checks.infiniband.baseline import PortBaseline
from gpudiag_agent.checks.nvlink.baseline import LinkBaseline
from gpudiag_agent.checks.registry import all_checks
from gpudiag_agent.checks.xid.ledger import XIDLedger
from gpudiag_agent.host.facts import HostFacts, Port
from gpudiag_agent.inventory import Inventory
from gpudiag_agent.kernel_log.boot import Boot
from gpudiag_agent.kernel_log.decode import Decoder
from gpudiag_agent.kernel_log.intake import Intake
from gpudiag_agent.kernel_log.journal import ExportParser
from gpudiag_agent.kernel_log.memory import KernelLogMemory
from gpudiag_agent.kernel_log.record import Record, parse
from gpudiag_agent.kernel_log.scan import scan
from gpudiag_agent.sample import GPUSample, NVLinkSample, Sample, SourceFault
from gpudiag_agent.server import query
from gpudiag_agent.server.problems import ProblemError
from gpudiag_agent.simulated import scenario
from gpudiag_api import wire
from gpudiag_api.vocabulary import Capability
from gpudiag_api.wire import AgentInfo

_BOOT = Boot("11111111-2222-3333-4444-555555555555", 1_800_000_000.0)
_NOW = 1_800_000_500.0
_SAMPLE = Sample(taken_at=_NOW, gpus=(GPUSample(index=0, uuid="GPU-0", pci="00000000:3B:00.0", model="NVIDIA H100"),))
_FOLDER = Path(tempfile.gettempdir())


def kernel_log(data: bytes) -> None:
    """Lines of a log → records, events, findings, a report that can be sent; the scanner over the same bytes."""
    assessor = Assessor(agent=AgentInfo(version="1", node_name="n", boot_id=_BOOT.id), checks=all_checks(10.0))
    assessor.sampled(_SAMPLE)
    decoder = Decoder(_BOOT)
    for raw in data.split(b"\n")[:200]:
        for record in (parse(raw), parse(raw, plain=False)):
            event = None if record is None else decoder.feed(record, _NOW)
            if event is not None:
                assessor.heard(event, live=True)
    report = assessor.report(_NOW)
    assert report is not None
    wire.decode(wire.encode(report))
    assert sum(1 for _ in scan([data[:7], data[7:100], data[100:]])) <= data.count(b"\n") + 1
    ledger = XIDLedger(_BOOT.id)
    assert ledger.load(assessor.ledger.dump(), now=_NOW) is None


def journal(data: bytes) -> None:
    """What journalctl exports, cut anywhere."""
    intake, parser = _intake(), ExportParser()
    step = 1 + (data[0] if data else 0)
    for start in range(0, len(data), step):
        intake.entries(parser.feed(data[start : start + step]))


def device(data: bytes) -> None:
    """What reads of /dev/kmsg give, and lines of a file."""
    intake = _intake()
    records = data.split(b"\0")
    for record in records:
        intake.device(record)
    intake.device_read()
    intake.lines(records)
    assert intake.position is not None


def scenario_file(data: bytes) -> None:
    """A scenario, as YAML and as JSON."""
    for suffix in (".yaml", ".json"):
        with _file(data, suffix) as path, contextlib.suppress(scenario.ScenarioError):
            scenario.load(path)


def thresholds_file(data: bytes) -> None:
    """The thresholds, as YAML and as JSON."""
    for suffix in (".yaml", ".json"):
        with _file(data, suffix) as path, contextlib.suppress(configuration.ConfigurationError):
            configuration.load(path)


def kubelet_message(data: bytes) -> None:
    """A protocol buffer as the kubelet's answer."""
    with contextlib.suppress(MalformedError):
        assert len(pod_resources.parse_list(data)) <= pod_resources.MAX_HELD
    with contextlib.suppress(MalformedError):
        pod_resources.parse_allocatable(data)


def kubelet_connection(data: bytes) -> None:
    """HTTP/2 frames as what a server sends, cut anywhere: as they are, and after a greeting."""
    step = 1 + (data[0] if data else 0)
    for sent in (data, bytes.fromhex("000000040000000000") + data):
        call = http2.Call(pod_resources.LIST, timeout=5, limit=4096)
        call.opening()
        with contextlib.suppress(http2.CallError):
            for start in range(0, len(sent), step):
                assert len(call.feed(sent[start : start + step])) <= 17 * (step + 9)


def query_parameters(data: bytes) -> None:
    """The query of every path that takes one."""
    pairs = parse_qsl(data.decode(errors="replace"), keep_blank_values=True)
    for read in (query.report_query, query.timeline_query, query.xids_query):
        with contextlib.suppress(ProblemError):
            assert read(pairs) is not None


def state_file(data: bytes) -> None:
    """What the agent kept of an earlier life, part by part: refused, or an agent that can live with it."""
    counters, links, ports = Counters(_BOOT.id), LinkBaseline(_BOOT.id), PortBaseline()
    checks = all_checks(10.0, counters=counters, links=links, ports=ports)
    assessor = Assessor(agent=AgentInfo(version="1", node_name="n", boot_id=_BOOT.id), checks=checks)
    intake, decoder = _intake(), Decoder(_BOOT)
    inventory = assessor.inventory
    log = KernelLogMemory(intake=intake, decoder=decoder, history=assessor.ledger, now=lambda: _NOW)
    parts = {
        "counters": counters.load, "nvlinks": links.load, "infiniband": ports.load, "inventory": inventory.load,
        "kernel-log": log.load,
    }  # fmt: skip
    XIDLedger(_BOOT.id).load(data, now=_NOW)
    # Of the store whatever is raised there means "not understood": what must hold is that nothing else follows.
    with contextlib.suppress(ValueError, RecursionError):
        document = msgspec.json.decode(data)
        for name, load in parts.items():
            with contextlib.suppress(ValueError):
                load(document.get(name) if isinstance(document, dict) else document)
    link = NVLinkSample(link=0, active=True, remote_kind="switch", errors={"replay": 7})
    gpu = msgspec.structs.replace(_SAMPLE.gpus[0], ecc_corrected_volatile=3, nvlinks=(link,))
    port = Port(device="mlx5_0", port=1, pci="0000:5e:00.0", link_layer="InfiniBand", state="ACTIVE", rate_gbps=400.0)
    host = HostFacts(taken_at=_NOW, ports=(port,))
    blind = SourceFault(Capability.DRIVER_HUNG, "hangs")
    for look in (Sample(taken_at=_NOW - 10, fault=blind), msgspec.structs.replace(_SAMPLE, gpus=(gpu,))):
        assessor.sampled(look, host=host)
        report = assessor.report(_NOW)
        assert report is not None
        wire.decode(wire.encode(report))
    record = parse(b"3,77,1000,-;NVRM: Xid (PCI:0000:3b:00): 62, pid=1, x")
    assert record is not None
    event = decoder.feed(record, _NOW)
    if event is not None:
        assessor.heard(event)
    report = assessor.report(_NOW)
    assert report is not None
    wire.decode(wire.encode(report))
    for kept in (counters.dump(), links.dump(), ports.dump(), inventory.dump(), log.dump()):
        msgspec.json.encode(kept)


TARGETS: dict[str, Callable[[bytes], None]] = {
    one.__name__: one
    for one in (
        kernel_log,
        journal,
        device,
        scenario_file,
        thresholds_file,
        kubelet_message,
        kubelet_connection,
        query_parameters,
        state_file,
    )
}


def _intake() -> Intake:
    decoder = Decoder(_BOOT)

    def take(record: Record) -> None:
        decoder.feed(record, _NOW)

    return Intake(boot_id=_BOOT.id, now=lambda: _NOW, on_record=take)


@contextlib.contextmanager
def _file(data: bytes, suffix: str) -> Iterator[Path]:
    path = _FOLDER / f"gpudiag-fuzz-{os.getpid()}{suffix}"
    path.write_bytes(data)
    try:
        yield path
    finally:
        path.unlink()


def seeds(target: str) -> list[bytes]:
    """Inputs from which mutation gets further than from noise."""
    if target == "state_file":
        return [_kept()]
    return [seed.encode() if isinstance(seed, str) else seed for seed in _SEEDS.get(target, ())]


def _kept() -> bytes:
    """All parts of the memory of an agent that has seen something."""
    counters, links, decoder = Counters(_BOOT.id), LinkBaseline(_BOOT.id), Decoder(_BOOT)
    counters.observe("GPU-0", {"ecc.corrected": 1}, _NOW - 60)
    counters.observe("GPU-0", {"ecc.corrected": 5}, _NOW - 50)
    links.seen("GPU-0", {0, 1})
    ports, inventory = PortBaseline(), Inventory(_BOOT.id)
    ports.take((Port(device="mlx5_0", port=1, pci="0000:5e:00.0", state="ACTIVE", rate_gbps=400.0),), _NOW - 60)
    inventory.take(_SAMPLE, uuids={}, serials={})
    ledger, intake = XIDLedger(_BOOT.id), _intake()
    for number, line in enumerate(_LINES, 1):
        record = parse(f"3,{number},{number},-;{line}".encode())
        event = None if record is None else decoder.feed(record, _NOW)
        if event is not None:
            ledger.hear(event)
    log = KernelLogMemory(intake=intake, decoder=decoder, history=ledger, now=lambda: _NOW)
    parts = {"counters": counters.dump(), "nvlinks": links.dump(), "infiniband": ports.dump()}
    return msgspec.json.encode({**parts, "inventory": inventory.dump(), "kernel-log": log.dump()})


_LINES = (
    "NVRM: GPU at PCI:0000:3b:00: GPU-00000000-0000-0000-0000-000000000000",
    "NVRM: GPU Board Serial Number: 1650000000000",
    (
        "NVRM: Xid (PCI:0000:3b:00 GPU-I:05 GPU-CI:00): 94, pid=7194, name=a, Contained: CE User "
        "Channel (0x9). RST: No, "
        "D-RST: No"
    ),
    (
        "NVRM: Xid (PCI:0000:3b:00): 13, pid='<unknown>', name=<unknown>, Graphics SM Warp Exception on "
        "(GPC 1, TPC 3, SM 0)"
    ),
    "NVRM: Xid (PCI:0000:3b:00): 149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 09 (0x025525c6 0x00000000 0x0)",
    (
        "NVRM: Xid (PCI:0000:3b:00): 74, pid=1, NVLink: fatal error detected on link 14(0x0, 0x0, "
        "0x10000, 0x0, 0x0, 0x0, 0x0)"
    ),
    "NVRM: Xid (PCI:0000:3b:00): 154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",
    "NVRM: Xid (PCI:0000:3b:00): 45, pid=1, Ch 1 caused by previous Xid 31",
    (
        "NVRM: The NVIDIA GPU 0000:18:00.0\\x0aNVRM: (PCI ID: 10de:2330) installed in this system "
        "has\\x0aNVRM: fallen off the "
        "bus and is not responding to commands."
    ),
    "NVRM: GPU 0000:3b:00.0: RmInitAdapter failed! (0x24:0xffff:1568)",
    "NVRM: API mismatch: the client 'x' (pid 5) has the version 1.2, but this kernel module has the version 3.4",
    "NVRM: Rate limiting GSP RPC error prints for GPU at PCI:0000:3b:00 (printing 1 of every 30)",
    "nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32 egress non-posted PRIV error (First)",
    "pt_main_thread[2536443]: segfault at 7f ip 7f sp 7f error 4 in libnccl.so.2[7f]",
    (
        "[Jul 23 2024 07:53:55] [ERROR] [tid 841] detected NVSwitch fatal error 20034 on fid 0 on NVSwitch pci bus id "
        "00000000:86:00.0 physical id 3 port 33"
    ),
)
_LOG = "".join(f"3,{number},{number}00,-;{line}\n" for number, line in enumerate(_LINES))
_ENTRY = (
    "__CURSOR=s=ab;i=1\n__REALTIME_TIMESTAMP=1800000000000000\n__MONOTONIC_TIMESTAMP=1\n"
    "_BOOT_ID=11111111222233334444555555555555\n_TRANSPORT=kernel\nSYSLOG_FACILITY=0\nPRIORITY=3\n"
    f"_SOURCE_MONOTONIC_TIMESTAMP=1\nMESSAGE={_LINES[2]}\n\n"
)
_SEEDS: dict[str, tuple[str | bytes, ...]] = {
    "kernel_log": (_LOG, "\n".join(_LINES), *_LINES),
    "device": (_LOG.replace("\n", "\0"), "3,1,1,-;a\n SUBSYSTEM=pci\n"),
    "journal": (_ENTRY * 2, _ENTRY.encode().replace(b"MESSAGE=", b"MESSAGE\n\x04\0\0\0\0\0\0\0abcd\nX=")),
    "scenario_file": (
        scenario.find("h100-8").read_bytes(), "model: x\ncount: 1\ngpus: [{index: 0, lost: true}]\n",
        '{"model": "x", "count": 1, "fault": {"reason": "NoDriver"}}',
    ),
    "thresholds_file": ("pcieErrors: {replaysPerMinute: 3}\n", '{"temperature": {"gpuCelsius": 90}}'),
    "kubelet_message": (
        bytes.fromhex("0a2f0a03706f6412026e731a240a0363747212140a0e6e76696469612e636f6d2f677075120247501a070a05"),
        bytes.fromhex("0a180a0e6e76696469612e636f6d2f67707512064750552d3031"),
    ),
    "kubelet_connection": (
        bytes.fromhex("000000040000000000000004010400000001880f0d00000000050000000000010000000000"),
        bytes.fromhex("0000010104000000018800000500000000000100000000000000"),
    ),
    "query_parameters": ("wait=30s&fresh=true", "minutes=5&gpu=1&points=9", "since=a.3&limit=10"),
}  # fmt: skip
