"""What of a charter this keeper's home put there itself, and what somebody else did who had the owner key.

Whoever has the owner key for a while can give keys of his own a right, name providers of his own, put another command
among the checks of trial restores. Dates and names in a charter are his as well, so nothing in it tells his from ours.
This home remembers what it signed itself: what a charter of its own began with, and what it confirmed since. A later
change of its own to something that came from elsewhere does not make that its own.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
from blake3 import blake3

from replicator.engine.handing import name_of_key, noted_revoked
from replicator.errors import NotFoundError, UsageError
from replicator.format.charter import CharterPrivate, Right
from replicator.fs import Fs, write_atomic
from replicator.ids import identity_of

SIGNED_FILE: Final = "signed-here.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Something that a charter grants or names: a right, a provider, a domain, the checks of trial restores.

    ``place`` tells which one it is, whatever is said of it; ``digest`` is what is said. ``since_ns`` is a date that
    whoever signed it chose; 0: none.
    """

    kind: str
    id: str
    name: str
    place: str
    digest: str
    since_ns: int = field(default=0, compare=False)


def entries_of(rights: Collection[Right], private: CharterPrivate) -> list[Entry]:
    """Return what counts in a charter; keys that were revoked do not."""
    since = {note.identity: note.added_ns for note in private.notes}
    found = []
    for right in rights:
        identity = identity_of(right.holder_key)
        if not right.revoked:
            name = name_of_key(private, identity)
            found.append(_entry(right.role, "key", identity, name, right, since.get(identity, 0)))
    found += [_entry("provider", "provider", pin.identity, pin.name, pin, pin.added_ns) for pin in private.peers]
    for domain in private.domains:
        said = (domain.id, domain.name, domain.restore_key)
        found.append(_entry("domain", "domain", domain.id, domain.name, said, 0))
    if private.checks is not None:
        found.append(_entry("checks", "checks", b"", "checks", private.checks, 0))
    return found


def _entry(kind: str, place: str, key: bytes, name: str, said: object, since_ns: int) -> Entry:
    return Entry(
        kind=kind,
        id=key.hex() or kind,
        name=name,
        place=f"{place} {key.hex()}",
        digest=blake3(msgspec.msgpack.encode((name, said))).hexdigest(),
        since_ns=since_ns,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedHere:
    """What this home remembers: the number and time of the last charter it signed, and what is its own, by place."""

    number: int = 0
    signed_ns: int = 0
    own: Mapping[str, Entry] = field(default_factory=dict)

    def after(self, before: Collection[Entry], now: Collection[Entry], *, number: int, now_ns: int) -> "SignedHere":
        """Return what is remembered when this home signs a charter with ``now`` upon one with ``before``."""
        there = {one.place for one in before}
        trusted = {one.place for one in before if self.is_own(one)}
        own = {one.place: one for one in now if one.place in trusted or one.place not in there}
        return SignedHere(number=number, signed_ns=now_ns, own=own)

    def is_own(self, entry: Entry) -> bool:
        """Return whether this home signed it first, as it is."""
        known = self.own.get(entry.place)
        return known is not None and known.digest == entry.digest

    def gone(self, now: Collection[Entry]) -> list[Entry]:
        """Return what this home had signed and somebody else took away."""
        there = {one.place for one in now}
        return [one for place, one in self.own.items() if place not in there]


def read_signed(fs: Fs, path: str) -> SignedHere:
    """Return what a home remembers; nothing if it was made by an earlier release, or the file cannot be read."""
    if fs.size(path) is None:
        return SignedHere()
    try:
        return msgspec.convert(json.loads(fs.read(path)), SignedHere)
    except (ValueError, TypeError):
        return SignedHere()  # then all has to be confirmed


def write_signed(fs: Fs, path: str, signed: SignedHere) -> None:
    """Keep what this home signed."""
    write_atomic(fs, path, json.dumps(msgspec.to_builtins(signed)).encode())


class UnconfirmedError(UsageError):
    """The charter has entries that this home did not sign, and nobody said whether they stay."""

    def __init__(self, entries: list[Entry], signed: SignedHere) -> None:
        named = ", ".join(f"{one.kind} '{one.name}' ({one.id[:12]})" for one in entries)
        since = f"since its charter {signed.number} " if signed.number else ""
        super().__init__(
            f"this home did not sign {since}what the charter has of: {named}",
            hint="say of each whether it stays: --keep NAME or --drop NAME; nothing was changed",
        )
        self.entries = entries


def chosen(entries: list[Entry], keep: Collection[str], drop: Collection[str]) -> tuple[list[Entry], list[Entry]]:
    """Return which of these entries are to be dropped, and of which nothing was said.

    Each is meant by its name or the beginning of its id.

    Raises:
        NotFoundError: a name means none of them, or several.
        UsageError: one is to be kept and dropped.
    """
    kept = {_meant(entries, name).place for name in keep}
    dropped = {_meant(entries, name).place for name in drop}
    for one in entries:
        if one.place in kept & dropped:
            raise UsageError(f"--keep and --drop both mean {one.kind} '{one.name}'")
    return (
        [one for one in entries if one.place in dropped],
        [one for one in entries if one.place not in kept | dropped],
    )


def _meant(entries: list[Entry], name: str) -> Entry:
    found = [one for one in entries if one.name == name]
    found = found or [one for one in entries if name and one.id.startswith(name.lower())]
    if len(found) != 1:
        known = ", ".join(f"{one.name} ({one.id[:12]})" for one in entries) or "none"
        raise NotFoundError(
            f"{'nothing' if not found else 'more than one thing'} that this home did not sign is called '{name}' "
            f"(there are: {known})",
            hint="what it signed itself stays: `key revoke` and `peer remove` take it away",
        )
    return found[0]


def without(
    rights: Collection[Right], private: CharterPrivate, dropped: Collection[Entry], now_ns: int
) -> tuple[list[Right], CharterPrivate]:
    """Return rights and private part of a charter in which these entries count no more.

    Keys stay as revoked ones, so that providers refuse them; what is left of a domain is in no right.
    """
    places = {one.place for one in dropped}
    domains = {domain.id for domain in private.domains if f"domain {domain.id.hex()}" in places}
    changed, keys = [], []
    for right in rights:
        identity = identity_of(right.holder_key)
        left = right
        if not right.revoked and f"key {identity.hex()}" in places:
            keys.append(identity)
            left = msgspec.structs.replace(right, revoked=True)
        changed.append(msgspec.structs.replace(left, domains=[one for one in left.domains if one not in domains]))
    private = noted_revoked(private, keys, now_ns)
    return changed, msgspec.structs.replace(
        private,
        peers=[pin for pin in private.peers if f"provider {pin.identity.hex()}" not in places],
        domains=[one for one in private.domains if one.id not in domains],
        checks=None if "checks " in places else private.checks,
    )
