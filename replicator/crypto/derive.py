"""Key derivation: HKDF-SHA256 (RFC 5869) with labels that never change."""

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_SIZE = 32


def hkdf(secret: bytes, *, label: bytes, salt: bytes = b"", context: bytes = b"", length: int = KEY_SIZE) -> bytes:
    """Return ``length`` bytes from a uniform secret.

    The info string is b"replicator/1 " + label + 0x00 + context, so two uses never meet.
    """
    info = b"".join((b"replicator/1 ", label, b"\x00", context))
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(secret)


def chunk_id_key(id_key: bytes, kind: int) -> bytes:
    """Return the BLAKE3 key for chunk ids of one kind (data, tree, list) of a domain."""
    return hkdf(id_key, label=b"chunk id", context=bytes((kind,)))


def object_key(index_key: bytes, salt: bytes, tenant: bytes, domain: bytes) -> bytes:
    """Return the key that seals one object's locator and body."""
    return hkdf(index_key, label=b"object", salt=salt, context=tenant + domain)


def content_key(secret: bytes, mix: bytes, tenant: bytes, domain: bytes) -> bytes:
    """Return the key of a pack's segments from the sealed secret and the domain's mixing secret.

    The mix authenticates (HPKE base mode has an anonymous sender) and keeps a future break of X25519 alone
    from opening packs: the aim of RFC 9180's PSK mode, done as bupstash does it.
    """
    return hkdf(secret, label=b"content", salt=mix, context=tenant + domain)


def commitment(key: bytes) -> bytes:
    """Return 32 bytes that bind a key: AES-GCM alone is not committing (Len, Grubbs, Ristenpart 2021)."""
    return hkdf(key, label=b"commitment")
