"""What maintenance claims at providers: the packs it put together anew, which take the place of others.

A claim is made by the maintenance key itself. On a maintainer that is its identity; on a keeper it is another one, with
a certificate of its own at each provider.
"""

from collections.abc import Callable, Collection
from dataclasses import replace

from replicator.catalog.objects import split_ids
from replicator.crypto.sign import Context, SigningKey
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation, Link
from replicator.engine.home import Half
from replicator.errors import KeyMissingError, PeerError, RefusedError
from replicator.format.claim import Claim, set_root
from replicator.format.codec import encode
from replicator.ids import Identity
from replicator.transport.base import Connection
from replicator.wire.messages import ClaimReply, Empty, EnrolRequest, Info, Signed

EnrolOrderFor = Callable[[bytes], bytes]
"""Returns an enrol order for a key, which only the owner key can make."""


class Claimant:
    """Claims for one maintenance key in one run."""

    def __init__(
        self, half: Half, federation: Federation, edge: Edge, key: SigningKey, order: EnrolOrderFor | None
    ) -> None:
        self._half = half
        self._federation = federation
        self._edge = edge
        self._key = key
        self._order = order
        self._said: dict[Identity, bytes] = {}
        self.held: dict[bytes, set[Identity]] = {}
        """Who has and protects which of the claimed objects, of the providers that were asked in this run."""

    async def claim(self, names: Callable[[Identity], Collection[bytes]]) -> bool:
        """Claim at every provider that answers what ``names`` says lies there; return whether a claim changed."""
        changed = False
        for link in list(self._federation.links.values()):
            wanted = sorted(set(names(link.identity)))
            known = self._half.catalog.meta(self._memory(link)) or b""
            if not wanted and not known:
                continue
            try:
                changed |= await self._claim(link, wanted, known)
            except (PeerError, KeyMissingError) as error:
                self._federation.notices.append(f"{link.pin.name}: maintenance cannot claim there: {error}")
        return changed

    async def _claim(self, link: Link, names: list[bytes], known: bytes) -> bool:
        connection = await self._connect(link)
        try:
            info = await connection.call("info", Empty(), Info)
            root = set_root(names)
            said = info.claim.to_bytes(8, "big") + info.incarnation + root
            if said == known:
                self._hold(link, names)
                return False
            if self._said.get(link.identity) == root:
                return False  # some of it is missing there, as it said
            number = info.claim + 1
            claim = Claim(
                tenant=self._half.tenant,
                writer=self._key.identity,
                provider=link.identity,
                number=number,
                base=0,
                added=b"".join(names),
                dropped=b"",
                root=root,
            )
            signed = self._key.sign(Context.CLAIM, encode(claim))
            reply = await connection.call("claim", Signed(statement=signed), ClaimReply)
        finally:
            if connection is not link.connection:
                await connection.close()
        missing = set(split_ids(reply.missing))
        after = b"" if missing else number.to_bytes(8, "big") + info.incarnation + root  # with gaps it is said again
        self._half.catalog.set_meta(self._memory(link), after or b"gaps")
        self._said[link.identity] = root
        self._hold(link, [name for name in names if name not in missing])
        return True

    def _hold(self, link: Link, names: Collection[bytes]) -> None:
        for name in names:
            self.held.setdefault(name, set()).add(link.identity)

    def _memory(self, link: Link) -> str:
        return f"maintenance claim {link.identity.hex()} {self._key.identity.hex()}"

    async def _connect(self, link: Link) -> Connection:
        """Return a connection of the maintenance key; the caller closes it if it is not the link's own."""
        if self._key.identity == self._half.identity:
            return link.connection
        place = f"maintenance certificate {link.identity.hex()} {self._key.identity.hex()}"
        certificate = self._half.catalog.meta(place)
        target = replace(link.connection.target, key=self._key, certificate=certificate)
        if certificate:
            try:
                return await self._edge.network.connect(target)
            except RefusedError as error:
                if error.code != "unauthorized":
                    raise
        if self._order is None:
            raise KeyMissingError("this home has no certificate for its maintenance key, and cannot ask for one")
        request = EnrolRequest(holder_key=self._key.public, secret=b"", order=self._order(self._key.public), root=b"")
        reply = await self._edge.network.enrol(replace(target, certificate=None), request)
        self._half.catalog.set_meta(place, reply.certificate)
        return await self._edge.network.connect(replace(target, certificate=reply.certificate))
