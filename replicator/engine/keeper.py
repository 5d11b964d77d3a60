"""Homes with wrapped keys, unwrapped only while they are used: the keeper, the tenant's own machine; a drill host."""

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from replicator.charter.verify import signed_hash
from replicator.crypto.aead import seal_random
from replicator.crypto.handing import take
from replicator.crypto.passphrase import DEFAULT_COST, MIN_LENGTH, Cost, Wrapped, unwrap, wrap
from replicator.crypto.seal import PURPOSE_RESTORE
from replicator.crypto.sign import KEY_SIZE, Context, SigningKey
from replicator.crypto.unseal import public_of, unseal
from replicator.engine.edge import Edge, PassphraseSource
from replicator.engine.generations import formers_of
from replicator.engine.handing import enrol_order
from replicator.engine.home import ROOT_ORDER_FILE, Half, Role, create_half, merged, private_context, read_private_file
from replicator.engine.signedhere import SIGNED_FILE, Entry, SignedHere, entries_of, read_signed, write_signed
from replicator.errors import KeyMissingError, LockedError, UsageError
from replicator.format.charter import (
    Charter,
    CharterPrivate,
    PeerPin,
    Right,
    encode_charter,
    encode_charter_private,
)
from replicator.format.codec import decode, encode
from replicator.format.container import record_fill, wrap_record
from replicator.format.keybag import (
    DomainKeyFile,
    DomainSecrets,
    Keybag,
    MemberFile,
    WrappedSecret,
    WriterDomain,
    read_member_keys,
)
from replicator.format.mark import Holders
from replicator.format.merkle import name_of
from replicator.fs import Fs, destroy, write_atomic
from replicator.ids import Identity
from replicator.pack.keys import as_writer, writer_keys
from replicator.pack.reader import ReaderKeys
from replicator.rng import Rng

OWNER_LABEL = b"owner key"
MAINTENANCE_LABEL = b"maintenance key"
DOMAIN_LABEL = b"domain keys "


REWRAPPED = ".rewrapped"
NEXT = ".next"
COMMITTED = "rewrapped.json"
"""While it is there, every key file's new wrapping lies beside it, whole."""


def wrapped_record(passphrase: str, secret: bytes, label: bytes, rng: Rng, cost: Cost = DEFAULT_COST) -> bytes:
    """Return the bytes of a wrapped secret's file."""
    wrapped = wrap(passphrase, secret, label, rng, cost)
    return encode(
        WrappedSecret(
            salt=wrapped.salt,
            memory_kib=wrapped.memory_kib,
            passes=wrapped.passes,
            lanes=wrapped.lanes,
            commitment=wrapped.commitment,
            sealed=wrapped.sealed,
        )
    )


def read_wrapped(data: bytes) -> Wrapped:
    """Return a wrapped secret's file, still wrapped."""
    record = decode(WrappedSecret, data)
    return Wrapped(
        salt=record.salt,
        memory_kib=record.memory_kib,
        passes=record.passes,
        lanes=record.lanes,
        commitment=record.commitment,
        sealed=record.sealed,
    )


def unwrap_record_bytes(passphrase: str, data: bytes, label: bytes) -> bytes:
    """Return the secret in a wrapped secret's file.

    Raises:
        KeyWrongError: the passphrase is wrong.
    """
    return unwrap(passphrase, read_wrapped(data), label)


def check_passphrase(passphrase: str) -> str:
    """Return a passphrase that is long enough to wrap keys with.

    Raises:
        UsageError: it is too short.
    """
    if len(passphrase) < MIN_LENGTH:
        raise UsageError(
            f"the passphrase has {len(passphrase)} characters, at least {MIN_LENGTH} are needed",
            hint="several words are easy to remember and hard to guess",
        )
    return passphrase


def domain_file(domain: bytes) -> str:
    """Return the name of the file with a domain's secrets."""
    return f"domain-{domain.hex()}.key"


