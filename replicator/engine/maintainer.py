"""A maintainer's home: a second machine that may mark what is dead, and reads neither names nor contents.

Its identity is its maintenance key: bound to this machine by the charter, revoked alone, and unwrapped (0600) because
it works at night without a person. The keeper's own maintenance key is wrapped and in the keybag.
"""

import msgspec

from replicator.crypto.sign import SigningKey
from replicator.engine.home import Half, merged, read_private_file
from replicator.errors import KeyMissingError
from replicator.format.codec import decode, encode
from replicator.format.keybag import IndexDomain, IndexDomains, MemberKeys
from replicator.fs import Fs, write_atomic
from replicator.pack.keys import DomainKeys, maintainer_keys

INDEX_FILE = "index.bin"


class MaintainerHome(Half):
    """One maintainer of a tenant.

    Raises:
        HomeError: missing, damaged, of a newer format, or with secrets that others can read.
    """

    def __init__(self, home: str, fs: Fs) -> None:
        super().__init__(home, "maintainer", fs)
        self._domains = decode(IndexDomains, read_private_file(fs, self.file(INDEX_FILE))).domains

    @property
    def domain_ids(self) -> list[bytes]:
        """The domains whose directories and indexes this home can open."""
        return [domain.id for domain in self._domains]

    def keys(self, domain: bytes | None = None) -> DomainKeys:
        """Return the index keys of a domain, of the first one by default.

        Raises:
            KeyMissingError: this home was not given that domain.
        """
        for candidate in self._domains:
            if domain is None or candidate.id == domain:
                return maintainer_keys(self.tenant, candidate)
        raise KeyMissingError("this home has no keys of that domain")

    def maintenance(self) -> SigningKey:
        """Return the key that marks are signed with."""
        return self.signing

    def _take_keys(self, keys: MemberKeys) -> None:
        fresh = {one.id: one for one in keys.domains}
        taken = [
            msgspec.structs.replace(one, index_keys=merged(one.index_keys, fresh[one.id].index_keys))
            if one.id in fresh
            else one
            for one in self._domains
        ]
        here = {one.id for one in taken}
        taken += [one for one in keys.domains if one.id not in here]
        if taken != self._domains:
            write_domains(self.path, self.fs, taken)
            self._domains = taken
        super()._take_keys(keys)


def write_domains(folder: str, fs: Fs, domains: list[IndexDomain]) -> None:
    """Keep what a maintainer knows of domains."""
    write_atomic(fs, f"{folder}/{INDEX_FILE}", encode(IndexDomains(domains=domains)))
