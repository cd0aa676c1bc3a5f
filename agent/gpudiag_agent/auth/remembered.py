"""What the API server said about tokens, remembered within bounds of number and time. Pure: times come in.

Tokens that may read are kept apart from those that may not: whoever sends many of the latter, or is able to make many,
pushes out only the likes of them.
"""

from collections import OrderedDict

import msgspec

FRESH_SECONDS = 60.0
"""An answer is used for so long; a token whose Pod or account is deleted may read for so long after that."""
REFUSED_SECONDS = 10.0
RETRY_SECONDS = 5.0
"""A known token is not asked for again so soon after the API server could not say."""
UNDATED_SECONDS = 3600.0
"""How long a token that names no end stays known while the API server cannot review it."""
MOST_ALLOWED = 64
MOST_REFUSED = 512


class Said(msgspec.Struct, kw_only=True):
    """One answer."""

    account: str
    """``namespace/name``, or empty: the token is good for nothing."""
    expires_at: float | None = None
    """Unix seconds."""
    ask_at: float
    """Monotonic seconds, from which on the API server is asked again."""
    forget_at: float = 0.0
    """Monotonic seconds, from which on a token without an end is known no more."""


class Remembered:
    """Answers by fingerprint; the least recently used go first."""

    def __init__(self) -> None:
        self._allowed: OrderedDict[bytes, Said] = OrderedDict()
        self._refused: OrderedDict[bytes, Said] = OrderedDict()

    def __len__(self) -> int:
        return len(self._allowed) + len(self._refused)

    def allow(self, key: bytes, account: str, *, expires_at: float | None, monotonic: float) -> Said:
        """The token belongs to an account that may read."""
        self._refused.pop(key, None)
        said = Said(
            account=account,
            expires_at=expires_at,
            ask_at=monotonic + FRESH_SECONDS,
            forget_at=monotonic + UNDATED_SECONDS,
        )
        _put(self._allowed, key, said, MOST_ALLOWED)
        return said

    def refuse(self, key: bytes, account: str, *, monotonic: float) -> Said:
        """The token is no good, or belongs to an account (``account``) that may not read."""
        self._allowed.pop(key, None)
        said = Said(account=account, ask_at=monotonic + REFUSED_SECONDS)
        _put(self._refused, key, said, MOST_REFUSED)
        return said

    def allowed(self, key: bytes, *, now: float, monotonic: float) -> Said | None:
        """What is known of a token that may read, fresh or not; never one that has ended."""
        said = self._allowed.get(key)
        if said is None:
            return None
        ended = monotonic >= said.forget_at if said.expires_at is None else now >= said.expires_at
        if ended:
            del self._allowed[key]
            return None
        self._allowed.move_to_end(key)
        return said

    def refused(self, key: bytes, *, monotonic: float) -> Said | None:
        """A token that was refused a moment ago."""
        said = self._refused.get(key)
        if said is not None and monotonic >= said.ask_at:
            del self._refused[key]
            return None
        return said


def _put(kept: OrderedDict[bytes, Said], key: bytes, said: Said, most: int) -> None:
    kept[key] = said
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)
