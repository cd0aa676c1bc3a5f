"""A client's certificate, as cert-manager would make one for the operator."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def made_for_clients(
    *, days_ago: float = 0, use: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH
) -> tuple[bytes, bytes, bytes]:
    """Authority, certificate and key, PEM; the certificate holds for a day and was made that long ago."""
    root, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "clients")])
    authority = _builder(name, name, root.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gpudiag-operator")])
    certificate = _builder(subject, name, key.public_key(), days_ago=days_ago).add_extension(
        x509.ExtendedKeyUsage([use]), critical=False
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    signed = [one.sign(root, hashes.SHA256()).public_bytes(pem) for one in (authority, certificate)]
    return signed[0], signed[1], private


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, *, days_ago: float = 0
) -> x509.CertificateBuilder:
    now = datetime.now(UTC) - timedelta(days=days_ago)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
    )
