"""The real provider code, walked step by step beside the machine of :mod:`.protocol`."""

import os
import shutil
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from replicator.charter.verify import NO_PREVIOUS, signed_hash
from replicator.clock import DAY_S
from replicator.crypto.sign import SigningKey
from replicator.format.merkle import name_of
from replicator.provider.service import ProviderService
from replicator.provider.session import ProviderSession
from replicator.provider.sweeping import apply_sweep, plan_all
from replicator.transport.handler import RequestRefusedError
from replicator.wire.messages import EnrolRequest, Signed, VouchRequest
from tests.fakes import SeededRng
from tests.model.protocol import Protocol, States
from tests.provider.tenant import House, Tenant, data_object, enrol, publish_charter, put, right

KEYBAG = data_object(7)
LONG_S = 9 * DAY_S
"""Longer than any receipt counts and any copy is held for it."""


@dataclass
class Place:
    """One provider, as a process that can be stopped and put back to what it was at the beginning."""

    path: str
    number: int
    writers: list[SigningKey]
    maintainers: list[SigningKey]

    def __post_init__(self) -> None:
        self.house = House(self.path, rng=SeededRng(f"house {self.number}"))
        self.tenant = Tenant("walk")
        self.provider = self.house.init(lock_s=0, grace_s=0)
        self.service: ProviderService = self.provider.start()
        enrol(self.provider, self.service, self.tenant)
        keeper = self.service.session(self.tenant.keeper.public)
        put(keeper, KEYBAG)
        rights = [right(self.tenant.keeper, "keeper")]
        rights += [right(key, "node") for key in self.writers] + [right(key, "maintainer") for key in self.maintainers]
        publish_charter(keeper, self.tenant.charter(rights, keybag=name_of(KEYBAG)))
        for key in (*self.writers, *self.maintainers):
            order = self.tenant.order(key)
            self.service.enrol(EnrolRequest(holder_key=key.public, secret=b"", order=order, root=b""))
        self._stop()
        shutil.copyfile(self._rows(), self.path + ".first")
        self._start()

    @property
    def identity(self) -> bytes:
        """The provider's."""
        return self.service.identity

    def put_back(self) -> None:
        """Lose all that the rows said; the objects stay on the disk."""
        self._stop()
        shutil.copyfile(self.path + ".first", self._rows())
        self._start()

    def session(self, key: SigningKey) -> ProviderSession:
        """Return a holder's session."""
        return self.service.session(key.public)

    def close(self) -> None:
        """Let go."""
        self._stop()

    def _rows(self) -> str:
        return os.path.join(self.house.home, "provider", "provider.db")

    def _stop(self) -> None:
        self.service.stop()
        self.provider.close()

    def _start(self) -> None:
        self.provider = self.house.open()
        self.service = self.provider.start()


