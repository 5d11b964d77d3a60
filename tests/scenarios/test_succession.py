"""A sheet is lost and its keeper lives: another root is announced, waited for in sight of all, and takes its place."""

import os
from collections.abc import Callable

import msgspec
import pytest

from replicator.charter.verify import signed_hash, verify_charter
from replicator.clock import DAY_S, NS
from replicator.crypto.recovery import from_words, new_secret, root_of, to_words
from replicator.crypto.sign import Context, SigningKey
from replicator.crypto.unseal import public_of
from replicator.engine.federation import Federation
from replicator.engine.home import Half, has_half
from replicator.engine.keeper import sign_charter
from replicator.engine.keys import check_sheet, check_wrapped, list_keys, rotate_index, rotate_owner
from replicator.engine.members import revoke
from replicator.engine.recover import recover
from replicator.engine.roots import announced, heard, passed
from replicator.engine.succession import announce_root, finish_root, object_root, withdraw_root
from replicator.engine.tenant import open_keybag, seal_keybag
from replicator.errors import IntegrityError, KeyWrongError, NotFoundError, RefusedError, RootWaitsError, UsageError
from replicator.format.charter import RootChange, RootStatement
from replicator.format.codec import encode
from replicator.format.container import unwrap_record
from replicator.fs import write_atomic
from replicator.ids import tenant_of
from tests.fakes import SeededRng
from tests.format.samples import KEYBAG
from tests.scenarios.joining import joined, keeping, opened
from tests.scenarios.world import World, write

NEW = "another passphrase"


def old_words(world: World) -> list[str]:
    assert world.tenant is not None
    return world.tenant.words


def no_sheet(_words: list[str], _root_key: bytes) -> None:
    """Keep the words in the answer alone."""


async def announce(world: World) -> list[str]:
    """Announce another root; return its words."""
    with keeping(world) as (keeper, siblings):
        return (await announce_root(keeper, siblings, world.edge, no_sheet)).words


async def finish(world: World) -> list[str]:
    with keeping(world) as (keeper, siblings):
        return await finish_root(keeper, siblings, world.edge)


def days(world: World, count: int, *numbers: int) -> None:
    """Let days pass, on each of which the daemons of these providers (of all, if none is named) look at the clock."""
    for _ in range(count):
        world.clock.advance(DAY_S)
        for number, service in enumerate(world.services):
            if not numbers or number in numbers:
                service.tick()  # type: ignore[attr-defined]  # what the daemon does


async def handed_over(world: World) -> list[str]:
    """Let one root follow another; return the words of the new one."""
    words = await announce(world)
    days(world, 30)
    assert await finish(world) == []
    return words


async def meet(half: Half, world: World) -> Federation:
    """Let a home be in touch with everybody once."""
    async with Federation(half, world.edge) as federation:
        return federation


async def recovered(world: World, words: list[str], provider: int = 3) -> str:
    home = os.path.join(world.root, f"recovered-{world.rng.bytes(4).hex()}")
    address = f"somewhere.example:7144/{world.identity(provider).hex()}"
    await recover(home, world.edge, words=words, addresses=[address], passphrase=NEW)
    return home


