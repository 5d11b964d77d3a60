"""Restore keys one after another: who reads what, who is shown the next, and who cannot put one in its place."""

import os

import msgspec
import pytest

from replicator.crypto.seal import PURPOSE_RESTORE, seal_to
from replicator.crypto.sign import SigningKey
from replicator.crypto.unseal import open_box, public_of
from replicator.engine.browse import Library
from replicator.engine.federation import Federation
from replicator.engine.handing import handed_to
from replicator.engine.home import Half
from replicator.engine.keeper import DrillHome, KeeperHome, ReaderHome
from replicator.engine.keys import check_sheet, check_wrapped, list_keys, rotate_index, rotate_owner, rotate_restore
from replicator.engine.members import revoke, spread_charter
from replicator.engine.recover import recover
from replicator.engine.sync import open_snapshot
from replicator.errors import KeyWrongError
from replicator.fs import PosixFs
from replicator.ids import identity_of
from replicator.pack.keys import snapshot_context
from replicator.pack.reader import ReaderKeys
from tests.fakes import SeededRng
from tests.scenarios.joining import DRILL_PASSPHRASE, joined, keeping
from tests.scenarios.world import World, write

NEW = "another passphrase"


async def rotated(world: World, times: int = 1) -> None:
    with keeping(world) as (keeper, siblings):
        for _ in range(times):
            assert await rotate_restore(keeper, siblings, world.edge, "main") == []


async def more(world: World, source: str, name: str) -> None:
    """Write another file and back up."""
    write(os.path.join(source, name), name.encode() * 1000)
    assert (await world.backup()).datasets[0].published


async def details(half: ReaderHome, world: World, reader: ReaderKeys) -> list[bool]:
    """Say of each snapshot, oldest first, whether these keys open what it seals; the objects come from anywhere."""
    found = []
    async with Federation(half, world.edge) as federation:
        library = Library(half, federation)
        await library.refresh()
        for row in sorted(half.catalog.snapshots.all(), key=lambda row: row.number):
            snapshot = open_snapshot(half, await federation.fetch(row.name, []))
            context = snapshot_context(reader.keys, snapshot.writer, snapshot.number)
            opens = False
            for private in reader.privates:
                try:
                    open_box(
                        *(private, reader.keys.mix, half.tenant, snapshot.domain, snapshot.sealed, context), what="it"
                    )
                except KeyWrongError:
                    continue
                opens = True
            found.append(opens)
    return found


async def test_what_was_written_before_and_after_is_read_and_every_generation_is_listed(
    world: World, source: str
) -> None:
    await world.backup()
    first = (await world.snapshots())[0].id
    node = world.node()
    keys = [node.keys().restore_key]
    node.close()
    for name in ("two", "three"):
        await rotated(world)
        await more(world, source, name)
        node = world.node()
        keys.append(node.keys().restore_key)
        node.close()
    assert len(set(keys)) == 3
    assert await world.differences(source) == []
    report = await world.restore(os.path.join(world.root, "by processes"), writers=1)
    assert (report.damaged, report.lost, report.files) == ([], [], 6)
    os.unlink(os.path.join(source, "two"))
    os.unlink(os.path.join(source, "three"))
    assert await world.differences(source, first) == []
    with keeping(world) as (keeper, siblings):
        rows = list_keys(keeper, siblings)
        listed = {row.id: row.kind for row in rows if "restore" in row.kind}
        expected = dict.fromkeys((identity_of(key).hex() for key in keys[:2]), "former restore")
        assert listed == expected | {identity_of(keys[2]).hex(): "restore"}
        assert all(not one.problem for one in check_wrapped(keeper, world.clock.now_ns()))
        assert world.tenant is not None
        assert all(not one.problem for one in await check_sheet(keeper, world.edge, world.tenant.words))


async def test_a_revoked_drill_host_reads_nothing_that_is_written_later_and_the_others_go_on(
    world: World, source: str
) -> None:
    """It has its restore keys still, and a provider that gives it whatever lies there."""
    homes = [await joined(world, "drill", name) for name in ("attic", "cellar")]
    await world.backup()
    attic, cellar = (DrillHome(home, PosixFs(), lambda _: DRILL_PASSPHRASE) for home in homes)
    stolen = attic.reader(attic.domain_ids[0])
    attic.close()
    with keeping(world) as (keeper, siblings):
        await revoke(keeper, siblings, world.edge, "attic")
    await more(world, source, "later")
    assert await details(cellar, world, stolen) == [True, False]
    assert await details(cellar, world, cellar.reader(cellar.domain_ids[0])) == [True, True], "without joining anew"
    assert all(not one.problem for one in check_wrapped(cellar, world.clock.now_ns()))
    cellar.close()


