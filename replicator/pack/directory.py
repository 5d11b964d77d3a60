"""Read what a pack holds, with the index key alone: what writers and maintainers may see."""

from replicator.errors import IntegrityError
from replicator.format.codec import decode
from replicator.format.container import BODY_OFFSET, Kind
from replicator.format.pack import CHUNK_DATA, CHUNK_LIST, CHUNK_TREE, Directory
from replicator.pack.keys import DomainKeys
from replicator.pack.sealed import open_body, open_locator

_ALLOWED = {Kind.DATA_PACK: {CHUNK_DATA}, Kind.TREE_PACK: {CHUNK_TREE, CHUNK_LIST}}


def directory_end(prefix: bytes, size: int, keys: DomainKeys) -> int:
    """Return where the segments begin in an object of ``size`` bytes: how much :func:`read_directory` needs."""
    return BODY_OFFSET + open_locator(prefix, size, keys).body_length


def read_directory(prefix: bytes, size: int, keys: DomainKeys) -> tuple[Kind, Directory, int]:
    """Return kind, directory and the offset of the first segment; ``prefix`` reaches at least to that offset.

    Every segment is checked to lie inside the pack, in a slot that exists, and to be of a kind that such a
    pack may hold.

    Raises:
        FormatError, IntegrityError: not a pack of this domain, or damaged.
    """
    locator = open_locator(prefix, size, keys)
    allowed = _ALLOWED.get(locator.kind)
    if allowed is None:
        raise IntegrityError(f"object: a {locator.kind.name.lower()} where a pack should be")
    directory = decode(Directory, open_body(prefix, locator, keys))
    for segment in directory.segments:
        if segment.slot >= len(directory.slots) or segment.kind not in allowed:
            raise IntegrityError("pack: a segment has no slot or is of the wrong kind")
        if segment.offset + segment.stored > locator.segments_length:
            raise IntegrityError("pack: a segment lies outside the pack")
    return locator.kind, directory, BODY_OFFSET + locator.body_length
