"""Keys over a tenant's life: listed, tried, given a new passphrase, put in the place of others, taken away."""

import dataclasses
import json
import os
from collections.abc import Callable
from contextlib import suppress

import msgspec
import pytest

from replicator.crypto.handing import hand, take
from replicator.crypto.passphrase import Cost
from replicator.crypto.recovery import new_secret, to_words
from replicator.crypto.seal import PURPOSE_GRANT, seal_to
from replicator.crypto.sign import Context, SigningKey
from replicator.crypto.unseal import public_of, unseal
from replicator.engine.federation import Federation
from replicator.engine.handing import handed_to, name_of_key
from replicator.engine.home import Half, has_half
from replicator.engine.keeper import KeeperHome, read_wrapped, sign_charter, wrapped_record
from replicator.engine.keys import (
    change_passphrase,
    check_sheet,
    check_wrapped,
    list_keys,
    reset_passphrase,
    rotate_index,
    rotate_maintenance,
    rotate_owner,
)
from replicator.engine.members import accept_grant, add_node, find_right, remove_peer, request_node, revoke, revoke_node
from replicator.engine.printed import addresses_of, last_printed, remember_printed
from replicator.engine.recover import recover
from replicator.engine.tenant import seal_keybag
from replicator.errors import (
    IntegrityError,
    KeyMissingError,
    KeyWrongError,
    LockedError,
    NotFoundError,
    UsageError,
)
from replicator.format.charter import HandedKeys
from replicator.format.codec import encode
from replicator.format.codes import read_code, write_code
from replicator.format.container import Kind
from replicator.format.keybag import JoiningRole, MemberKeys, NodeRequest1, read_node_grant
from replicator.fs import PosixFs
from replicator.ids import identity_of
from replicator.pack.sealed import open_object
from tests.crashfs import Crash, CrashFs
from tests.fakes import SeededRng
from tests.scenarios.joining import joined, keeping, opened
from tests.scenarios.world import PASSPHRASE, World, read, write

NEW = "another passphrase"
DEFAULT = Cost()


def words(world: World) -> list[str]:
    assert world.tenant is not None
    return world.tenant.words


def other_words() -> list[str]:
    return to_words(new_secret(SeededRng("another tenant")))


def epochs(half: Half) -> list[int]:
    return sorted(half.keys().index_keys)


def keeper_opens(world: World, passphrase: str) -> bool:
    """Say whether this passphrase opens all of the keeper's files; some and not others is a failure."""
    keeper = world.keeper(passphrase=passphrase)
    files = keeper.key_files()
    good = 0
    for name, label in files.items():
        with suppress(KeyWrongError):
            keeper.unlock(name, label)
            good += 1
    keeper.close()
    assert good in {0, len(files)}, "one passphrase opens some keys and another the rest"
    return good > 0


class TestList:
    async def test_every_key_is_there_with_its_holder_and_its_day(self, world: World) -> None:
        await joined(world, "maintainer", "barn")
        await joined(world, "drill", "attic")
        with keeping(world) as (keeper, siblings):
            rows = list_keys(keeper, siblings)
        kinds = [row.kind for row in rows]
        assert kinds.count("provider") == 5
        assert kinds.count("maintainer") == 2
        assert {"root", "owner", "restore", "index", "member", "keeper", "node", "drill"} < set(kinds)
        named = {row.name: row for row in rows}
        assert named["barn"].since_ns == world.clock.now_ns()
        assert named["barn"].here == ""
        assert named["testhost"].here == os.path.join(world.home, "node", "identity.seed")
        restore = next(row for row in rows if row.kind == "restore")
        assert restore.held_by == "keeper, attic; wrapped"
        assert all(row.can for row in rows)
        assert len({row.id for row in rows}) == len(rows)

    async def test_no_machine_is_called_as_the_keepers_own_key_is(self, world: World) -> None:
        with pytest.raises(UsageError, match="keeper's own key"):
            await joined(world, "maintainer", "keeper's maintenance of the barn")
        await joined(world, "maintainer", "the keeper's maintenance")
        keeper = world.keeper()
        held = {row.name: row.held_by for row in list_keys(keeper) if row.kind == "maintainer"}
        keeper.close()
        assert held == {
            "keeper's maintenance": "keeper, wrapped",
            "the keeper's maintenance": "the keeper's maintenance, 0600",
        }

    async def test_a_key_that_was_taken_away_can_do_nothing_since_a_day(self, world: World) -> None:
        await joined(world, "drill", "attic")
        world.clock.advance(86400)
        with keeping(world) as (keeper, siblings):
            await revoke(keeper, siblings, world.edge, "attic")
            row = next(row for row in list_keys(keeper, siblings) if row.name == "attic")
        assert (row.revoked, row.revoked_ns, row.can) == (True, world.clock.now_ns(), "nothing any more")
        assert row.since_ns == world.clock.now_ns() - 86400 * 10**9

    async def test_no_secret_is_in_it_and_nobody_is_asked_for_one(self, world: World) -> None:
        keeper = world.keeper()
        secrets = [*keeper.contents().values(), read(keeper.file("identity.seed")), keeper.member.member_key]
        keeper.close()
        locked = KeeperHome(world.home, PosixFs(), lambda _: pytest.fail("a passphrase was asked for"))
        said = repr(list_keys(locked))
        locked.close()
        assert not any(secret.hex() in said or repr(secret)[2:-1] in said for secret in secrets)


