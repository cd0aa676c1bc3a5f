"""NVLink 4 and older, XID 74: the seven error registers → what to do.

NVIDIA's workflow, tested bit by bit: several bits may be set at once, and the strongest rule that fits decides.
"Alone" is: no other fault of that GPU within a day.
"""

from enum import Enum
from typing import NamedTuple

from gpudiag_agent.kernel_log.details import LinkRegisters
from gpudiag_api.vocabulary import Action


class When(Enum):
    """How often a bit must have been seen within a day before it counts."""

    ONCE = "once"
    ALONE = "alone"
    TWICE = "twice"
    TWICE_ON_LINK = "twice on the link"


class Rule(NamedTuple):
    """A row of the workflow."""

    register: int
    mask: int
    when: When
    words: str
    action: Action


def _bits(*numbers: int) -> int:
    return sum(1 << number for number in numbers)


_S, _L, _D = Action.CONTACT_SUPPORT, Action.RESEAT_OR_CHECK_LINK, Action.RUN_DIAGNOSTICS
RULES = (
    Rule(0, _bits(1, 20), When.ALONE, "unexpected error", _S),
    Rule(0, _bits(4, 5), When.TWICE_ON_LINK, "ECC or parity error of the link's hardware", _S),
    Rule(0, _bits(8, 9, 12, 16, 17, 24, 28), When.TWICE, "error of the link's hardware", _L),
    Rule(0, _bits(21, 22), When.ALONE, "marginal signal", _L),
    Rule(0, _bits(27, 29), When.TWICE, "unexpected error", _S),
    Rule(2, _bits(0, 1, 2, 6), When.TWICE_ON_LINK, "ECC or parity error of the link's hardware", _S),
    Rule(2, _bits(13), When.ONCE, "unexpected error", _S),
    Rule(2, _bits(16, 19), When.TWICE, "repeated error", _D),
    Rule(2, _bits(17, 18), When.TWICE, "repeated error", _D),
    Rule(3, _bits(16, 17), When.ALONE, "unexpected error", _S),
    Rule(3, _bits(18), When.ALONE, "the fabric must be reset", _S),
    Rule(
        4, _bits(18, 19, 21, 22, 24, 25, 27, 28), When.TWICE_ON_LINK, "ECC or parity error of the link's hardware", _S
    ),
    Rule(4, _bits(20, 23, 26, 29), When.TWICE_ON_LINK, "ECC error of the link's hardware", _D),
)


def matching(now: LinkRegisters, *, before: tuple[LinkRegisters, ...], alone: bool) -> tuple[Rule, ...]:
    """The rules that fit an error.

    Args:
        now: its registers.
        before: those of earlier errors on the same GPU within a day.
        alone: whether the GPU had no other fault within that day.
    """
    return tuple(rule for rule in RULES if _set(now, rule) and _fits(rule, now, before, alone=alone))


def _set(error: LinkRegisters, rule: Rule) -> bool:
    return bool(error.registers[rule.register] & rule.mask)


def _fits(rule: Rule, now: LinkRegisters, before: tuple[LinkRegisters, ...], *, alone: bool) -> bool:
    if rule.when is When.ONCE:
        return True
    if rule.when is When.ALONE:
        return alone
    same_link = rule.when is When.TWICE_ON_LINK
    return any(_set(earlier, rule) and (not same_link or earlier.link == now.link) for earlier in before)
