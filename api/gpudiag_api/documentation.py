"""Where a check is explained: one page per check, with its rule, its traps, what clears it and a runbook."""

import re

from gpudiag_api.vocabulary import Check

FOLDER = "docs/checks"
"""In the project's repository."""

_WORDS = re.compile(r"GPU|ECC|SRAM|PCIe|NVLink|InfoROM|InfiniBand|IMEX|SXID|XID|MIG|GSP|C2C|[A-Z][a-z]+")


def slug(check: Check) -> str:
    """The name of a check's page: ``PCIeLink`` gives ``pcie-link``."""
    return "-".join(word.lower() for word in _WORDS.findall(check))


def of(check: Check) -> str:
    """The page of a check: ``docs/checks/pcie-link.md``."""
    return f"{FOLDER}/{slug(check)}.md"