class TestCheck:
    async def test_all_is_well_in_a_new_home(self, world: World) -> None:
        keeper = world.keeper()
        assert [one.problem for one in check_wrapped(keeper, world.clock.now_ns())] == [""] * 4
        found = await check_sheet(keeper, world.edge, words(world))
        keeper.close()
        assert [one.problem for one in found] == [""] * 7
        assert sum(one.id.startswith("keybag at") for one in found) == 5

    async def test_trying_the_sheet_changes_nothing(self, world: World) -> None:
        keeper = world.keeper()
        before = {name: read(keeper.file(name)) for name in (*keeper.key_files(), "member.bin", "charter.obj")}
        number = keeper.charter.number
        held = {n: sorted(os.listdir(world.objects(n))) for n in range(5)}
        await check_sheet(keeper, world.edge, words(world))
        assert {name: read(keeper.file(name)) for name in before} == before
        assert keeper.charter.number == number
        keeper.close()
        assert {n: sorted(os.listdir(world.objects(n))) for n in range(5)} == held

    async def test_a_key_that_is_not_the_one_the_charter_speaks_of_is_an_integrity_failure(self, world: World) -> None:
        path = os.path.join(world.home, "keeper", "owner.key")
        write(path, wrapped_record(PASSPHRASE, bytes(32), b"owner key", SeededRng("x")))
        os.chmod(path, 0o600)
        keeper = world.keeper()
        wrong = [one for one in check_wrapped(keeper, world.clock.now_ns()) if one.problem]
        keeper.close()
        assert [(one.id, one.integrity) for one in wrong] == [("owner key", True)]

    async def test_a_wrong_passphrase_is_told(self, world: World) -> None:
        keeper = world.keeper(passphrase="not it at all")
        with pytest.raises(KeyWrongError, match="passphrase"):
            check_wrapped(keeper, world.clock.now_ns())
        keeper.close()

    async def test_the_sheet_of_another_tenant_is_told_with_both_numbers(self, world: World) -> None:
        keeper = world.keeper()
        with pytest.raises(KeyWrongError, match="this is the sheet of tenant") as caught:
            await check_sheet(keeper, world.edge, other_words())
        assert keeper.member.root_key.hex()[:16] in caught.value.message
        keeper.close()

    async def test_providers_that_are_away_or_lost_the_keybag_are_named(self, world: World) -> None:
        keeper = world.keeper()
        os.unlink(os.path.join(world.objects(1), keeper.charter.charter.keybag.hex()))
        world.silence(2)
        found = {one.id: one for one in await check_sheet(keeper, world.edge, words(world))}
        keeper.close()
        assert found["keybag at bob"].problem != ""
        assert found["keybag at carol"].problem != ""
        assert [one.id for one in found.values() if one.problem] == ["keybag at bob", "keybag at carol"]

    async def test_a_keybag_that_lacks_what_the_charter_has_is_an_integrity_failure(self, world: World) -> None:
        """An owner's machine that was taken over could name a keybag that gives nothing back."""
        with keeping(world) as (keeper, _):
            bag = msgspec.structs.replace(keeper.keybag(), domains=[])
            data = seal_keybag(bag, keeper.charter.root.root_seal_key, SeededRng("bag"))
            keeper.write_charter(world.edge, keybag_data=data)
            found = await check_sheet(keeper, world.edge, words(world))
        wrong = [one for one in found if one.problem]
        assert len(wrong) == 6
        assert all(one.integrity and "lacks the restore key of main" in one.problem for one in wrong)

    async def test_a_keybag_that_lacks_one_epoch_of_several_is_an_integrity_failure(self, world: World) -> None:
        with keeping(world) as (keeper, siblings):
            await rotate_index(keeper, siblings, world.edge)
            bag = keeper.keybag()
            [domain] = bag.domains
            first = msgspec.structs.replace(domain.index_keys[0], epoch=3)
            holed = msgspec.structs.replace(domain, index_keys=[first, domain.index_keys[1]])
            bag = msgspec.structs.replace(bag, domains=[holed])
            data = seal_keybag(bag, keeper.charter.root.root_seal_key, SeededRng("bag"))
            keeper.write_charter(world.edge, keybag_data=data)
            found = await check_sheet(keeper, world.edge, words(world))
        wrong = [one for one in found if one.problem]
        assert len(wrong) == 6
        assert all(one.integrity and one.problem == "it lacks index keys of main" for one in wrong)


