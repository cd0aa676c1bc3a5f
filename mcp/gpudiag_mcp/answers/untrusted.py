"""Text that came from a node is data: it is cleaned, capped, and named so that nobody takes it for an instruction.

The rule of all answers: free text of a node stands only in fields named ``untrusted_…``, at most 300 characters, one
line, without control, bidirectional and invisible characters and without terminal escapes. Everything else that a
node may have written passes :func:`word` (CamelCase), :func:`name` (no spaces) or :func:`model` (looks like a product
name), at most 64 characters each; what does not is replaced, not repaired. Sentences of the facade itself are made of
such words and of numbers.
"""

import re
import unicodedata

LONGEST = 300
"""Characters of free text."""
LONGEST_NAME = 64
HIDDEN = "(not shown)"
"""Instead of a name that is none."""

_LOOKED_AT = 4096
"""Only so much of a text is cleaned: what follows would be cut anyway, and a log line may have 1 MB."""
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor, erase
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\|$)"  # OSC: titles, links
    r"|\x1b[PX^_][^\x1b]*(?:\x1b\\|$)"  # DCS, SOS, PM, APC
    r"|\x1b[ -/]*[0-~]"
    r"|\x9b[0-?]*[ -/]*[@-~]"
)
_SPACES = re.compile(r"\s+")
_NAME = re.compile(r"[A-Za-z0-9._:/,()+@=%-]+", re.ASCII)
_MODEL = re.compile(
    r"(?:NVIDIA|Tesla|Quadro|GeForce|GRID|TITAN|RTX|GTX)(?: (?=[^ ]*[A-Z0-9(])[A-Za-z0-9()/._+-]{1,24}){0,6}", re.ASCII
)
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]{0,62}", re.ASCII)
_OBJECT = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", re.ASCII)
_HIDDEN = frozenset({"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"})
"""Unicode categories: control, format (bidi, zero width, tags), private, surrogate, unassigned, separators."""


def text(value: str | None, limit: int = LONGEST) -> str:
    """Free text: one clean line of at most ``limit`` characters; what was cut is said by an ellipsis."""
    if not value:
        return ""
    clean = _ESCAPES.sub("", value[:_LOOKED_AT])
    clean = "".join(" " if char in "\n\r\t" else char for char in clean if char in "\n\r\t" or not _hidden(char))
    clean = _SPACES.sub(" ", clean).strip()
    cut = len(clean) > limit or len(value) > _LOOKED_AT
    return f"{clean[: limit - 1].rstrip()}…" if cut else clean


def name(value: str | None, limit: int = LONGEST_NAME) -> str:
    """A version, UUID, address, serial number or time: characters that these have, and no spaces."""
    if not value:
        return ""
    return value if len(value) <= limit and _NAME.fullmatch(value) else HIDDEN


def model(value: str | None) -> str:
    """The product name of a GPU, for example ``NVIDIA H100 80GB HBM3``: a brand, then words with a capital or digit."""
    if not value:
        return ""
    return value if len(value) <= LONGEST_NAME and _MODEL.fullmatch(value) else HIDDEN


def word(value: str | None) -> str:
    """A word of the vocabulary, or of a newer one: CamelCase without spaces; anything else is ``Unrecognised``."""
    if not value:
        return ""
    return value if _WORD.fullmatch(value) else "Unrecognised"


def object_name(value: str | None) -> str:
    """The name of a Kubernetes object that an agent reported; anything else is not shown."""
    if not value:
        return ""
    return value if _OBJECT.fullmatch(value) else HIDDEN


def _hidden(char: str) -> bool:
    return unicodedata.category(char) in _HIDDEN
