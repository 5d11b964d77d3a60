"""Erasing a tenant: root's order to every provider, what each signs when it is done, and all of that as one report."""

import msgspec

from replicator.format.charter import Count, Endpoint, Hash, Id16, Name
from replicator.format.claim import Incarnation
from replicator.format.codec import Part, Record, decode, encode, version_of


class EraseOrder(Record, frozen=True, kw_only=True):
    """Signed by root: delete this tenant, at once and for ever, wherever this is read.

    It is worth the same at every provider and at every time: nothing can be done with it twice.
    """

    tenant: Id16
    created_ns: Count


class EraseReceipt(Record, frozen=True, kw_only=True):
    """Signed by a provider: of this tenant nothing is here any more, nor will be, but the order and this.

    ``order`` is the hash of the signed order that was obeyed, ``objects`` and ``bytes`` what the provider had receipted
    and still held when it began; times are its clock's.
    """

    tenant: Id16
    order: Hash
    incarnation: Incarnation
    objects: Count
    bytes: Count
    began_ns: Count
    ended_ns: Count


class ErasedAt(Part, frozen=True, kw_only=True):
    """One provider in a report: its signed EraseReceipt, empty as long as it has given none."""

    identity: Hash
    name: Name
    endpoints: list[Endpoint]
    receipt: bytes


class GoneProvider(Part, frozen=True, kw_only=True):
    """A keeper's word, and nobody else's: this provider cannot sign any more, as its store or its records are lost."""

    identity: Hash
    said_ns: Count


class ErasureReport(Record, frozen=True, kw_only=True, tag=2):
    """Signed by a keeper's own key: who was told to delete the tenant, and who has signed that it did.

    ``name`` is the tenant's, ``order`` the signed EraseOrder; ``providers`` are sorted by identity, each once, and so
    are ``gone``, which are some of them.
    """

    tenant: Id16
    name: Name
    keeper: Hash
    order: bytes
    providers: list[ErasedAt]
    made_ns: Count
    gone: list[GoneProvider]


class ErasureReport1(Record, frozen=True, kw_only=True):
    """Version 1 of :class:`ErasureReport`."""

    tenant: Id16
    name: Name
    keeper: Hash
    order: bytes
    providers: list[ErasedAt]
    made_ns: Count


def read_erasure_report(data: bytes) -> ErasureReport:
    """Return a report of any version, in the newest one's terms.

    Raises:
        FormatError: it is none.
    """
    if version_of(data) != 1:
        return decode(ErasureReport, data)
    return ErasureReport(**msgspec.structs.asdict(decode(ErasureReport1, data)), gone=[])


def encode_erasure_report(report: ErasureReport) -> bytes:
    """Return a report's bytes: in version 1, which earlier releases read, as long as that says it all."""
    if report.gone:
        return encode(report)
    values = msgspec.structs.asdict(report)
    return encode(ErasureReport1(**{name: values[name] for name in ErasureReport1.__struct_fields__}))
