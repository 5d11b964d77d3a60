"""Names of things: one type for each, all plain bytes underneath.

Chunk ids belong to :mod:`chunker`, peer and pack ids of a placement to :mod:`scheduler`.
"""

import base64
from typing import NewType

from blake3 import blake3

TenantId = NewType("TenantId", bytes)
"""16 bytes made of the first root key (:func:`tenant_of`), or by an earlier build at random: says nothing to people."""

DomainId = NewType("DomainId", bytes)
"""16 random bytes: a dedup and erasure boundary inside a tenant."""

Identity = NewType("Identity", bytes)
"""32 bytes: BLAKE3 of a raw Ed25519 public key. A peer, node or keeper is this and nothing else."""

ObjectName = NewType("ObjectName", bytes)
"""32 bytes: the Merkle root of an object's bytes (:mod:`replicator.format.merkle`)."""

PolicyId = NewType("PolicyId", bytes)
"""16 bytes: BLAKE3 of an encoded policy record, truncated."""

TENANT_SIZE = 16
DOMAIN_SIZE = 16
IDENTITY_SIZE = 32
NAME_SIZE = 32
SHORT_HEX = 12


def identity_of(public_key: bytes) -> Identity:
    """Return the identity of a raw 32-byte Ed25519 public key."""
    return Identity(blake3(public_key).digest())


def tenant_of(root_key: bytes) -> TenantId:
    """Return the id of the tenant whose first root has this key: nobody else can show a root that it belongs to."""
    return TenantId(blake3(b"replicator/1 tenant\x00" + root_key).digest()[:TENANT_SIZE])


def short(value: bytes) -> str:
    """Return the first 12 hex digits, for people; never for look-ups that must be exact."""
    return value.hex()[:SHORT_HEX]


def root_fingerprint(root_key: bytes) -> str:
    """Return the form of a tenant's root key that people compare: what the recovery sheet shows."""
    return root_key.hex()[:16]


def address_form(identity: Identity) -> str:
    """Return the identity as 52 lower-case base32 characters: what people type as a pin."""
    return base64.b32encode(identity).decode().rstrip("=").lower()


def parse_address_form(text: str) -> Identity:
    """Read :func:`address_form` (case and hyphens do not matter).

    Raises:
        ValueError: not 32 bytes of base32.
    """
    clean = text.replace("-", "").lower()
    raw = Identity(base64.b32decode(clean.upper() + "=" * (-len(clean) % 8)))
    if len(raw) != IDENTITY_SIZE:
        raise ValueError(f"an identity is {IDENTITY_SIZE} bytes, this has {len(raw)}")
    if address_form(raw) != clean:
        raise ValueError("the last character of an identity has bits that belong to nothing: one is mistyped")
    return raw
