"""The provider's half of a home: its key, its terms, its invites, and where the objects lie.

    HOME/provider/home.json        {"format": 1, "role": "provider", ...}; written last, so a home is whole or none
                  identity.seed    32 bytes, the provider's private key (0600)
                  identity.pem     the same for ssl (0600)
                  certificate.pem  self-signed: the authority for clients, and what they pin
                  incoming/        what is on its way into a bucket, if the objects lie in one
                  provider.db      rows; ballast: space to give up on a full disk; lock: held by the daemon

Several processes of one home may have it open; only :meth:`Provider.start` makes the one that answers requests.
"""

import contextlib
import dataclasses
import json
import os
import socket
import sqlite3
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from replicator.charter.group import Known
from replicator.clock import DAY_S, NS, Clock, day_of
from replicator.config import is_bucket, parse_bucket, read_window
from replicator.crypto.certificates import certificate_pem, private_pem, provider_certificate
from replicator.crypto.sign import SigningKey
from replicator.endpoints import NOBODY, PUBLIC, direct, join_endpoint, parse_address, parse_way, split_endpoint
from replicator.errors import HomeError, KeyMissingError, NotFoundError, UsageError
from replicator.format.codec import encode
from replicator.format.codes import write_code
from replicator.format.group import Fact
from replicator.format.offer import MOST_ENDPOINTS, Invite, Offer
from replicator.fs import Fs, write_atomic
from replicator.ids import Identity, ObjectName, TenantId, address_form
from replicator.provider.alarms import RELAY_TODO
from replicator.provider.announcing import Announcements
from replicator.provider.ballast import Ballast
from replicator.provider.charters import Charters
from replicator.provider.core import INCARNATION_SIZE, Core
from replicator.provider.database import Database
from replicator.provider.databucket import DataBucket, MakeBucket, reaching
from replicator.provider.datadir import Data, DataDir
from replicator.provider.days import load_days
from replicator.provider.drain import Drain, Emptying, begin, cancel, emptying, progress, shares, whole_of
from replicator.provider.erasing import all_erasures
from replicator.provider.groups import NO_GROUP, enter, known_group, look_at, own_member, set_for_members, take
from replicator.provider.hours import Hours
from replicator.provider.invites import SECRET_SIZE, VALID_S, InviteRow, add_invite, list_invites, revoke
from replicator.provider.moving import Move, erase_left
from replicator.provider.objects import levels_of_all, size_of, used_by_all
from replicator.provider.offers import heard_endpoints, own_offer, sign_offer
from replicator.provider.pulling import Pulls, Run
from replicator.provider.quota import STREAMS, floor_of
from replicator.provider.relaying import (
    LostRelay,
    found_relay,
    lost_relay,
    lost_relays,
    relay_words,
    relayed_months,
)
from replicator.provider.scrub import Log, Scrubbed, read_log, share
from replicator.provider.service import ProviderService
from replicator.provider.state import ErasedState, ProviderState, RelayState, TenantState, counts, growth, heard
from replicator.provider.sweeping import TenantSweep, deletions, plan_all
from replicator.provider.tenants import all_tenants, find_tenant, grant, set_quota, tenant_named
from replicator.provider.traffic import Month, by_holder, months
from replicator.rng import Rng
from replicator.settings import DeclaredTenant
from replicator.store.s3 import open_s3
from replicator.transport.reachable import Reachable
from replicator.transport.relay import RATE
from replicator.transport.sources import Sources
from replicator.transport.via import RelayAddress
from replicator.wire.messages import WIRE_VERSION

HOME_FORMAT = 1
STORE_ID_SIZE = 16
FOLDER = "provider"
WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - recognised, not listened on


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a provider says of itself, and where it listens. ``capacity`` in bytes.

    ``advertise`` are the "host:port" that others reach it at; empty: where it listens.
    """

    capacity: int
    owner: str
    site: str
    region: str
    country: str
    listen: str
    advertise: tuple[str, ...]
    lock_s: int
    grace_s: int
    legal_name: str = ""
    contact: str = ""


class BucketServer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How the bucket is reached that ``data`` names. ``credentials``: the path of a file with its keys.

    An empty ``endpoint`` is Amazon's own, an empty ``region`` the usual one.
    """

    endpoint: str = ""
    region: str = ""
    credentials: str = ""


class HomeFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """home.json. ``data`` may be edited by hand when the disk moves; s3://BUCKET/PREFIX is a bucket of ``server``.

    ``pull_from``: whom it fetches from (:class:`Reachable`). ``moved_from``: where the objects were before, and copies
    may still lie (:mod:`.moving`); ``moved_before``: likewise, from moves before that. ``promised_until_ns``: before
    this it does not leave, by what earlier offers promised. ``relay_for``: whom it passes connections on to, in the
    words of :func:`relay_words`, at ``relay_rate`` bytes a second for each; ``via``: the relays it waits at
    ("HOST:PORT/IDENTITY").

    ``window`` ("22:00-06:00", "" for always) in ``zone`` ("" for this machine's). ``down`` and ``up``: bytes a second
    that tenants together send and fetch at the most, 0 for any number. Only what was set is written, so that an earlier
    release reads the file of who set nothing.
    """

    format: int
    role: str
    data: str
    listen: str
    window: str = ""
    zone: str = ""
    streams: int = STREAMS
    down: int = 0
    up: int = 0
    pull_from: tuple[str, ...] = (PUBLIC,)
    relay_for: tuple[str, ...] = ()
    relay_rate: int = RATE
    via: tuple[str, ...] = ()
    moved_from: str = ""
    moved_before: tuple[str, ...] = ()
    promised_until_ns: int = 0
    server: BucketServer | None = None

    @property
    def old_folders(self) -> list[str]:
        """The folders that the objects were in before moves and copies may still lie in, the last one last."""
        return [*self.moved_before, *filter(None, [self.moved_from])]


