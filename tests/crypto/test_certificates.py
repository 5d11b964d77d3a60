import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from replicator.crypto.certificates import (
    certificate_pem,
    client_certificate,
    key_of_certificate,
    private_pem,
    provider_certificate,
)
from replicator.crypto.sign import SigningKey
from replicator.errors import FormatError
from tests.fakes import SeededRng

PROVIDER, HOLDER, STRANGER = (SigningKey(bytes([i]) * 32) for i in (1, 2, 3))
AUTHORITY = provider_certificate(PROVIDER, SeededRng("authority"))
CLIENT = client_certificate(PROVIDER, HOLDER.public, SeededRng("client"))


def files(folder: Path, key: SigningKey, der: bytes) -> tuple[str, str]:
    """Write a certificate and its key as the ssl module wants them."""
    name = der[-4:].hex()
    (folder / f"{name}.crt").write_bytes(certificate_pem(der))
    (folder / f"{name}.key").write_bytes(private_pem(key))
    return str(folder / f"{name}.crt"), str(folder / f"{name}.key")


def server_context(folder: Path, *, strict: bool) -> ssl.SSLContext:
    """Return a provider's side: its own certificate is the one authority for clients."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(*files(folder, PROVIDER, AUTHORITY))
    context.load_verify_locations(cadata=AUTHORITY)
    if strict:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def client_context(folder: Path, key: SigningKey, der: bytes, *, pinned: bytes, strict: bool) -> ssl.SSLContext:
    """Return a tenant's side: the provider's certificate is the one thing trusted; its name means nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.load_cert_chain(*files(folder, key, der))
    context.load_verify_locations(cadata=pinned)
    if strict:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[bytes, bytes]:
    """Shake hands in memory; return the certificates that server and client saw of each other.

    Raises:
        ssl.SSLError: either side refused.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server),
    ]
    waiting = [*sides]
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                continue
    assert not waiting
    sides[0].write(b"x")  # with TLS 1.3 the client is done before the server has judged its certificate
    assert sides[1].read(1) == b"x"
    assert sides[0].version() == "TLSv1.3"
    seen = [side.getpeercert(binary_form=True) for side in sides]
    assert seen[0] is not None
    assert seen[1] is not None
    return seen[0], seen[1]


@pytest.mark.parametrize("strict", [False, True])
def test_one_certificate_serves_as_authority_and_server_and_clients_are_known_by_key(
    tmp_path: Path, *, strict: bool
) -> None:
    server = server_context(tmp_path, strict=strict)
    client = client_context(tmp_path, HOLDER, CLIENT, pinned=AUTHORITY, strict=strict)
    seen_by_server, seen_by_client = handshake(server, client)
    assert key_of_certificate(seen_by_server) == HOLDER.public
    assert key_of_certificate(seen_by_client) == PROVIDER.public


def test_a_certificate_from_another_provider_is_refused(tmp_path: Path) -> None:
    forged = client_certificate(STRANGER, HOLDER.public, SeededRng(1))
    with pytest.raises(ssl.SSLError):
        handshake(
            server_context(tmp_path, strict=False),
            client_context(tmp_path, HOLDER, forged, pinned=AUTHORITY, strict=False),
        )


def test_a_forged_certificate_that_names_the_right_issuer_is_refused(tmp_path: Path) -> None:
    real = x509.load_der_x509_certificate(CLIENT)
    builder = (
        x509.CertificateBuilder()
        .subject_name(real.subject)
        .issuer_name(real.issuer)
        .public_key(STRANGER.private.public_key())
        .serial_number(5)
        .not_valid_before(real.not_valid_before_utc)
        .not_valid_after(real.not_valid_after_utc)
    )
    forged = builder.sign(STRANGER.private, None).public_bytes(Encoding.DER)
    with pytest.raises(ssl.SSLError):
        handshake(
            server_context(tmp_path, strict=False),
            client_context(tmp_path, STRANGER, forged, pinned=AUTHORITY, strict=False),
        )


def test_a_client_cannot_issue_certificates(tmp_path: Path) -> None:
    below = client_certificate(HOLDER, STRANGER.public, SeededRng(2))
    crt, key = files(tmp_path, STRANGER, below)
    Path(crt).write_bytes(certificate_pem(below) + certificate_pem(CLIENT))
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_cert_chain(crt, key)
    client.load_verify_locations(cadata=AUTHORITY)
    with pytest.raises(ssl.SSLError):
        handshake(server_context(tmp_path, strict=False), client)


def test_a_client_certificate_does_not_serve_as_a_providers(tmp_path: Path) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*files(tmp_path, HOLDER, CLIENT))
    client = client_context(
        tmp_path, STRANGER, client_certificate(PROVIDER, STRANGER.public, SeededRng(3)), pinned=AUTHORITY, strict=False
    )
    with pytest.raises(ssl.SSLError):
        handshake(server, client)


def test_a_client_that_pinned_another_provider_refuses(tmp_path: Path) -> None:
    other = provider_certificate(STRANGER, SeededRng(4))
    with pytest.raises(ssl.SSLError):
        handshake(
            server_context(tmp_path, strict=False),
            client_context(tmp_path, HOLDER, CLIENT, pinned=other, strict=False),
        )


@pytest.mark.parametrize(("der", "holder"), [(AUTHORITY, PROVIDER), (CLIENT, HOLDER)])
def test_certificates_never_end_and_say_nothing_but_the_identity(der: bytes, holder: SigningKey) -> None:
    certificate = x509.load_der_x509_certificate(der)
    assert certificate.not_valid_after_utc == datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
    assert [(name.oid, name.value) for name in certificate.subject] == [(NameOID.COMMON_NAME, holder.identity.hex())]
    assert [name.value for name in certificate.issuer] == [PROVIDER.identity.hex()]
    assert 0 < certificate.serial_number < 1 << 159
    assert key_of_certificate(der) == holder.public


def test_serial_numbers_are_random() -> None:
    again = client_certificate(PROVIDER, HOLDER.public, SeededRng("another"))
    assert x509.load_der_x509_certificate(again).serial_number != x509.load_der_x509_certificate(CLIENT).serial_number


@pytest.mark.parametrize("data", [b"", b"nonsense", AUTHORITY[:-1], AUTHORITY[10:]])
def test_what_is_no_certificate_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="cannot be read"):
        key_of_certificate(data)


def test_a_certificate_of_another_kind_of_key_is_refused() -> None:
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "p256")])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=1))
        .sign(key, SHA256())
    )
    with pytest.raises(FormatError, match="Ed25519"):
        key_of_certificate(certificate.public_bytes(Encoding.DER))