class TestPassphrase:
    async def test_the_new_one_opens_all_and_the_old_one_nothing(self, world: World, source: str) -> None:
        await world.backup()
        keeper = world.keeper()
        change_passphrase(keeper, world.edge, NEW, DEFAULT)
        keeper.close()
        assert keeper_opens(world, NEW)
        assert not keeper_opens(world, PASSPHRASE)
        old, world.keeper = world.keeper, lambda *_: old(passphrase=NEW)  # type: ignore[method-assign]
        assert await world.differences(source) == []

    async def test_it_may_cost_more_to_try_and_stays_as_dear_when_keys_change(self, world: World) -> None:
        keeper, node = world.keeper(), world.node()
        change_passphrase(keeper, world.edge, NEW, Cost(memory_kib=70_000, passes=4))
        await rotate_maintenance(keeper, [node], world.edge)
        for name in keeper.key_files():
            found = read_wrapped(read(keeper.file(name)))
            assert (found.memory_kib, found.passes) == (70_000, 4), name
        keeper.close()
        node.close()

    async def test_one_that_is_too_short_is_refused_and_changes_nothing(self, world: World) -> None:
        keeper = world.keeper()
        with pytest.raises(UsageError, match="at least 8"):
            change_passphrase(keeper, world.edge, "short", DEFAULT)
        keeper.close()
        assert keeper_opens(world, PASSPHRASE)

    async def test_a_wrong_one_so_far_changes_nothing(self, world: World) -> None:
        keeper = world.keeper(passphrase="not it at all")
        with pytest.raises(KeyWrongError):
            change_passphrase(keeper, world.edge, NEW, DEFAULT)
        keeper.close()
        assert keeper_opens(world, PASSPHRASE)

    async def test_two_do_not_change_it_at_once(self, world: World) -> None:
        one, two = world.keeper(), world.keeper()
        with one.lock(), pytest.raises(LockedError):
            change_passphrase(two, world.edge, NEW, DEFAULT)
        one.close()
        two.close()

    async def test_stopped_anywhere_one_of_the_two_opens_all_keys(
        self, worlds: Callable[[int], World], fresh: str
    ) -> None:
        outcomes = set()
        step = 0
        while True:
            world = worlds(0)
            fs = CrashFs(os.path.join(fresh, f"graveyard-{step}"))
            keeper = KeeperHome(world.home, fs, lambda _: PASSPHRASE)
            edge = dataclasses.replace(world.edge, fs=fs)
            keeper.contents()
            fs.stop_at(step)
            try:
                change_passphrase(keeper, edge, NEW, DEFAULT)
            except Crash:
                stopped = True
            else:
                stopped = False
            keeper.close()
            if stopped:
                fs.power_loss(keep=lambda _: False, torn=False)
            fs.close()
            opens = keeper_opens(world, NEW)
            assert opens != keeper_opens(world, PASSPHRASE)
            outcomes.add(opens)
            left = [name for name in os.listdir(os.path.join(world.home, "keeper")) if "rewrapped" in name]
            assert left == []
            if not stopped:
                break
            step += 1
        assert step > 10
        assert outcomes == {True, False}