@dataclass
class Walk:
    """Providers, writers and maintainers that take the machine's steps for real."""

    path: str
    protocol: Protocol
    rng: SeededRng
    heads: dict[int, list[bytes]] = field(default_factory=dict)
    receipts: dict[int, bytes] = field(default_factory=dict)
    sent: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    hanging: dict[tuple[int, int], bytes] = field(default_factory=dict)
    """Claims on their way, by writer and provider."""

    def __post_init__(self) -> None:
        keys = SeededRng("walkers")
        self.writers = [SigningKey(keys.bytes(32)) for _ in self.protocol.writers]
        self.maintainers = [SigningKey(keys.bytes(32)) for _ in self.protocol.maintainers]
        self.places = [
            Place(os.path.join(self.path, str(p)), p, self.writers, self.maintainers) for p in self.protocol.providers
        ]
        for s in self.protocol.copies:
            self.receipts[s] = put(self.at(s).session(self.writers[0]), self.data(s))
        self.wait()

    def at(self, s: int) -> Place:
        """Return where a copy is."""
        return self.places[self.protocol.at(s)]

    def data(self, s: int) -> bytes:
        """Return a copy's bytes."""
        return data_object(s % self.protocol.names)

    def name(self, s: int) -> bytes:
        """Return a copy's name."""
        return name_of(self.data(s))

    def wait(self) -> None:
        """Let time pass until no receipt counts."""
        for place in self.places:
            place.house.clock.advance(LONG_S)

    def close(self) -> None:
        """Let go."""
        for place in self.places:
            place.close()

    def take(self, step: str, before: States) -> set[int] | None:
        """Take a step; return which copies a writer was told are there, where it claims or puts."""
        word, *rest = step.split()
        numbers = [int(one) for one in rest if one.isdigit()]
        method = getattr(self, f"_{word}" if word != "put" or rest[0] != "back" else "_put_back", None)
        if method is None:
            return None  # open, abort, forget, lose: nobody else hears of it
        found: set[int] | None = method(rest, numbers, before)
        return found

    def _set(self, bits: list[object], p: int, states: States) -> list[bytes]:
        return sorted(self.name(s) for s in self.protocol.here(p) if bits[s].on(states)[0])  # type: ignore[attr-defined]

    def _say(self, key: SigningKey, s: int, before: list[bytes], after: list[bytes]) -> bytes:
        place = self.at(s)
        session = place.session(key)
        known = session.info().claim
        [stored] = [one.claim for one in session.claims().writers if one.writer == key.identity] or [0]
        whole = known != stored or not known or self.rng.below(2) == 0  # after a fence, nothing is there to change
        statement = place.tenant.claim(
            place.service.identity,
            known + 1,
            after,
            base=0 if whole else known,
            added=after if whole else sorted(set(after) - set(before)),
            dropped=[] if whole else sorted(set(before) - set(after)),
            by=key,
        )
        return session.claim(Signed(statement=statement)).missing

    def _change(self, key: SigningKey, bits: list[object], s: int, states: States, *, add: bool) -> set[int]:
        p = self.protocol.at(s)
        before = self._set(bits, p, states)
        after = sorted({*before, self.name(s)} if add else {*before} - {self.name(s)})
        missing = self._say(key, s, before, after)
        gone = {missing[at : at + 32] for at in range(0, len(missing), 32)}
        return {one for one in self.protocol.here(p) if self.name(one) in after and self.name(one) not in gone}

    def _claim(self, _rest: list[str], numbers: list[int], before: States) -> set[int]:
        w, s = numbers
        return self._change(self.writers[w], [*self.protocol.claimed[w]], s, before, add=True)

    def _drop(self, _rest: list[str], numbers: list[int], before: States) -> None:
        w, s = numbers
        self._change(self.writers[w], [*self.protocol.claimed[w]], s, before, add=False)

    def _adopt(self, _rest: list[str], numbers: list[int], before: States) -> None:
        m, s = numbers
        self._change(self.maintainers[m], [*self.protocol.adopted[m]], s, before, add=True)

    def _leave(self, _rest: list[str], numbers: list[int], before: States) -> None:
        m, s = numbers
        self._change(self.maintainers[m], [*self.protocol.adopted[m]], s, before, add=False)

    def _put(self, _rest: list[str], numbers: list[int], _before: States) -> None:
        w, s = numbers
        self.receipts[s] = put(self.at(s).session(self.writers[w]), self.data(s))

    def _repair(self, _rest: list[str], numbers: list[int], before: States) -> None:
        [s] = numbers
        session = self.at(s).session(self.maintainers[0])
        if self.protocol.present[s].on(before)[0]:
            [self.receipts[s]] = session.vouch(VouchRequest(names=self.name(s))).receipts
        else:
            self.receipts[s] = put(session, self.data(s))

    def _publish(self, _rest: list[str], numbers: list[int], before: States) -> None:
        """Send a head everywhere. Where the writer relies on something it must be taken, or this was no step."""
        [w] = numbers
        chain = self.heads.setdefault(w, [])
        head = self.places[0].tenant.head(
            len(chain) + 1, signed_hash(chain[-1]) if chain else NO_PREVIOUS, by=self.writers[w]
        )
        chain.append(head)
        for p, place in enumerate(self.places):
            try:
                place.session(self.writers[w]).head(Signed(statement=head))
            except RequestRefusedError:
                relied = any(self.protocol.relied[w][s].on(before)[0] for s in self.protocol.here(p))
                assert not relied, "a head was refused where the claim holds"

    def try_to_publish(self, w: int, states: States) -> None:
        """Send a head where the machine says that it is refused."""
        chain = self.heads.get(w, [])
        previous = signed_hash(chain[-1]) if chain else NO_PREVIOUS
        head = self.places[0].tenant.head(len(chain) + 1, previous, by=self.writers[w])
        for p, place in enumerate(self.places):
            holds = self.protocol.current[w][p].on(states)[0] and not self.protocol.retired[w][p].on(states)[0]
            if not holds and any(self.protocol.relied[w][s].on(states)[0] for s in self.protocol.here(p)):
                with pytest.raises(RequestRefusedError, match="claim anew"):
                    place.session(self.writers[w]).head(Signed(statement=head))

    def _retire(self, _rest: list[str], numbers: list[int], _before: States) -> None:
        w, p = numbers
        place = self.places[p]
        session = place.session(self.maintainers[0])
        writer = self.writers[w].identity
        number = next((one.claim for one in session.claims().writers if one.writer == writer), 0)
        identity = place.service.identity
        # As replicator.engine.marking.retire says it.
        fence = place.tenant.fence(identity, claim=number + 1, by=self.maintainers[0], writer=writer)
        session.fence(Signed(statement=fence))
        order = place.tenant.retire(identity, number, by=self.maintainers[0], writer=writer)
        session.retire(Signed(statement=order))
        late = self.hanging.pop((w, p), None)
        if late is not None:
            with pytest.raises(RequestRefusedError, match="too late"):
                place.session(self.writers[w]).claim(Signed(statement=late))

    def _hang(self, _rest: list[str], numbers: list[int], before: States) -> None:
        """Sign a claim of the same set; it is sent when it arrives."""
        w, p = numbers
        place = self.places[p]
        known = place.session(self.writers[w]).info().claim
        names = self._set([*self.protocol.claimed[w]], p, before)
        self.hanging[w, p] = place.tenant.claim(
            place.service.identity, known + 1, names, base=0, added=names, by=self.writers[w]
        )

    def _arrive(self, _rest: list[str], numbers: list[int], _before: States) -> None:
        w, p = numbers
        self.places[p].session(self.writers[w]).claim(Signed(statement=self.hanging.pop((w, p))))

    def _decide(self, rest: list[str], numbers: list[int], _before: States) -> None:
        m, s = numbers[:2]
        place = self.at(s)
        session = place.session(self.maintainers[m])
        now = session.claims()
        changes: dict[str, object] = {"dead": [self.name(s)]}
        if "surplus" in rest:
            holders = place.tenant.holders(*(one.service.identity for one in self.places), charter=1)
            changes = {
                "surplus": [self.name(s)],
                "receipts": [self.receipts[one] for one in numbers[2:]],
                "copies": len(numbers[2:]),
                "holders": holders,
            }
        statement = place.tenant.mark(place.service.identity, now, by=self.maintainers[m], **changes)  # type: ignore[arg-type]
        self.sent[m] = (s, statement)

    def _mark(self, _rest: list[str], numbers: list[int], _before: States) -> None:
        [m] = numbers
        s, statement = self.sent[m]
        self.at(s).session(self.maintainers[m]).mark(Signed(statement=statement))

    def _sweep(self, _rest: list[str], numbers: list[int], _before: States) -> None:
        [s] = numbers
        place = self.at(s)
        core = place.service._core
        now_ns = core.clock.now_ns()
        [part] = plan_all(core.database, core.charters, core.offer()[1], days=core.tick(), now_ns=now_ns)
        only = replace(part.plan, gone=tuple(one for one in part.plan.gone if one.name == self.name(s)))
        store = core.store(part.tenant)
        list(apply_sweep(core.database, store, core.gate, replace(part, plan=only), days=core.days, now_ns=now_ns))

    def _put_back(self, _rest: list[str], numbers: list[int], _before: States) -> None:
        [p] = numbers
        self.places[p].put_back()

    def seen(self) -> dict[str, bool]:
        """Return what can be seen of the providers, in the machine's words."""
        protocol = self.protocol
        found: dict[str, bool] = {}
        for s in protocol.copies:
            place = self.at(s)
            database = place.provider._database
            key = (place.tenant.id, self.name(s))
            row = database.row("SELECT 1 FROM objects WHERE tenant = ? AND name = ?", key)
            on_disk = os.path.exists(os.path.join(place.house.objects(place.tenant), self.name(s).hex()))
            assert (row is not None) == on_disk, "an object without a row, or a row without an object"
            found[f"present {s}"] = on_disk
            marked = database.row("SELECT 1 FROM marks WHERE tenant = ? AND name = ?", key)
            found[f"marked {s}"] = marked is not None
            for who, keys in (("writer", self.writers), ("maintainer", self.maintainers)):
                for number, holder in enumerate(keys):
                    claimed = database.row(
                        "SELECT 1 FROM claimed WHERE tenant = ? AND name = ? AND writer = ?", (*key, holder.identity)
                    )
                    found[f"{who} {number} claims {s}"] = claimed is not None
        for p, place in enumerate(self.places):
            writers = {one.writer: one for one in place.session(self.maintainers[0]).claims().writers}
            for w, holder in enumerate(self.writers):
                state = writers.get(holder.identity)
                found[f"writer {w} retired at {p}"] = state is not None and state.retired
                found[f"marks wait for writer {w} at {p}"] = (
                    state is not None and not state.current and not state.retired
                )
        return found


def expected(protocol: Protocol, states: States) -> dict[str, bool]:
    """Return the same of the machine."""
    shown = ("present", "marked", "claims", "retired")
    found = {
        name: bool(bits.on(states)[0])
        for name, bits in protocol.layout.names.items()
        if any(word in name.split() for word in shown)
    }
    for w in protocol.writers:
        for p in protocol.providers:
            waits = ~protocol.current[w][p].on(states) & ~protocol.retired[w][p].on(states)
            found[f"marks wait for writer {w} at {p}"] = bool(waits[0])
    return found


def expire(protocol: Protocol, states: States) -> States:
    """Let the time pass for which any receipt counts."""
    for s in protocol.copies:
        enabled, after = protocol.steps[f"expire {s}"](states)
        states = np.where(enabled, after, states)
    return states
