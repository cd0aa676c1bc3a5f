"""TLS that did not come about, as one word of the vocabulary.

None of it counts in the breaker: an agent that is called again in five minutes is no safer, and one whose certificate
has been renewed shall be read at once.
"""

import ssl

from gpudiag_api.vocabulary import NotRead
from gpudiag_operator.collect.outcome import FetchError

_VERIFY = {
    9: "its certificate is not valid yet; check the clocks of node and operator",
    10: "its certificate has expired; see the Secret it is mounted from, and whether the agent took up the new one",
    18: "its certificate is its own, no authority vouches for it; see --agent-tls and the agent's Secret",
    19: "no authority that the operator knows vouches for its certificate; see --agent-tls and the agent's Secret",
    20: "no authority that the operator knows vouches for its certificate; see --agent-tls and the agent's Secret",
    62: "its certificate is for another name; see --agent-server-name",
}
"""By X509_V_ERR_* of OpenSSL's x509_vfy.h."""
_PLAIN = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")


def tls_failure(error: BaseException, where: str) -> FetchError | None:
    """What a TLS error means; None: it is none."""
    found = _tls_error(error)
    if found is None:
        return None
    if isinstance(found, ssl.SSLCertVerificationError):
        why = _VERIFY.get(found.verify_code, f"its certificate is not good: {found.verify_message}")
        what, _, advice = why.partition("; ")
        return FetchError(
            NotRead.IDENTITY_MISMATCH,
            f"{where} could not show that it is an agent: {what}",
            ignored=True,
            advice=advice,
        )
    reason = found.reason or ""
    if any(word in reason for word in _PLAIN):
        return FetchError(
            NotRead.BAD_RESPONSE,
            f"{where} does not speak TLS",
            ignored=True,
            advice="start the agent with --tls-cert-dir, or the operator with --agent-tls off",
        )
    if "HANDSHAKE_FAILURE" in reason or "PROTOCOL_VERSION" in reason:
        return FetchError(
            NotRead.BAD_RESPONSE, f"{where} and the operator agree on no TLS: {reason.lower()}", ignored=True
        )
    return None


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """The error of the ssl module that aiohttp wrapped."""
    for _ in range(5):
        # Aiohttp's own errors pose as those of the ssl module, without what these know.
        inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
        if inner is None and (error is None or isinstance(error, ssl.SSLError)):
            return error
        error = inner if isinstance(inner, BaseException) else error and (error.__cause__ or error.__context__)
    return None