class TestReset:
    async def test_the_sheet_makes_a_new_passphrase_while_nobody_answers(self, world: World, source: str) -> None:
        await world.backup()
        world.silence(0, 1, 2, 3, 4)
        number = world.keeper().charter.number
        keeper = KeeperHome(world.home, PosixFs(), lambda _: pytest.fail("it is lost"))
        await reset_passphrase(keeper, world.edge, words(world), NEW, DEFAULT)
        keeper.close()
        assert keeper_opens(world, NEW)
        assert not keeper_opens(world, PASSPHRASE)
        assert world.keeper().charter.number == number
        world.answer(0, 1, 2, 3, 4)
        old, world.keeper = world.keeper, lambda *_: old(passphrase=NEW)  # type: ignore[method-assign]
        assert await world.differences(source) == []
        keeper = world.keeper()
        assert all(not one.problem for one in check_wrapped(keeper, world.clock.now_ns()))
        keeper.close()

    async def test_a_home_without_the_keybag_fetches_it(self, world: World) -> None:
        os.unlink(os.path.join(world.home, "keeper", "keybag.obj"))
        keeper = KeeperHome(world.home, PosixFs(), lambda _: pytest.fail("it is lost"))
        await reset_passphrase(keeper, world.edge, words(world), NEW, DEFAULT)
        keeper.close()
        assert keeper_opens(world, NEW)

    async def test_without_any_keybag_it_says_so_and_changes_nothing(self, world: World) -> None:
        os.unlink(os.path.join(world.home, "keeper", "keybag.obj"))
        world.silence(0, 1, 2, 3, 4)
        keeper = world.keeper()
        with pytest.raises(KeyMissingError, match="keybag"):
            await reset_passphrase(keeper, world.edge, words(world), NEW, DEFAULT)
        keeper.close()
        assert keeper_opens(world, PASSPHRASE)

    async def test_another_sheet_changes_nothing(self, world: World) -> None:
        keeper = world.keeper()
        with pytest.raises(KeyWrongError, match="this is the sheet of tenant"):
            await reset_passphrase(keeper, world.edge, other_words(), NEW, DEFAULT)
        keeper.close()
        assert keeper_opens(world, PASSPHRASE)

    async def test_it_works_after_keys_were_put_in_the_place_of_others(self, world: World) -> None:
        with keeping(world) as (keeper, siblings):
            await rotate_owner(keeper, siblings, world.edge, words(world))
            await rotate_maintenance(keeper, siblings, world.edge)
            await rotate_index(keeper, siblings, world.edge)
        keeper = world.keeper(passphrase="forgotten")
        await reset_passphrase(keeper, world.edge, words(world), NEW, DEFAULT)
        assert [one.problem for one in check_wrapped(keeper, world.clock.now_ns())] == [""] * 4
        assert await rotate_index(keeper, [], world.edge) == []
        keeper.close()


