"""A home on disk: parts that never need each other, and what any member of a tenant keeps in one.

HOME/keeper/  HOME/node/         each complete in itself: copying HOME/node gives a working node
    home.json                    {"format": 1, "role": ..., "tenant": ...}
    identity.seed                Ed25519 seed, 0600
    member.bin                   MemberFile, 0600
    charter.obj  keybag.obj      the newest charter and keybag, as objects
    charter-fork-*.obj           charters of the owner's that exclude one that this home had, as a provider showed them
    catalog.db                   a cache of the federation; may be lost
    lock                         held while a run writes
    heard.json                   another root that is announced, and since when this home waits for it
    objection.bin                root's signed word against that
    formers.json                 identities that this home had before the one in identity.seed
HOME/node/    datasets.bin       what to back up
HOME/node/    unfinished.bin     hooks and snapshots of file systems that a killed run left to be undone
HOME/node/    spool/  cache/     sealed objects on their way; stat caches, seen-index
HOME/keeper/  owner.key  maintenance.key  domain-<id>.key     wrapped by the passphrase
HOME/keeper/  announcing.obj  announcing-keybag.obj    the last charter of the root before, for providers that missed it
HOME/keeper/  signed-here.json   what of the charter this home signed itself (:mod:`replicator.engine.signedhere`)
HOME/keeper/  root-order.bin     after a recovery: root's enrol order for this keeper, for providers it did not reach
HOME/keeper/  printed.json       the addresses on the recovery sheet's address part, as last printed
HOME/drill/   domain-<id>.key    a drill host: restore keys and nothing else, wrapped
HOME/maintainer/  index.bin      a maintainer: IndexDomains, 0600; its identity is its maintenance key
HOME/keeper/  cache/             snapshots and trees/ that were fetched, sealed; may be lost
"""

import fcntl
import json
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import msgspec

from replicator.catalog.catalog import Catalog
from replicator.charter.verify import VerifiedCharter, verify_charter
from replicator.clock import day_of
from replicator.crypto.aead import open_random
from replicator.crypto.handing import is_proven, restore_statement, take
from replicator.crypto.sign import SigningKey
from replicator.errors import FormatError, HomeError, IntegrityError, KeyMissingError, LockedError, NotFoundError
from replicator.format.charter import CharterPrivate, PeerPin, read_charter_private
from replicator.format.codec import decode, encode
from replicator.format.container import unwrap_record
from replicator.format.keybag import (
    IndexKey,
    MemberFile,
    MemberKeys,
    RestoreSuccessor,
    WriterDomain,
    read_member_keys,
)
from replicator.format.merkle import name_of
from replicator.fs import Fs, exposure, way_out, write_atomic
from replicator.ids import Identity, ObjectName, TenantId
from replicator.pack.keys import DomainKeys, writer_keys

HOME_FORMAT = 1
HEARD_FILE = "heard.json"
OBJECTION_FILE = "objection.bin"
FORMERS_FILE = "formers.json"
ERASURE_FILE = "erasure.bin"
"""While it is there, the tenant was ordered to be erased (:mod:`replicator.engine.erasing`)."""
ROOT_ORDER_FILE = "root-order.bin"
ANNOUNCING_FILE = "announcing.obj"
ANNOUNCING_KEYBAG_FILE = "announcing-keybag.obj"
Role = Literal["keeper", "node", "maintainer", "drill"]


def read_private_file(fs: Fs, path: str) -> bytes:
    """Return the bytes of a secret file that nobody else can read, or could have put there.

    Raises:
        HomeError: missing, of another user, or its mode lets others in.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise HomeError(f"{path}: missing", hint="is this the right --home?") from None
    problem = exposure(status.st_mode, status.st_uid, os.geteuid())
    if problem:
        raise HomeError(f"{path}: {problem}", hint=f"run: {way_out(status.st_uid, os.geteuid())} {path}")
    return fs.read(path)


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Say of which file it is that it is damaged."""
    try:
        yield
    except FormatError as error:
        raise HomeError(f"{path}: damaged ({error})", hint=error.hint or "put back a copy of it") from error
    except IntegrityError as error:
        raise IntegrityError(f"{path}: {error}", hint=error.hint or "put back a copy of it") from error


