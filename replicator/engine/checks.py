"""The commands that look at what a drill brought back: kept in the charter, in a box that only keepers open.

A check runs on the keeper. So it is never taken from what a node publishes: a node that was broken into would run what
it likes where the keys are. Only the owner key signs charters; the box is for the names of other nodes' datasets.
"""

from dataclasses import dataclass

import msgspec

from replicator.crypto.seal import seal_box
from replicator.engine.edge import Edge
from replicator.engine.home import Half
from replicator.engine.keeper import KeeperHome, ReaderHome
from replicator.engine.members import catch_up, spread_charter
from replicator.errors import FormatError, NotFoundError, UsageError
from replicator.format.charter import KeepersBox
from replicator.format.codec import decode, encode
from replicator.format.drill import DEFAULT_CHECK_S, MAX_CHECK, MAX_CHECK_S, DrillCheck, DrillChecks

WHAT = "the checks in the charter"


def limit_of(seconds: float) -> int:
    """Return how long a check may take, in whole seconds.

    Raises:
        UsageError: out of bounds.
    """
    if not 1 <= seconds <= MAX_CHECK_S:
        raise UsageError(f"{seconds:g} s is no time limit for a check", hint="--check-timeout is between 1s and 7d")
    return int(seconds)


def new_check(dataset: str, command: str, limit_s: int) -> DrillCheck:
    """Return a check that can be kept.

    Raises:
        UsageError: a value that cannot be meant.
    """
    check = DrillCheck(dataset=dataset, command=command, limit_s=limit_s)
    refusal = UsageError(
        f"this cannot be kept as a check of '{dataset}'",
        hint=f"a dataset's name, and a command of at most {MAX_CHECK} characters; or name a script",
    )
    if not command.strip() or "\0" in command:
        raise refusal
    try:
        encode(DrillChecks(checks=[check]))
    except FormatError as error:
        raise refusal from error
    return check


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What was said of checks for one run: a command in place of every kept one, another limit, or none at all."""

    command: str | None = None
    limit_s: int | None = None
    none: bool = False

    def of(self, dataset: str, kept: DrillCheck | None) -> tuple[DrillCheck | None, bool]:
        """Return the check of a dataset's drill, and whether one is kept that is left out."""
        if self.none:
            return None, kept is not None
        if self.command is not None:
            return DrillCheck(dataset=dataset, command=self.command, limit_s=self.limit_s or DEFAULT_CHECK_S), False
        if kept is not None and self.limit_s is not None:
            return msgspec.structs.replace(kept, limit_s=self.limit_s), False
        return kept, False


def kept_checks(keeper: ReaderHome) -> dict[str, DrillCheck]:
    """Return the kept checks by dataset, in their order.

    Raises:
        KeyWrongError: the passphrase is wrong.
        KeyMissingError: this keeper may not read the domain that they are sealed in.
    """
    box = keeper.private.checks
    if box is None:
        return {}
    reader = keeper.reader(box.domain)
    body = reader.open_box(box.sealed, _context(keeper.tenant, box.domain), WHAT)
    return {one.dataset: one for one in decode(DrillChecks, body).checks}


async def keep_check(keeper: KeeperHome, siblings: list[Half], edge: Edge, check: DrillCheck) -> list[str]:
    """Keep a check for every later drill of its dataset, in place of an earlier one; return what peers said."""
    await catch_up(keeper, edge)
    return await _write(keeper, siblings, edge, kept_checks(keeper) | {check.dataset: check})


async def drop_check(keeper: KeeperHome, siblings: list[Half], edge: Edge, dataset: str) -> list[str]:
    """Forget a dataset's check; return what peers said.

    Raises:
        NotFoundError: none is kept for it.
    """
    await catch_up(keeper, edge)
    known = kept_checks(keeper)
    if dataset not in known:
        names = ", ".join(known) or "none yet"
        raise NotFoundError(f"no check is kept for '{dataset}' (there are: {names})")
    return await _write(keeper, siblings, edge, {name: one for name, one in known.items() if name != dataset})


async def _write(keeper: KeeperHome, siblings: list[Half], edge: Edge, checks: dict[str, DrillCheck]) -> list[str]:
    box = _sealed(keeper, edge, [checks[name] for name in sorted(checks)]) if checks else None
    data = keeper.write_charter(edge, private=msgspec.structs.replace(keeper.private, checks=box))
    return await spread_charter(keeper, siblings, edge, data)


def _sealed(keeper: KeeperHome, edge: Edge, checks: list[DrillCheck]) -> KeepersBox:
    domain = keeper.member.domains[0]
    body = encode(DrillChecks(checks=checks))
    context = _context(keeper.tenant, domain.id)
    mix = keeper.reader(domain.id).keys.mix
    sealed = seal_box(domain.restore_key, mix, keeper.tenant, domain.id, body, context, edge.rng)
    return KeepersBox(domain=domain.id, sealed=sealed)


def _context(tenant: bytes, domain: bytes) -> bytes:
    return b"replicator/1 drill checks\x00" + tenant + domain