class TestIndexEpochs:
    async def test_what_is_written_afterwards_is_under_the_new_key_and_all_is_read(
        self, world: World, source: str
    ) -> None:
        await world.backup()
        with keeping(world) as (keeper, siblings):
            assert await rotate_index(keeper, siblings, world.edge) == []
            assert keeper.private.domains[0].epoch == 2
            assert [epochs(half) for half in (keeper, *siblings)] == [[1, 2], [1, 2]]
        write(os.path.join(source, "more"), b"more" * 1000)
        assert (await world.backup()).datasets[0].published
        assert await world.differences(source) == []
        assert len(await world.snapshots()) == 2
        node = world.node()
        rows = node.catalog.snapshots.all()
        old, new = (
            read(os.path.join(world.objects(0), row.name.hex())) for row in sorted(rows, key=lambda r: r.number)
        )
        keys = node.keys()
        node.close()
        only_old = dataclasses.replace(keys, index_keys={1: keys.index_key(1)})
        open_object(old, Kind.SNAPSHOT, only_old)
        with pytest.raises(KeyMissingError, match="epoch 2"):
            open_object(new, Kind.SNAPSHOT, only_old)

    async def test_the_sheet_alone_reads_all_epochs(self, world: World, source: str) -> None:
        await world.backup()
        with keeping(world) as (keeper, siblings):
            await rotate_index(keeper, siblings, world.edge)
        write(os.path.join(source, "more"), b"more" * 1000)
        await world.backup()
        home = os.path.join(world.root, "recovered")
        address = f"somewhere.example:7144/{world.identity(3).hex()}"
        await recover(home, world.edge, words=words(world), addresses=[address], passphrase=NEW)
        old, world.keeper = world.keeper, lambda *_: old(home, NEW)  # type: ignore[method-assign]
        assert len(await world.snapshots()) == 2
        assert await world.differences(source) == []

    @pytest.mark.parametrize("role", ["node", "maintainer", "drill"])
    async def test_a_member_that_was_away_for_several_takes_all_keys_at_once(
        self, role: JoiningRole, world: World
    ) -> None:
        home = await joined(world, role, "far")
        with keeping(world) as (keeper, siblings):
            await rotate_index(keeper, siblings, world.edge)
            await rotate_index(keeper, siblings, world.edge)
            await revoke_node(keeper, siblings, world.edge, "testhost")
        half = opened(home, role)
        assert epochs(half) == [1]
        async with Federation(half, world.edge) as federation:
            assert len(federation.links) == 5
        assert epochs(half) == [1, 2, 3, 4]
        half.close()
        again = opened(home, role)
        assert epochs(again) == [1, 2, 3, 4]
        again.close()

    async def test_who_was_shut_out_is_not_given_the_new_key(self, world: World) -> None:
        home = await joined(world, "node", "stolen")
        with keeping(world) as (keeper, siblings):
            await revoke(keeper, siblings, world.edge, "stolen")
            data = keeper.charter_object()[1]
            assert epochs(keeper) == [1, 2]
        thief = opened(home, "node")
        thief.adopt_charter(data)  # it gets hold of the charter all the same
        assert epochs(thief) == [1]
        assert all(one.identity != thief.identity for one in thief.private.handed)
        for one in thief.private.handed:
            with pytest.raises(IntegrityError, match="not handed to this key"):
                take(thief.signing, one.sealed, "it")
        thief.close()

    async def test_stopped_before_the_charter_nothing_has_changed(self, world: World) -> None:
        with keeping(world) as (keeper, siblings):
            number = keeper.charter.number
            write(keeper.file("keybag.obj"), read(siblings[0].file("charter.obj")))  # what a crash may leave there
        keeper = world.keeper()
        assert keeper.keybag_object() is None
        async with Federation(keeper, world.edge, ticket=keeper.lazy_ticket):
            pass
        assert keeper.keybag_object() is not None
        assert keeper.charter.number == number
        keeper.close()

    async def test_keys_in_a_charter_that_do_not_open_make_a_member_refuse_it(self, world: World) -> None:
        with keeping(world) as (keeper, [node]):
            number = node.charter.number
            keys = hand(SigningKey(bytes(32)).public, encode(MemberKeys(domains=[], ticket=b"")))
            private = msgspec.structs.replace(keeper.private, handed=[HandedKeys(identity=node.identity, sealed=keys)])
            data = keeper.write_charter(world.edge, private=private)
            with pytest.raises(IntegrityError, match="the keys in it for this home"):
                node.adopt_charter(data)
            assert node.charter.number == number

    async def test_an_index_key_is_never_replaced_by_another_of_its_epoch(self, world: World) -> None:
        with keeping(world) as (keeper, [node]):
            before = node.keys().index_key(1)
            bag = keeper.keybag()
            forged = msgspec.structs.replace(
                bag.domains[0],
                index_keys=[msgspec.structs.replace(bag.domains[0].index_keys[0], key=bytes(32))],
            )
            handed = handed_to(keeper.charter.charter.rights, [forged], keeper.private.domains, keeper.owner())
            private = msgspec.structs.replace(keeper.private, handed=handed)
            node.adopt_charter(keeper.write_charter(world.edge, private=private))
            assert node.keys().index_key(1) == before