class ReaderHome(Half):
    """A home that can read: a keeper, or a drill host. ``passphrase`` is asked for at most once."""

    def __init__(self, home: str, role: Role, fs: Fs, passphrase: PassphraseSource) -> None:
        super().__init__(home, role, fs)
        self._ask = passphrase
        self._passphrase: str | None = None
        self._readers: dict[bytes, ReaderKeys] = {}
        if any(name == COMMITTED or name.endswith(REWRAPPED) for name, _ in fs.list_files(self.path)):
            # A run that is changing the passphrase now settles it itself.
            with suppress(LockedError), self.lock():
                settle_wrappings(fs, self.path)

    def passphrase(self) -> str:
        """Return the passphrase, asking for it the first time."""
        if self._passphrase is None:
            self._passphrase = self._ask(f"Passphrase of {self.member.name}'s {_WHOSE[self.role]}")
        return self._passphrase

    def unlock(self, name: str, label: bytes) -> bytes:
        """Return what a wrapped file of this home holds.

        Raises:
            KeyWrongError: the passphrase is wrong.
        """
        data = read_private_file(self.fs, self.file(name))
        return unwrap_record_bytes(self.passphrase(), data, label)

    def key_files(self) -> dict[str, bytes]:
        """Return the names of this home's wrapped files and their labels."""
        return {domain_file(one): DOMAIN_LABEL + one for one in self.living_ids}

    def maintenance(self) -> SigningKey:
        """Return the maintenance key, which only a keeper has.

        Raises:
            KeyMissingError: this is a drill host.
        """
        raise KeyMissingError(f"this {_WHOSE[self.role]} has no maintenance key", hint="run this on the keeper")

    def reader(self, domain: bytes) -> ReaderKeys:
        """Return a domain's restore key with its working keys.

        Raises:
            KeyWrongError: the passphrase is wrong.
            KeyMissingError: this home has no such domain.
        """
        found = self._readers.get(domain)
        if found is None:
            secrets = self.domain_secrets(domain)
            public = next(one.restore_key for one in self.member.domains if one.id == domain)
            keys = writer_keys(self.tenant, as_writer(secrets, public))
            formers = formers_of(self.private, domain, secrets.restore_private)
            found = self._readers[domain] = ReaderKeys(
                keys=keys, restore_private=secrets.restore_private, formers=tuple(private for _, private in formers)
            )
        return found

    def domain_secrets(self, domain: bytes) -> DomainSecrets:
        """Return everything of a domain, index keys that came after it was wrapped too.

        Raises:
            KeyWrongError: the passphrase is wrong.
            KeyMissingError: this home has no such domain.
        """
        here = next((one for one in self.member.domains if one.id == domain), None)
        if here is None:
            raise KeyMissingError(f"this {_WHOSE[self.role]} has no keys of that domain")
        self.check_living(domain)
        secrets = decode(DomainKeyFile, self.unlock(domain_file(domain), DOMAIN_LABEL + domain)).secrets
        if public_of(secrets.restore_private) != here.restore_key:
            secrets = self._followed_secrets(secrets, here.restore_key)
        return msgspec.structs.replace(secrets, index_keys=merged(secrets.index_keys, here.index_keys))

    def _followed_secrets(self, secrets: DomainSecrets, restore_key: bytes) -> DomainSecrets:
        """Return a domain's secrets with the private half of the restore key that counts now.

        A keeper has it beside the former, and puts it in its place; a drill host is handed it by every charter, sealed
        to the one that its passphrase wraps. As they are, if neither is so.
        """
        name, label = domain_file(secrets.id), DOMAIN_LABEL + secrets.id
        if self.fs.size(self.file(name + NEXT)) is not None:
            following = decode(DomainKeyFile, self.unlock(name + NEXT, label)).secrets
            if public_of(following.restore_private) == restore_key:
                self.succeed(name)
                return following
        for handed in self.private.handed:
            if handed.identity != self.identity:
                continue
            keys = read_member_keys(take(self.signing, handed.sealed, "keys in the charter for this home"))
            for one in keys.restores:
                former = public_of(secrets.restore_private)
                if one.sealed and (one.domain, one.former, one.restore_key) == (secrets.id, former, restore_key):
                    private = unseal(secrets.restore_private, one.sealed, PURPOSE_RESTORE, "restore key")
                    return msgspec.structs.replace(secrets, restore_private=private)
        return secrets

    def succeed(self, name: str) -> None:
        """Put a key's successor in its place."""
        self.fs.replace(self.file(name + NEXT), self.file(name))
        self.fs.fsync_dir(self.path)

    def former_restores(self) -> dict[bytes, list[tuple[bytes, bytes]]]:
        """Return (public, private) of the restore keys before the present ones, by domain, the last first."""
        return {one: formers_of(self.private, one, self.domain_secrets(one).restore_private) for one in self.living_ids}

    def adopt_charter(self, charter_data: bytes, passed: Collection[bytes] = ()) -> bool:
        """Take a newer charter; what was opened under the one before is opened anew."""
        self._readers = {}
        return super().adopt_charter(charter_data, passed)

    def lazy_ticket(self, _peer: Identity) -> bytes:
        """Return the enrol order that this home was given."""
        return self.member.ticket

    def contents(self) -> dict[str, bytes]:
        """Return what this home's wrapped files hold, by name.

        Raises:
            KeyWrongError: the passphrase is wrong.
        """
        for domain in self.living_ids:
            self.domain_secrets(domain)  # of a restore key and its successor, the one that counts
        return {name: self.unlock(name, label) for name, label in self.key_files().items()}

    def rewrap(self, edge: Edge, passphrase: str, secrets: Mapping[str, bytes], cost: Cost = DEFAULT_COST) -> None:
        """Wrap the contents of all key files anew. Stopped anywhere, all of them open with one passphrase.

        ``secrets`` are the contents by file name. The caller holds this home's lock.
        """
        labels = self.key_files()
        assert secrets.keys() == labels.keys(), "all or none"
        for name, secret in secrets.items():
            data = wrapped_record(passphrase, secret, labels[name], edge.rng, cost)
            write_atomic(edge.fs, self.file(name + REWRAPPED), data)
        write_atomic(edge.fs, self.file(COMMITTED), json.dumps(sorted(secrets)).encode())
        settle_wrappings(edge.fs, self.path)
        for name in secrets:
            if edge.fs.size(self.file(name + NEXT)) is not None:
                edge.fs.unlink(self.file(name + NEXT))  # prepared under the passphrase before, and never came to count
        self._passphrase = passphrase
        self._readers = {}


