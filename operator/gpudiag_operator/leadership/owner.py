"""Whose the Leases are: the operator's service account, so that they go with it when gpudiag is uninstalled.

Nobody installs a Lease, so nobody would take it away; and one that a chart brought and took would be made anew by an
operator that is still ending. The garbage collector takes it when the account is gone.
"""

import base64
from pathlib import Path

import msgspec

TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
"""Where the kubelet mounts a Pod's own token; no such file outside a cluster."""
_MOST = 16 * 1024


class _Account(msgspec.Struct):
    name: str
    uid: str


class _Bound(msgspec.Struct):
    namespace: str
    serviceaccount: _Account


class _Claims(msgspec.Struct):
    bound: _Bound = msgspec.field(name="kubernetes.io")


_claims = msgspec.json.Decoder(_Claims)


def own_account(namespace: str, *, token: Path = TOKEN) -> dict[str, str] | None:
    """The owner reference; None: this process runs outside a cluster, or as an account of another namespace.

    Args:
        namespace: of the Leases; an owner must be in the same one.
        token: a service account's, of which only the payload is read: RFC 7519, and the API server's private claims.
    """
    try:
        payload = token.read_bytes()[:_MOST].split(b".")[1]
        bound = _claims.decode(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4))).bound
    except (OSError, IndexError, ValueError, msgspec.DecodeError):
        return None
    if bound.namespace != namespace:
        return None
    account = bound.serviceaccount
    return {"apiVersion": "v1", "kind": "ServiceAccount", "name": account.name, "uid": account.uid}
