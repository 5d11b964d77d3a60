"""Who keeps what: of every holder, also those that are silent or no peers any more, and until when."""

import csv
import html.parser
import io
import os
import sqlite3
from contextlib import closing

import pytest

from replicator.cli.register import OTHER, _csv, _html, document
from replicator.clock import DAY_S, NS
from replicator.engine.audit import audit
from replicator.engine.members import remove_peer, set_peer
from replicator.engine.register import RECORDS, Entry, Holder, Register, register
from replicator.ids import Identity
from tests.scenarios.test_forgetting import forget, library_of
from tests.scenarios.world import PLACES, World, write

pytestmark = pytest.mark.usefixtures("source")


async def registered(world: World) -> Register:
    async with library_of(world) as library:
        return await register(library, world.edge)


async def told(world: World, name: str, **legal: str) -> None:
    keeper = world.keeper()
    try:
        await set_peer(keeper, [], world.edge, name, {}, legal)
    finally:
        keeper.close()


async def test_all_that_lies_anywhere_is_counted_under_its_dataset(world: World) -> None:
    world.small_dataset("photos")
    started = world.clock.now_ns()
    await world.backup()
    found = await registered(world)
    assert found.gaps == []
    assert {entry.dataset for entry in found.entries} == {"docs", "photos", RECORDS}
    for number in range(5):
        mine = [entry for entry in found.entries if entry.holder.identity == world.identity(number)]
        owner, _, _, country = PLACES[number]
        assert {(entry.holder.name, entry.holder.country) for entry in mine} == {(owner, country)}
        rest = [entry for entry in mine if entry.dataset == RECORDS]
        shared = world.used(number) - sum(entry.bytes for entry in mine)
        assert sum(entry.bytes for entry in rest) >= 1 << 17, "charter and keybag"
        assert shared <= 0, "what both datasets need is counted for each"
        for entry in mine:
            assert (entry.until_ns, entry.as_of_ns) == (0, found.made_ns)
            assert entry.dataset == RECORDS or started < entry.from_ns <= found.made_ns


async def test_a_holder_is_called_what_the_tenant_says_else_what_it_says_itself(world: World) -> None:
    await world.backup()
    for number in (0, 1):
        world.opened[number].change_offer(legal_name=f"Firm {number} AB", contact="post@example.org")
    await told(world, "alice", legal_name="Alice's Disks AB")
    found = await registered(world)
    names = {entry.holder.name: (entry.holder.legal_name, entry.holder.contact) for entry in found.entries}
    assert names["alice"] == ("Alice's Disks AB", "post@example.org")
    assert names["bob"] == ("Firm 1 AB", "post@example.org")
    assert names["carol"] == ("", "")
    await told(world, "alice", legal_name="")
    found = await registered(world)
    assert {entry.holder.legal_name for entry in found.entries if entry.holder.name == "alice"} == {"Firm 0 AB"}


async def test_what_is_marked_has_the_day_on_which_it_may_be_gone(world: World, source: str) -> None:
    await world.backup()
    write(os.path.join(source, "more"), b"more")
    await world.backup()
    first = (await world.snapshots())[0]
    await forget(world, first.id)
    before = await registered(world)
    holder = next(n for n in range(5) if first.row.name.hex() in os.listdir(world.objects(n)))
    with closing(sqlite3.connect(os.path.join(world.root, f"provider-{holder}", "provider", "provider.db"))) as rows:
        rows.execute(
            "INSERT INTO marks (tenant, name, why, marked_ns, marked_day) VALUES (?, ?, 'dead', ?, 0)",
            (world.tenant_id, first.row.name, world.clock.now_ns()),
        )
        rows.commit()
    after = await registered(world)

    def docs(found: Register) -> list[Entry]:
        return [e for e in found.entries if e.dataset == "docs" and e.holder.identity == world.identity(holder)]

    [whole], [living, dying] = docs(before), docs(after)
    assert (living.objects + dying.objects, living.bytes + dying.bytes) == (whole.objects, whole.bytes)
    assert (dying.objects, living.until_ns) == (1, 0)
    assert dying.until_ns >= world.clock.now_ns() + 14 * DAY_S * NS
    assert len({row["id"] for row in document(after)}) == len(after.entries)


