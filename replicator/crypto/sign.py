"""Ed25519 signatures over stored bytes, each bound to what it is for.

    offset  size  field of a signed record
         0    32  Ed25519 public key of the signer
        32    64  signature over  b"replicator/1 " + context + 0x00 + public key + body
        96        body (an encoded record)

A signature is checked over the bytes as they are stored, before anything in them is parsed; the context keeps
a claim from being read as a charter. Ed25519: RFC 8032; the prefix follows the context idea of its section 8.3.
"""

import enum
from collections.abc import Collection
from typing import Final

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from replicator.errors import FormatError, IntegrityError
from replicator.ids import Identity, identity_of

KEY_SIZE = 32
SIGNATURE_SIZE = 64
SIGNED_HEAD = KEY_SIZE + SIGNATURE_SIZE
MOST_HELD: Final = 1 << 14
"""Signatures that a process remembers to have checked, by hash: about 2 MB."""
_held: set[bytes] = set()


class Context(enum.Enum):
    """What a signature is for. The value goes into the signed bytes and never changes."""

    ROOT_STATEMENT = b"root statement"
    CHARTER = b"charter"
    ENROL_ORDER = b"enrol order"
    NODE_REQUEST = b"node request"
    OFFER = b"offer"
    INDEX = b"index"
    REFERENCES = b"references"
    SNAPSHOT = b"snapshot"
    HEAD = b"head"
    CLAIM = b"claim"
    RECEIPT = b"receipt"
    WITNESS = b"witness"
    DRILL = b"drill"
    STANDING = b"standing"
    FINDING = b"finding"
    MARK = b"mark"
    HOLDERS = b"holders"
    FENCE = b"fence"
    RETIRE = b"retire"
    FORGET = b"forget"
    ROOT_CHANGE = b"root change"
    OBJECTION = b"objection"
    RENEWAL = b"renewal"
    ERASE_ORDER = b"erase order"
    ERASE_RECEIPT = b"erase receipt"
    ERASURE_REPORT = b"erasure report"
    PERMIT = b"permit"
    PICKUP = b"pickup"
    WAITING = b"waiting"
    AUDIT_RECEIPT = b"audit receipt"
    NOTICE = b"notice"
    CLEARING = b"clearing"
    GROUP = b"group"
    MEMBER = b"member"
    SEAT = b"seat"
    VOUCHER = b"voucher"
    ADMISSION = b"admission"
    EXPULSION = b"expulsion"
    CARRIED = b"carried"


class SigningKey:
    """A private Ed25519 key. Its repr shows the public half only.

    Raises:
        FormatError: the seed is not 32 bytes.
    """

    def __init__(self, seed: bytes) -> None:
        if len(seed) != KEY_SIZE:
            raise FormatError(f"signing key: {len(seed)} bytes, it has {KEY_SIZE}; the file it came from is damaged")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def identity(self) -> Identity:
        """The hash of the public key."""
        return identity_of(self.public)

    @property
    def private(self) -> Ed25519PrivateKey:
        """The key object, for certificates."""
        return self._key

    def seed(self) -> bytes:
        """Return the 32 secret bytes, for wrapping."""
        return self._key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())

    def sign(self, context: Context, body: bytes) -> bytes:
        """Return the signed record: public key, signature, body."""
        signature = self._key.sign(_message(context, self.public, body))
        return b"".join((self.public, signature, body))

    def __repr__(self) -> str:
        return f"SigningKey({self.identity.hex()[:12]})"


def _message(context: Context, public: bytes, body: bytes) -> bytes:
    return b"".join((b"replicator/1 ", context.value, b"\x00", public, body))


def signer_of(signed: bytes) -> bytes:
    """Return the public key that a signed record names; nothing is verified."""
    if len(signed) <= SIGNED_HEAD:
        raise FormatError("signed record: too short")
    return signed[:KEY_SIZE]


def body_of(signed: bytes) -> bytes:
    """Return the body of a signed record that was verified before (our own files)."""
    if len(signed) <= SIGNED_HEAD:
        raise FormatError("signed record: too short")
    return signed[SIGNED_HEAD:]


def verify(signed: bytes, context: Context, keys: Collection[bytes]) -> bytes:
    """Return the body after checking that one of ``keys`` signed it in this context.

    Raises:
        FormatError: too short to be a signed record.
        IntegrityError: another signer, or the signature does not hold.
    """
    public = signer_of(signed)
    if public not in keys:
        raise IntegrityError(
            f"{context.value.decode()}: signed by a key that may not ({identity_of(public).hex()[:12]})"
        )
    body = signed[SIGNED_HEAD:]
    try:
        _check(public, signed[KEY_SIZE:SIGNED_HEAD], _message(context, public, body))
    except (InvalidSignature, ValueError) as error:
        raise IntegrityError(f"{context.value.decode()}: the signature does not hold") from error
    return body


def verify_once(signed: bytes, context: Context) -> bytes:
    """Return the body after checking that whom the record names as its signer signed it in this context.

    For what a home keeps and reads many times in one run: a signature that held is not checked again in this process.

    Raises:
        FormatError: too short to be a signed record.
        IntegrityError: the signature does not hold.
    """
    known = blake3(context.value + b"\x00" + signed).digest()
    if known in _held:
        return body_of(signed)
    body = verify(signed, context, [signer_of(signed)])
    if len(_held) >= MOST_HELD:
        _held.clear()
    _held.add(known)
    return body


def _check(public: bytes, signature: bytes, message: bytes) -> None:
    Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
