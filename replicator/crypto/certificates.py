"""X.509 for TLS 1.3: a provider is a one-level authority for its clients; identity is the key, not the name.

Certificates never expire for safety's sake (RFC 5280 §4.1.2.5 has a date for that): whoever may connect is a
row at the provider, and the client pins the provider's key.
"""

import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from replicator.crypto.sign import SigningKey
from replicator.errors import FormatError
from replicator.ids import Identity, identity_of
from replicator.rng import Rng

_BEGIN = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
_NEVER = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)


def _name(identity: Identity) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity.hex())])


def _serial(rng: Rng) -> int:
    return int.from_bytes(rng.bytes(19), "big") | 1


def provider_certificate(key: SigningKey, rng: Rng) -> bytes:
    """Return a self-signed certificate (DER): the provider's authority, and its server certificate."""
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(_name(key.identity))
        .issuer_name(_name(key.identity))
        .public_key(key.private.public_key())
        .serial_number(_serial(rng))
        .not_valid_before(_BEGIN)
        .not_valid_after(_NEVER)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.private.public_key()), critical=False)
        .sign(key.private, None)
        .public_bytes(Encoding.DER)
    )


def client_certificate(authority: SigningKey, holder_key: bytes, rng: Rng) -> bytes:
    """Return a certificate (DER) for a raw Ed25519 public key, signed by the provider."""
    public = Ed25519PublicKey.from_public_bytes(holder_key)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(identity_of(holder_key)))
        .issuer_name(_name(authority.identity))
        .public_key(public)
        .serial_number(_serial(rng))
        .not_valid_before(_BEGIN)
        .not_valid_after(_NEVER)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.private.public_key()), critical=False
        )
        .sign(authority.private, None)
        .public_bytes(Encoding.DER)
    )


def key_of_certificate(der: bytes) -> bytes:
    """Return the raw Ed25519 public key of a certificate.

    Raises:
        FormatError: not a certificate, or another kind of key.
    """
    try:
        public = x509.load_der_x509_certificate(der).public_key()
    except ValueError as error:
        raise FormatError("certificate: cannot be read") from error
    if not isinstance(public, Ed25519PublicKey):
        raise FormatError("certificate: not an Ed25519 key")
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw)


def certificate_pem(der: bytes) -> bytes:
    """Return a certificate as PEM, the form that the ssl module loads from files."""
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def private_pem(key: SigningKey) -> bytes:
    """Return the private key as PKCS #8 PEM, for a file of mode 0600."""
    return key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