class TestHandover:
    async def test_after_thirty_days_the_new_sheet_recovers_and_the_old_one_does_not(
        self, world: World, source: str
    ) -> None:
        await world.backup()
        words = await handed_over(world)
        with pytest.raises(KeyWrongError, match="this sheet was replaced"):
            await recovered(world, old_words(world))
        home = await recovered(world, words)
        old, world.keeper = world.keeper, lambda *_: old(home, NEW)  # type: ignore[method-assign]
        assert await world.differences(source) == []

    async def test_all_goes_on_during_the_wait_and_after_it(self, world: World, source: str) -> None:
        maintainer, drill = await joined(world, "maintainer", "barn"), await joined(world, "drill", "attic")
        await world.backup()
        words = await announce(world)
        days(world, 15)
        write(os.path.join(source, "more"), b"more" * 1000)
        assert (await world.backup()).datasets[0].published
        with keeping(world) as (keeper, siblings):
            assert await rotate_index(keeper, siblings, world.edge) == []
        days(world, 15)
        for home, role in ((maintainer, "maintainer"), (drill, "drill")):
            half = opened(home, role)  # type: ignore[arg-type]  # these are roles
            await meet(half, world)
            half.close()
        assert await finish(world) == []
        write(os.path.join(source, "yet more"), b"yet more" * 1000)
        assert (await world.backup()).datasets[0].published
        assert await world.differences(source) == []
        with keeping(world) as (keeper, siblings):
            assert await revoke(keeper, siblings, world.edge, "attic") is not None
            found = await check_sheet(keeper, world.edge, words)
            assert [one.problem for one in found] == [""] * 7
            assert {one.member.root_key for one in (keeper, *siblings)} == {root_of(from_words(words)).signing.public}
        assert (await world.status()).roots == []

    async def test_the_new_sheet_alone_completes_it_if_the_keeper_is_gone_by_then(
        self, world: World, source: str
    ) -> None:
        await world.backup()
        words = await announce(world)
        days(world, 10)
        with keeping(world) as (keeper, siblings):
            await rotate_index(keeper, siblings, world.edge)  # the sheet that is announced gets this too
        write(os.path.join(source, "more"), b"more" * 1000)
        await world.backup()
        days(world, 20)
        home = await recovered(world, words)
        old, world.keeper = world.keeper, lambda *_: old(home, NEW)  # type: ignore[method-assign]
        assert await world.differences(source) == []
        with pytest.raises(KeyWrongError, match="this sheet was replaced"):
            await recovered(world, old_words(world))
        keeper = world.keeper()
        data = keeper.keybag_object()
        assert data is not None
        with pytest.raises(KeyWrongError):
            open_keybag(root_of(from_words(old_words(world))), data[1])
        keeper.close()

    @pytest.mark.slow
    async def test_what_the_old_sheet_enrolled_has_no_more_than_the_charter_gives_it(self, world: World) -> None:
        home = await recovered(world, old_words(world))
        before, world.home = world.home, home
        world.keeper, old = (lambda *_: old(home, NEW)), world.keeper  # type: ignore[method-assign]
        rows = world.opened[0]._database.rows("SELECT source FROM holders")
        assert ("root",) in rows
        await handed_over(world)
        rows = world.opened[0]._database.rows("SELECT source FROM holders")
        assert ("root",) not in rows
        world.home = before

    async def test_providers_that_come_later_are_shown_how_the_tenant_came_to_its_root(self, world: World) -> None:
        await handed_over(world)
        await handed_over(world)
        await world.add_peer(world.start_provider(5))
        keeper = world.keeper()
        assert len(keeper.charter.charter.handovers) == 2
        assert tenant_of(keeper.member.root_key) != keeper.tenant
        async with Federation(keeper, world.edge) as federation:
            assert len(federation.links) == 6
        keeper.close()

    async def test_one_root_after_another_can_be_followed_from_the_first(self, world: World) -> None:
        far = await joined(world, "drill", "far")
        await handed_over(world)
        await handed_over(world)
        half, keeper = opened(far, "drill"), world.keeper()
        first, data = half.member.root_key, keeper.charter_object()[1]
        handovers = [signed_hash(one) for one in keeper.charter.charter.handovers]
        assert len(handovers) == 2
        found = verify_charter(unwrap_record(data), root_key=first, known=half.charter, passed=handovers)
        assert found.root.root_key == keeper.member.root_key
        for gone in handovers:
            rest = [one for one in handovers if one != gone]
            with pytest.raises(RootWaitsError):
                verify_charter(unwrap_record(data), root_key=first, known=half.charter, passed=rest)
        keeper.close()
        half.close()