class Provider:
    """An open provider's home. Close it."""

    def __init__(
        self,
        *,
        folder: str,
        file: HomeFile,
        key: SigningKey,
        database: Database,
        fs: Fs,
        clock: Clock,
        rng: Rng,
        make_bucket: MakeBucket,
    ) -> None:
        self.folder = folder
        self.key = key
        self.listen = file.listen
        self._file = file
        self._database = database
        self._fs = fs
        self._clock = clock
        self._rng = rng
        self._make_bucket = make_bucket
        self._admitted: dict[bytes, DeclaredTenant] = {}

    def admit(self, tenants: Iterable[DeclaredTenant]) -> None:
        """Let these tenants in without an invite, when it serves; those that are here get their declared quota."""
        self._admitted = {one.root_key: one for one in tenants}

        def work(connection: sqlite3.Connection) -> None:
            for one in self._admitted.values():
                set_quota(connection, one.root_key, one.quota)

        self._database.write("declared quotas", work)

    def start(self, sources: Sources | None = None, run: Run | None = None) -> ProviderService:
        """Return the service that answers requests. One at a time for a home: the caller holds its lock.

        ``sources``: where it may fetch objects that tenants send it for; None: from nobody. ``run`` as in
        :class:`Pulls`.
        """
        return ProviderService(
            Core(
                key=self.key,
                database=self._database,
                data=self._data(),
                ballast=self._ballast(),
                clock=self._clock,
                rng=self._rng,
                admitted=self._admitted,
                hours=self._hours_now(),
                pulls=Pulls(sources, self.key, self._clock.now_ns, run) if sources is not None else None,
                relay_for=self._file.relay_for,
                erase_left=self._erase_left,
            )
        )

    def announcements(self, sources: Sources) -> Announcements:
        """Return what tells other providers where this one is."""
        return Announcements(self._database, self.key, sources)

    def _hours_now(self) -> Callable[[], Hours]:
        """Return what tells the hours as home.json has them now: another process of this home may change them.

        A file that cannot be read, or means nothing, leaves them as they were.

        Raises:
            HomeError: they mean nothing already.
        """
        path = os.path.join(self.folder, "home.json")
        known = [(self._hours(self._file), _stamp(path))]

        def hours() -> Hours:
            found, stamp = known[-1]
            now = _stamp(path)
            if now != stamp:
                with contextlib.suppress(HomeError, KeyMissingError):
                    found = self._hours(_read_home_file(path, self._fs))
                known[:] = [(found, now)]
            return found

        return hours

    def _hours(self, file: HomeFile) -> Hours:
        try:
            window = read_window(file.window, file.zone) if file.window else None
        except UsageError as error:
            raise HomeError(
                f"{self.folder}: its window: {error.message}", hint="set another one with `provider set --window`"
            ) from error
        return Hours(window=window, streams=file.streams, down=file.down, up=file.up)

    def set_hours(self, *, window: str | None, zone: str | None, streams: int | None) -> HomeFile:
        """Change when and how much at a time is taken; None leaves it as it is. A daemon that runs goes by it at once.

        Raises:
            UsageError: no window, or no time zone.
        """
        file = self._file
        changed = msgspec.structs.replace(
            file,
            window=file.window if window is None else window,
            zone=file.zone if zone is None else zone,
            streams=file.streams if streams is None else streams,
        )
        if changed.window:
            read_window(changed.window, changed.zone)
        elif zone:
            raise UsageError("a time zone means something only with a window", hint="give --window too")
        elif changed.zone:
            changed = msgspec.structs.replace(changed, zone="")
        self._keep(changed)
        return changed

    def set_rates(self, *, down: int | None, up: int | None) -> HomeFile:
        """Change how many bytes a second tenants together send and fetch (0: any number); None leaves it as it is.

        A daemon that runs goes by it at once, also for what is moving.
        """
        file = self._file
        changed = msgspec.structs.replace(
            file, down=file.down if down is None else down, up=file.up if up is None else up
        )
        self._keep(changed)
        return changed

    def reachable(self) -> Reachable:
        """Return which addresses of other providers it dials.

        Raises:
            HomeError: home.json says something that is none.
        """
        try:
            return Reachable(self._file.pull_from)
        except UsageError as error:
            raise HomeError(f"{self.folder}: {error.message}", hint="set it with `provider set --pull-from`") from error

    def set_pull_from(self, words: Iterable[str]) -> Reachable:
        """Change which addresses of other providers it dials, from the daemon's next start on.

        Raises:
            UsageError: neither "public", "nobody" nor a network.
        """
        found = Reachable(words)
        self._keep(msgspec.structs.replace(self._file, pull_from=found.words))
        return found

    def set_relay(self, words: Iterable[str] | None, rate: int | None) -> HomeFile:
        """Change whom it passes connections on to, and how fast, from the daemon's next start on; None leaves it.

        Raises:
            UsageError: no such words.
        """
        file = self._file
        changed = msgspec.structs.replace(
            file,
            relay_for=file.relay_for if words is None else relay_words(words),
            relay_rate=file.relay_rate if rate is None else rate,
        )
        self._keep(changed)
        return changed

    def set_via(self, addresses: Iterable[str]) -> tuple[str, ...]:
        """Change at which relays it waits, from the daemon's next start on; "nobody" alone: at none.

        Raises:
            UsageError: not an address with an identity.
        """
        said = tuple(dict.fromkeys(addresses))
        kept = () if said == (NOBODY,) else said
        waiting = {one.identity for one in relays_in(kept)}
        self._keep(msgspec.structs.replace(self._file, via=kept))
        for relay in lost_relays(self._database).keys() - waiting:
            self.relay_found(relay)  # of no matter any more, and an old day if it is ever waited at again
        return kept

    def months(self) -> list[tuple[Month, str]]:
        """Return what each tenant kept, sent and fetched by month, the newest first, with the tenant's label."""
        labels = dict(self._database.rows("SELECT id, label FROM tenants"))
        return [(one, labels[one.tenant]) for one in months(self._database) if one.tenant in labels]

    @property
    def rates(self) -> tuple[int, int]:
        """Bytes a second that tenants together send and fetch at the most, 0 for any number."""
        return self._file.down, self._file.up

    @property
    def relay(self) -> tuple[tuple[str, ...], int]:
        """Whom it passes connections on to, and how many bytes a second for each."""
        return self._file.relay_for, self._file.relay_rate

    @property
    def via(self) -> tuple[str, ...]:
        """The relays it waits at."""
        return self._file.via

    def relay_endpoints(self, relay: Identity) -> list[str]:
        """Return where a relay is by the newest that tenants told of it."""
        return direct(heard_endpoints(self._database, self.key, relay))

    def reached_via(self, relay: Identity, endpoints: Sequence[str]) -> None:
        """Say in the next offer that it is reached through these endpoints of a relay, and where it is advertised."""
        before = self.offer().endpoints
        others = [one for one in before if parse_way(one).relay not in (None, relay)]
        own = direct(before) if self._advertised() else []
        self._offer_endpoints([*own, *others, *endpoints][:MOST_ENDPOINTS])

    def relay_lost(self, relay: Identity, since_ns: int, reason: str) -> None:
        """Keep for the operator that it cannot wait at a relay, since when, and why."""
        lost = LostRelay(lost_ns=since_ns, reason=reason)
        self._database.write("relay lost", lambda connection: lost_relay(connection, relay, lost))

    def relay_found(self, relay: Identity) -> None:
        """Keep that it waits at a relay."""
        self._database.write("relay found", lambda connection: found_relay(connection, relay))

    def relays(self) -> tuple[RelayState, ...]:
        """Return how the relays stand that it waits at, as the daemon last saw them."""
        lost = lost_relays(self._database)
        found = []
        for one in relays_in(self._file.via):
            known = lost.get(one.identity, LostRelay(lost_ns=0, reason=""))
            address = f"{one.endpoint}/{address_form(one.identity)}"
            found.append(RelayState(address=address, lost_ns=known.lost_ns, reason=known.reason))
        return tuple(found)

    def _ways(self) -> list[str]:
        """Return the endpoints at relays, as far as it waits there still."""
        waiting = {one.identity for one in relays_in(self._file.via)}
        return [one for one in self.offer().endpoints if parse_way(one).relay in waiting]

    def _advertised(self) -> bool:
        row = self._database.row("SELECT advertised FROM meta")
        assert row is not None, "the row is made with the home"
        return bool(row[0])

    def _offer_endpoints(self, endpoints: list[str], *, advertised: bool = False) -> None:
        """Sign other endpoints, if they are others; ``advertised``: by the operator's word."""
        offer = self.offer()
        if offer.endpoints != endpoints:
            changed = msgspec.structs.replace(
                offer, endpoints=endpoints, number=offer.number + 1, created_ns=self._clock.now_ns()
            )
            signed = sign_offer(self.key, changed)
            self._database.write("offer", lambda connection: connection.execute("UPDATE meta SET offer = ?", (signed,)))
        if advertised and not self._advertised():
            self._database.write("offer", lambda connection: connection.execute("UPDATE meta SET advertised = 1"))

    def set_server(self, server: BucketServer | None) -> None:
        """Change how the bucket is reached that the objects lie in, from the daemon's next start on."""
        self._keep(msgspec.structs.replace(self._file, server=server))

    def _keep(self, changed: HomeFile) -> None:
        # What config.toml declares is set at each start, and is as a rule what was set at the last.
        if changed != self._file:
            _write_home_file(self._fs, self.folder, changed)
            self._file = changed

    def scrub(self, service: ProviderService, *, seconds: float | None) -> Scrubbed:
        """Read what so many seconds' share of a round is, or all that is left of it. The caller holds the home's lock.

        Raises:
            RequestRefusedError: "unavailable": the disk is not mounted.
        """
        most = None if seconds is None else share(used_by_all(self._database), seconds)
        return service.scrub(self.folder, self._fs, most=most)

    def offer(self) -> Offer:
        """Return the newest offer."""
        return own_offer(self._database)[1]

    def signed_offer(self) -> bytes:
        """Return the newest offer as it is shown to others."""
        return own_offer(self._database)[0]

    def change_offer(self, **changes: Any) -> Offer:
        """Sign a new offer with some fields changed; nothing happens if all are as they were.

        Raises:
            UsageError: a value that an offer cannot have.
        """
        before = self.offer()
        if all(getattr(before, field) == value for field, value in changes.items()):
            return before
        fields = msgspec.structs.asdict(before) | changes
        fields |= {"number": before.number + 1, "created_ns": self._clock.now_ns()}
        offer = Offer(**fields)
        if offer.notice_s < before.notice_s:
            self._keep_promise(before.notice_s)
        signed = sign_offer(self.key, offer)
        advertised = int("endpoints" in changes)
        self._database.write(
            "offer",
            lambda connection: connection.execute(
                "UPDATE meta SET offer = ?, advertised = max(advertised, ?)", (signed, advertised)
            ),
        )
        return offer

    def _keep_promise(self, notice_s: int) -> None:
        """Note until when an offer that is replaced now is held to: who relies on it heard it a moment ago."""
        until_ns = max(self._file.promised_until_ns, self._clock.now_ns() + notice_s * NS)
        self._keep(msgspec.structs.replace(self._file, promised_until_ns=until_ns))

    @property
    def promised_until_ns(self) -> int:
        """Before this it does not leave, by what earlier offers promised; 0: none did."""
        return self._file.promised_until_ns

    def _promised_s(self, now_ns: int) -> int:
        """Return the notice that tenants were promised: by the offer, or by one before that still runs."""
        return max(self.offer().notice_s, -(-(self._file.promised_until_ns - now_ns) // NS))

    def advertise(self, endpoints: Iterable[str]) -> Offer:
        """Sign where others reach this provider; nothing: where it listens, which a start corrects.

        Raises:
            UsageError: no "host:port", or more than anybody tries.
        """
        said = list(dict.fromkeys(endpoints))
        if said:
            self._offer_endpoints([*said, *self._ways()], advertised=True)
            return self.offer()
        if self._advertised():
            self._database.write("offer", lambda connection: connection.execute("UPDATE meta SET advertised = 0"))
        if split_endpoint(self.listen)[1]:
            self.listening_on(self.listen)
        return self.offer()

    def listening_on(self, endpoint: str) -> None:
        """Correct the offer after a start on another address than before, unless an address is advertised.

        Who waits at a relay is not dialled where it listens.
        """
        ways = self._ways()
        own = direct(self.offer().endpoints)
        if not self._advertised():
            own = [] if ways else [shown_endpoint(endpoint)]
        self._offer_endpoints([*own, *ways])

    @property
    def for_members(self) -> int:
        """Bytes that each member of its group may store here."""
        row = self._database.row("SELECT for_members FROM meta")
        assert row is not None, "the row is made with the home"
        return int(row[0])

    def set_for_members(self, size: int) -> None:
        """Give each member of its group so much; 0 for nothing to new ones. The daemon may run.

        Raises:
            UsageError: more than this provider offers.
        """
        capacity = self.offer().capacity
        if size > capacity:
            raise UsageError(
                f"{size} bytes for each member; this provider offers {capacity}", hint="give less, or offer more"
            )
        if size != self.for_members:
            self._database.write("for members", lambda connection: set_for_members(connection, size))

    def group(self) -> Known | None:
        """Return what it knows of the group that it is in; None if it is in none."""
        return self._database.read(known_group)

    def group_member(self) -> bytes:
        """Return which member of its group it is, or is of; empty if it is in none."""
        return self._database.read(own_member)

    def enter_group(self, known: Known, member: bytes) -> None:
        """Be in a group from now on, as this member or as this member's, and in no other."""
        self._database.write("group", lambda connection: enter(connection, known, member))

    def take_facts(self, facts: Iterable[Fact]) -> Known:
        """Take more facts of its group, also those that its operator signs; return all.

        Raises:
            IntegrityError: a signature does not hold.
        """
        facts = list(facts)
        look_at(self._database, NO_GROUP, facts)
        return self._database.write("group", lambda connection: take(connection, facts))

    def invite(self, *, quota: int, label: str, valid_s: int = VALID_S) -> str:
        """Return a new code, good for one tenant, once. It is not stored: only its hash is.

        Raises:
            UsageError: more than this provider offers, or nothing.
            HomeError: nobody could reach this provider yet: its port is not known before it first serves; or it leaves.
        """
        offer = self.offer()
        going = whole_of(self._database)
        if going is not None:
            raise HomeError(
                f"this provider has told its tenants that it {'shrinks' if going.keeps else 'leaves'} by "
                f"{day_of(going.by_ns)}",
                hint="`provider drain --cancel` takes that back",
            )
        if any(parse_way(endpoint).port == 0 for endpoint in offer.endpoints):
            raise HomeError(
                "this provider listens on any free port, and which one is not known yet",
                hint="run `provider serve` first; it notes the port",
            )
        if self._file.via and not self._advertised() and not self._ways():
            raise HomeError(
                "this provider is reached through a relay, and has not waited there yet",
                hint="run `provider serve` first; its log says when it waits at the relay",
            )
        if not 0 < quota <= offer.capacity:
            raise UsageError(
                f"a quota of {quota} bytes; this provider offers {offer.capacity}",
                hint="choose a smaller quota",
            )
        secret = self._rng.bytes(SECRET_SIZE)
        now_ns = self._clock.now_ns()
        expires_ns = now_ns + valid_s * NS
        self._database.write(
            "invite",
            lambda connection: add_invite(
                connection, secret=secret, quota=quota, label=label, now_ns=now_ns, expires_ns=expires_ns
            ),
        )
        invite = Invite(
            identity=self.key.identity,
            endpoints=offer.endpoints,
            secret=secret,
            quota=quota,
            expires_ns=expires_ns,
        )
        return write_code("invite", encode(invite))

    def invites(self) -> list[InviteRow]:
        """Return all invites, the newest first."""
        return list_invites(self._database, self._clock.now_ns())

    def revoke_invite(self, invite_id: str) -> None:
        """Make an open invite worthless.

        Raises:
            NotFoundError: no open invite's id begins so.
        """
        if not self._database.write("revoke invite", lambda connection: revoke(connection, invite_id)):
            raise NotFoundError(f"no open invite '{invite_id}'", hint="`provider status` lists them")

    def set_quota(self, text: str, quota: int, declared: Iterable[DeclaredTenant] = ()) -> TenantId:
        """Give a tenant, named by label or the beginning of its id, another quota; holds at once.

        Raises:
            NotFoundError: no such tenant, or several.
            UsageError: it is one of those that are ``declared``, and would be set back.
        """
        tenant = tenant_named(self._database, text)
        found = find_tenant(self._database, tenant)
        for one in declared:
            if found is not None and one.root_key == found.root_key:
                raise UsageError(
                    f"config.toml declares the quota of '{one.name}', and would set it back",
                    hint=f"change tenant.{one.name}.quota there, and start the daemon again",
                )
        self._database.write("quota", lambda connection: grant(connection, tenant, quota))
        return tenant

    def plan_drain(self, *, tenant: str | None, size: int | None) -> list[Emptying]:
        """Return what each tenant would be told to keep, and how much that leaves to be made elsewhere.

        ``tenant``: only this one, which keeps nothing; else all, which keep ``size`` together (None: nothing).

        Raises:
            NotFoundError: no such tenant, or several.
            UsageError: ``size`` is no less than what is offered.
        """
        offered = self.offer().capacity
        if size is not None and size >= offered:
            raise UsageError(
                f"{size} bytes are no less than the {offered} that are offered",
                hint="to offer more: `provider set --capacity`",
            )
        if tenant is not None:
            keeps = {bytes(tenant_named(self._database, tenant)): 0}
        else:
            uses = {bytes(one): (used_of, quota) for one, used_of, quota in levels_of_all(self._database)}
            keeps = shares(size or 0, uses)
        return emptying(self._database, {name: (most, 0) for name, most in keeps.items()})

    def drain(self, plan: Iterable[Emptying], *, size: int | None, whole: bool, by_ns: int, consent: bool) -> bool:
        """Tell tenants what :meth:`plan_drain` said; return whether the notice is shorter than promised.

        Nothing is deleted by this, then or later.

        Raises:
            UsageError: the day is over; or the notice is shorter than promised, and nobody consented.
        """
        now_ns = self._clock.now_ns()
        promised_s = self._promised_s(now_ns)
        if by_ns <= now_ns:
            raise UsageError("that day is over", hint="give --by a day to come, such as 2027-01-31 or 60d")
        keeps = {one.tenant: one.keeps for one in plan}
        known = {one.tenant: one for one in progress(self._database)}
        short = by_ns < now_ns + promised_s * NS and any(
            name not in known or known[name].by_ns > by_ns or known[name].keeps > most for name, most in keeps.items()
        )
        if short and not consent:
            raise UsageError(
                f"{'this' if promised_s == self.offer().notice_s else 'an earlier word of this'} provider promises "
                f"{-(-promised_s // DAY_S)} days of notice, and these are "
                f"{(by_ns - now_ns) / NS / DAY_S:.0f}",
                hint=f"choose a day from {day_of(now_ns + promised_s * NS)} on, or give --yes: tenants will be told "
                "that it is shorter than promised",
            )
        begin(
            *(self._database, self.key, keeps),
            whole=(size or 0) if whole else None,
            by_ns=by_ns,
            now_ns=now_ns,
            promised_s=promised_s,
        )
        return short

    def cancel_drain(self, tenant: str | None) -> int | None:
        """Take back what was said to a tenant, or to all; return to how many, None if nothing was said.

        Raises:
            NotFoundError: no such tenant, or several.
        """
        return cancel(self._database, None if tenant is None else tenant_named(self._database, tenant))

    def draining(self) -> tuple[Drain | None, list[Emptying]]:
        """Return what was said of the provider as a whole, and how far each tenant is that was told something."""
        return whole_of(self._database), progress(self._database)

    @property
    def data(self) -> str:
        """The folder with the objects, or s3://BUCKET/PREFIX."""
        return self._file.data

    def move_to(self, target: str, *, source: str = "") -> Move:
        """Return the move of the objects to another folder; or the end of one that home.json names already.

        ``source``: from which of :attr:`old_folders`, if not the last.

        Raises:
            UsageError: they lie in a bucket, or would.
            HomeError: they lie there, and nothing is left of a move.
        """
        if is_bucket(self._file.data) or is_bucket(target):
            raise UsageError(
                "only a move from one folder to another is done here",
                hint="offer the new place as another provider, and drain this one",
            )
        file, target = self._file, os.path.abspath(target)
        if file.data != target:
            source = file.data
        else:
            if not file.moved_from:
                raise HomeError(f"{target}: the objects lie there already", hint="give another folder with --data")
            source = source or file.moved_from

        def keep(data: str, moved_from: str) -> None:
            # What was set while most was copied, which may have taken days, holds.
            self._file = _read_home_file(os.path.join(self.folder, "home.json"), self._fs)
            others = [one for one in self.old_folders if one not in (source, data)]
            self._keep_old([*others, moved_from] if moved_from else others, data)

        return Move(
            self._fs,
            source=source,
            target=target,
            store=self._store(),
            tenants=lambda: all_tenants(self._database),
            erased=lambda: [one.tenant for one in all_erasures(self._database)],
            floor=floor_of(self.offer().capacity),
            keep=keep,
        )

    def is_stored(self, tenant: TenantId, name: ObjectName) -> bool:
        """Return whether an object was received and not deleted since."""
        return size_of(self._database, tenant, name) is not None

    @property
    def old_folders(self) -> list[str]:
        """The folders that the objects were in before moves and copies may still lie in, the last one last."""
        return self._file.old_folders

    def forget_old(self) -> list[str]:
        """Forget the folders from before moves, whose disks are no more; return them. Nothing is deleted."""
        folders = self.old_folders
        self._keep_old([], self._file.data)
        return folders

    def _keep_old(self, folders: list[str], data: str) -> None:
        last = folders[-1] if folders else ""
        self._keep(msgspec.structs.replace(self._file, data=data, moved_from=last, moved_before=tuple(folders[:-1])))

    def _erase_left(self, tenant: TenantId) -> None:
        """Remove a tenant from the folders of before, as home.json names them now."""
        file = _read_home_file(os.path.join(self.folder, "home.json"), self._fs)
        for folder in file.old_folders:
            erase_left(self._fs, folder, self._store(), tenant)

    @property
    def moved_from(self) -> str:
        """The folder that the objects were in before a move, if copies may still lie there; else empty."""
        return self._file.moved_from

    def mounted(self) -> bool:
        """Return whether the disk with the objects is there, or the bucket answers as the one that it was."""
        return self._data().mounted()

    def try_out(self, rng: Rng) -> int:
        """Write and read back as many bytes as are returned.

        Raises:
            HomeError: other bytes came back, or the bucket does not do what is relied on.
        """
        return self._data().try_out(rng)

    def room(self) -> int:
        """Return the bytes that the disk has for this provider: free now, or used by it."""
        return self._data().free_bytes() + used_by_all(self._database)

    def state(self) -> ProviderState:
        """Return how it stands, from rows and disk as they are now; the daemon need not run."""
        offer, data, now_ns = self.offer(), self._data(), self._clock.now_ns()
        mounted, used, days = data.mounted(), used_by_all(self._database), load_days(self._database)
        marked = {
            row["id"]: row
            for row in deletions(self._database, Charters(self._database), offer, days=days, now_ns=now_ns)
        }
        heard_ns, forks = heard(self._database), counts(self._database, "forks")
        changes = counts(self._database, "root_changes")
        disk_free = self._free_at(data, offer, used) if mounted else 0
        log = read_log(self.folder, self._fs)
        tenants = []
        for tenant, label, quota, since_ns, stored in self._database.rows(
            "SELECT id, label, quota, created_ns, "
            "(SELECT coalesce(sum(bytes), 0) FROM usage WHERE usage.tenant = tenants.id) FROM tenants ORDER BY id"
        ):
            marks: Mapping[str, Any] = marked.get(tenant.hex(), {})
            tenants.append(
                TenantState(
                    id=tenant.hex(),
                    label=label,
                    used=int(stored),
                    quota=quota,
                    since_ns=since_ns,
                    heard_ns=heard_ns.get(tenant, 0),
                    marked=marks.get("marked", 0),
                    marked_bytes=marks.get("marked_bytes", 0),
                    first_ns=marks.get("first_ns", 0),
                    budget=marks.get("budget", 0),
                    unbraked=tuple(marks.get("unbraked", ())),
                    root_changes=changes.get(tenant, 0),
                    forks=forks.get(tenant, 0),
                )
            )
        return ProviderState(
            now_ns=now_ns,
            mounted=mounted,
            capacity=offer.capacity,
            used=used,
            disk_free=disk_free,
            room=max(0, min(offer.capacity - used, data.free_bytes() - floor_of(offer.capacity))) if mounted else 0,
            growth=growth(self._database, now_ns),
            clock_leap_s=days.leap_ns // NS,
            frozen=days.frozen(now_ns),
            damaged=len(log.found),
            scrub_ended_ns=log.ended_ns,
            tenants=tuple(tenants),
            draining=tuple(progress(self._database)),
            erased=tuple(
                ErasedState(id=one.tenant.hex(), began_ns=one.began_ns, done=bool(one.receipt))
                for one in all_erasures(self._database)
            ),
            relays=self.relays(),
            dialled=self._advertised(),
        )

    def _free_at(self, data: Data, offer: Offer, used: int) -> int:
        """Return what to tell of free space; a bucket has no end of its own, and is as large as what is offered."""
        return max(0, offer.capacity - used) if is_bucket(self._file.data) else data.free_bytes()

    def status(self) -> dict[str, Any]:
        """Return what the operator asks for, from rows and disk as they are now; the daemon need not run."""
        offer = self.offer()
        data = self._data()
        mounted = data.mounted()
        row = self._database.row("SELECT incarnation FROM meta")
        assert row is not None, "the row is made with the home"
        objects = dict(self._database.rows("SELECT tenant, count(*) FROM objects GROUP BY tenant"))
        state = self.state()
        heard_ns = {one.id: one.heard_ns for one in state.tenants}
        tenants = [
            {
                "id": tenant.hex(),
                "label": label,
                "quota": quota,
                "used": int(stored),
                "objects": objects.get(tenant, 0),
                "heard_ns": heard_ns[tenant.hex()],
                "charter": charter,
            }
            for tenant, label, quota, charter, stored in self._database.rows(
                "SELECT id, label, quota, charter_number, "
                "(SELECT coalesce(sum(bytes), 0) FROM usage WHERE usage.tenant = tenants.id) FROM tenants ORDER BY id"
            )
        ]
        now_ns = self._clock.now_ns()
        days = load_days(self._database)
        return {
            "deletions": deletions(self._database, Charters(self._database), offer, days=days, now_ns=now_ns),
            "frozen_until_ns": days.frozen_until_ns if days.frozen(now_ns) else 0,
            "clock_leap_s": days.leap_ns // NS,
            "days": days.days,
            "identity": self.key.identity.hex(),
            "address": address_form(self.key.identity),
            "incarnation": row[0].hex(),
            "offer": {key: value for key, value in msgspec.structs.asdict(offer).items() if key != "provider_key"},
            "listen": self.listen,
            "window": self._file.window,
            "zone": self._file.zone,
            "streams": self._file.streams,
            "down": self._file.down,
            "up": self._file.up,
            "pull_from": list(self._file.pull_from),
            "via": list(self._file.via),
            "relays": [
                {
                    "id": one.address,
                    "lost_ns": one.lost_ns,
                    "reason": one.reason,
                    "todo": RELAY_TODO if one.lost_ns else "",
                }
                for one in state.relays
            ],
            "relay_for": list(self._file.relay_for),
            "relay_rate": self._file.relay_rate,
            "relayed": [
                {
                    "id": f"{address_form(one.identity)} {one.month}",
                    "provider": address_form(one.identity),
                    "month": one.month,
                    "connections": one.connections,
                    "bytes": one.moved,
                }
                for one in relayed_months(self._database)
            ],
            "for_members": self.for_members,
            "data": data.path,
            "moved_from": self.moved_from or None,
            "moved_before": list(self._file.moved_before),
            "mounted": mounted,
            "used": used_by_all(self._database),
            "disk_free": state.disk_free,
            "scrub": _scrub_document(read_log(self.folder, self._fs)),
            "disk_reserve": floor_of(offer.capacity),
            "growth": state.growth,
            "full_in_days": None if state.days_left is None else round(state.days_left, 1),
            "tenants": tenants,
            "months": [
                {
                    "id": f"{one.tenant.hex()} {one.month}",
                    "tenant": one.tenant.hex(),
                    "month": one.month,
                    "taken": one.taken,
                    "given": one.given,
                    "kept": one.kept,
                }
                for one in months(self._database)
            ],
            "holders": [
                {"id": holder.hex(), "tenant": tenant.hex(), "taken": taken, "given": given}
                for tenant, holder, taken, given in by_holder(self._database)
            ],
            "draining": [
                {
                    "id": one.tenant.hex(),
                    "label": one.label,
                    "keeps": one.keeps,
                    "by_ns": one.by_ns,
                    "left": one.left,
                    "stuck": one.stuck,
                }
                for one in state.draining
            ],
            "erased": [
                {
                    "id": one.tenant.hex(),
                    "began_ns": one.began_ns,
                    "objects": one.objects,
                    "bytes": one.size,
                    "done": bool(one.receipt),
                }
                for one in all_erasures(self._database)
            ],
            "invites": [dataclasses.asdict(invite) for invite in self.invites()],
        }

    def plan_sweep(self) -> list[TenantSweep]:
        """Return what a sweep would delete now; nothing is changed, and the daemon may run."""
        return plan_all(
            self._database,
            Charters(self._database),
            self.offer(),
            days=load_days(self._database),
            now_ns=self._clock.now_ns(),
        )

    def certificate_paths(self) -> tuple[str, str]:
        """Return the paths of certificate and private key, for ssl."""
        return os.path.join(self.folder, "certificate.pem"), os.path.join(self.folder, "identity.pem")

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def _store(self) -> bytes:
        row = self._database.row("SELECT store FROM meta")
        assert row is not None, "the row is made with the home"
        return bytes(row[0])

    def _data(self) -> Data:
        return _data_of(
            self.folder,
            self._file.data,
            self._file.server,
            self._store(),
            fs=self._fs,
            clock=self._clock,
            make_bucket=self._make_bucket,
        )

    def _ballast(self) -> Ballast:
        return Ballast(self._fs, os.path.join(self.folder, "ballast"), self._rng)


def _scrub_document(log: Log) -> dict[str, Any]:
    return {
        "began_ns": log.began_ns,
        "ended_ns": log.ended_ns,
        "objects": log.objects,
        "bytes": log.bytes,
        "found": [
            {"id": one.name, "tenant": one.tenant, "state": one.state, "at_ns": one.found_ns} for one in log.found
        ],
    }


def init_provider(
    home: str,
    *,
    data: str,
    terms: Terms,
    fs: Fs,
    clock: Clock,
    rng: Rng,
    key: SigningKey | None = None,
    server: BucketServer | None = None,
    make_bucket: MakeBucket = open_s3,
) -> Provider:
    """Make the provider's half of a home and return it open. A home that was left half made is made anew.

    ``key``: who it shall be; a new key if nobody says. ``server`` is of the bucket that ``data`` names.

    Raises:
        HomeError: there is one already, the data folder belongs to another provider, or the bucket cannot be relied on.
        CredentialError: there are no keys for the bucket.
        UsageError: terms that an offer cannot have.
    """
    folder = os.path.join(home, FOLDER)
    if not is_bucket(data):
        data, server = os.path.abspath(data), None
    if fs.size(os.path.join(folder, "home.json")) is not None:
        raise HomeError(f"{folder}: a provider lives here already", hint="see 'replicator provider status'")
    store = rng.bytes(STORE_ID_SIZE)
    place = _data_of(folder, data, server, store, fs=fs, clock=clock, make_bucket=make_bucket)
    with reaching(data):
        in_use = place.in_use()
    if in_use:
        raise HomeError(
            f"{data}: belongs to a provider already",
            hint="give each provider a place of its own with --data",
        )
    if isinstance(place, DataBucket):
        place.probe(rng)
    key = key or SigningKey(rng.bytes(32))
    signed = sign_offer(
        key,
        Offer(
            provider_key=key.public,
            number=1,
            endpoints=list(terms.advertise or (shown_endpoint(terms.listen),)),
            capacity=terms.capacity,
            owner=terms.owner,
            site=terms.site,
            region=terms.region,
            country=terms.country,
            lock_s=terms.lock_s,
            grace_s=terms.grace_s,
            wire=[WIRE_VERSION],
            created_ns=clock.now_ns(),
            legal_name=terms.legal_name,
            contact=terms.contact,
        ),
    )
    fs.makedirs(folder)
    for leftover in ("provider.db", "provider.db-wal", "provider.db-shm"):
        with contextlib.suppress(FileNotFoundError):
            fs.unlink(os.path.join(folder, leftover))
    write_atomic(fs, os.path.join(folder, "identity.seed"), key.seed())
    write_atomic(fs, os.path.join(folder, "identity.pem"), private_pem(key))
    write_atomic(fs, os.path.join(folder, "certificate.pem"), certificate_pem(provider_certificate(key, rng)))
    fs.create(os.path.join(folder, "provider.db")).close()  # of mode 0600; SQLite's other files follow it
    fs.fsync_dir(folder)
    incarnation = rng.bytes(INCARNATION_SIZE)
    database = _open_database(folder, fs, rng)
    try:
        database.write(
            "provider",
            lambda connection: connection.execute(
                "INSERT INTO meta (id, store, incarnation, generation, offer, advertised) VALUES (1, ?, ?, 0, ?, ?)",
                (store, incarnation, signed, int(bool(terms.advertise))),
            ),
        )
    finally:
        database.close()
    place.create()
    file = HomeFile(format=HOME_FORMAT, role=FOLDER, data=data, listen=terms.listen, server=server)
    _write_home_file(fs, folder, file)
    return open_provider(home, fs=fs, clock=clock, rng=rng, make_bucket=make_bucket)


def _data_of(
    folder: str,
    data: str,
    server: BucketServer | None,
    store: bytes,
    *,
    fs: Fs,
    clock: Clock,
    make_bucket: MakeBucket,
) -> Data:
    if not is_bucket(data):
        return DataDir(fs, data, store)
    server = server or BucketServer()
    try:
        address = parse_bucket(data, endpoint=server.endpoint, region=server.region, credentials=server.credentials)
    except UsageError as error:
        raise HomeError(f"{folder}: {error.message}", hint=error.hint) from error
    incoming = os.path.join(folder, "incoming")
    return DataBucket(make_bucket(address), address, store, fs=fs, incoming=incoming, clock=clock)


def open_provider(home: str, *, fs: Fs, clock: Clock, rng: Rng, make_bucket: MakeBucket = open_s3) -> Provider:
    """Open the provider's half of a home.

    Raises:
        KeyMissingError: there is none.
        HomeError: it is of a newer format, damaged, or its key can be read by others.
    """
    folder = os.path.join(home, FOLDER)
    file = _read_home_file(os.path.join(folder, "home.json"), fs)
    seed_path = os.path.join(folder, "identity.seed")
    for path in (seed_path, os.path.join(folder, "identity.pem")):
        _require_private(path)
    seed = fs.read(seed_path, 0, 33)
    if len(seed) != 32:
        raise HomeError(f"{seed_path}: not a key", hint="put back a copy of it")
    return Provider(
        folder=folder,
        file=file,
        key=SigningKey(seed),
        database=_open_database(folder, fs, rng),
        fs=fs,
        clock=clock,
        rng=rng,
        make_bucket=make_bucket,
    )


def relays_in(addresses: Iterable[str]) -> list[RelayAddress]:
    """Return the relays that addresses "HOST:PORT/IDENTITY" name.

    Raises:
        UsageError: one has no identity, or is reached through another relay.
    """
    found = []
    for one in addresses:
        endpoint, identity = parse_address(one)
        if identity is None or parse_way(endpoint).relay is not None:
            raise UsageError(
                f"'{one}' does not say which relay that is",
                hint="write HOST:PORT/IDENTITY, as its `peer show` prints it",
            )
        found.append(RelayAddress(endpoint=endpoint, identity=identity))
    return found


def shown_endpoint(endpoint: str) -> str:
    """Return what to tell others of a listening address: of one that means every interface, this host's name."""
    try:
        host, port = split_endpoint(endpoint)
    except ValueError:
        return endpoint  # refused where the offer is checked
    return join_endpoint(socket.getfqdn(), port) if host in WILDCARDS else endpoint


def _open_database(folder: str, fs: Fs, rng: Rng) -> Database:
    return Database(os.path.join(folder, "provider.db"), fs, Ballast(fs, os.path.join(folder, "ballast"), rng))


def _write_home_file(fs: Fs, folder: str, file: HomeFile) -> None:
    write_atomic(fs, os.path.join(folder, "home.json"), msgspec.json.format(msgspec.json.encode(file)) + b"\n")


def _read_home_file(path: str, fs: Fs) -> HomeFile:
    try:
        text = fs.read(path, 0, 1 << 16)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise KeyMissingError(
            f"{os.path.dirname(path)}: no provider lives here", hint="make one with 'replicator provider init'"
        ) from error
    try:
        found = json.loads(text)
        version = found["format"]
    except (ValueError, TypeError, KeyError) as error:
        raise HomeError(f"{path}: damaged ({error})", hint="put back a copy of it") from error
    if version != HOME_FORMAT:
        raise HomeError(
            f"{path}: format {version}; this release knows {HOME_FORMAT}", hint="install a newer release of replicator"
        )
    try:
        return msgspec.convert(found, HomeFile)
    except msgspec.ValidationError as error:
        raise HomeError(f"{path}: damaged ({error})", hint="put back a copy of it") from error


def _stamp(path: str) -> tuple[int, int]:
    """Return what is another if a file was replaced."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_ino, status.st_mtime_ns


def _require_private(path: str) -> None:
    try:
        status = os.lstat(path)
    except FileNotFoundError as error:
        raise HomeError(f"{path}: is missing", hint="put back a copy of it") from error
    if not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) & 0o077:
        raise HomeError(f"{path}: a private key that others can read", hint=f"chmod 600 {path}")