async def test_a_member_that_missed_several_is_shown_that_the_last_follows_its_own(world: World, source: str) -> None:
    drill = await joined(world, "drill", "attic")
    home = await joined(world, "node", "barn")
    await rotated(world, 3)
    with keeping(world) as (keeper, siblings):
        await rotate_index(keeper, siblings, world.edge)
        now = keeper.keys().restore_key
    await world.backup()
    for half in (world.node(home), DrillHome(drill, PosixFs(), lambda _: DRILL_PASSPHRASE)):
        async with Federation(half, world.edge) as federation:
            assert federation.integrity == []
        assert half.keys().restore_key == now
        if isinstance(half, DrillHome):
            assert await details(half, world, half.reader(half.domain_ids[0])) == [True]
        half.close()


async def test_the_owner_key_alone_puts_no_restore_key_of_a_thief_in_the_place(world: World, source: str) -> None:
    """He can sign charters and hand keys, but what he hands lacks the proof; nodes would write for him, not for us."""
    drill = await joined(world, "drill", "attic")
    await world.backup()
    thief = SigningKey(SeededRng("thief").bytes(32)).seed()
    with keeping(world) as (keeper, siblings):
        own = keeper.keys().restore_key
        domain = msgspec.structs.replace(keeper.keybag().domains[0], restore_private=thief)
        publics = [msgspec.structs.replace(keeper.private.domains[0], restore_key=public_of(thief))]
        rights = keeper.charter.charter.rights
        handed = handed_to(
            *(rights, [domain], publics, keeper.owner()), tenant=keeper.tenant, formers={domain.id: [(own, thief)]}
        )
        assert seal_to(own, thief, PURPOSE_RESTORE) != b"", "anybody can seal to a public key"
        private = msgspec.structs.replace(keeper.private, handed=handed, domains=publics)
        await spread_charter(keeper, siblings, world.edge, keeper.write_charter(world.edge, private=private))
    attic = DrillHome(drill, PosixFs(), lambda _: DRILL_PASSPHRASE)
    halves: list[Half] = [world.node(), world.keeper(), attic]
    for half in halves:
        async with Federation(half, world.edge) as federation:
            [line] = federation.integrity
            assert "another restore key for domain 'main'" in line
        assert half.keys().restore_key == own
    assert public_of(attic.domain_secrets(attic.domain_ids[0]).restore_private) == own
    for half in halves:
        half.close()
    with keeping(world) as (keeper, siblings):
        assert world.tenant is not None
        done = await rotate_owner(keeper, siblings, world.edge, world.tenant.words)
        assert done.restored == ["main"]
        assert keeper.unproven() == []
    await more(world, source, "later")
    assert await world.differences(source) == []


async def test_paper_gives_everything_back_that_any_restore_key_was_for(world: World, source: str) -> None:
    await world.backup()
    await rotated(world, 2)
    await more(world, source, "later")
    assert world.tenant is not None
    home = os.path.join(world.root, "recovered")
    address = f"somewhere.example:7144/{world.identity(1).hex()}"
    found = await recover(home, world.edge, words=world.tenant.words, addresses=[address], passphrase=NEW)
    assert found.integrity == []
    await more(world, source, "much later")
    keeper = KeeperHome(home, PosixFs(), lambda _: NEW)
    reader = keeper.reader(keeper.domain_ids[0])
    assert len(reader.formers) == 3, "the recovery began one too: the former lay in the keeper's home that was lost"
    assert await details(keeper, world, reader) == [True] * 3
    lost = world.keeper()
    assert await details(keeper, world, lost.reader(lost.domain_ids[0])) == [True, True, False]
    lost.close()
    keeper.close()


@pytest.mark.parametrize("charter", [False, True])
async def test_stopped_anywhere_the_key_that_the_charter_speaks_of_counts(
    charter: bool, world: World, source: str
) -> None:
    await world.backup()
    keeper = world.keeper()
    if charter:
        keeper.succeed = lambda name: None  # type: ignore[method-assign] # noqa: ARG005 - the crash; a parameter by its name
    else:
        keeper.write_charter = lambda *_args, **_more: (_ for _ in ()).throw(InterruptedError)  # type: ignore[method-assign]
    before = keeper.keys().restore_key
    try:
        await rotate_restore(keeper, [], world.edge, "main")
    except InterruptedError:
        assert not charter
    keeper.close()
    again = world.keeper()
    now = again.keys().restore_key
    assert (now != before) == charter
    assert public_of(again.domain_secrets(again.domain_ids[0]).restore_private) == now
    assert [one.problem for one in check_wrapped(again, world.clock.now_ns())] == [""] * 4
    again.close()
    await more(world, source, "later")
    await rotated(world)
    assert await world.differences(source) == []
