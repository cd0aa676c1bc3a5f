"""What tools put before a kernel line: taken off where it says that the kernel spoke, else the line is nobody's.

For logs that people paste or pipe. On ``/dev/kmsg`` the facility decides (``record``), and nothing can be forged.
"""

import re

_MONOTONIC = r"\[[ \d.]{1,24}(?:\s*<[ \d.]{1,16}>)?\]"
"""``[12345.678901]``, and ``[12345.678901 <    0.000012>]`` of ``dmesg -d``."""
_HUMAN = r"\[\w{3} \w{3} [ \d]?\d \d\d:\d\d:\d\d \d{4}\]"
"""``[Tue Nov 21 08:00:00 2026]``: ``dmesg -T``."""
_RELATIVE = r"\[(?:\w{3} ?\d{1,2} \d\d:\d\d| *\+ *[\d.]{1,16})\]"
"""``[Nov21 08:00]`` and ``[  +0.000012]``: ``dmesg -H``."""
_ISO = r"(?:\w{3} )?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?: ?[A-Z]{1,5}|[+-]\d\d:?\d\d)?"
_SYSLOG = r"\w{3} [ \d]?\d \d\d:\d\d:\d\d(?:\.\d{1,9})?"
_HOST = r"[\w.-]{1,253}"
_PREFIX = re.compile(
    r"\s{0,8}(?:<\d{1,3}>)?"
    r"(?:kern  ?:\w{1,8} {0,4}: )?"
    rf"(?:(?:{_MONOTONIC}|{_HUMAN}|{_RELATIVE}|(?:1 )?{_ISO}|{_SYSLOG})\s{{1,8}})?"
    rf"(?:(?:{_HOST} )?kernel(?:: | - - (?:-|\[[^\]]{{0,200}}\]) ))?"
    rf"(?:{_MONOTONIC}\s{{0,8}})?",
    re.ASCII,
)


def strip(line: str) -> str:
    """The line without its stamp, host and ``kernel:``. Other programs' names stay, so that no form fits them."""
    match = _PREFIX.match(line)
    return line[match.end() :] if match else line
