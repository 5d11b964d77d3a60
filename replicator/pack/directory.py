"""Read what a pack holds, with the index key alone: what writers and maintainers may see."""

from replicator.errors import IntegrityError
from replicator.format.codec import decode
from replicator.format.container import BODY_OFFSET, Kind
from replicator.format.pack import CHUNK_DATA, CHUNK_LIST, CHUNK_TREE, Directory
from replicator.pack.keys import DomainKeys
from replicator.pack.sealed import open_body, open_locator

_ALLOWED = {Kind.DATA_PACK: {CHUNK_DATA}, Kind.TREE_PACK: {CHUNK_TREE, CHUNK_LIST}}


def directory_end(prefix: bytes | memoryview, size: int, keys: DomainKeys) -> int:
    """Return where the segments begin in an object of ``size`` bytes: how much :func:`read_directory` needs."""
    return BODY_OFFSET + open_locator(prefix, size, keys).body_length


def read_directory(prefix: bytes | memoryview, size: int, keys: DomainKeys) -> tuple[Kind, Directory, int]:
    """Return kind, directory and the offset of the first segment; ``prefix`` reaches at least to that offset.

    Segments must follow one another without gap or overlap and fill what the locator says, so that reading a pack
    costs no more than its size; each must be in a slot that exists and of a kind that such a pack may hold; no
    chunk and no nonce may occur twice.

    Raises:
        FormatError, IntegrityError: not a pack of this domain, or damaged.
    """
    locator = open_locator(prefix, size, keys)
    allowed = _ALLOWED.get(locator.kind)
    if allowed is None:
        raise IntegrityError(f"object: a {locator.kind.name.lower()} where a pack should be")
    directory = decode(Directory, open_body(prefix, locator, keys))
    end = 0
    for segment in directory.segments:
        if segment.slot >= len(directory.slots) or segment.kind not in allowed:
            raise IntegrityError("pack: a segment has no slot or is of the wrong kind")
        if segment.offset != end:
            raise IntegrityError("pack: segments overlap or leave a gap")
        end += segment.stored
    if end != locator.segments_length:
        raise IntegrityError("pack: its segments have another length than its locator says")
    if len({segment.chunk_id for segment in directory.segments}) != len(directory.segments):
        raise IntegrityError("pack: a chunk is in it twice")
    if len({(segment.slot, segment.counter) for segment in directory.segments}) != len(directory.segments):
        raise IntegrityError("pack: two segments have one nonce")
    return locator.kind, directory, BODY_OFFSET + locator.body_length
