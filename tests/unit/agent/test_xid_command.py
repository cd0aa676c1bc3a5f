"""``gpudiag-agent xid``: codes, lines and whole logs explained, offline; wrong usage is a sentence."""

import io
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudiag_agent.__main__ import main
from gpudiag_agent.kernel_log import scan
from gpudiag_agent.kernel_log.parse import LostLine, XIDLine

LINE = "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
PREFIXES = (
    "",
    "[12345.678901] ",
    "[    0.000001] ",
    "[12345.678901 <    0.000012>] ",
    "[Tue Nov 21 08:00:00 2026] ",
    "[Nov21 08:00] ",
    "[  +0.000012] ",
    "<3>[12345.678901] ",
    "kern  :err   : [12345.678901] ",
    "Nov 21 08:00:00 node-7 kernel: ",
    "Nov  1 08:00:00 node-7.example.org kernel: [12345.678901] ",
    "[12345.678901] node-7 kernel: ",
    "2026-11-21T08:00:00.123456+00:00 node-7 kernel: ",
    "2026-11-21T08:00:00,123456+00:00 ",
    "Sat 2026-11-21 08:00:00 UTC node-7 kernel: ",
    "<3>1 2026-11-21T08:00:00Z node-7 kernel - - - ",
    "node-7 kernel: ",
    "3,42,1500000,-;",
)
FORGED = (
    "Nov 21 08:00:00 node-7 python3[17]: ",
    "Nov 21 08:00:00 node-7 app: kernel: ",
    "user  :notice: [12345.678901] ",
    "11,42,1500000,-;",
    "[12345.678901] myprogram: ",
    "the log said: ",
)