_WHOSE = {"keeper": "keeper", "drill": "drill host"}


def settle_wrappings(fs: Fs, folder: str) -> None:
    """Finish a change of the passphrase that was stopped, or take back one that had not come far enough."""
    commit = os.path.join(folder, COMMITTED)
    if fs.size(commit) is not None:
        for name in json.loads(fs.read(commit)):
            with suppress(FileNotFoundError):  # replaced before we were stopped
                fs.replace(os.path.join(folder, name + REWRAPPED), os.path.join(folder, name))
        fs.fsync_dir(folder)
        fs.unlink(commit)
        fs.fsync_dir(folder)
        return
    for name, _ in fs.list_files(folder):
        if name.endswith(REWRAPPED):
            fs.unlink(os.path.join(folder, name))


class DrillHome(ReaderHome):
    """A drill host: restores for trial with restore keys that its own passphrase wraps, and can do nothing else."""

    def __init__(self, home: str, fs: Fs, passphrase: PassphraseSource) -> None:
        super().__init__(home, "drill", fs, passphrase)


class KeeperHome(ReaderHome):
    """A tenant's keeper."""

    def __init__(self, home: str, fs: Fs, passphrase: PassphraseSource) -> None:
        super().__init__(home, "keeper", fs, passphrase)
        self._owner: SigningKey | None = None

    def key_files(self) -> dict[str, bytes]:
        """Return the names of this home's wrapped files and their labels."""
        return {"owner.key": OWNER_LABEL, "maintenance.key": MAINTENANCE_LABEL, **super().key_files()}

    def contents(self) -> dict[str, bytes]:
        """Return what this home's wrapped files hold, by name; of a key and its successor, the one that counts."""
        counting = {"owner.key": self.owner().seed(), "maintenance.key": self._own_maintenance().seed()}
        return super().contents() | counting

    def owner(self) -> SigningKey:
        """Return the owner key: the one that the newest charter's root names.

        Raises:
            KeyWrongError: the passphrase is wrong.
            KeyMissingError: root has named another owner, whose key is not here.
        """
        if self._owner is None:
            found = self._settled("owner.key")
            if found.public != self.charter.root.owner_key:
                raise KeyMissingError(
                    "root has named another owner key than this keeper's",
                    hint="with the recovery sheet, `replicator recover` makes a keeper's home that has it",
                )
            self._owner = found
        return self._owner

    def maintenance(self) -> SigningKey:
        """Return the keeper's own maintenance key.

        Raises:
            KeyWrongError: the passphrase is wrong.
            KeyMissingError: the charter gives it no right, as it was written by an earlier release.
        """
        found = self._own_maintenance()
        if not self.may_maintain(found.public):
            raise KeyMissingError(
                "the charter gives this keeper's maintenance key no right",
                hint="run `replicator key rotate maintenance`",
            )
        return found

    def keybag_maintenance(self) -> bytes:
        """Return the public half of this keeper's maintenance key, whatever the charter says of it."""
        return self._own_maintenance().public

    def _own_maintenance(self) -> SigningKey:
        return self._settled("maintenance.key")

    def may_maintain(self, key: bytes) -> bool:
        """Return whether the charter gives a key the rights of a maintainer."""
        right = self.charter.right_of(key)
        return right is not None and right.role == "maintainer"

    def counting(self, name: str) -> SigningKey:
        """Return the signing key in a file, or its successor if the charter speaks of that one already.

        Changes nothing.

        Raises:
            KeyWrongError: the passphrase is wrong.
        """
        return self._counting(name)[0]

    def _settled(self, name: str) -> SigningKey:
        """Return the signing key that counts, put in its place if it is the successor."""
        found, follows = self._counting(name)
        if follows:
            self.succeed(name)
        return found

    def _counting(self, name: str) -> tuple[SigningKey, bool]:
        """Return the signing key that counts, and whether it lies beside its place still."""
        label = self.key_files()[name]
        is_right = self._is_owner if name == "owner.key" else self.may_maintain
        found = SigningKey(self.unlock(name, label))
        if is_right(found.public) or self.fs.size(self.file(name + NEXT)) is None:
            return found, False
        following = SigningKey(self.unlock(name + NEXT, label))
        return (following, True) if is_right(following.public) else (found, False)

    def _is_owner(self, key: bytes) -> bool:
        return key == self.charter.root.owner_key

    def prepare(self, edge: Edge, name: str, key: SigningKey) -> None:
        """Lay a signing key's successor beside it, wrapped; it counts from the charter on that speaks of it."""
        self._prepare(edge, name, key.seed())

    def prepare_domain(self, edge: Edge, secrets: DomainSecrets) -> None:
        """Lay a domain's secrets with another restore key beside those so far; see :meth:`prepare`."""
        self._prepare(edge, domain_file(secrets.id), encode(DomainKeyFile(secrets=secrets)))

    def cost(self) -> Cost:
        """Return what this keeper's passphrase costs to try."""
        wrapped = read_wrapped(read_private_file(self.fs, self.file("owner.key")))
        return Cost(memory_kib=wrapped.memory_kib, passes=wrapped.passes, lanes=wrapped.lanes)

    def _prepare(self, edge: Edge, name: str, secret: bytes) -> None:
        data = wrapped_record(self.passphrase(), secret, self.key_files()[name], edge.rng, self.cost())
        write_atomic(edge.fs, self.file(name + NEXT), data)

    def succeed(self, name: str) -> None:
        """Put a key's successor in its place."""
        super().succeed(name)
        self._owner = None

    def keybag(self) -> Keybag:
        """Return every secret of the tenant, as it is to be sealed to root.

        Raises:
            KeyWrongError: the passphrase is wrong.
        """
        return Keybag(
            tenant=self.tenant,
            owner_seed=self.owner().seed(),
            maintenance_seed=self._own_maintenance().seed(),
            member_key=self.member.member_key,
            domains=[self.domain_secrets(one) for one in self.living_ids],
        )

    def ticket(self, holder_key: bytes | None = None) -> bytes:
        """Return an enrol order for a key, this keeper's own by default, signed by owner."""
        return enrol_order(self.owner(), holder_key or self.signing.public)

    def lazy_ticket(self, _peer: Identity) -> bytes:
        """Return an enrol order if the passphrase was given already, else nothing: nobody is asked for it.

        It is root's own where a recovery left one: a provider that the recovery did not reach knows this keeper by no
        charter yet, and takes the one that names it from nobody else.
        """
        if self._passphrase is None:
            return b""
        path = self.file(ROOT_ORDER_FILE)
        order = self.fs.read(path) if self.fs.size(path) is not None else b""
        return order if order[:KEY_SIZE] == self.charter.root.root_key else self.ticket()

    def write_charter(
        self,
        edge: Edge,
        *,
        private: CharterPrivate | None = None,
        rights: list[Right] | None = None,
        keybag_data: bytes | None = None,
        root: bytes | None = None,
        owner: SigningKey | None = None,
        change: bytes | None = None,
        handovers: list[bytes] | None = None,
        confirmed: bool = False,
    ) -> bytes:
        """Sign the next charter with these changes, keep it here and return it as an object.

        ``keybag_data`` is a new keybag as an object; ``root`` a new root statement, which names ``owner`` and ends
        what was announced of another root; ``change`` a signed RootChange to announce, empty to take one back;
        ``handovers`` are all changes that have come to count; ``confirmed``: somebody looked through all that is in it.
        """
        old, before = self.charter, self.entries()
        body = private or self.private
        data = sign_charter(
            owner=owner or self.owner(),
            member_key=self.member.member_key,
            previous=old.hash,
            number=old.number + 1,
            root=root or old.charter.root,
            rights=old.charter.rights if rights is None else rights,
            keybag=old.charter.keybag if keybag_data is None else name_of(keybag_data),
            private=body,
            tenant=self.tenant,
            change=change if change is not None else b"" if root is not None else old.charter.change,
            handovers=old.charter.handovers if handovers is None else handovers,
            edge=edge,
        )
        if keybag_data is not None:
            # Before the charter that names it: no other home has it yet. The one before is with the providers.
            write_atomic(self.fs, self.file("keybag.obj"), keybag_data)
        self.adopt_charter(data, () if handovers is None else [signed_hash(one) for one in handovers])
        # Last: stopped before it, what began with this charter has to be confirmed once.
        signed = self.signed_here().after(
            [] if confirmed else before, self.entries(), number=self.charter.number, now_ns=edge.clock.now_ns()
        )
        write_signed(self.fs, self.file(SIGNED_FILE), signed)
        return data

    def entries(self) -> list[Entry]:
        """Return what counts in the newest charter."""
        return entries_of(self.charter.charter.rights, self.private)

    def signed_here(self) -> SignedHere:
        """Return what this home remembers of what it signed itself."""
        return read_signed(self.fs, self.file(SIGNED_FILE))

    def drop_domain(self, domain: bytes) -> None:
        """Destroy the file with the secrets of a domain that was erased, and what was opened of them.

        What a writer needs of it stays, as it is in every node: by its index keys `prune` finds what is to go.
        """
        self._readers.pop(domain, None)
        for suffix in ("", NEXT, REWRAPPED, ".new", f"{REWRAPPED}.new"):
            destroy(self.fs, self.file(domain_file(domain) + suffix))
        self.fs.fsync_dir(self.path)

    def add_domain(self, domain: WriterDomain) -> None:
        """Keep what a writer needs of a new domain, whose wrapped secrets lie here already."""
        member = msgspec.structs.replace(self.member, domains=[*self.member.domains, domain])
        write_atomic(self.fs, self.file("member.bin"), encode(member))
        self.member = member

    def successor_seal_key(self) -> bytes:
        """Return the seal key of a root that is announced, to which a new keybag is sealed too; empty if none is."""
        return self.charter.pending.successor.root_seal_key if self.charter.pending is not None else b""

    def holders(self) -> bytes:
        """Return the providers whose receipts count for a release, signed for the charter in force.

        Raises:
            KeyWrongError: the passphrase is wrong.
        """
        return sign_holders(self.owner(), self.tenant, self.charter.number, self.peers)

    def with_peers(self, peers: list[PeerPin]) -> CharterPrivate:
        """Return the private part with another list of peers."""
        return msgspec.structs.replace(self.private, peers=peers)


