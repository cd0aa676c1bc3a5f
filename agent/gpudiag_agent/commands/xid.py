"""``gpudiag-agent xid``: what an XID means, on any machine, without a GPU, a driver or a network."""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, NoReturn, TextIO

import msgspec

from gpudiag_agent.commands.xid_answers import Answer, of_code, of_line
from gpudiag_agent.kernel_log import scan
from gpudiag_agent.kernel_log.parse import LostBegin, LostEnd
from gpudiag_api.vocabulary import Severity

PROGRAM = "gpudiag-agent xid"
EXIT_FOUND = 1
EXIT_USAGE = 64
"""EX_USAGE of sysexits.h."""

_DESCRIPTION = """\
Says what an XID (or the SXid of an NVSwitch) means: how bad, whose fault, what to do.
Needs no GPU, no driver and no network.
"""
_EPILOGUE = """\
examples:
  gpudiag-agent xid 79
      one code; several are fine: xid 13 31 79
  gpudiag-agent xid --explain 'NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.'
      a line, with the details in its words
  dmesg | gpudiag-agent xid --scan -
  gpudiag-agent xid --scan /var/log/kern.log --output json
      every XID and SXid of a log, in its order: dmesg, journald and syslog lines are understood

exit status: 0 explained, or nothing wrong in what was read; 1 a Warning or Critical code is in it; 64 wrong usage.
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command; gives the exit status."""
    given = _parse(arguments)
    try:
        if given.scan is not None:
            return _scan(given.scan, given.output, sys.stdout)
        if given.explain is not None:
            return _explain(given.explain, given.output, sys.stdout)
        _write((of_code(code) for code in given.codes), given.output, sys.stdout, tall=True)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has enough. Python must not try again to flush when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 130
    return 0


def _explain(line: str, output: str, to: TextIO) -> int:
    found = scan.read_line(line.encode(errors="replace"))
    answers = [] if found is None or isinstance(found, LostBegin | LostEnd) else [of_line(found)]
    _write(answers, output, to, tall=True)
    if not answers:
        sys.stderr.write(f"{PROGRAM}: no XID of the kernel in this line\n")
    to.flush()
    return _status(answers)


def _scan(path: str, output: str, to: TextIO) -> int:
    bad = 0

    def answers(stream: BinaryIO) -> Iterator[Answer]:
        nonlocal bad
        for hit in scan.scan(_chunks(stream, to)):
            answer = of_line(hit.what, hit.number)
            bad |= _status([answer])
            yield answer

    try:
        if path == "-":
            _write(answers(sys.stdin.buffer), output, to, tall=False)
        else:
            with open(path, "rb") as stream:  # noqa: PTH123 - a FIFO or /dev/stdin as well
                _write(answers(stream), output, to, tall=False)
        to.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        sys.stderr.write(f"{PROGRAM}: --scan {path}: {error.strerror or error}\n")
        return EXIT_USAGE
    return bad


def _chunks(stream: BinaryIO, to: TextIO) -> Iterator[bytes]:
    while chunk := os.read(stream.fileno(), scan.CHUNK):
        yield chunk
        to.flush()


def _status(answers: Iterable[Answer]) -> int:
    return EXIT_FOUND if any(answer.severity is not Severity.INFO for answer in answers) else 0


def _write(answers: Iterable[Answer], output: str, to: TextIO, *, tall: bool) -> None:
    if output == "json":
        _write_json(answers, to)
    elif tall:
        to.write("\n".join(_tall(answer) for answer in answers))
    else:
        _write_rows(answers, to)


def _write_json(answers: Iterable[Answer], to: TextIO) -> None:
    before = "[\n  "
    for answer in answers:
        to.write(before + msgspec.json.encode(answer).decode())
        before = ",\n  "
    to.write("[]\n" if before.startswith("[") else "\n]\n")


_ROW = "{:>8}  {:4}  {:>5}  {:12}  {:8}  {:11}  {:20}  {}\n"


def _write_rows(answers: Iterable[Answer], to: TextIO) -> None:
    to.write(_ROW.format("LINE", "KIND", "CODE", "PCI", "SEVERITY", "BLAME", "ACTION", "MEANING"))
    count = 0
    for answer in answers:
        count += 1
        values = (answer.line or "", answer.kind, answer.code, answer.pci or "")
        to.write(_ROW.format(*values, answer.severity, answer.blame, answer.action, answer.meaning))
    if not count:
        to.write("no XID and no SXid\n")


def _tall(answer: Answer) -> str:
    fields = {
        "code": f"{'XID' if answer.kind == 'xid' else 'SXid'} {answer.code}  {answer.name}".rstrip(),
        "meaning": answer.meaning,
        "class": answer.category,
        "severity": answer.severity,
        "blame": answer.blame,
        "action": answer.action,
        "NVIDIA says": " / ".join(bucket for bucket in (answer.immediate, answer.investigatory) if bucket),
        "PCI": answer.pci,
        "MIG": None if answer.gpu_instance is None else f"GI {answer.gpu_instance} CI {answer.compute_instance}",
        "link": answer.link,
        "process": None if answer.process_id is None else f"{answer.process_name or '?'} (pid {answer.process_id})",
        "caused by": None if answer.caused_by is None else f"XID {answer.caused_by}",
        "message": answer.message,
        "details": _words(answer.details),
    }
    shown = [(name, str(value)) for name, value in fields.items() if value not in {None, ""}]
    return "".join(f"{name + ':':13} {_printable(value)}\n" for name, value in shown)


def _words(details: object) -> str:
    if details is None:
        return ""
    known = msgspec.to_builtins(details)
    return ", ".join(f"{name} {value}" for name, value in known.items() if name != "kind" and value not in ("", None))


def _printable(text: str) -> str:
    """Without control characters: a log line must not drive the terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"{self.prog}: {message} (try {self.prog} --help)\n")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog=PROGRAM,
        description=_DESCRIPTION,
        epilog=_EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("codes", nargs="*", type=_code, metavar="CODE", help="an XID, 0 to 9999, or an SXid")
    parser.add_argument("--explain", metavar="LINE", help="a line of the kernel log")
    parser.add_argument("--scan", metavar="FILE", help="a log; - reads standard input")
    parser.add_argument("--output", choices=("table", "json"), default="table", help="(default: table)")
    given = parser.parse_args(arguments)
    if sum((bool(given.codes), given.explain is not None, given.scan is not None)) != 1:
        parser.error("give codes, or --explain LINE, or --scan FILE: exactly one of the three")
    return given


def _code(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 0xFFFF):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no XID: write a number from 0 to 65535")
    return int(text)
