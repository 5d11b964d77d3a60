"""A provider on loopback over TLS, and targets to dial it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from replicator.clock import SystemClock
from replicator.crypto.sign import SigningKey
from replicator.errors import PeerError, RefusedError
from replicator.provider.home import Provider
from replicator.provider.service import ProviderService
from replicator.transport.base import Connection, Target
from replicator.transport.client import TlsNetwork
from replicator.transport.probing import Prober
from replicator.transport.server import serving
from replicator.transport.tls import server_context
from replicator.wire.messages import EnrolRequest
from tests.provider.tenant import MIB, House, Tenant, secret_of, settle

T = TypeVar("T")


@dataclass
class Live:
    """A settled provider that answers on loopback."""

    house: House
    provider: Provider
    service: ProviderService
    endpoint: str
    tenant: Tenant
    network: TlsNetwork = field(default_factory=TlsNetwork)

    def target(self, key: SigningKey | None = None, certificate: bytes | None = None, *endpoints: str) -> Target:
        """Return this provider as a client knows it."""
        return Target(
            identity=self.service.identity,
            name="alice",
            endpoints=endpoints or (self.endpoint,),
            key=key or self.tenant.node,
            certificate=certificate,
        )

    def invitation(self, tenant: Tenant, key: SigningKey) -> EnrolRequest:
        """Return a request with a fresh invite."""
        secret = secret_of(self.provider.invite(quota=100 * MIB, label=""))
        return EnrolRequest(holder_key=key.public, secret=secret, order=b"", root=tenant.root_statement())

    async def connect(self, key: SigningKey | None = None) -> Connection:
        """Return a connection of an enrolled holder, the node's unless told otherwise."""
        holder = key or self.tenant.node
        request = EnrolRequest(holder_key=holder.public, secret=b"", order=self.tenant.order(holder), root=b"")
        reply = await self.network.enrol(self.target(holder), request)
        return await self.network.connect(self.target(holder, reply.certificate))


@asynccontextmanager
async def living(path: str, *dialling: Prober, **terms: object) -> AsyncIterator[Live]:
    """Run a settled provider inside the block; it dials back if it has something to do that with."""
    prober = dialling[0] if dialling else None
    house = House(path)
    provider = house.init(**terms)
    service = provider.start()
    tenant = Tenant("live")
    settle(provider, service, tenant)
    context = server_context(*provider.certificate_paths())
    try:
        async with serving(
            service, SystemClock(), host="127.0.0.1", port=0, context=context, prober=prober
        ) as endpoints:
            yield Live(house, provider, service, endpoints[0], tenant)
    finally:
        service.stop()
        provider.close()


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run a test's coroutine."""

    async def inner() -> T:
        return await work()

    return asyncio.run(inner())


async def refused(work: Awaitable[object]) -> str:
    """Return the word that a peer refuses with."""
    try:
        await work
    except RefusedError as error:
        return error.code
    except PeerError as error:
        raise AssertionError(f"{type(error).__name__} where a refusal was expected: {error}") from error
    raise AssertionError("nothing was refused")