class TestMaintenance:
    async def test_the_new_key_may_mark_and_the_old_one_nothing(self, world: World) -> None:
        with keeping(world) as (keeper, siblings):
            former = keeper.maintenance()
            assert await rotate_maintenance(keeper, siblings, world.edge) == []
            fresh = keeper.maintenance()
            assert fresh.public != former.public
            assert keeper.charter.right_of(former.public) is None
            right = keeper.charter.right_of(fresh.public)
            assert right is not None
            assert "mark" in right.ops
            assert keeper.keybag().maintenance_seed == fresh.seed()
            assert all(not one.problem for one in check_wrapped(keeper, world.clock.now_ns()))
            assert all(not one.problem for one in await check_sheet(keeper, world.edge, words(world)))
        again = world.keeper()
        assert again.maintenance().public == fresh.public
        again.close()

    async def test_a_tenant_of_an_earlier_release_gets_its_right_that_way(self, world: World) -> None:
        with keeping(world) as (keeper, siblings):
            own = keeper.maintenance().public
            rights = [one for one in keeper.charter.charter.rights if one.holder_key != own]
            keeper.write_charter(world.edge, rights=rights)
            with pytest.raises(KeyMissingError, match="gives this keeper's maintenance key no right") as caught:
                keeper.maintenance()
            assert "key rotate maintenance" in caught.value.hint
            [missing] = [one for one in check_wrapped(keeper, world.clock.now_ns()) if one.problem]
            assert (missing.id, missing.integrity) == ("maintenance key", False)
            await rotate_maintenance(keeper, siblings, world.edge)
            assert keeper.maintenance().public != own

    @pytest.mark.parametrize("what", ["owner.key", "maintenance.key"])
    async def test_stopped_between_the_charter_and_the_file_the_new_key_counts(self, what: str, world: World) -> None:
        with keeping(world) as (keeper, siblings):
            keeper.succeed = lambda name: None  # type: ignore[method-assign] # noqa: ARG005 - the crash; a parameter by its name
            if what == "owner.key":
                await rotate_owner_until_charter(keeper, siblings, world)
            else:
                await rotate_maintenance(keeper, siblings, world.edge)
            assert keeper.fs.size(keeper.file(f"{what}.next")) is not None
        fresh = world.keeper()
        assert [one.problem for one in check_wrapped(fresh, world.clock.now_ns())] == [""] * 4
        fresh.close()
        again = world.keeper()
        assert again.owner().public == again.charter.root.owner_key
        again.maintenance()
        assert again.fs.size(again.file(f"{what}.next")) is None
        again.close()

    @pytest.mark.parametrize("what", ["owner.key", "maintenance.key"])
    async def test_stopped_before_the_charter_the_old_key_counts(self, what: str, world: World) -> None:
        keeper = world.keeper()
        owner, maintenance = keeper.owner().public, keeper.maintenance().public
        keeper.prepare(world.edge, what, SigningKey(SeededRng("x").bytes(32)))
        keeper.close()
        again = world.keeper()
        assert (again.owner().public, again.maintenance().public) == (owner, maintenance)
        change_passphrase(again, world.edge, NEW, DEFAULT)
        assert again.fs.size(again.file(f"{what}.next")) is None
        again.close()


async def rotate_owner_until_charter(keeper: KeeperHome, siblings: list[Half], world: World) -> None:
    with suppress(KeyMissingError):  # the process that goes on would not find its key; one that is started anew does
        await rotate_owner(keeper, siblings, world.edge, words(world))


class TestOwner:
    async def test_the_old_owner_counts_nowhere_any_more(self, world: World, source: str) -> None:
        await world.backup()
        with keeping(world) as (keeper, siblings):
            former, statement = keeper.owner(), keeper.charter.charter.root
            assert (await rotate_owner(keeper, siblings, world.edge, words(world))).notices == []
            assert keeper.owner().public != former.public
            assert keeper.charter.root.number == 2
            late = sign_charter(
                owner=former,
                member_key=keeper.member.member_key,
                previous=keeper.charter.hash,
                number=keeper.charter.number + 1,
                root=statement,
                rights=keeper.charter.charter.rights,
                keybag=keeper.charter.charter.keybag,
                private=keeper.private,
                tenant=keeper.tenant,
                edge=world.edge,
            )
            for half in (keeper, *siblings):
                with pytest.raises(IntegrityError, match="root statement is older"):
                    half.adopt_charter(late)
        assert (await world.backup()).datasets[0].published
        assert await world.differences(source) == []

    async def test_members_enrol_with_providers_that_come_later(self, world: World, source: str) -> None:
        """Their enrol orders were signed by the old owner; the charter hands them new ones."""
        with keeping(world) as (keeper, siblings):
            await rotate_owner(keeper, siblings, world.edge, words(world))
        await world.add_peer(world.start_provider(5))
        await world.backup()
        node = world.node()
        async with Federation(node, world.edge) as federation:
            assert len(federation.links) == 6
        node.close()

    async def test_the_sheet_gives_the_new_owner_back(self, world: World, source: str) -> None:
        await world.backup()
        with keeping(world) as (keeper, siblings):
            await rotate_owner(keeper, siblings, world.edge, words(world))
        home = os.path.join(world.root, "recovered")
        address = f"somewhere.example:7144/{world.identity(1).hex()}"
        found = await recover(home, world.edge, words=words(world), addresses=[address], passphrase=NEW)
        assert (found.peers, found.unreachable) == (5, [])

    async def test_another_sheet_or_a_wrong_passphrase_changes_nothing(self, world: World) -> None:
        keeper = world.keeper()
        number = keeper.charter.number
        with pytest.raises(KeyWrongError):
            await rotate_owner(keeper, [], world.edge, other_words())
        keeper.close()
        keeper = world.keeper(passphrase="not it at all")
        with pytest.raises(KeyWrongError):
            await rotate_owner(keeper, [], world.edge, words(world))
        assert keeper.charter.number == number
        assert keeper.fs.size(keeper.file("owner.key.next")) is None
        keeper.close()