class TestWait:
    async def test_neither_the_keeper_nor_a_provider_hurries(self, world: World) -> None:
        words = await announce(world)
        days(world, 29)
        with pytest.raises(RootWaitsError, match="it counts here from"):
            await finish(world)
        with pytest.raises(NotFoundError, match="announced and counts here from"):
            await recovered(world, words)
        days(world, 1)
        assert await finish(world) == []

    async def test_days_count_only_while_daemons_run_and_more_than_half_must_have_counted(self, world: World) -> None:
        await announce(world)
        days(world, 30, 0, 1)
        with pytest.raises(RootWaitsError, match=r"2 of 5 providers have counted thirty days.*carol, dave, erin"):
            await finish(world)
        days(world, 29, 2, 3, 4)
        with pytest.raises(RootWaitsError, match="2 of 5"):
            await finish(world)
        days(world, 2, 2)
        notices = await finish(world)
        late = [text for text in notices if "waits here for thirty days first" in text]
        assert [text.split(":")[0] for text in late] == ["dave", "erin"]

    async def test_a_clock_that_was_set_forward_opens_nothing(self, world: World) -> None:
        words = await announce(world)
        world.clock.set_wall(world.clock.now_ns() + 40 * DAY_S * NS)
        for service in world.services:
            service.tick()  # type: ignore[attr-defined]  # what the daemon does
        with pytest.raises(RootWaitsError, match="0 of 5 providers"):
            await finish(world)
        with pytest.raises(NotFoundError, match="announced and counts here from"):
            await recovered(world, words)

    async def test_a_provider_that_was_away_begins_to_count_when_it_hears(self, world: World) -> None:
        world.silence(4)
        words = await announce(world)
        days(world, 30)
        await finish(world)
        world.answer(4)
        node, keeper = world.node(), world.keeper()
        assert any("erin: this charter is under another root" in text for text in (await meet(node, world)).notices)
        days(world, 31)
        assert any("erin" in text for text in (await meet(node, world)).notices), "nobody announced it there"
        assert any("erin" in text for text in (await meet(keeper, world)).notices), "the keeper does now"
        days(world, 29)
        assert any("erin" in text for text in (await meet(keeper, world)).notices)
        days(world, 1)
        assert (await meet(node, world)).notices == []
        node.close()
        keeper.close()
        await recovered(world, words, provider=4)

    async def test_a_provider_whose_store_was_put_back_counts_anew(self, world: World) -> None:
        await announce(world)
        days(world, 29)
        world.kill_provider(0)
        write(os.path.join(world.data(0), ".generation"), b"99\n")
        world.start_provider(0)
        days(world, 1)
        keeper = world.keeper()
        found = await meet(keeper, world)
        keeper.close()
        assert [one.passed for one in found.successions.values()].count(False) == 1
        assert not found.successions[world.identity(0)].passed

    async def test_a_home_that_hears_late_counts_by_itself(self, world: World, source: str) -> None:
        far = await joined(world, "node", "far")
        words = await handed_over(world)
        half = opened(far, "node")
        former = half.charter.number
        notices = (await meet(half, world)).notices
        assert any("under a root that does not count yet" in text for text in notices)
        assert half.charter.number == former
        days(world, 29)
        await meet(half, world)
        assert half.charter.number == former
        [told] = announced(half, {}, world.clock.now_ns())
        assert (told.due_ns - world.clock.now_ns(), told.over) == (DAY_S * NS, False)
        world.clock.advance(DAY_S)
        assert "took charter" in " ".join((await meet(half, world)).notices)
        assert half.member.root_key == root_of(from_words(words)).signing.public
        assert announced(half, {}, world.clock.now_ns()) == []
        half.close()
        again = opened(far, "node")
        assert again.member.root_key == root_of(from_words(words)).signing.public
        again.close()

    async def test_a_home_that_hears_late_holds_nothing_against_who_keeps_the_next_roots_objection(
        self, world: World
    ) -> None:
        far = await joined(world, "node", "far")
        words = await handed_over(world)
        await announce(world)
        with keeping(world) as (keeper, _):
            assert len((await object_root(keeper, world.edge, words)).told) == 5
        half = opened(far, "node")
        federation = await meet(half, world)
        assert any("under a root that does not count yet" in text for text in federation.notices)
        assert federation.integrity == []
        assert federation.successions.keys() == {world.identity(number) for number in range(5)}
        half.close()

    async def test_a_home_stopped_while_it_took_the_new_root_goes_on_with_it(self, world: World) -> None:
        words = await handed_over(world)
        keeper = world.keeper()
        new, path = keeper.member, keeper.file("member.bin")
        former = root_of(from_words(old_words(world))).signing.public
        write_atomic(keeper.fs, path, encode(msgspec.structs.replace(new, root_key=former)))
        keeper.close()
        again = world.keeper()
        assert again.member == new
        assert again.member.root_key == root_of(from_words(words)).signing.public
        again.close()