def sign_charter(
    *,
    owner: SigningKey,
    member_key: bytes,
    previous: bytes,
    number: int,
    root: bytes,
    rights: list[Right],
    keybag: bytes,
    private: CharterPrivate,
    tenant: bytes,
    edge: Edge,
    change: bytes = b"",
    handovers: Sequence[bytes] = (),
) -> bytes:
    """Return a signed charter as an object. Maintainers that it names are told in it whose receipts count."""
    maintained = any(right.role == "maintainer" and not right.revoked for right in rights)
    holders = sign_holders(owner, tenant, number, private.peers) if maintained else b""
    private = msgspec.structs.replace(private, holders=holders)
    charter = Charter(
        tenant=tenant,
        number=number,
        previous=previous,
        root=root,
        rights=rights,
        keybag=keybag,
        private=seal_random(member_key, encode_charter_private(private), private_context(tenant), edge.rng),
        created_ns=edge.clock.now_ns(),
        change=change,
        handovers=list(handovers),
    )
    return record_object(owner.sign(Context.CHARTER, encode_charter(charter)), edge.rng)


def sign_holders(owner: SigningKey, tenant: bytes, number: int, peers: Iterable[PeerPin]) -> bytes:
    """Return the providers of a charter as owner's word that their receipts count for a release."""
    providers = b"".join(sorted(pin.identity for pin in peers))
    return owner.sign(Context.HOLDERS, encode(Holders(tenant=tenant, charter=number, providers=providers)))


