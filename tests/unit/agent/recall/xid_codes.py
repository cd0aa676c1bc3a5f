"""All 176 codes of facts/xids.md section 3, alone, with words that say no more: what must be said of each.

By the lists of section 4, not by the agent's own catalogue, so that the two can differ.
"""

from gpudiag_api.vocabulary import Action, Blame, Severity

from .gpu_faults import APP, BOOT, HARD, IDLE_RESET, NOBODY, RESET, SITE, SOFT, C, I, W

Judged = tuple[Severity, Blame, Action]


def _codes(*parts: int | range) -> tuple[int, ...]:
    return tuple(code for part in parts for code in (part if isinstance(part, range) else (part,)))


COPY_ENGINES = _codes(39, 40, 41, 70, 71, 72, 75, 76, 77, 85, range(126, 136))
DECODERS = _codes(68, 83, 84, 88, 89, 96, 97, 98)
JPEG, FLOW, ENCODERS = _codes(82, range(99, 106)), (86, 139), (47, 65, 73, 142)
_APPLICATION = _codes(
    8, 11, 13, 25, 31, 32, 43, 44, 45, 60, 69, 80, 108, 137, 141, 152, 153, 170, 174,
    *COPY_ENGINES, *DECODERS, *JPEG, *FLOW, *ENCODERS,
)  # fmt: skip
_UNUSED = _codes(
    range(1, 8), 9, 10, 12, 15, 17, 18, range(20, 25), range(26, 31), range(33, 37), 42, range(49, 54), 55,
    range(57, 60), 87, 90, 91, 138,
)  # fmt: skip
_EXPECTED: dict[tuple[int, ...], Judged] = {
    (46, 48, 62, 64, 74, 95, 110, 136, 140, 143, 155, 156, 158, 171, 172, 175): (C, HARD, RESET),
    (119, 120, 169): (C, SOFT, RESET),
    (167, 173): (C, HARD, BOOT),
    _APPLICATION: (I, APP, Action.CHECK_APPLICATION),
    _UNUSED: (W, NOBODY, Action.CONTACT_SUPPORT),
    (61, 122, 123, 124, 125): (W, HARD, Action.CONTACT_SUPPORT),
    (54,): (W, SITE, Action.CHECK_POWER),
    (78,): (W, SOFT, Action.UPDATE_DRIVER),
    (94, 166): (W, HARD, IDLE_RESET),
    (109,): (W, NOBODY, IDLE_RESET),
    (151,): (W, SOFT, BOOT),
    (163,): (W, SITE, IDLE_RESET),
    (168,): (W, HARD, BOOT),
}
EXPECTED: dict[int, Judged] = {code: judged for codes, judged in _EXPECTED.items() for code in codes}
"""Codes that are a finding. 79 is one of the GPULost check."""
LOST = 79
NOTES = frozenset(
    _codes(14, 37, 38, 66, 67, 92, 93, 106, 107, 121, 157, 159, 160, 161, 162, 164, 165, 176)  # bucket IGNORE, notes
    + _codes(16, 19, 56, 81, range(111, 119))  # of the display, which says nothing about computing
    + _codes(63, 154, range(144, 151))  # their words, or the GPU's own flags, decide
)
"""Codes that are kept in the list of XIDs and are no finding."""
