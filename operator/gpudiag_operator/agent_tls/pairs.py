"""Making and examining certificates: an authority that signs one server certificate and is forgotten.

The authority's key never leaves this module, so there is none to steal: whoever reads the Secret can pose as an agent
until that certificate ends, and can sign nothing else. All agents share one certificate; its one name is not a host's
but that of the service, which the operator asks for whatever the Pod's address is.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

BACKDATE = 3600.0
"""Seconds: certificates hold for nodes whose clock is late by so much."""


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """A server certificate, its key, and the authority that vouches for it; PEM."""

    certificate: bytes
    key: bytes
    authority: bytes


class Term(msgspec.Struct, frozen=True, kw_only=True):
    """When a certificate was made and when it ends, Unix seconds; and who vouches for it, PEM."""

    made_at: float
    ends_at: float
    authority: bytes


def issue(server_name: str, *, now: float, lifetime: float) -> Pair:
    """Make an authority and its one certificate.

    Args:
        server_name: for which it holds.
        now: Unix seconds.
        lifetime: seconds from now.
    """
    begin, end = _time(now - BACKDATE), _time(now + lifetime)
    root, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    # The short one is for those who cannot know the namespace, such as a monitor of Prometheus.
    names = [x509.DNSName(one) for one in dict.fromkeys((server_name, server_name.partition(".")[0]))]
    # Subjects differ, or OpenSSL would take one authority of a bundle for another.
    name = _name(f"gpudiag agents {x509.random_serial_number():x}"[:64])
    authority = (
        _builder(name, name, root.public_key(), root.public_key(), begin, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.NameConstraints(names, None), critical=True)
        .sign(root, hashes.SHA256())
    )
    certificate = (
        _builder(_name("gpudiag-agent"), name, key.public_key(), root.public_key(), begin, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(root, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Pair(certificate=_pem(certificate), key=private, authority=_pem(authority))


def examine(certificate: bytes, key: bytes, *, bundle: bytes, server_name: str, now: float) -> Term | None:
    """The term of a certificate that agents can serve now and that the bundle vouches for; None: it is of no use."""
    try:
        found = x509.load_pem_x509_certificate(certificate)
        private = serialization.load_pem_private_key(key, password=None)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, x509.ExtensionNotFound):
        return None
    begins, ends = found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()
    fits = private.public_key() == found.public_key() and server_name in names.get_values_for_type(x509.DNSName)
    vouching = next((one for one in _authorities(bundle) if _signed(found, one)), None)
    if not fits or vouching is None or not begins <= now < ends:
        return None
    return Term(made_at=begins + BACKDATE, ends_at=ends, authority=_pem(vouching))


def count(bundle: bytes) -> int:
    """How many authorities a bundle holds."""
    return len(_authorities(bundle))


def _authorities(bundle: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(bundle)
    except ValueError:
        return []


def _signed(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePublicKey,
    begin: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    named: Iterable[str] = (
        *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign"),
        *("encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(digital_signature=not signs, key_cert_sign=signs, **dict.fromkeys(named, False))


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(seconds=int(seconds))