class TestShown:
    async def test_status_on_every_home_and_key_check_tell_of_it_until_it_is_over(
        self, world: World, source: str
    ) -> None:
        far = await joined(world, "node", "far")
        await world.backup()
        assert (await world.status()).exit_code == 0
        await announce(world)
        for home, keeper in ((None, False), (None, True), (far, False)):
            found = await world.status(home, keeper=keeper)
            assert found.exit_code == 3
            assert "another root" in found.problems[0]
            assert "key object" in found.advice[0]
            offline = await world.status(home, keeper=keeper, offline=True)
            assert offline.problems[0].split("(")[0] == found.problems[0].split("(")[0]
        half = world.keeper()
        [told] = [one for one in check_wrapped(half, world.clock.now_ns()) if one.problem]
        assert (told.id, told.integrity) == ("root", False)
        assert [row.name for row in list_keys(half) if row.kind == "next root"] == ["announced sheet"]
        half.close()

    async def test_the_sheet_that_is_announced_can_be_tried_and_opens_all_but_does_nothing_yet(
        self, world: World
    ) -> None:
        words = await announce(world)
        with keeping(world) as (keeper, siblings):
            await rotate_index(keeper, siblings, world.edge)
            for sheet in (words, old_words(world)):
                assert [one.problem for one in await check_sheet(keeper, world.edge, sheet)] == [""] * 7
            with pytest.raises(KeyWrongError, match="does not count yet"):
                await rotate_owner(keeper, siblings, world.edge, words)

    async def test_the_words_go_to_paper_before_anything_is_announced(self, world: World) -> None:
        def full(_words: list[str], _root_key: bytes) -> None:
            raise OSError("no space left")

        with keeping(world) as (keeper, siblings):
            number = keeper.charter.number
            with pytest.raises(OSError, match="no space"):
                await announce_root(keeper, siblings, world.edge, full)
            assert (keeper.charter.number, keeper.charter.pending) == (number, None)


class TestEnd:
    async def test_root_objects_and_it_never_counts_anywhere(self, world: World) -> None:
        far = await joined(world, "node", "far")
        words = await announce(world)
        days(world, 29)
        world.silence(3, 4)
        with keeping(world) as (keeper, _):
            found = await object_root(keeper, world.edge, old_words(world))
        assert found.told == ["alice", "bob", "carol"]
        world.answer(3, 4)
        half = opened(far, "node")
        told = await meet(half, world)  # hears of it from three, and hands it on to the others
        assert all(one.objection for one in told.successions.values())
        assert len(told.successions) == 5
        days(world, 10)
        assert passed(half, world.clock.now_ns()) == []
        half.close()
        with pytest.raises(UsageError, match="root has objected"):
            await finish(world)
        for provider in range(5):
            with pytest.raises(NotFoundError, match="the one before it has objected"):
                await recovered(world, words, provider)
        found_now = await world.status()
        assert "root has objected" in found_now.problems[0]
        assert "rotate owner" in found_now.advice[0]

    async def test_another_owner_named_by_root_ends_it_and_lets_a_later_one_be_announced(self, world: World) -> None:
        await announce(world)
        with keeping(world) as (keeper, siblings):
            await object_root(keeper, world.edge, old_words(world))
            with pytest.raises(UsageError, match="announced already"):
                await announce_root(keeper, siblings, world.edge, no_sheet)
            await withdraw_root(keeper, siblings, world.edge)
            with pytest.raises(UsageError, match="its sheet is not lost"):
                await announce_root(keeper, siblings, world.edge, no_sheet)
            await rotate_owner(keeper, siblings, world.edge, old_words(world))
        assert (await world.status()).roots == []
        await handed_over(world)

    async def test_what_is_withdrawn_waits_from_the_beginning_when_it_is_announced_again(self, world: World) -> None:
        await announce(world)
        days(world, 29)
        with keeping(world) as (keeper, siblings):
            await withdraw_root(keeper, siblings, world.edge)
            assert heard(keeper) == {}
            with pytest.raises(UsageError, match="no other root"):
                await withdraw_root(keeper, siblings, world.edge)
            with pytest.raises(UsageError, match="no other root"):
                await finish_root(keeper, siblings, world.edge)
        await announce(world)
        days(world, 2)
        with pytest.raises(RootWaitsError):
            await finish(world)

    async def test_a_recovery_with_the_old_sheet_takes_it_back_and_says_so(self, world: World) -> None:
        await announce(world)
        home = os.path.join(world.root, "recovered")
        address = f"somewhere.example:7144/{world.identity(3).hex()}"
        made = await recover(home, world.edge, words=old_words(world), addresses=[address], passphrase=NEW)
        assert any("takes that back" in notice and "key object" in notice for notice in made.notices)
        half = world.keeper(home, NEW)
        assert half.charter.pending is None
        half.close()


