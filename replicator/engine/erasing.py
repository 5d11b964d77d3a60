"""Erasing a tenant: root's order to every provider that was ever told to keep something, and the report of who obeyed.

HOME/keeper/erasure.bin    the signed report, with the order in it: it is enough to go on, without the sheet
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

import msgspec

from replicator.crypto.sign import Context, body_of, signer_of, verify
from replicator.engine.edge import Edge
from replicator.engine.federation import patiently
from replicator.engine.home import ERASURE_FILE
from replicator.engine.keeper import NEXT, REWRAPPED, KeeperHome
from replicator.engine.keys import root_of_sheet
from replicator.errors import (
    FormatError,
    HomeError,
    IntegrityError,
    NotFoundError,
    PeerError,
    ReplicatorError,
    UsageError,
)
from replicator.format.codec import decode, encode
from replicator.format.erasure import (
    ErasedAt,
    EraseOrder,
    EraseReceipt,
    ErasureReport,
    GoneProvider,
    encode_erasure_report,
    read_erasure_report,
)
from replicator.format.offer import decode_offer
from replicator.fs import write_atomic
from replicator.ids import Identity, identity_of, short
from replicator.transport.base import Target

KEYBAG_FILE = "keybag.obj"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One provider and what became of the order there. ``problem``: why there is no receipt yet.

    ``gone_ns``: when this keeper said that it cannot sign any more, 0 if it has not.
    """

    identity: Identity
    name: str
    endpoints: tuple[str, ...]
    receipt: EraseReceipt | None
    gone_ns: int = 0
    problem: str = ""


@dataclass(slots=True, kw_only=True)
class Report:
    """The signed report and what it says. ``integrity``: answers that do not hold."""

    signed: bytes
    tenant: str
    ordered_ns: int
    made_ns: int
    told: list[Told]
    integrity: list[str] = field(default_factory=list)

    @property
    def outstanding(self) -> list[Told]:
        """Who has not signed yet, and still may."""
        return [one for one in self.told if one.receipt is None and not one.gone_ns]

    @property
    def gone(self) -> list[Told]:
        """Who will not sign, by this keeper's word."""
        return [one for one in self.told if one.receipt is None and one.gone_ns]


def has_report(keeper: KeeperHome) -> bool:
    """Return whether the order was given from this home."""
    return keeper.fs.size(keeper.file(ERASURE_FILE)) is not None


def providers_of(keeper: KeeperHome) -> list[ErasedAt]:
    """Return all who may hold something of the tenant, also those that are no peers any more, by identity."""
    found: dict[bytes, ErasedAt] = {}
    for row in keeper.catalog.peers.all():
        name = decode_offer(body_of(row.offer)).owner if row.offer else short(row.identity)
        found[row.identity] = ErasedAt(identity=row.identity, name=name, endpoints=list(row.endpoints), receipt=b"")
    for pin in keeper.peers:
        heard = found[pin.identity].endpoints if pin.identity in found else []
        endpoints = list(dict.fromkeys((*heard, *pin.endpoints)))
        found[pin.identity] = ErasedAt(identity=pin.identity, name=pin.name, endpoints=endpoints, receipt=b"")
    return [found[identity] for identity in sorted(found)]


def order(keeper: KeeperHome, edge: Edge, words: list[str]) -> None:
    """Sign the order by the sheet's words and lay it down, with all who are to get it; from then on it stands.

    Another time only those are added who were not known the first time.

    Raises:
        KeyWrongError: the words are damaged, or of another tenant's sheet.
    """
    root = root_of_sheet(keeper, words)
    with keeper.lock():
        if has_report(keeper):
            known = _record(keeper)
            signed, told, gone = known.order, {one.identity: one for one in known.providers}, known.gone
        else:
            now_ns = edge.clock.now_ns()
            body = encode(EraseOrder(tenant=keeper.tenant, created_ns=now_ns))
            signed, told = root.signing.sign(Context.ERASE_ORDER, body), {}
            gone = []
        _keep(
            keeper,
            edge,
            signed,
            gone=gone,
            providers=[told.get(one.identity, one) for one in _with(providers_of(keeper), told.values())],
        )


def destroy_keys(keeper: KeeperHome) -> None:
    """Delete every wrapped key of this home: what it could read, and say for the tenant, nobody can by it any more.

    Raises:
        HomeError: the order was not given from this home.
    """
    if not has_report(keeper):
        raise HomeError(f"{keeper.path}: there is no order to erase the tenant", hint="run `erase tenant`")
    names = [f"{name}{suffix}" for name in keeper.key_files() for suffix in ("", NEXT, REWRAPPED)]
    for name in (*names, KEYBAG_FILE):
        with suppress(FileNotFoundError):
            keeper.fs.unlink(keeper.file(name))
    keeper.fs.fsync_dir(keeper.path)


async def send(keeper: KeeperHome, edge: Edge) -> Report:
    """Hand the order to everybody who has not signed that it was obeyed; return the report as it is then.

    Raises:
        NotFoundError: the order was not given from this home.
    """
    with keeper.lock():
        record = _record(keeper)
        edge.progress.stage("telling providers", len(record.providers), "providers")
        answers = await asyncio.gather(*(_tell(keeper, edge, record, one) for one in record.providers))
        signed = _keep(keeper, edge, record.order, providers=[one for one, _ in answers], gone=record.gone)
    found = read_report(signed, root_key=keeper.member.root_key)
    problems = {one.identity: error for one, error in answers if error is not None}
    found.told = [replace(one, problem=str(problems.get(one.identity, ""))) for one in found.told]
    found.integrity = [str(error) for error in problems.values() if isinstance(error, IntegrityError | FormatError)]
    return found


