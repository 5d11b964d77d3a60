"""Dialling back: does the one who asks answer where it says that it does?

Only addresses of its own signed offer are dialled, and of these only the ones that may be (:class:`.Reachable`). An
answer says "your key", "another key" (of a provider; any other server is nothing), "nothing", or that a number is one
of a private network. Why there is nothing, and how long it took to know, is not told: nobody scans a network by this.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from replicator.endpoints import Way, join_endpoint, parse_way
from replicator.errors import FormatError
from replicator.ids import Identity
from replicator.transport.reachable import Reachable, Resolve, is_number, resolved
from replicator.transport.tls import PeerCertificate, fetch_certificate
from replicator.wire.messages import ProbeAnswer, Probed

RESOLVE_S: Final = 3.0
"""How long a name may take to be looked up: who asks may be whose server answers for it."""
DIAL_S: Final = 5.0
"""How long whoever is dialled may take: longer than a connection across the world does."""
WHOLE_S: Final = RESOLVE_S + DIAL_S + 1.0
"""How long an answer takes in which something does not answer."""
MOST_DIALLED: Final = 8
Look = Callable[..., Coroutine[Any, Any, PeerCertificate]]
Wait = Callable[[float], Coroutine[Any, Any, None]]


class Prober:
    """Dials back. ``look`` and ``wait`` are those of the network and of time."""

    def __init__(
        self,
        reachable: Reachable,
        *,
        look: Look = fetch_certificate,
        resolve: Resolve = resolved,
        wait: Wait = asyncio.sleep,
    ) -> None:
        self._reachable = reachable
        self._look = look
        self._resolve = resolve
        self._wait = wait
        self._names = ThreadPoolExecutor(MOST_DIALLED, thread_name_prefix="names")  # others do not wait for these

    async def probe(self, endpoints: Sequence[str], identity: Identity) -> list[Probed]:
        """Return what answers at each endpoint, by family of address (0: none was dialled), in their order."""
        slow = asyncio.ensure_future(self._wait(WHOLE_S))
        try:
            steps = [step for found in await asyncio.gather(*map(self._steps, endpoints)) for step in found]
            found = await asyncio.gather(
                *(self._dial(step, identity, dialled=at < MOST_DIALLED) for at, step in enumerate(steps))
            )
            if any(one.answer != "your key" for one in found):
                await slow
        finally:
            slow.cancel()
        return found

    async def _steps(self, endpoint: str) -> list[tuple[str, Way | None, str]]:
        """Return endpoint, way and address of each family that may be dialled; without an address if none may."""
        try:
            way = parse_way(endpoint)
            where = join_endpoint(way.host, way.port)
            asked = asyncio.get_running_loop().run_in_executor(
                self._names, self._reachable.addresses, where, self._resolve
            )
            addresses = await asyncio.wait_for(asked, RESOLVE_S)
        except (OSError, ValueError):
            return [(endpoint, None, "")]
        first = {":" in address: address for address, _ in reversed(addresses)}
        return [(endpoint, way, address) for _, address in sorted(first.items())] or [(endpoint, way, "")]

    async def _dial(self, step: tuple[str, Way | None, str], identity: Identity, *, dialled: bool) -> Probed:
        endpoint, way, address = step
        answer: ProbeAnswer = "nothing"
        if way is None or not dialled:
            return Probed(endpoint=endpoint, family=0, answer=answer)
        if not address:
            # That a name leads into this house is nobody's business; a number is what the asker wrote itself.
            return Probed(endpoint=endpoint, family=0, answer="private" if is_number(way.host) else answer)
        try:
            peer = await self._look(address, way.port, timeout_s=DIAL_S, server_name=way.server_name(identity))
            answer = "your key" if peer.identity == identity else "another key"
        except (OSError, FormatError):
            pass
        return Probed(endpoint=endpoint, family=6 if ":" in address else 4, answer=answer)