class TestThief:
    """Who stole the owner key, and nothing of root."""

    def _change(self, owner: SigningKey, former: bytes, statement: RootStatement, root: SigningKey) -> bytes:
        successor = root.sign(Context.ROOT_STATEMENT, encode(statement))
        change = RootChange(tenant=statement.tenant, former=former, successor=successor, announced_ns=0)
        return owner.sign(Context.ROOT_CHANGE, encode(change))

    async def test_it_cannot_lower_floors_with_the_change(self, world: World) -> None:
        with keeping(world) as (keeper, _):
            old = keeper.charter
            thief = SigningKey(SeededRng("thief").bytes(32))
            lower = msgspec.structs.replace(old.root.floors, lock_s=0, grace_s=0, delete_budget_percent=100)
            statement = msgspec.structs.replace(
                old.root,
                number=old.root.number + 1,
                previous=signed_hash(old.charter.root),
                root_key=thief.public,
                floors=lower,
            )
            change = self._change(keeper.owner(), old.charter.root, statement, thief)
            with pytest.raises(IntegrityError, match="floors"):
                keeper.write_charter(world.edge, change=change)

    async def test_providers_of_its_own_do_not_make_the_wait_shorter_for_a_member(
        self, worlds: Callable[[int], World], world: World
    ) -> None:
        """It names its own providers in the charter, and these say whatever it likes."""
        far = await joined(world, "node", "far")
        half = opened(far, "node")
        with keeping(world) as (keeper, _):
            words = (await announce_root(keeper, [], world.edge, no_sheet)).words
            await meet(half, world)
            old = keeper.charter
            assert old.pending is not None
            root = root_of(from_words(words))
            data = sign_charter(
                owner=keeper.owner(),
                member_key=keeper.member.member_key,
                previous=old.hash,
                number=old.number + 1,
                root=old.pending.successor_signed,
                rights=old.charter.rights,
                keybag=old.charter.keybag,
                private=keeper.with_peers([]),
                tenant=keeper.tenant,
                handovers=[old.pending.signed],
                edge=world.edge,
            )
            assert public_of(root.seal_private) == old.pending.successor.root_seal_key
            for _ in range(30):
                with pytest.raises(RootWaitsError):
                    half.adopt_charter(data, passed(half, world.clock.now_ns()))
                world.clock.advance(DAY_S)
            assert half.adopt_charter(data, passed(half, world.clock.now_ns()))
        half.close()

    async def test_a_provider_takes_no_charter_under_the_new_root_before_its_own_days_are_over(
        self, world: World
    ) -> None:
        await announce(world)
        days(world, 29)
        with keeping(world) as (keeper, _):
            old = keeper.charter
            assert old.pending is not None
            keeper.adopt_charter(
                sign_charter(
                    owner=keeper.owner(),
                    member_key=keeper.member.member_key,
                    previous=old.hash,
                    number=old.number + 1,
                    root=old.pending.successor_signed,
                    rights=old.charter.rights,
                    keybag=old.charter.keybag,
                    private=keeper.private,
                    tenant=keeper.tenant,
                    handovers=[old.pending.signed],
                    edge=world.edge,
                ),
                [old.pending.hash],
            )
            async with Federation(keeper, world.edge) as federation:
                assert len(federation.notices) == 5
                for link in federation.links.values():
                    with pytest.raises(RefusedError, match="thirty days") as caught:
                        await federation.give_charter(link)
                    assert caught.value.code == "conflict"

    async def test_it_cannot_go_back_to_an_owner_that_root_has_replaced(self, world: World) -> None:
        """The key of an owner that root has put away announces a root that follows the statement that named it."""
        with keeping(world) as (keeper, siblings):
            stolen, before = keeper.owner(), keeper.charter
            await rotate_owner(keeper, siblings, world.edge, old_words(world))
            thief = SigningKey(SeededRng("thief").bytes(32))
            statement = msgspec.structs.replace(
                before.root,
                number=before.root.number + 1,
                previous=signed_hash(before.charter.root),
                root_key=thief.public,
            )
            change = self._change(stolen, before.charter.root, statement, thief)
            second = msgspec.structs.replace(statement, number=9, previous=bytes(32))
            data = sign_charter(
                owner=stolen,
                member_key=keeper.member.member_key,
                previous=bytes(32),
                number=keeper.charter.number + 9,
                root=thief.sign(Context.ROOT_STATEMENT, encode(second)),
                rights=before.charter.rights,
                keybag=before.charter.keybag,
                private=keeper.private,
                tenant=keeper.tenant,
                handovers=[change],
                edge=world.edge,
            )
            with pytest.raises(IntegrityError, match="older than one that was seen before"):
                siblings[0].adopt_charter(data, [signed_hash(change)])

    @pytest.mark.parametrize("field", ["owner_seed", "member_key"])
    async def test_a_keybag_that_does_not_fit_its_charter_makes_no_home_and_hides_no_good_one(
        self, world: World, field: str
    ) -> None:
        """Anybody can seal something to root's public key."""
        for number in range(1, 5):
            world.silence(number)
        with keeping(world) as (keeper, _):
            bag = msgspec.structs.replace(keeper.keybag(), **{field: SeededRng("thief").bytes(32)})
            seal_key, good = keeper.charter.root.root_seal_key, keeper.charter.number
            keeper.write_charter(world.edge, keybag_data=seal_keybag(bag, seal_key, world.rng))
            await meet(keeper, world)
        for number in range(1, 5):
            world.answer(number)
        home = os.path.join(world.root, "recovered")
        address = f"somewhere.example:7144/{world.identity(0).hex()}"
        with pytest.raises(IntegrityError):
            await recover(home, world.edge, words=old_words(world), addresses=[address], passphrase=NEW)
        assert not has_half(home, "keeper")
        half = world.keeper(await recovered(world, old_words(world)), NEW)
        assert (half.charter.number, half.owner().public) == (good + 3, half.charter.root.owner_key)
        half.close()

    async def test_only_root_objects(self, world: World) -> None:
        await announce(world)
        with keeping(world) as (keeper, _):
            with pytest.raises(KeyWrongError):
                await object_root(keeper, world.edge, to_words(new_secret(SeededRng("other"))))
            assert all(not one.objected for one in announced(keeper, {}, world.clock.now_ns()))


async def test_a_machine_that_joins_during_the_wait_hears_of_it(world: World) -> None:
    await announce(world)
    home = await joined(world, "node", "late")
    half = opened(home, "node")
    await meet(half, world)
    [told] = announced(half, {}, world.clock.now_ns())
    assert told.heard_ns == world.clock.now_ns()
    half.close()


def test_a_keybag_sealed_to_two_roots_opens_with_either_and_no_other() -> None:

    roots = [root_of(SeededRng(name).bytes(32)) for name in ("one", "two", "three")]
    keys = [public_of(root.seal_private) for root in roots]
    data = seal_keybag(KEYBAG, keys[0], SeededRng("keybag"), keys[1])
    assert open_keybag(roots[0], data) == open_keybag(roots[1], data) == KEYBAG
    with pytest.raises(KeyWrongError):
        open_keybag(roots[2], data)
    with pytest.raises(KeyWrongError):
        open_keybag(roots[1], seal_keybag(KEYBAG, keys[0], SeededRng("keybag")))
