"""Every form of line that drivers are known to write, and what it says (facts sheet on XIDs, sections 9.1 to 9.3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudiag_agent.kernel_log import details, fabric_manager, signals, sxid
from gpudiag_agent.kernel_log.details import (
    Containment,
    LinkEvent,
    LinkRegisters,
    PageFault,
    Recovery,
    RPCTimeout,
    SMException,
)
from gpudiag_agent.kernel_log.parse import LostLine, XIDLine, parse
from gpudiag_agent.kernel_log.signals import (
    AdapterInitLine,
    MismatchLine,
    NotProbedLine,
    PeerMemoryLine,
    RateLimitLine,
    SegfaultLine,
    TrainingLine,
)
from gpudiag_agent.kernel_log.sxid import SXIDDetail, SXIDLine

RPC = "Timeout after 6s of waiting for RPC response from GPU4 GSP! Expected function 103 (GSP_RM_ALLOC) (0x2081 0x4)."
FAULT = (
    "Ch 00000018, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted @ 0x7f2c_4a000000. "
    "Fault is of type FAULT_PDE ACCESS_TYPE_READ"
)
SAMPLES: dict[str, tuple[str, object]] = {
    "L1": (
        "NVRM: Xid (PCI:0000:05:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
        XIDLine(code=79, pci="0000:05:00.0", message="GPU has fallen off the bus."),
    ),
    "L2": (
        "NVRM: Xid (PCI:0000:01:00 GPU-I:05): 94, pid=7194, Contained: CE User Channel (0x9). RST: No, D-RST: No",
        XIDLine(
            code=94,
            pci="0000:01:00.0",
            gpu_instance=5,
            process_id=7194,
            message="Contained: CE User Channel (0x9). RST: No, D-RST: No",
            detail=Containment(contained=True, unit="CE User Channel (0x9)"),
        ),
    ),
    "L3": (
        "NVRM: Xid (PCI:0000:01:00): 95, pid=7062, Uncontained: LTC TAG (0x2,0x0). RST: Yes, D-RST: No",
        XIDLine(
            code=95,
            pci="0000:01:00.0",
            process_id=7062,
            message="Uncontained: LTC TAG (0x2,0x0). RST: Yes, D-RST: No",
            detail=Containment(contained=False, unit="LTC TAG (0x2,0x0)", reset=True, drain_reset=False),
        ),
    ),
    "L4": (
        "NVRM: Xid (PCI:0000:10:1c): 63, pid=1896, Row Remapper: New row marked for remapping, reset gpu to activate.",
        XIDLine(
            code=63,
            pci="0000:10:1c.0",
            process_id=1896,
            message="Row Remapper: New row marked for remapping, reset gpu to activate.",
        ),
    ),
    "L5": (
        f"NVRM: Xid (PCI:0000:9b:00): 119, pid=2024380, name=nvidia-smi, {RPC}",
        XIDLine(
            code=119,
            pci="0000:9b:00.0",
            process_id=2024380,
            process_name="nvidia-smi",
            message=RPC,
            detail=RPCTimeout(6, 4, 103, "GSP_RM_ALLOC", ("0x2081", "0x4")),
        ),
    ),
    "L6": (
        (
            "NVRM: Xid (PCI:0000:65:00): 13, pid='<unknown>', name=<unknown>, "
            "Graphics SM Warp Exception on (GPC 1, TPC 3, SM 0): Out Of Range Address"
        ),
        XIDLine(
            code=13,
            pci="0000:65:00.0",
            message="Graphics SM Warp Exception on (GPC 1, TPC 3, SM 0): Out Of Range Address",
            detail=SMException(1, 3, 0, "Out Of Range Address"),
        ),
    ),
    "L7": (
        f"NVRM: Xid (PCI:0000:65:00): 31, pid=31245, name=python3, {FAULT}",
        XIDLine(
            code=31,
            pci="0000:65:00.0",
            process_id=31245,
            process_name="python3",
            message=FAULT,
            detail=PageFault(
                channel="00000018",
                engine="GRAPHICS",
                client="GPCCLIENT_T1_0",
                address="0x7f2c_4a000000",
                fault="FAULT_PDE",
                access="ACCESS_TYPE_READ",
            ),
        ),
    ),
    "L8": (
        "NVRM: Xid (PCI:0018:01:00): 149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 09 (0x025525c6 0x00000000 …)",
        XIDLine(
            code=149,
            pci="0018:01:00.0",
            message="NETIR_LINK_EVT  Fatal   XC0 i0 Link 09 (0x025525c6 0x00000000 …)",
            detail=LinkEvent("NETIR_LINK_EVT", True, 0, 0, 9, 0x025525C6, 0),
        ),
    ),
    "L9": (
        "NVRM: Xid (PCI:0000:c5:00): 145, RLW_SRC_TRACK Nonfatal XC1 i0 Link 17 (0x04084507 0x00000004 …)",
        XIDLine(
            code=145,
            pci="0000:c5:00.0",
            message="RLW_SRC_TRACK Nonfatal XC1 i0 Link 17 (0x04084507 0x00000004 …)",
            detail=LinkEvent("RLW_SRC_TRACK", False, 1, 0, 17, 0x04084507, 4),
        ),
    ),
    "L10": (
        (
            "NVRM: Xid (PCI:0000:41:00): 74, pid=7, name=x, NVLink: fatal error detected on link "
            "14(0x0, 0x0, 0x10000, 0x0, 0x0, 0x0, 0x0)"
        ),
        XIDLine(
            code=74,
            pci="0000:41:00.0",
            process_id=7,
            process_name="x",
            message="NVLink: fatal error detected on link 14(0x0, 0x0, 0x10000, 0x0, 0x0, 0x0, 0x0)",
            detail=LinkRegisters(14, (0, 0, 0x10000, 0, 0, 0, 0)),
        ),
    ),
    "L11": (
        "NVRM: Xid (PCI:0008:01:00): 154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",
        XIDLine(
            code=154,
            pci="0008:01:00.0",
            message="GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",
            detail=Recovery(0, 1),
        ),
    ),
    "L12": (
        "NVRM: Xid (PCI:0000:01:00): 154, GPU recovery action changed from 0x0 (None) to 0x2 (OS Reboot)",
        XIDLine(
            code=154,
            pci="0000:01:00.0",
            message="GPU recovery action changed from 0x0 (None) to 0x2 (OS Reboot)",
            detail=Recovery(0, 2),
        ),
    ),
    "L13": (
        "nvidia-nvswitch0: SXid (PCI:0000:00:00.0): 20034, Fatal, Link 30 LTSSM Fault Up",
        SXIDLine(switch=0, code=20034, pci="0000:00:00.0", fatal=True, link=30, message="LTSSM Fault Up"),
    ),
    "L14": (
        "nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32 egress non-posted PRIV error (First)",
        SXIDLine(
            switch=3,
            code=12028,
            pci="0000:05:00.0",
            fatal=False,
            link=32,
            message="egress non-posted PRIV error",
            first=True,
        ),
    ),
    "L15": (
        "NVRM: knvlinkUpdatePostRxDetectLinkMask_IMPL: Failed to update Rx Detect Link mask!",
        TrainingLine("knvlinkUpdatePostRxDetectLinkMask_IMPL"),
    ),
    "L16": (
        "nvidia-peermem nv_get_p2p_free_callback:127 ERROR detected invalid context, skipping further processing",
        PeerMemoryLine("nv_get_p2p_free_callback", "detected invalid context, skipping further processing"),
    ),
    "L17": (
        "pt_main_thread[2536443]: segfault at 7f… ip 7f… sp 7f… error 4 in libnccl.so.2[…]",
        SegfaultLine("pt_main_thread", 2536443, "libnccl.so.2", 4),
    ),
}
FURTHER: tuple[tuple[str, object], ...] = (
    ("NVRM: Xid (0000:03:00): 14, Channel 1", XIDLine(code=14, pci="0000:03:00.0", message="Channel 1")),
    (
        "NVRM: Xid (PCI:0000:41:00 GPU-I:02): 31, x",
        XIDLine(code=31, pci="0000:41:00.0", gpu_instance=2, message="x"),
    ),
    (
        "NVRM: Xid (PCI:0000:41:00 GPU-I:02 GPU-CI:00): 43, pid=9, name=a b, Ch 1",
        XIDLine(
            code=43,
            pci="0000:41:00.0",
            gpu_instance=2,
            compute_instance=0,
            process_id=9,
            process_name="a b",
            message="Ch 1",
        ),
    ),
    ("NVRM: Xid (PCI:0000:41:00.0): 31, x", XIDLine(code=31, pci="0000:41:00.0", message="x")),
    ("NVRM: Xid (PCI:0000:41:00): 46", XIDLine(code=46, pci="0000:41:00.0")),
    (
        (
            "NVRM: Xid (PCI:0018:01:00): 149, pid='<unknown>', name=<unknown>, "
            "NETIR_LINK_EVT  Fatal   XC0 i0 Link 09 (0x025525c6 0x00000000)"
        ),
        XIDLine(
            code=149,
            pci="0018:01:00.0",
            message="NETIR_LINK_EVT  Fatal   XC0 i0 Link 09 (0x025525c6 0x00000000)",
            detail=LinkEvent("NETIR_LINK_EVT", True, 0, 0, 9, 0x025525C6, 0),
        ),
    ),
    ("NVRM: Xid (PCI:0000:3b:00): 79, words", XIDLine(code=79, pci="0000:3b:00.0", message="words")),
    ("NVRM: Xid (PCI:0000:41:00): 65001, new", XIDLine(code=65001, pci="0000:41:00.0", message="new")),
    (
        "[ 1234.567890] NVRM: Xid (PCI:0000:41:00): 45, pid=5, name=x, Ch 2 caused by previous Xid 31",
        XIDLine(
            code=45,
            pci="0000:41:00.0",
            process_id=5,
            process_name="x",
            caused_by=31,
            message="Ch 2 caused by previous Xid 31",
        ),
    ),
    ("NVRM: GPU 0000:18:00.0: GPU has fallen off the bus.", LostLine("0000:18:00.0")),
    (
        (
            "NVRM: Rate limiting GSP RPC error prints for GPU at PCI:0000:66:00 (printing 1 of every 30).  "
            "The GPU likely needs to be reset."
        ),
        RateLimitLine("0000:66:00.0"),
    ),
    (
        "NVRM: GPU 0000:18:00.0: RmInitAdapter failed! (0x24:0xffff:1568)",
        AdapterInitLine("0000:18:00.0", "0x24:0xffff:1568"),
    ),
    (
        "NVRM: GPU 0000:18:00.0: rm_init_adapter failed, device minor number 0",
        AdapterInitLine("0000:18:00.0"),
    ),
    (
        (
            "NVRM: API mismatch: the client 'nvidia-smi' (pid 42)\nNVRM: has the version 535.104.05, but this kernel "
            "module has\nNVRM: the version 535.54.03.  Please make sure that this\nNVRM: kernel module and all NVIDIA "
            "driver\nNVRM: components have the same version."
        ),
        MismatchLine("nvidia-smi", 42, "535.104.05", "535.54.03"),
    ),
    ("NVRM: API mismatch: the client 'a' (pid 42)", MismatchLine("a", 42)),
    ("NVRM: The NVIDIA probe routine was not called for 1 device(s).", NotProbedLine(1)),
    ("NVRM: The NVIDIA probe routine failed for 2 device(s).", NotProbedLine(2, failed=True)),
    (
        "NVRM: knvlinkDiscoverPostRxDetLinks_GH100: Getting peer2's postRxDetLinkMask failed!",
        TrainingLine("knvlinkDiscoverPostRxDetLinks_GH100"),
    ),
    (
        "nvidia-nvswitch0: SXid (PCI:0000:00:00.0): 20034, Severity 1 Engine instance 30 Sub-engine instance 00",
        SXIDDetail(
            switch=0, code=20034, pci="0000:00:00.0", message="Severity 1 Engine instance 30 Sub-engine instance 00"
        ),
    ),
    (
        "nvidia-nvswitch0: SXid (PCI:0000:00:00.0): 20034, Data {0x00000001, 0x00000000}",
        SXIDDetail(switch=0, code=20034, pci="0000:00:00.0", message="Data {0x00000001, 0x00000000}"),
    ),
)


@pytest.mark.parametrize("number", SAMPLES)
def test_every_sample_says_what_the_facts_sheet_expects(number: str) -> None:
    text, expected = SAMPLES[number]
    assert parse(text) == expected


@pytest.mark.parametrize(("text", "expected"), FURTHER)
def test_further_forms(text: str, expected: object) -> None:
    assert parse(text) == expected


def test_a_link_event_has_its_sub_code() -> None:
    line = parse(SAMPLES["L8"][0])
    assert isinstance(line, XIDLine)
    assert isinstance(line.detail, LinkEvent)
    assert line.detail.sub == 37


def test_a_unit_with_a_digit_and_a_link_of_minus_one() -> None:
    assert details.read(146, "TLW_RX_PIPE0 Fatal XC0 i1 Link -1 (0x0a0 0x4)") == LinkEvent(
        "TLW_RX_PIPE0", True, 0, 1, -1, 0xA0, 4
    )


def test_an_address_before_the_reset_tail() -> None:
    message = "Contained: SM (0x1). physAddr: 0x1234 RST: No, D-RST: Yes"
    assert details.read(94, message) == Containment(contained=True, unit="SM (0x1)", drain_reset=True)


def test_drain_and_reset_alone_is_not_reset() -> None:
    assert details.read(95, "Uncontained: x. D-RST: Yes") == Containment(contained=False, unit="x", drain_reset=True)


def test_fabric_managers_own_log() -> None:
    line = fabric_manager.parse(
        "[Jul 23 2024 07:53:55] [ERROR] [tid 841] detected NVSwitch fatal error 20034 on fid 0 on NVSwitch pci bus id "
        "00000000:86:00.0 physical id 3 port 33"
    )
    assert line == fabric_manager.FabricManagerLine(
        at="2024-07-23T07:53:55",
        level="ERROR",
        thread_id=841,
        fatal=True,
        code=20034,
        fabric_id=0,
        pci="0000:86:00.0",
        physical_id=3,
        port=33,
    )


@given(code=st.integers(0, 70000), message=st.text(max_size=400))
def test_no_words_break_the_details(code: int, message: str) -> None:
    details.read(code, message)


@given(text=st.text(max_size=300), head=st.sampled_from([text[:40] for text, _ in (*SAMPLES.values(), *FURTHER)]))
def test_no_text_breaks_a_reader(text: str, head: str) -> None:
    for form in (head + text, text):
        parse(form)
        sxid.parse(form)
        signals.parse(form)
        fabric_manager.parse(form)


@given(index=st.integers(0, 200), cut=st.integers(0, 200), sample=st.sampled_from(list(SAMPLES)))
def test_no_damage_breaks_it(index: int, cut: int, sample: str) -> None:
    text = SAMPLES[sample][0]
    parse(text[:index] + text[index + cut :])