class TestRevoke:
    @pytest.mark.parametrize("role", ["node", "maintainer", "drill"])
    async def test_every_provider_refuses_a_key_that_was_taken_away(self, role: JoiningRole, world: World) -> None:
        home = await joined(world, role, "lost")
        with keeping(world) as (keeper, siblings):
            right, notices = await revoke(keeper, siblings, world.edge, "lost")
            assert (right.role, notices) == (role, [])
        half = opened(home, role)
        async with Federation(half, world.edge) as federation:
            assert federation.links == {}
            assert all("revoked" in str(error) for error in federation.failures.values())
            assert len(federation.failures) == 5
        half.close()

    async def test_a_keeper_does_not_shut_itself_out(self, world: World) -> None:
        with keeping(world) as (keeper, siblings):
            number = keeper.charter.number
            with pytest.raises(UsageError, match="this very keeper"):
                await revoke(keeper, siblings, world.edge, keeper.identity.hex())
            with pytest.raises(UsageError, match="own maintenance key"):
                await revoke(keeper, siblings, world.edge, keeper.maintenance().identity.hex())
            assert keeper.charter.number == number

    async def test_twice_or_nobody_is_a_clear_error(self, world: World) -> None:
        await joined(world, "drill", "attic")
        with keeping(world) as (keeper, siblings):
            await revoke(keeper, siblings, world.edge, "attic")
            with pytest.raises(UsageError, match="no right any more"):
                await revoke(keeper, siblings, world.edge, "attic")
            with pytest.raises(NotFoundError, match="no key 'xyzzy'"):
                await revoke(keeper, siblings, world.edge, "xyzzy")
            with pytest.raises(NotFoundError, match="no key ''"):
                await revoke(keeper, siblings, world.edge, "")
            with pytest.raises(NotFoundError, match="no node 'attic'"):
                await revoke_node(keeper, siblings, world.edge, "attic")

    async def test_a_machine_whose_key_was_taken_away_does_not_get_in_with_it_again(self, world: World) -> None:
        home = os.path.join(world.root, "again")
        code = request_node(home, world.edge, name="again", role="maintainer")
        with keeping(world) as (keeper, siblings):
            await add_node(keeper, siblings, world.edge, code)
            await revoke(keeper, siblings, world.edge, "again")
            with pytest.raises(UsageError, match="was revoked"):
                await add_node(keeper, siblings, world.edge, code)

    async def test_names_are_not_given_twice(self, world: World) -> None:
        for number, expected in enumerate(("twin", "twin-2", "twin-3")):
            home = os.path.join(world.root, f"home-{number}")
            role: JoiningRole = "node" if number else "drill"
            code = request_node(home, world.edge, name="twin", role=role)
            with keeping(world) as (keeper, siblings):
                added = await add_node(keeper, siblings, world.edge, code)
                assert added.name == expected
                assert find_right(keeper, expected).holder_key == asking_key(home, role)
                assert name_of_key(keeper.private, added.identity) == expected


def asking_key(home: str, role: str) -> bytes:
    """Return the public key of a machine that has asked and was not answered."""
    seed = json.loads(read(os.path.join(home, role, "request.json")))["seed"]
    return SigningKey(bytes.fromhex(seed)).public


