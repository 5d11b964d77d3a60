"""The keeper half: the tenant's own machine. Wrapped owner and restore keys, unwrapped only while they are used."""

from dataclasses import dataclass, field

import msgspec

from replicator.crypto.aead import seal_random
from replicator.crypto.passphrase import MIN_LENGTH, Wrapped, unwrap, wrap
from replicator.crypto.sign import Context, SigningKey
from replicator.engine.edge import Edge, PassphraseSource
from replicator.engine.home import Half, create_half, private_context, read_private_file
from replicator.errors import KeyMissingError, UsageError
from replicator.format.charter import Charter, CharterPrivate, EnrolOrder, PeerPin, Right
from replicator.format.codec import decode, encode
from replicator.format.container import record_fill, wrap_record
from replicator.format.keybag import DomainKeyFile, DomainSecrets, MemberFile, WrappedSecret
from replicator.fs import Fs, write_atomic
from replicator.ids import Identity
from replicator.pack.keys import as_writer, writer_keys
from replicator.pack.reader import ReaderKeys
from replicator.rng import Rng

OWNER_LABEL = b"owner key"
MAINTENANCE_LABEL = b"maintenance key"
DOMAIN_LABEL = b"domain keys "


def wrapped_record(passphrase: str, secret: bytes, label: bytes, rng: Rng) -> bytes:
    """Return the bytes of a wrapped secret's file."""
    wrapped = wrap(passphrase, secret, label, rng)
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


def unwrap_record_bytes(passphrase: str, data: bytes, label: bytes) -> bytes:
    """Return the secret in a wrapped secret's file.

    Raises:
        KeyWrongError: the passphrase is wrong.
    """
    record = decode(WrappedSecret, data)
    wrapped = Wrapped(
        salt=record.salt,
        memory_kib=record.memory_kib,
        passes=record.passes,
        lanes=record.lanes,
        commitment=record.commitment,
        sealed=record.sealed,
    )
    return unwrap(passphrase, wrapped, label)


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


class KeeperHome(Half):
    """A tenant's keeper. ``passphrase`` is asked for at most once for each wrapped key that is needed."""

    def __init__(self, home: str, fs: Fs, passphrase: PassphraseSource) -> None:
        super().__init__(home, "keeper", fs)
        self._ask = passphrase
        self._passphrase: str | None = None
        self._owner: SigningKey | None = None
        self._readers: dict[bytes, ReaderKeys] = {}

    def _unlock(self, name: str, label: bytes) -> bytes:
        data = read_private_file(self.fs, self.file(name))
        if self._passphrase is None:
            self._passphrase = self._ask(f"Passphrase of {self.member.name}'s keeper")
        return unwrap_record_bytes(self._passphrase, data, label)

    def owner(self) -> SigningKey:
        """Return the owner key.

        Raises:
            KeyWrongError: the passphrase is wrong.
        """
        if self._owner is None:
            self._owner = SigningKey(self._unlock("owner.key", OWNER_LABEL))
        return self._owner

    def maintenance(self) -> SigningKey:
        """Return the maintenance key.

        Raises:
            KeyWrongError: the passphrase is wrong.
        """
        return SigningKey(self._unlock("maintenance.key", MAINTENANCE_LABEL))

    def reader(self, domain: bytes) -> ReaderKeys:
        """Return a domain's restore key with its working keys.

        Raises:
            KeyWrongError: the passphrase is wrong.
            KeyMissingError: this keeper has no such domain.
        """
        found = self._readers.get(domain)
        if found is None:
            secrets = self.domain_secrets(domain)
            public = next(one.restore_key for one in self.member.domains if one.id == domain)
            keys = writer_keys(self.tenant, as_writer(secrets, public))
            found = self._readers[domain] = ReaderKeys(keys=keys, restore_private=secrets.restore_private)
        return found

    def domain_secrets(self, domain: bytes) -> DomainSecrets:
        """Return everything of a domain."""
        if all(one.id != domain for one in self.member.domains):
            raise KeyMissingError("this keeper has no keys of that domain")
        label = DOMAIN_LABEL + domain
        return decode(DomainKeyFile, self._unlock(f"domain-{domain.hex()}.key", label)).secrets

    def ticket(self, holder_key: bytes | None = None) -> bytes:
        """Return an enrol order for a key, this keeper's own by default, signed by owner."""
        order = EnrolOrder(holder_key=holder_key or self.signing.public, expires_ns=0)
        return self.owner().sign(Context.ENROL_ORDER, encode(order))

    def lazy_ticket(self, _peer: Identity) -> bytes:
        """Return an enrol order if the passphrase was given already, else nothing: nobody is asked for it."""
        return self.ticket() if self._passphrase is not None else b""

    def write_charter(
        self,
        edge: Edge,
        *,
        private: CharterPrivate | None = None,
        rights: list[Right] | None = None,
        keybag: bytes | None = None,
    ) -> bytes:
        """Sign the next charter with these changes, keep it here and return it as an object."""
        old = self.charter
        body = private or self.private
        data = sign_charter(
            owner=self.owner(),
            member_key=self.member.member_key,
            previous=old.hash,
            number=old.number + 1,
            root=old.charter.root,
            rights=old.charter.rights if rights is None else rights,
            keybag=old.charter.keybag if keybag is None else keybag,
            private=body,
            tenant=self.tenant,
            edge=edge,
        )
        self.adopt_charter(data)
        return data

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
) -> bytes:
    """Return a signed charter as an object."""
    charter = Charter(
        tenant=tenant,
        number=number,
        previous=previous,
        root=root,
        rights=rights,
        keybag=keybag,
        private=seal_random(member_key, encode(private), private_context(tenant), edge.rng),
        created_ns=edge.clock.now_ns(),
    )
    return record_object(owner.sign(Context.CHARTER, encode(charter)), edge.rng)


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
) -> None:
    """Make the keeper half of a home: wrapped keys first, ``home.json`` last."""
    folder = f"{home}/keeper"
    edge.fs.makedirs(folder)
    files = {
        "owner.key": (secrets.owner_seed, OWNER_LABEL),
        "maintenance.key": (secrets.maintenance_seed, MAINTENANCE_LABEL),
    }
    for domain in secrets.domains:
        body = encode(DomainKeyFile(secrets=domain))
        files[f"domain-{domain.id.hex()}.key"] = (body, DOMAIN_LABEL + domain.id)
    for name, (secret, label) in files.items():
        write_atomic(edge.fs, f"{folder}/{name}", wrapped_record(passphrase, secret, label, edge.rng))
    create_half(home, "keeper", edge.fs, seed=seed, member=member, charter_data=charter_data, keybag_data=keybag_data)