async def _tell(
    keeper: KeeperHome, edge: Edge, record: ErasureReport, one: ErasedAt
) -> tuple[ErasedAt, ReplicatorError | None]:
    if one.receipt:
        edge.progress.advance(1)
        return one, None
    identity = Identity(one.identity)
    row = keeper.catalog.peers.get(identity)
    target = Target(
        identity=identity,
        name=one.name,
        endpoints=tuple(dict.fromkeys((*row.endpoints, *one.endpoints))),
        key=keeper.signing,
        certificate=row.certificate or None,
    )
    try:
        receipt = await patiently(edge, partial(edge.network.erase, target, record.order))
        check_receipt(receipt, identity, record.tenant)
    except (PeerError, IntegrityError, FormatError) as error:
        return one, error
    finally:
        edge.progress.advance(1)
    return msgspec.structs.replace(one, receipt=receipt), None


def check_receipt(signed: bytes, identity: Identity, tenant: bytes) -> EraseReceipt:
    """Return a provider's receipt of erasure.

    Raises:
        IntegrityError, FormatError: it is none, not this provider's, or for another tenant.
    """
    key = signer_of(signed)
    receipt = decode(EraseReceipt, verify(signed, Context.ERASE_RECEIPT, [key]))
    if identity_of(key) != identity or receipt.tenant != tenant:
        raise IntegrityError(f"receipt of erasure: not of {short(identity)}, or for another tenant")
    return receipt


def load_report(keeper: KeeperHome) -> Report:
    """Return the report as it was last signed; nobody is asked.

    Raises:
        NotFoundError: the order was not given from this home.
    """
    _record(keeper)
    return read_report(keeper.fs.read(keeper.file(ERASURE_FILE)), root_key=keeper.member.root_key)


def read_report(signed: bytes, *, root_key: bytes) -> Report:
    """Return what a signed report says, with everything in it checked.

    Raises:
        IntegrityError, FormatError: it does not hold.
    """
    key = signer_of(signed)
    record = read_erasure_report(verify(signed, Context.ERASURE_REPORT, [key]))
    given = decode(EraseOrder, verify(record.order, Context.ERASE_ORDER, [root_key]))
    if identity_of(key) != record.keeper or given.tenant != record.tenant:
        raise IntegrityError("erasure report: not signed by its keeper, or its order is for another tenant")
    gone = {one.identity: one.said_ns for one in record.gone}
    told = [
        Told(
            identity=Identity(one.identity),
            name=one.name,
            endpoints=tuple(one.endpoints),
            receipt=check_receipt(one.receipt, Identity(one.identity), record.tenant) if one.receipt else None,
            gone_ns=gone.get(one.identity, 0),
        )
        for one in record.providers
    ]
    return Report(signed=signed, tenant=record.name, ordered_ns=given.created_ns, made_ns=record.made_ns, told=told)


def _record(keeper: KeeperHome) -> ErasureReport:
    if not has_report(keeper):
        raise NotFoundError("no tenant was erased from this home", hint="`erase tenant --sheet FILE` does")
    signed = keeper.fs.read(keeper.file(ERASURE_FILE))
    return read_erasure_report(verify(signed, Context.ERASURE_REPORT, [keeper.signing.public]))


def declare_gone(keeper: KeeperHome, edge: Edge, names: Iterable[str]) -> None:
    """Say in the report that providers cannot sign any more; ``names`` are petnames or beginnings of identities.

    They are asked all the same: a receipt, should there be one, says more.

    Raises:
        NotFoundError: the order was not given from this home; or there is no such provider in it, or several.
        UsageError: it has signed.
    """
    with keeper.lock():
        record = _record(keeper)
        gone = {one.identity: one for one in record.gone}
        for name in names:
            found = [one for one in record.providers if one.name == name] or [
                one for one in record.providers if one.identity.hex().startswith(name.lower())
            ]
            if len(found) != 1:
                known = ", ".join(one.name for one in record.providers)
                raise NotFoundError(f"{'no' if not found else 'more than one'} provider '{name}' (there are: {known})")
            if found[0].receipt:
                raise UsageError(f"{name} has signed that nothing is left there", hint="there is nothing to say of it")
            identity = found[0].identity
            gone.setdefault(identity, GoneProvider(identity=identity, said_ns=edge.clock.now_ns()))
        said = [gone[identity] for identity in sorted(gone)]
        _keep(keeper, edge, record.order, providers=record.providers, gone=said)


def _keep(
    keeper: KeeperHome, edge: Edge, signed_order: bytes, *, providers: list[ErasedAt], gone: list[GoneProvider]
) -> bytes:
    record = ErasureReport(
        tenant=keeper.tenant,
        name=keeper.member.name,
        keeper=keeper.identity,
        order=signed_order,
        providers=providers,
        made_ns=edge.clock.now_ns(),
        gone=gone,
    )
    signed = keeper.signing.sign(Context.ERASURE_REPORT, encode_erasure_report(record))
    write_atomic(keeper.fs, keeper.file(ERASURE_FILE), signed)
    return signed


def _with(providers: Iterable[ErasedAt], known: Iterable[ErasedAt]) -> list[ErasedAt]:
    found = {one.identity: one for one in (*known, *providers)}
    return [found[identity] for identity in sorted(found)]