def has_half(home: str, role: Role) -> bool:
    """Return whether a home has this half."""
    return os.path.exists(os.path.join(home, role, "home.json"))


class Half:
    """One part of a member's home: identity, member keys, charter, catalog.

    Raises:
        HomeError: missing, damaged, of a newer format, or with secrets that others can read.
    """

    def __init__(self, home: str, role: Role, fs: Fs) -> None:
        self.path = os.path.join(home, role)
        self.role = role
        self.fs = fs
        self._check_format()
        with _naming(self.file("identity.seed")):
            self.signing = SigningKey(read_private_file(fs, self.file("identity.seed")))
        with _naming(self.file("member.bin")):
            self.member = decode(MemberFile, read_private_file(fs, self.file("member.bin")))
        with _naming(self.file("charter.obj")):
            self.charter = self._load_charter()
            self.private = open_private(self.charter, self.member.member_key)
        self.catalog = Catalog(self.file("catalog.db"), fs, places=role in {"keeper", "drill"})
        self.formers = self._load_formers()
        if self.formers:
            self.catalog.renew(self.formers, self.identity)

    def file(self, name: str) -> str:
        """Return the path of a file in this half."""
        return os.path.join(self.path, name)

    def _check_format(self) -> None:
        path = self.file("home.json")
        try:
            found = json.loads(self.fs.read(path))["format"]
        except FileNotFoundError:
            home = os.path.dirname(self.path)
            if not any(has_half(home, role) for role in _WHERE):
                raise KeyMissingError(
                    f"{home}: this home is no {self.role}: no tenant is here yet", hint=_MAKE
                ) from None
            raise KeyMissingError(f"{home}: this home is no {self.role}", hint=_WHERE[self.role]) from None
        except (ValueError, TypeError, KeyError) as error:
            raise HomeError(f"{path}: damaged ({error})", hint="put back a copy of it") from error
        if found != HOME_FORMAT:
            raise HomeError(
                f"{self.path}: a home of format {found}, this release knows format {HOME_FORMAT}",
                hint="install a newer release of replicator",
            )

    def _load_charter(self) -> VerifiedCharter:
        path = self.file("charter.obj")
        try:
            signed = unwrap_record(self.fs.read(path))
        except FileNotFoundError:
            raise HomeError(f"{path}: missing", hint="restore the home, or make it again with `recover`") from None
        # What is here was taken over, after any wait: stopped then, the new root's key is put in its place now.
        found = verify_charter(signed, root_key=self.member.root_key, known=None, passed=None)
        self._pin_root(found)
        return found

    def _load_formers(self) -> frozenset[bytes]:
        """Return the identities that this home had before its present one."""
        path = self.file(FORMERS_FILE)
        if self.fs.size(path) is None:
            return frozenset()
        try:
            return frozenset(bytes.fromhex(one) for one in json.loads(self.fs.read(path))) - {self.identity}
        except (ValueError, TypeError) as error:
            self.catalog.close()
            raise HomeError(f"{path}: damaged ({error})", hint="put back a copy of it") from error

    def renew(self, key: SigningKey, ticket: bytes) -> None:
        """Take another key in the place of this home's own. Stopped anywhere, it has the one or the other, whole.

        What the key so far made stays this home's; its chain of snapshots ends, and another begins.
        """
        formers = sorted({*self.formers, self.identity} - {key.identity})
        write_atomic(self.fs, self.file(FORMERS_FILE), json.dumps([one.hex() for one in formers]).encode())
        member = msgspec.structs.replace(self.member, ticket=ticket)
        write_atomic(self.fs, self.file("member.bin"), encode(member))
        write_atomic(self.fs, self.file("identity.seed"), key.seed())
        self.member, self.signing, self.formers = member, key, frozenset(formers)
        self._take_handed(self.charter, self.private)
        self.catalog.renew(self.formers, self.identity)

    def whose(self, writer: bytes) -> bytes:
        """Return who has the say over what a writer made: this home over what its own earlier keys did."""
        return self.identity if writer in self.formers else writer

    def _pin_root(self, charter: VerifiedCharter) -> None:
        if charter.root.root_key != self.member.root_key:
            member = msgspec.structs.replace(self.member, root_key=charter.root.root_key)
            write_atomic(self.fs, self.file("member.bin"), encode(member))
            self.member = member

    @property
    def identity(self) -> Identity:
        """This half's own identity."""
        return self.signing.identity

    @property
    def tenant(self) -> TenantId:
        """The tenant's id."""
        return TenantId(self.member.tenant)

    @property
    def domain_ids(self) -> list[bytes]:
        """The domains whose directories and indexes this home can open."""
        return [domain.id for domain in self.member.domains]

    @property
    def living_ids(self) -> list[bytes]:
        """Those of these domains that were not erased."""
        erased = {one.id for one in self.private.erased}
        return [domain for domain in self.domain_ids if domain not in erased]

    def check_living(self, domain: bytes) -> None:
        """Refuse a domain that was erased.

        Raises:
            KeyMissingError: it was.
        """
        for one in self.private.erased:
            if one.id == domain:
                raise KeyMissingError(f"domain '{one.name}' was erased on {day_of(one.erased_ns)}: it has no keys")

    @property
    def peers(self) -> list[PeerPin]:
        """The providers that the charter names."""
        return self.private.peers

    def holders(self) -> bytes:
        """Return owner's word on whose receipts count for a release; empty where the charter in force has none."""
        return self.private.holders

    def peer(self, name: str) -> PeerPin:
        """Return a peer by petname or identity prefix.

        Raises:
            NotFoundError: none, or more than one.
        """
        found = [pin for pin in self.peers if pin.name == name] or [
            pin for pin in self.peers if pin.identity.hex().startswith(name.lower())
        ]
        if len(found) != 1:
            known = ", ".join(pin.name for pin in self.peers) or "none yet"
            raise NotFoundError(f"{'no' if not found else 'more than one'} peer '{name}' (there are: {known})")
        return found[0]

    def domain_named(self, name: str) -> WriterDomain:
        """Return a domain that this home may write in, by its name.

        Raises:
            NotFoundError: the tenant has none of that name.
            KeyMissingError: this home was not given its keys.
        """
        known = {one.name: one.id for one in self.private.domains}
        for one in self.private.erased:
            if one.name == name and name not in known:
                self.check_living(one.id)
        if name not in known:
            raise NotFoundError(
                f"no domain '{name}' (there are: {', '.join(known)})", hint="`replicator domain add` on the keeper"
            )
        for candidate in self.member.domains:
            if candidate.id == known[name]:
                return candidate
        raise KeyMissingError(
            f"this home was not given the keys of domain '{name}'", hint="try again when a provider answers"
        )

    def keys(self, domain: bytes | None = None) -> DomainKeys:
        """Return the working keys of a domain, of the first one by default.

        Raises:
            KeyMissingError: this home was not given that domain.
        """
        for candidate in self.member.domains:
            if domain is None or candidate.id == domain:
                return writer_keys(self.member.tenant, candidate)
        raise KeyMissingError("this home has no keys of that domain")

    def charter_object(self) -> tuple[ObjectName, bytes]:
        """Return the newest charter as the object that peers hold."""
        data = self.fs.read(self.file("charter.obj"))
        return name_of(data), data

    def keybag_object(self) -> tuple[ObjectName, bytes] | None:
        """Return the keybag object that the charter names, None if this half does not have it (yet)."""
        path = self.file("keybag.obj")
        if self.fs.size(path) is None:
            return None
        data = self.fs.read(path)
        name = name_of(data)
        return (name, data) if name == self.charter.charter.keybag else None

    def recovery_objects(self) -> list[tuple[ObjectName, bytes]]:
        """Return what recovery begins with, as it is to be written: the keybag, then the charter that names it.

        Nothing while this half does not have the keybag yet.
        """
        keybag = self.keybag_object()
        return [] if keybag is None else [keybag, self.charter_object()]

    def adopt_charter(self, charter_data: bytes, passed: Collection[bytes] = ()) -> bool:
        """Take a newer charter (given as an object); return whether it was newer.

        ``passed`` are the hashes of changes of root that have waited long enough.

        Raises:
            IntegrityError: it does not follow what this home has seen.
            RootWaitsError: it is under a root that does not count in this home yet.
        """
        signed = unwrap_record(charter_data)
        found = verify_charter(signed, root_key=self.member.root_key, known=self.charter, passed=passed)
        if found.number == self.charter.number:
            return False
        private = open_private(found, self.member.member_key)
        # Keys before the charter that speaks of them: stopped in between, they are taken again.
        self._take_handed(found, private)
        write_atomic(self.fs, self.file("charter.obj"), charter_data)
        former, self.charter, self.private = self.charter, found, private
        self._pin_root(found)
        was, now = former.charter, found.charter
        # A home that heard late never had a charter that announces the change, only the one of the root that follows.
        if (now.change, now.root) != (was.change, was.root) and self.fs.size(self.file(HEARD_FILE)) is not None:
            self.fs.unlink(self.file(HEARD_FILE))  # what it speaks of is over, or is another
        return True

    def _take_handed(self, charter: VerifiedCharter, private: CharterPrivate) -> None:
        for handed in private.handed:
            if handed.identity == self.identity:
                what = f"charter {charter.number}: the keys in it for this home"
                self._take_keys(read_member_keys(take(self.signing, handed.sealed, what)))

    def _take_keys(self, keys: MemberKeys) -> None:
        """Keep index keys, domains to write in and an enrol order that a charter handed to this home."""
        known = {one.id: one.index_keys for one in keys.domains}
        domains = [
            msgspec.structs.replace(
                self._followed(one, keys.restores), index_keys=merged(one.index_keys, known.get(one.id, []))
            )
            for one in self.member.domains
        ]
        here = {one.id for one in domains}
        domains += [one for one in keys.writing if one.id not in here]
        member = msgspec.structs.replace(self.member, domains=domains, ticket=keys.ticket or self.member.ticket)
        if member != self.member:
            write_atomic(self.fs, self.file("member.bin"), encode(member))
            self.member = member

    def _followed(self, domain: WriterDomain, restores: Iterable[RestoreSuccessor]) -> WriterDomain:
        """Return a domain with the restore key that follows the one this home has, if that is proven."""
        for one in restores:
            statement = restore_statement(self.tenant, one.domain, one.former, one.restore_key)
            if (one.domain, one.former) == (domain.id, domain.restore_key) and is_proven(
                self.signing, one.former, statement, one.proof
            ):
                return msgspec.structs.replace(domain, restore_key=one.restore_key)
        return domain

    def unproven(self) -> list[str]:
        """Return the names of domains for which the charter names a restore key that this home does not seal to.

        Nothing has shown it that who wrote that had the one before.
        """
        own = {one.id: one.restore_key for one in self.member.domains}
        return [one.name for one in self.private.domains if own.get(one.id, one.restore_key) != one.restore_key]

    def same_charter(self, charter_data: bytes) -> None:
        """Take over the object in which a peer keeps the charter that this home has too.

        Raises:
            IntegrityError: it is another charter with the same number.
        """
        signed = unwrap_record(charter_data)
        try:
            verify_charter(signed, root_key=self.member.root_key, known=self.charter)
        except IntegrityError:
            self._keep_charter_fork(signed, charter_data)
            raise
        write_atomic(self.fs, self.file("charter.obj"), charter_data)

    def _keep_charter_fork(self, signed: bytes, charter_data: bytes) -> None:
        """Keep both of two charters of one number: that the owner signed both is what a person has to see."""
        # Raises if it is not the owner's.
        other = verify_charter(signed, root_key=self.member.root_key, known=None, passed=None)
        if other.number == self.charter.number and other.hash != self.charter.hash:
            for found, data in ((self.charter, self.charter_object()[1]), (other, charter_data)):
                name = f"charter-fork-{found.number}-{found.hash.hex()[:16]}.obj"
                if self.fs.size(self.file(name)) is None:
                    write_atomic(self.fs, self.file(name), data)

    def adopt_keybag(self, keybag_data: bytes) -> None:
        """Take the keybag that the charter names (given as an object), to hand it on.

        Raises:
            IntegrityError: another one.
        """
        if name_of(keybag_data) != self.charter.charter.keybag:
            raise IntegrityError("keybag: not the one that the charter names")
        write_atomic(self.fs, self.file("keybag.obj"), keybag_data)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold this half while a run writes.

        Raises:
            LockedError: another process does.
        """
        fd = os.open(self.file("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LockedError(
                    f"{self.path}: another run is working here",
                    hint="wait for it to end; the lock goes away with its process",
                ) from None
            yield
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close the catalog."""
        self.catalog.close()


