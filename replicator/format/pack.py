"""The directory of a pack: its key slots and, for each segment, what and where it is."""

from typing import Annotated

import msgspec

from replicator.format.codec import Part, Record
from replicator.format.sizes import LARGEST, MAX_CHUNK

MAX_SLOTS = 64
CHUNK_DATA = 1
CHUNK_TREE = 2
CHUNK_LIST = 3
COMMITMENT_SIZE = 32
SEALED_SECRET_SIZE = 80
"""HPKE encapsulation (32), secret (32), tag (16)."""


class Slot(Part, frozen=True, kw_only=True):
    """One content key: the secret sealed to the domain's restore key, and the key's commitment."""

    sealed: Annotated[bytes, msgspec.Meta(min_length=SEALED_SECRET_SIZE, max_length=SEALED_SECRET_SIZE)]
    commitment: Annotated[bytes, msgspec.Meta(min_length=COMMITMENT_SIZE, max_length=COMMITMENT_SIZE)]


class Segment(Part, frozen=True, kw_only=True):
    """One chunk: ``offset`` from the first segment, ``stored`` with its tag, ``length`` of the plaintext.

    ``slot`` is the slot's place in this directory and ``counter`` the nonce under that slot's key. A
    segment's associated data names the slot by its commitment, so both may change place in a repack.
    """

    chunk_id: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    kind: Annotated[int, msgspec.Meta(ge=1, le=3)]
    slot: Annotated[int, msgspec.Meta(ge=0, lt=MAX_SLOTS)]
    counter: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
    encoding: Annotated[int, msgspec.Meta(ge=0, le=1)]
    offset: Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
    stored: Annotated[int, msgspec.Meta(ge=16, le=LARGEST)]
    length: Annotated[int, msgspec.Meta(ge=0, le=MAX_CHUNK)]


class Directory(Record, frozen=True, kw_only=True):
    """What a pack holds. ``policy`` is the id of the policy it was written under."""

    policy: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    slots: Annotated[list[Slot], msgspec.Meta(min_length=1, max_length=MAX_SLOTS)]
    segments: list[Segment]


SEGMENT_ROOM = 2 + 34 + 1 + 1 + 5 + 1 + 5 + 5 + 5
"""Most bytes one segment takes in an encoded directory."""
DIRECTORY_ROOM = 1 + 1 + 18 + 3 + (2 + 82 + 34) + 5
"""Most bytes of an encoded directory with one slot beside its segments."""
