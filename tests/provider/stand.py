"""A settled provider, and how a test asks it."""

from collections.abc import Callable

import pytest

from replicator.format.codec import Record, decode, encode
from replicator.fs import Fs, PosixFs
from replicator.provider.session import ProviderSession
from replicator.transport.handler import RequestRefusedError
from replicator.wire.messages import OPS, Refusal
from tests.provider.tenant import House, Tenant, settle


class Stand:
    """A provider with one tenant whose keeper and node are enrolled and whose charter is known."""

    def __init__(self, path: str, fs: Fs | None = None, house: House | None = None) -> None:
        self.house = house or House(path, fs=fs or PosixFs())
        self.clock = self.house.clock
        self.tenant = Tenant("stand")
        self.provider = self.house.init()
        self.service = self.provider.start()
        settle(self.provider, self.service, self.tenant)

    @property
    def node(self) -> ProviderSession:
        """The node's session."""
        return self.service.session(self.tenant.node.public)

    @property
    def keeper(self) -> ProviderSession:
        """The keeper's session."""
        return self.service.session(self.tenant.keeper.public)

    def call(self, op: str, request: Record, session: ProviderSession | None = None) -> Record:
        """Ask as the wire does: encoded."""
        return decode(OPS[op].answer, (session or self.node).handle(op, encode(request)))

    def restart(self, *, orderly: bool = True) -> None:
        """Stop and start again."""
        if orderly:
            self.service.stop()
        self.provider.close()
        self.provider = self.house.open()
        self.service = self.provider.start()


def refusal(work: Callable[[], object]) -> Refusal:
    """Return the word with which something is refused."""
    with pytest.raises(RequestRefusedError) as caught:
        work()
    return caught.value.code
