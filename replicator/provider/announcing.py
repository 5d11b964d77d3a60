"""Telling other providers where this one is now, so that whoever asks any of them finds it.

They are those that tenants told of here: tenants of ours, at least in part, so they know us too. Whose address it was
to dial is looked at as for a pull (:mod:`replicator.transport.reachable`).
"""

from collections import Counter

from replicator.crypto.sign import SigningKey
from replicator.errors import PeerError, RefusedError
from replicator.ids import Identity
from replicator.provider.database import Database
from replicator.provider.offers import heard_endpoints, neighbours, own_offer
from replicator.transport.sources import Sources

AT_A_TIME = 8
"""Providers that are told before the daemon does something else; the others have their turn at its next look."""


class Announcements:
    """Who has heard which of our offers, as far as this process knows."""

    def __init__(self, database: Database, key: SigningKey, sources: Sources) -> None:
        self._database = database
        self._key = key
        self._sources = sources
        self._heard: dict[Identity, int] = {}
        self._tries: Counter[Identity] = Counter()

    def announce(self) -> int:
        """Hand our newest offer to a few that have not heard it, whoever was tried least; return how many took it."""
        signed, offer = own_offer(self._database)
        others = neighbours(self._database)
        self._heard = {one: self._heard[one] for one in others if one in self._heard}
        self._tries = Counter({one: self._tries[one] for one in others})
        lacking = [one for one in others if self._heard.get(one) != offer.number]
        lacking.sort(key=self._tries.__getitem__)
        taken = 0
        for identity in lacking[:AT_A_TIME]:
            self._tries[identity] += 1
            endpoints = heard_endpoints(self._database, self._key, identity)
            try:
                self._sources.announce(endpoints, identity, signed)
                taken += 1
            except RefusedError:
                pass  # an earlier release, or nobody there has told of us: it has nothing to hand on
            except PeerError:
                continue
            self._heard[identity] = offer.number
        return taken