async def test_who_is_silent_or_no_peer_any_more_is_in_it_as_last_heard_of(world: World) -> None:
    await world.backup()
    asked = await registered(world)
    await told(world, "bob", legal_name="Bob's Loft")
    keeper = world.keeper()
    await remove_peer(keeper, [], world.edge, "bob")
    keeper.close()
    world.silence(0)
    world.clock.advance(DAY_S)
    found = await registered(world)
    assert len(found.gaps) == 2
    assert "alice could not be asked" in found.gaps[0]
    bob = next(entry for entry in found.entries if entry.holder.identity == world.identity(1))
    assert (bob.holder.is_peer, bob.holder.name, bob.holder.legal_name) == (False, "bob", "Bob's Loft")
    for number in (0, 1):
        [now] = [e for e in found.entries if e.holder.identity == world.identity(number)]
        was = next(e for e in asked.entries if e.holder.identity == world.identity(number) and e.dataset == "docs")
        assert (now.bytes, now.from_ns) == (was.bytes, was.from_ns)
        assert now.as_of_ns < world.clock.now_ns() - 1000


HOSTILE = (
    "=cmd|' /C calc'!A0",
    "+1",
    "-1",
    "@SUM(A1)",
    "\uff1d1",
    '"><script>alert(1)</script>&',
    'a,"b"\r\nc',
    "\x1b[2J",
    "Loft;=cmd|' /C calc'!A0;;@SUM(A1)",
)


class _Cells(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "td":
            self.cells.append("")
        assert all(name in {"lang", "charset", "class"} for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        if self.cells and self.lasttag == "td":
            self.cells[-1] += data.rstrip("\n")


def test_what_others_wrote_is_neither_a_formula_nor_markup() -> None:
    entries = [
        Entry(
            holder=Holder(
                identity=Identity(bytes(32)), name=text, legal_name=text, contact=text, country="SE", is_peer=True
            ),
            dataset=text,
            objects=1,
            bytes=1,
            from_ns=NS,
            until_ns=0,
            as_of_ns=NS,
        )
        for text in HOSTILE
    ]
    found = Register(tenant="<b>", country="SE", made_ns=NS, entries=entries, gaps=["<i>"])
    rows = list(csv.reader(io.StringIO(_csv(found), newline="")))
    assert {len(row) for row in rows} == {10}
    for text, row in zip(HOSTILE, rows[1:], strict=True):
        for cell in (row[0], row[1], row[2], row[4]):
            assert cell[0] not in "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
            assert "\x1b" not in cell
            # As it is read where cells end at semicolons: quotes and commas are nothing there.
            assert not any(part.startswith(tuple("=+-@")) for part in cell.split(";"))
            assert cell.lstrip("'")[:1] == text[:1] or text[0] == "\x1b"
    page = _Cells()
    page.feed(_html(found))
    assert not page.tags & {"script", "b", "i"}
    assert page.cells[:2] == [HOSTILE[0], HOSTILE[0]]
    assert page.cells[10 * 5] == HOSTILE[5]
    assert OTHER not in page.cells


async def test_what_holders_proved_to_either_half_of_a_home_is_in_it(world: World) -> None:
    await world.backup()
    node = world.node()
    try:
        await audit(node, world.edge, count=5)
        async with library_of(world) as library:
            assert (await register(library, world.edge)).proofs == {}
            found = await register(library, world.edge, node=node)
    finally:
        node.close()
    assert {week.proved for week in found.proofs.values()} == {5}
    assert found.proofs.keys() == {entry.holder.identity for entry in found.entries}
    row = document(found)[0]
    assert (row["week"]["proved"], len(row["week"]["receipts"])) == (5, 1)