class TestPrintedAddresses:
    async def said(self, world: World, *, offline: bool = False) -> list[str]:
        found = await world.status(keeper=True, offline=offline)
        return [line for line in found.advice if "address" in line]

    async def test_nothing_is_said_while_one_lives(self, world: World) -> None:
        world.silence(0, 1, 2, 3)
        assert await self.said(world) == []

    async def test_one_is_asked_to_print_them_once(self, world: World) -> None:
        os.unlink(os.path.join(world.home, "keeper", "printed.json"))
        [line] = await self.said(world, offline=True)
        assert "no address of a provider was printed from here yet" in line
        assert "replicator key sheet --addresses" in line
        write(os.path.join(world.home, "keeper", "printed.json"), b"{}")
        assert len(await self.said(world, offline=True)) == 1

    async def test_a_sheet_with_dead_addresses_alone_is_warned_of(self, world: World) -> None:
        keeper = world.keeper()
        remember_printed(keeper, addresses_of(keeper)[:2], world.clock.now_ns())
        keeper.close()
        assert await self.said(world) == []
        world.silence(0, 1)
        [line] = await self.said(world)
        assert "no address on the recovery sheet lives any more" in line
        world.silence(2, 3, 4)
        assert await self.said(world) == [], "nobody answers: it may be this machine"

    async def test_a_provider_that_left_or_moved_lives_no_more_under_its_printed_address(self, world: World) -> None:
        keeper = world.keeper()
        printed = addresses_of(keeper)
        remember_printed(keeper, printed[:1], world.clock.now_ns())
        await remove_peer(keeper, [], world.edge, printed[0].name)
        keeper.close()
        assert len(await self.said(world)) == 1
        keeper = world.keeper()
        moved = [type(printed[1])(name="bob", endpoint="elsewhere.example:1", identity=printed[1].identity)]
        remember_printed(keeper, moved, world.clock.now_ns())
        assert last_printed(keeper) == moved
        keeper.close()
        assert len(await self.said(world)) == 1

    async def test_what_is_printed_is_what_recovery_takes(self, world: World) -> None:
        keeper = world.keeper()
        lines = [one.line for one in addresses_of(keeper)]
        keeper.close()
        assert len(lines) == 5
        home = os.path.join(world.root, "recovered")
        found = await recover(home, world.edge, words=words(world), addresses=[lines[4]], passphrase=NEW)
        assert found.peers == 5


class TestEarlierReleases:
    async def test_a_machine_of_an_earlier_release_may_ask_to_be_a_node(self, world: World) -> None:
        key = SigningKey(SeededRng("old").bytes(32))
        request = NodeRequest1(name="old", key=key.public, seal_key=public_of(bytes(32)))
        code = write_code("request", key.sign(Context.NODE_REQUEST, encode(request)))
        with keeping(world) as (keeper, siblings):
            added = await add_node(keeper, siblings, world.edge, code)
            assert (added.role, find_right(keeper, "old").role) == ("node", "node")

    async def test_a_charter_without_notes_is_listed_and_its_keys_can_be_taken_away(self, world: World) -> None:
        with keeping(world) as (keeper, siblings):
            private = msgspec.structs.replace(keeper.private, notes=[], handed=[])
            keeper.write_charter(world.edge, private=private)
            row = next(row for row in list_keys(keeper, siblings) if row.kind == "node")
            assert (row.name, row.since_ns, row.revoked) == ("testhost", 0, False)
            await revoke(keeper, siblings, world.edge, "testhost")
            row = next(row for row in list_keys(keeper, siblings) if row.kind == "node")
            assert (row.name, row.since_ns, row.revoked_ns) == ("testhost", 0, world.clock.now_ns())

    async def test_a_grant_of_another_role_than_was_asked_for_or_given_is_refused(self, world: World) -> None:
        home = os.path.join(world.root, "asks")
        code = request_node(home, world.edge, name="asks", role="drill")
        seal_private = bytes.fromhex(json.loads(read(os.path.join(home, "drill", "request.json")))["seal"])
        with keeping(world) as (keeper, siblings):
            added = await add_node(keeper, siblings, world.edge, code)
            rights = [
                msgspec.structs.replace(one, role="maintainer")
                if identity_of(one.holder_key) == added.identity
                else one
                for one in keeper.charter.charter.rights
            ]
            keeper.write_charter(world.edge, rights=rights)
            other_right = keeper.charter.signed
        grant = read_node_grant(unseal(seal_private, read_code("grant", added.code), PURPOSE_GRANT, "grant"))
        for changes, said in (
            ({"role": "maintainer"}, "of a maintainer, and a drill was asked for"),
            ({"charter": other_right}, "gives this machine no such right"),
        ):
            forged = encode(msgspec.structs.replace(grant, **changes))
            sealed = seal_to(public_of(seal_private), forged, PURPOSE_GRANT)
            with pytest.raises(IntegrityError, match=said):
                accept_grant(home, world.edge, write_code("grant", sealed), lambda _: "none is asked for")
        assert not has_half(home, "drill")