def record_object(body: bytes, rng: Rng) -> bytes:
    """Return a record that providers may read as a padded object."""
    return wrap_record(body, rng.bytes(record_fill(len(body))))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperSecrets:
    """What a new keeper's home wraps; nothing of it is in its repr."""

    owner_seed: bytes = field(repr=False)
    maintenance_seed: bytes = field(repr=False)
    domains: tuple[DomainSecrets, ...]


def create_keeper(
    home: str,
    edge: Edge,
    *,
    seed: bytes,
    member: MemberFile,
    charter_data: bytes,
    keybag_data: bytes,
    secrets: KeeperSecrets,
    passphrase: str,
    signed: SignedHere,
    root_order: bytes = b"",
) -> None:
    """Make the keeper half of a home: wrapped keys first, ``home.json`` last.

    ``root_order`` is root's enrol order for it, where root was at hand and providers may not have heard of it.
    """
    folder = f"{home}/keeper"
    edge.fs.makedirs(folder)
    files = {
        "owner.key": (secrets.owner_seed, OWNER_LABEL),
        "maintenance.key": (secrets.maintenance_seed, MAINTENANCE_LABEL),
    }
    for name, (secret, label) in files.items():
        write_atomic(edge.fs, f"{folder}/{name}", wrapped_record(passphrase, secret, label, edge.rng))
    write_domains(folder, edge, secrets.domains, passphrase)
    write_signed(edge.fs, f"{folder}/{SIGNED_FILE}", signed)
    if root_order:
        write_atomic(edge.fs, f"{folder}/{ROOT_ORDER_FILE}", root_order)
    create_half(home, "keeper", edge.fs, seed=seed, member=member, charter_data=charter_data, keybag_data=keybag_data)


def write_domains(folder: str, edge: Edge, domains: Iterable[DomainSecrets], passphrase: str) -> None:
    """Wrap domains' secrets, a file for each."""
    for domain in domains:
        body = encode(DomainKeyFile(secrets=domain))
        data = wrapped_record(passphrase, body, DOMAIN_LABEL + domain.id, edge.rng)
        write_atomic(edge.fs, f"{folder}/{domain_file(domain.id)}", data)