def merged(known: list[IndexKey], more: list[IndexKey]) -> list[IndexKey]:
    """Return the index keys of all epochs, in their order. One that is known is never replaced."""
    by_epoch = {one.epoch: one for one in (*more, *known)}
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]


_MAKE = (
    "`replicator init` makes a tenant here, `recover` brings one back, `node request` joins one; or name another --home"
)
_WHERE: dict[Role, str] = {
    "keeper": "run this on the keeper: the tenant's own machine, where `init` or `recover` was run",
    "node": "run this on a node: where `node request` was run, or `init` without --keeper-only",
    "maintainer": "run this on a maintainer: where `node request --role maintainer` was run",
    "drill": "run this on a drill host: where `node request --role drill` was run",
}


def open_private(charter: VerifiedCharter, member_key: bytes) -> CharterPrivate:
    """Return the members' part of a charter.

    Raises:
        IntegrityError: the member key is of another tenant, or the charter is damaged.
    """
    body = charter.charter
    return read_charter_private(open_random(member_key, body.private, private_context(body.tenant), "charter"))


def private_context(tenant: bytes) -> bytes:
    """Return the associated data of a charter's private part."""
    return b"replicator/1 charter private\x00" + tenant


def create_half(
    home: str, role: Role, fs: Fs, *, seed: bytes, member: MemberFile, charter_data: bytes, keybag_data: bytes | None
) -> None:
    """Make one half of a home on disk; ``home.json`` is written last, so a half-made half is not one.

    Raises:
        HomeError: there is one already.
    """
    path = os.path.join(home, role)
    if has_half(home, role):
        raise HomeError(f"{path}: there is a {role} here already", hint="choose another --home")
    fs.makedirs(path)
    write_atomic(fs, os.path.join(path, "identity.seed"), seed)
    write_atomic(fs, os.path.join(path, "member.bin"), encode(member))
    write_atomic(fs, os.path.join(path, "charter.obj"), charter_data)
    if keybag_data is not None:
        write_atomic(fs, os.path.join(path, "keybag.obj"), keybag_data)
    settings = {"format": HOME_FORMAT, "role": role, "tenant": member.tenant.hex(), "name": member.name}
    write_atomic(fs, os.path.join(path, "home.json"), json.dumps(settings, indent=1).encode() + b"\n")
