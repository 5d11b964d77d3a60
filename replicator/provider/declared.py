"""A provider's home as config.toml declares it: made when it is not there, brought up to it when it is, and proved."""

import os
from dataclasses import dataclass

from replicator.clock import Clock
from replicator.config import format_size
from replicator.crypto.sign import SigningKey
from replicator.errors import HomeError, KeyMissingError, KeyWrongError, SpaceError
from replicator.fs import Fs
from replicator.ids import Identity, address_form
from replicator.provider.home import Provider, Terms, init_provider, open_provider
from replicator.provider.quota import floor_of
from replicator.rng import Rng
from replicator.settings import DeclaredProvider

PROBE = ".replicator-probe"
PROBE_SIZE = 16 << 20
"""One large object."""


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
        provider = init_provider(home, data=declared.data, terms=terms, fs=fs, clock=clock, rng=rng, key=key)
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
        )
        if (declared.window, declared.streams) != (None, None):
            provider.set_hours(window=declared.window, zone=declared.zone, streams=declared.streams)
        if declared.pull_from is not None:
            provider.set_pull_from(declared.pull_from)
        if declared.via is not None:
            provider.set_via(declared.via)
        if (declared.relay_for, declared.relay_rate) != (None, None):
            provider.set_relay(declared.relay_for, declared.relay_rate)
        provider.listen = declared.listen
        provider.advertise(declared.advertise)
        provider.admit(declared.tenants)
    except BaseException:
        provider.close()
        raise
    return provider


def prove(provider: Provider, fs: Fs, rng: Rng) -> Proof:
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
        written=_write_and_read(provider.data, fs, rng),
    )


def _write_and_read(folder: str, fs: Fs, rng: Rng) -> int:
    path = os.path.join(folder, PROBE)
    if fs.size(path) is not None:
        fs.unlink(path)  # an earlier proof was stopped
    block = rng.bytes(1 << 20)
    handle = fs.create(path)
    try:
        for _ in range(PROBE_SIZE // len(block)):
            handle.write(block)
        handle.fsync()
        for offset in range(0, PROBE_SIZE, len(block)):
            if fs.read(path, offset, len(block)) != block:
                raise HomeError(f"{path}: the disk gave back other bytes than were written", hint="replace the disk")
    finally:
        handle.close()
        fs.unlink(path)
    return PROBE_SIZE


def _must_lie_there(provider: Provider, declared: DeclaredProvider) -> None:
    if provider.data != os.path.abspath(declared.data):
        raise HomeError(
            f"{provider.folder}: the objects lie in {provider.data}, and provider.data is {declared.data}",
            hint="stop the daemon, move the whole folder, change `data` in home.json, start",
        )


def _must_be(declared: Identity | None, found: Identity, what: str) -> None:
    if declared is not None and found != declared:
        raise KeyWrongError(
            f"{what} is provider {address_form(found)}, and {address_form(declared)} was expected",
            hint="the roster and the key are of different hosts: give this machine its own key, or correct identity",
        )
