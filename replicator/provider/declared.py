"""A provider's home as config.toml declares it: made when it is not there, brought up to it when it is, and proved."""

import os
from dataclasses import dataclass

from replicator.clock import Clock
from replicator.config import format_size, is_bucket
from replicator.crypto.sign import SigningKey
from replicator.errors import HomeError, KeyMissingError, KeyWrongError, SpaceError
from replicator.fs import Fs
from replicator.ids import Identity, address_form
from replicator.provider.home import BucketServer, Provider, Terms, init_provider, open_provider
from replicator.provider.quota import floor_of
from replicator.rng import Rng
from replicator.settings import DeclaredProvider


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What was shown to be true: the key is the declared one, and the disk takes and gives back what is written."""

    identity: Identity
    data: str
    capacity: int
    room: int
    written: int


def open_declared(
    home: str, declared: DeclaredProvider, *, key: SigningKey | None, fs: Fs, clock: Clock, rng: Rng
) -> Provider:
    """Open the home that config.toml declares, made or changed to be so.

    ``key`` is the one that this machine was given; without one a home that is made gets a new key.

    Raises:
        HomeError: the objects lie elsewhere than declared.
        KeyWrongError: the home, or the key that was given, is another provider than the declared one.
    """
    if key is not None:
        _must_be(declared.identity, key.identity, "the key that this machine was given")
    try:
        provider = open_provider(home, fs=fs, clock=clock, rng=rng)
    except KeyMissingError:
        if key is None and declared.identity is not None:
            raise KeyMissingError(
                f"{home}: provider.identity names a provider, and its key is not here",
                hint="give the key that `replicator host new` wrote as the credential replicator-identity",
            ) from None
        terms = Terms(
            capacity=declared.capacity,
            owner=declared.owner,
            site=declared.site,
            region=declared.region,
            country=declared.country,
            listen=declared.listen,
            advertise=declared.advertise,
            lock_s=declared.lock_s,
            grace_s=declared.grace_s,
        )
        provider = init_provider(
            home, data=declared.data, terms=terms, fs=fs, clock=clock, rng=rng, key=key, server=_server(declared)
        )
    try:
        _must_be(declared.identity if key is None else key.identity, provider.key.identity, f"the key in {home}")
        _must_lie_there(provider, declared)
        provider.change_offer(
            capacity=declared.capacity,
            owner=declared.owner,
            site=declared.site,
            region=declared.region,
            country=declared.country,
            lock_s=declared.lock_s,
            grace_s=declared.grace_s,
            **({} if declared.notice_s is None else {"notice_s": declared.notice_s}),
        )
        if (declared.window, declared.streams) != (None, None):
            provider.set_hours(window=declared.window, zone=declared.zone, streams=declared.streams)
        if (declared.down, declared.up) != (None, None):
            provider.set_rates(down=declared.down, up=declared.up)
        if declared.pull_from is not None:
            provider.set_pull_from(declared.pull_from)
        if declared.via is not None:
            provider.set_via(declared.via)
        if (declared.relay_for, declared.relay_rate) != (None, None):
            provider.set_relay(declared.relay_for, declared.relay_rate)
        provider.set_server(_server(declared))
        if declared.for_members is not None:
            provider.set_for_members(declared.for_members)
        provider.listen = declared.listen
        provider.advertise(declared.advertise)
        provider.admit(declared.tenants)
    except BaseException:
        provider.close()
        raise
    return provider


def prove(provider: Provider, rng: Rng) -> Proof:
    """Show that the disk is there, has room for what is offered, and gives back what was written.

    Raises:
        HomeError: it is not mounted, or gave back something else.
        SpaceError: it has less room than is offered.
    """
    if not provider.mounted():
        raise HomeError(f"{provider.data}: the disk with the objects is not mounted", hint="mount it, and try again")
    offer = provider.offer()
    room = provider.room()
    wanted = offer.capacity + floor_of(offer.capacity)
    if room < wanted:
        raise SpaceError(
            f"{provider.data}: {format_size(offer.capacity)} are offered, of which {format_size(wanted)} with what "
            f"stays free have to fit, and the disk has {format_size(room)}",
            hint="lower provider.capacity, or give the provider more disk",
        )
    return Proof(
        identity=provider.key.identity,
        data=provider.data,
        capacity=offer.capacity,
        room=room,
        written=provider.try_out(rng),
    )


def _server(declared: DeclaredProvider) -> BucketServer | None:
    if not is_bucket(declared.data):
        return None
    return BucketServer(endpoint=declared.s3_endpoint, region=declared.s3_region, credentials=declared.s3_credentials)


def _must_lie_there(provider: Provider, declared: DeclaredProvider) -> None:
    declared_place = declared.data if is_bucket(declared.data) else os.path.abspath(declared.data)
    if provider.data.rstrip("/") != declared_place.rstrip("/"):
        raise HomeError(
            f"{provider.folder}: the objects lie in {provider.data}, and provider.data is {declared.data}",
            hint=f"`replicator provider move --data {os.path.abspath(declared.data)}` takes them there",
        )


def _must_be(declared: Identity | None, found: Identity, what: str) -> None:
    if declared is not None and found != declared:
        raise KeyWrongError(
            f"{what} is provider {address_form(found)}, and {address_form(declared)} was expected",
            hint="the roster and the key are of different hosts: give this machine its own key, or correct identity",
        )
