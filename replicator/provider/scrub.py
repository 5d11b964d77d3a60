"""Reading everything once in a while: what no longer has the bytes of its name goes to quarantine, and is reported.

HOME/provider/scrub.json says how far the present round is, and what the rounds found. It may be lost: the next round
begins anew.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from replicator.clock import DAY_S
from replicator.fs import Fs, write_atomic
from replicator.ids import ObjectName, TenantId
from replicator.provider.core import Core
from replicator.provider.objects import rows_after
from replicator.provider.tenants import all_tenants

ROUND_S = 30 * DAY_S
"""How long a round takes: a copy that rots is found within this, or by an audit before."""
_PAGE = 200
_KEPT = 100


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """An object that was not what it should be; ``state`` is "damaged" (now in quarantine) or "missing"."""

    tenant: str
    name: str
    state: str
    found_ns: int


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """The present round and the last whole one. ``tenant`` and ``name`` (hex) were looked at last; times 0: never."""

    tenant: str = ""
    name: str = ""
    objects: int = 0
    bytes: int = 0
    began_ns: int = 0
    ended_ns: int = 0
    found: list[Found] = []
    """What was not good when it was looked at last: the newest, a hundred at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrubbed:
    """What one call looked at. ``whole``: the round came to its end."""

    objects: int
    bytes: int
    found: tuple[Found, ...]
    whole: bool


def read_log(folder: str, fs: Fs) -> Log:
    """Return what is known of rounds; an empty log if it cannot be read."""
    try:
        return msgspec.json.decode(fs.read(os.path.join(folder, "scrub.json")), type=Log)
    except (OSError, msgspec.MsgspecError):
        return Log()


def share(total: int, seconds: float) -> int:
    """Return the bytes that are to be looked at within so long, of all there are."""
    return -(-total * round(seconds) // ROUND_S)


def scrub(core: Core, folder: str, fs: Fs, *, most: int | None) -> Scrubbed:
    """Go on with the round, for ``most`` bytes or, if None, to its end. Only the daemon may, or who holds its lock.

    Raises:
        RequestRefusedError: "unavailable": the disk is not mounted.
        OSError: the disk does not read, for a reason that says nothing about an object.
    """
    log = read_log(folder, fs)
    now_ns = core.clock.now_ns()
    if not log.began_ns:
        log = msgspec.structs.replace(log, began_ns=now_ns, objects=0, bytes=0)
    looked = size = 0
    found: list[Found] = []
    mended: set[tuple[str, str]] = set()
    last = log.tenant, log.name
    whole = True
    for tenant, name, expected in _after(core, log):
        if most is not None and size >= most:
            whole = False
            break
        store = core.store(tenant)
        state = store.check(name)
        if state == "good":
            mended.add((tenant.hex(), name.hex()))
        # What was swept meanwhile has no row any more, and is no loss.
        if state != "good" and _is_expected(core, tenant, name):
            found.append(Found(tenant=tenant.hex(), name=name.hex(), state=state, found_ns=core.clock.now_ns()))
        looked, size = looked + 1, size + expected
        last = tenant.hex(), name.hex()
    known = mended.union((one.tenant, one.name) for one in found)
    # What was swept, or erased with its tenant, is nobody's loss any more, and nothing of it is to stay.
    earlier = (one for one in log.found if (one.tenant, one.name) not in known and _still_expected(core, one))
    kept = [*found, *earlier][:_KEPT]
    after = msgspec.structs.replace(
        log, tenant=last[0], name=last[1], objects=log.objects + looked, bytes=log.bytes + size, found=kept
    )
    if whole:
        after = msgspec.structs.replace(after, tenant="", name="", began_ns=0, ended_ns=core.clock.now_ns())
    write_atomic(fs, os.path.join(folder, "scrub.json"), msgspec.json.encode(after))
    return Scrubbed(objects=looked, bytes=size, found=tuple(found), whole=whole)


def _after(core: Core, log: Log) -> Iterator[tuple[TenantId, ObjectName, int]]:
    for tenant in all_tenants(core.database):
        if tenant.hex() < log.tenant:
            continue
        after = bytes.fromhex(log.name) if tenant.hex() == log.tenant else b""
        while page := rows_after(core.database, tenant, after, _PAGE):
            for name, size in page:
                yield tenant, name, size
            after = page[-1][0]


def _is_expected(core: Core, tenant: TenantId, name: ObjectName) -> bool:
    row = core.database.row("SELECT 1 FROM objects WHERE tenant = ? AND name = ?", (tenant, name))
    return row is not None


def _still_expected(core: Core, one: Found) -> bool:
    return _is_expected(core, TenantId(bytes.fromhex(one.tenant)), ObjectName(bytes.fromhex(one.name)))
