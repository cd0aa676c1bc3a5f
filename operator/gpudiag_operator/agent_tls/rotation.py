"""What to change in the Secret next, so that no operator ever meets a certificate that it does not believe yet.

A new certificate is made when a third of the old one's life is left. First only its authority is published, beside
the old one; when every replica and every kubelet has had time to see that, the certificate is served; after the same
time again the old authority goes. Each step is one PATCH, and any process may make the next one: all that is known
is in the Secret. Pure but for the making of keys: the time comes in.
"""

from collections.abc import Mapping

import msgspec

from gpudiag_api.times import from_rfc3339, to_rfc3339
from gpudiag_operator.agent_tls import pairs
from gpudiag_operator.agent_tls.pairs import Pair, Term

CERTIFICATE, KEY, BUNDLE = "tls.crt", "tls.key", "ca.crt"
NEXT_CERTIFICATE, NEXT_KEY = "next.crt", "next.key"
SINCE = "since"
"""When the certificate in force was put there."""

SETTLE_SECONDS = 600.0
"""Between two steps: kubelets bring a changed Secret within two minutes, replicas look every half minute."""

Data = Mapping[str, bytes]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One change."""

    change: dict[str, bytes | None]
    """Keys of the Secret's data; None removes."""
    what: str
    """For the log."""


def settle_seconds(lifetime: float) -> float:
    """Time between two steps; shorter where certificates live for hours only."""
    return min(SETTLE_SECONDS, lifetime / 20)


def plan(stored: Data, *, server_name: str, now: float, lifetime: float) -> Step | None:
    """The next step; None: nothing is to be done now.

    Args:
        stored: the Secret's data.
        server_name: that certificates must carry.
        now: Unix seconds.
        lifetime: of a new certificate, seconds.
    """
    bundle, settle = stored.get(BUNDLE, b""), settle_seconds(lifetime)
    current = _term(stored, CERTIFICATE, KEY, server_name=server_name, now=now)
    if current is None:
        return _first(pairs.issue(server_name, now=now, lifetime=lifetime), now)
    following = _term(stored, NEXT_CERTIFICATE, NEXT_KEY, server_name=server_name, now=now)
    if following is not None:
        if now < following.made_at + settle:
            return None
        served = {CERTIFICATE: stored[NEXT_CERTIFICATE], KEY: stored[NEXT_KEY], SINCE: to_rfc3339(now).encode()}
        return Step(change={**served, NEXT_CERTIFICATE: None, NEXT_KEY: None}, what="the new certificate is served")
    if now >= current.ends_at - (current.ends_at - current.made_at) / 3:
        made = pairs.issue(server_name, now=now, lifetime=lifetime)
        both = current.authority + made.authority
        return Step(
            change={BUNDLE: both, NEXT_CERTIFICATE: made.certificate, NEXT_KEY: made.key},
            what="a new authority is published beside the old one",
        )
    if pairs.count(bundle) > 1 and now >= _since(stored, current) + settle:
        return Step(change={BUNDLE: current.authority}, what="the old authority is believed no more")
    return None


def ends_at(stored: Data, *, server_name: str, now: float) -> float | None:
    """When the certificate in force ends, Unix seconds; None: there is none."""
    current = _term(stored, CERTIFICATE, KEY, server_name=server_name, now=now)
    return None if current is None else current.ends_at


def _first(made: Pair, now: float) -> Step:
    """Also after somebody emptied the Secret, as one does with a key that leaked: what was believed before goes."""
    change = {
        CERTIFICATE: made.certificate,
        KEY: made.key,
        BUNDLE: made.authority,
        SINCE: to_rfc3339(now).encode(),
        NEXT_CERTIFICATE: None,
        NEXT_KEY: None,
    }
    return Step(change=change, what="a first certificate is served")


def _term(stored: Data, certificate: str, key: str, *, server_name: str, now: float) -> Term | None:
    return pairs.examine(
        stored.get(certificate, b""),
        stored.get(key, b""),
        bundle=stored.get(BUNDLE, b""),
        server_name=server_name,
        now=now,
    )


def _since(stored: Data, current: Term) -> float:
    try:
        return from_rfc3339(stored[SINCE].decode())
    except (KeyError, ValueError):
        return current.made_at
