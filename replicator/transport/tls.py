"""TLS 1.3 between pinned keys: no certificate authority but each provider's own, no host names, no dates.

A provider's certificate is both what clients pin and the authority that signs theirs. A client first fetches
the certificate without verifying anything, compares the hash of its key with the pin, and then speaks only to
the holder of exactly that certificate: a certificate that the provider issued to a client is not accepted in
its place, although the chain would verify.
"""

import asyncio
import hashlib
import os
import ssl
import tempfile
from dataclasses import dataclass

from replicator.crypto.certificates import certificate_pem, key_of_certificate, private_pem
from replicator.crypto.sign import SigningKey
from replicator.errors import FormatError
from replicator.ids import Identity, identity_of

_ALPN = ["http/1.1"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerCertificate:
    """A certificate that a peer showed, with proof that it holds the key (the TLS 1.3 handshake)."""

    der: bytes
    identity: Identity

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the certificate, checked on each connection."""
        return hashlib.sha256(self.der).digest()


def server_context(certificate: str, private_key: str) -> ssl.SSLContext:
    """Return the provider's context from two PEM files; clients may show a certificate that the provider signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, private_key)
    context.load_verify_locations(cafile=certificate)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.num_tickets = 0  # each connection shows its certificate anew
    context.set_alpn_protocols(_ALPN)
    return context


async def fetch_certificate(
    host: str, port: int, *, timeout_s: float, server_name: str | None = None
) -> PeerCertificate:
    """Return the certificate of whoever answers there, unverified but for the possession of its key.

    ``server_name``: whom to ask for, if not by the host's name.

    Raises:
        OSError: no TLS answer (ssl.SSLError and TimeoutError are OSErrors).
        FormatError: not an Ed25519 certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the pin is compared by the caller
    context.set_alpn_protocols(_ALPN)
    async with asyncio.timeout(timeout_s):
        _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=server_name)
    try:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    if der is None:
        raise FormatError("certificate: none was shown")
    return PeerCertificate(der=der, identity=identity_of(key_of_certificate(der)))


def client_context(
    peer: PeerCertificate, *, key: SigningKey | None, certificate: bytes | None, scratch: str | None = None
) -> ssl.SSLContext:
    """Return a context that speaks to that peer alone, with a client certificate if there is one.

    ssl loads a private key from a file only: it lies in a folder of its own (mode 0700, below ``scratch`` or the
    system's) for the time of the call.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the identity is the key
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=peer.der)
    context.set_alpn_protocols(_ALPN)
    if key is not None and certificate is not None:
        with tempfile.TemporaryDirectory(prefix="replicator-", dir=scratch) as folder:
            path = os.path.join(folder, "client.pem")
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(private_pem(key) + certificate_pem(certificate))
            context.load_cert_chain(path)
    return context