def hits(*chunks: bytes) -> list[scan.Found]:
    return [hit.what for hit in scan.scan(chunks)]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        status = main(["xid", *arguments])
    except SystemExit as ended:
        status = int(ended.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def answers(path: Path, text: bytes, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[dict[str, object]]]:
    path.write_bytes(text)
    status, out, _ = run(capsys, "--scan", str(path), "--output", "json")
    return status, json.loads(out)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_whatever_the_kernels_line_comes_in(prefix: str) -> None:
    (line,) = hits((prefix + LINE + "\n").encode())
    assert isinstance(line, XIDLine)
    assert (line.code, line.pci) == (79, "0000:3b:00.0")


@pytest.mark.parametrize("prefix", FORGED)
def test_what_another_program_said_is_no_xid(prefix: str) -> None:
    assert hits((prefix + LINE + "\n").encode()) == []


class TestScan:
    def test_an_array_in_the_order_of_the_log(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        status, found = answers(
            tmp_path / "log",
            b"NVRM: Xid (PCI:0000:3b:00): 31, pid=7, name=train, x\n"
            b"\xff\xfe\x00 not text\n"
            b"[1.0] nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, Fatal, Link 30 LTSSM Fault Up\n"
            b"[1.0] nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, Data {0x00000001}\n"
            b"NVRM: GPU 0000:18:00.0: GPU has fallen off the bus.\n"
            b"NVRM: Xid (PCI:0000:3b:00): 999, new",
            capsys,
        )
        assert [(one["code"], one["kind"], one["pci"], one["line"]) for one in found] == [
            (31, "xid", "0000:3b:00.0", 1),
            (20034, "sxid", "0000:05:00.0", 3),
            (79, "xid", "0000:18:00.0", 5),
            (999, "xid", "0000:3b:00.0", 6),
        ]
        assert (found[0]["processName"], found[1]["link"]) == ("train", 30)
        assert [one["severity"] for one in found] == ["Info", "Critical", "Critical", "Warning"]
        assert status == 1

    def test_an_applications_error_is_nothing_wrong(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        status, found = answers(tmp_path / "log", b"NVRM: Xid (PCI:0000:3b:00): 31, x\n", capsys)
        assert (status, len(found)) == (0, 1)

    @pytest.mark.parametrize("text", [b"", b"\n\n", b"\x00\xff" * 1000, b"no newline"])
    def test_nothing_found(self, text: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert answers(tmp_path / "log", text, capsys) == (0, [])

    def test_a_lost_gpu_in_three_lines_is_one(self) -> None:
        text = (
            b"[1.0] NVRM: The NVIDIA GPU 0000:18:00.0\n"
            b"[1.0] NVRM: (PCI ID: 10de:2330) installed in this system has\n"
            b"[1.0] NVRM: fallen off the bus and is not responding to commands.\n"
        )
        assert hits(text) == [LostLine("0000:18:00.0")]
        assert hits(text.replace(b"\n[1.0] ", rb"\x0a")) == [LostLine("0000:18:00.0")]
        first, _, last = text.splitlines(keepends=True)
        assert hits(last) == []
        assert hits(first + b"noise\n" * 20 + last) == []

    def test_a_line_beyond_the_bound_is_cut_and_the_next_one_is_read(self) -> None:
        long = b"NVRM: Xid (PCI:0000:3b:00): 48, " + b"x" * 100_000 + b"\n"
        found = hits(*[long[i : i + 1000] for i in range(0, len(long), 1000)], LINE.encode())
        assert [line.code for line in found if isinstance(line, XIDLine)] == [48, 79]
        assert all(len(line.message) <= scan.LONGEST_LINE for line in found if isinstance(line, XIDLine))

    def test_memory_is_bounded_however_long_a_line_is(self) -> None:
        tracemalloc.start()
        assert list(scan.scan(bytes(scan.CHUNK) for _ in range(80))) == []
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 8 * scan.CHUNK

    @given(text=st.binary(max_size=400), size=st.integers(1, 50))
    def test_where_it_is_cut_does_not_matter(self, text: bytes, size: int) -> None:
        whole = text + b"\n" + LINE.encode() + b"\n" + text
        pieces = [whole[i : i + size] for i in range(0, len(whole), size)]
        assert hits(*pieces) == hits(whole)
        assert hits(whole)

    def test_the_prefilter_loses_nothing(self) -> None:
        lines = [prefix + LINE for prefix in PREFIXES] * 50
        assert len(hits("\n".join(["noise"] * 5000 + lines).encode())) == len(lines)

    def test_a_file_that_is_not_there(self, capsys: pytest.CaptureFixture[str]) -> None:
        status, _, err = run(capsys, "--scan", "/nope")
        assert (status, err) == (64, "gpudiag-agent xid: --scan /nope: No such file or directory\n")

    def test_a_reader_that_goes_away_is_no_traceback(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.write_text((LINE + "\n") * 20_000)
        command = f"{sys.executable} -m gpudiag_agent xid --scan {log} | head -1"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout.startswith("    LINE")
        assert done.stderr == ""


class TestCode:
    def test_one_code(self, capsys: pytest.CaptureFixture[str]) -> None:
        status, out, _ = run(capsys, "79")
        assert status == 0
        for words in ("XID 79", "fallen off the bus", "Critical", "Hardware", "RebootNode", "RESTART_BM"):
            assert words in out

    def test_several_as_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        _, out, _ = run(capsys, "13", "20034", "999", "--output", "json")
        found = json.loads(out)
        assert [(one["code"], one["kind"], one["pci"], one["class"]) for one in found] == [
            (13, "xid", None, "Application"),
            (20034, "sxid", None, "PotentiallyFatal"),
            (999, "xid", None, "Unclassified"),
        ]

    @pytest.mark.parametrize("arguments", [[], ["abc"], ["-1"], ["99999999"], ["79", "--scan", "-"], ["--nope"]])
    def test_wrong_usage(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        status, out, err = run(capsys, *arguments)
        assert (status, out) == (64, "")
        assert err.startswith("gpudiag-agent xid: ")
        assert err.count("\n") == 1

    def test_help_teaches(self, capsys: pytest.CaptureFixture[str]) -> None:
        status, out, _ = run(capsys, "-h")
        assert status == 0
        assert "dmesg | gpudiag-agent xid --scan -" in out


class TestExplain:
    def test_the_words_decide(self, capsys: pytest.CaptureFixture[str]) -> None:
        line = "[1.0] NVRM: Xid (PCI:0018:01:00): 149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 09 (0x025525c6 0x00000000)"
        status, out, _ = run(capsys, "--explain", line)
        assert status == 1
        for words in ("XID 149", "0018:01:00.0", "DrainAndResetGPU", "link:         9"):
            assert words in out

    def test_no_xid(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(capsys, "--explain", "hello", "--output", "json") == (
            0,
            "[]\n",
            "gpudiag-agent xid: no XID of the kernel in this line\n",
        )

    def test_a_line_cannot_drive_the_terminal(self, capsys: pytest.CaptureFixture[str]) -> None:
        _, out, _ = run(capsys, "--explain", "NVRM: Xid (PCI:0000:3b:00): 31, \x1b[31mred")
        assert "\x1b" not in out


def test_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    os.write(writing, LINE.encode())
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(stream))
        status, out, _ = run(capsys, "--scan", "-")
    assert status == 1
    assert "0000:3b:00.0" in out
