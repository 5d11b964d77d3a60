"""Recovering where providers do not show the same: older charters, two of one number, useless keybags, a new root."""

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from replicator.charter.chain import check_finding
from replicator.crypto.recovery import from_words, root_of
from replicator.crypto.sign import SigningKey
from replicator.engine.answers import Answer
from replicator.engine.federation import Federation
from replicator.engine.findings import Findings
from replicator.engine.keeper import KeeperHome
from replicator.engine.keys import rotate_index, rotate_owner
from replicator.engine.recover import ROUNDS, Recovered, _ask_all, recover
from replicator.engine.tenant import seal_keybag
from replicator.errors import KeyWrongError
from replicator.fs import PosixFs
from replicator.ids import root_fingerprint
from replicator.transport.base import Target
from replicator.wire.messages import Empty, Info
from tests.fakes import SeededRng
from tests.scenarios.joining import keeping
from tests.scenarios.test_leaks import stolen_copy
from tests.scenarios.test_succession import announce, days, finish, handed_over
from tests.scenarios.world import World

NEW = "another passphrase"


def address(world: World, number: int) -> str:
    return f"somewhere.example:7144/{world.identity(number).hex()}"


async def from_paper(world: World, *numbers: int, words: list[str] | None = None) -> tuple[Recovered, KeeperHome]:
    """Recover from these providers' addresses; the caller closes the home."""
    assert world.tenant is not None
    first, *others = [address(world, number) for number in numbers]
    home = os.path.join(world.root, f"recovered-{world.rng.bytes(4).hex()}")
    words = words or world.tenant.words
    found = await recover(home, world.edge, words=words, addresses=[first, *others], passphrase=NEW)
    return found, KeeperHome(home, PosixFs(), lambda _: NEW)


async def charters(world: World, keeper: KeeperHome) -> set[int]:
    """Return the numbers of the charters that providers have."""
    async with Federation(keeper, world.edge) as federation:
        infos = [await link.connection.call("info", Empty(), Info) for link in federation.links.values()]
        return {info.charter_number for info in infos}


async def test_an_address_that_works_with_a_thief_of_the_former_owner_key_does_not_bring_his_charter_back(
    world: World,
) -> None:
    """Root has named another owner since; his charters go on, with numbers as high as he likes, at one provider."""
    thief = world.keeper(stolen_copy(world, "keeper"))
    world.silence(0)
    with keeping(world) as (keeper, siblings):
        assert world.tenant is not None
        await rotate_owner(keeper, siblings, world.edge, world.tenant.words)
        owner, number = keeper.owner().public, keeper.charter.number
    world.silence(1, 2, 3, 4)
    world.answer(0)
    for _ in range(4):
        await rotate_index(thief, [], world.edge)
    assert thief.charter.number > number
    thief.close()
    world.answer(1, 2, 3, 4)
    found, home = await from_paper(world, 0)
    assert home.owner().public == home.charter.root.owner_key == owner
    assert home.charter.root.number == 2
    assert any(line.startswith("alice: ") and "by an owner that root has replaced" in line for line in found.notices)
    assert found.integrity == []
    assert (found.peers, found.gaps) == (5, [])
    assert await charters(world, home) == {found.charter_number}, "the liar too, as the number is above the thief's"
    home.close()


async def test_who_shows_an_older_charter_is_named_with_both_numbers(world: World) -> None:
    world.silence(0)
    with keeping(world) as (keeper, siblings):
        await rotate_index(keeper, siblings, world.edge)
        number = keeper.charter.number
    world.answer(0)
    found, home = await from_paper(world, 0)
    [line] = [line for line in found.notices if "shows charter" in line]
    assert f"shows charter {number - 1}; the newest that anybody shows is {number}" in line
    shown = {one.name: one.number for one in found.shown}
    assert shown == {"alice": number - 1} | dict.fromkeys(["bob", "carol", "dave", "erin"], number)
    assert (found.charter_number, found.gaps, found.integrity) == (number + 1, [], [])
    home.close()


async def test_a_charter_that_one_provider_alone_shows_is_said_to_be_so(world: World) -> None:
    world.silence(1, 2, 3, 4)
    found, home = await from_paper(world, 0)
    home.close()
    assert found.gaps == []
    assert any("only alice could be asked" in line for line in found.notices)
    world.answer(1)
    found, home = await from_paper(world, 0)
    home.close()
    assert not any("could be asked" in line for line in found.notices)


async def test_another_address_finds_what_the_first_one_does_not_name(worlds: Callable[[int], World]) -> None:
    """The first has a charter of before the second came."""
    world = worlds(1)
    world.silence(0)
    await world.add_peer(world.start_provider(1))
    world.answer(0)
    keeper = world.keeper()
    number = keeper.charter.number
    keeper.close()
    found, home = await from_paper(world, 0, 1)
    home.close()
    assert (len(found.shown), found.charter_number) == (2, number + 1)


async def test_two_charters_of_one_number_are_evidence_and_stop_no_recovery(world: World) -> None:
    thief = world.keeper(stolen_copy(world, "keeper"))
    world.silence(2, 3, 4)
    await rotate_index(thief, [], world.edge)
    world.answer(2, 3, 4)
    world.silence(0, 1)
    with keeping(world) as (keeper, siblings):
        await rotate_index(keeper, siblings, world.edge)
        chosen, owner = keeper.charter, keeper.owner().identity
    assert thief.charter.number == chosen.number
    thief.close()
    world.answer(0, 1)
    found, home = await from_paper(world, 0)
    [line] = found.integrity
    assert "somebody else signs with the owner key" in line
    assert "key rotate owner" in line
    [kept] = Findings(home).all()
    assert (kept.finding.kind, kept.finding.writer, kept.finding.number) == ("charters", owner, chosen.number)
    check_finding(kept.finding)
    assert home.charter.charter.previous == chosen.hash, "what more providers show"
    assert found.charter_number == chosen.number + 2
    assert await charters(world, home) == {found.charter_number}, "of either branch, as a number was left out"
    home.close()


async def test_a_keybag_of_no_use_in_the_newest_charter_is_told_and_the_one_before_is_gone_on_from(
    world: World,
) -> None:
    world.silence(1, 2, 3, 4)
    with keeping(world) as (keeper, _):
        good = keeper.charter.number
        bag = msgspec.structs.replace(keeper.keybag(), owner_seed=SeededRng("thief").bytes(32))
        data = seal_keybag(bag, keeper.charter.root.root_seal_key, world.rng)
        keeper.write_charter(world.edge, keybag_data=data)
        async with Federation(keeper, world.edge):
            pass
    world.answer(1, 2, 3, 4)
    found, home = await from_paper(world, 1)
    assert any(f"nobody has a keybag for charter {good + 1} that opens" in line for line in found.integrity)
    assert any(line.startswith("alice: keybag:") for line in found.integrity)
    assert found.charter_number == good + 3
    assert await charters(world, home) == {good + 3}
    assert home.owner().public == home.charter.root.owner_key
    home.close()


async def test_a_sheet_that_was_replaced_says_which_one_is_the_new_one_and_since_when(world: World) -> None:
    words = await handed_over(world)
    with pytest.raises(KeyWrongError) as caught:
        await from_paper(world, 1)
    assert root_fingerprint(root_of(from_words(words)).signing.public) in caught.value.message
    assert "another was announced on 2040-01-01" in caught.value.message
    assert "recover with it" in caught.value.hint
    found, home = await from_paper(world, 1, words=words)
    home.close()
    assert (found.gaps, found.integrity) == ([], [])


async def test_a_provider_that_missed_the_change_does_not_hide_that_the_sheet_was_replaced(world: World) -> None:
    world.silence(4)
    await announce(world)
    days(world, 30)
    assert await finish(world) == ["erin: no endpoint answers"]
    world.answer(4)
    found, home = await from_paper(world, 4)
    home.close()
    assert sum("this sheet was replaced" in line for line in found.gaps) == 4
    assert found.integrity == []


async def test_what_is_written_after_a_recovery_is_closed_to_the_keeper_that_it_shuts_out(
    world: World, source: str
) -> None:
    """Index keys lie in an earlier keeper's home without a passphrase."""
    await world.backup()
    lost = stolen_copy(world, "keeper")
    found, home = await from_paper(world, 0)
    assert sorted(home.keys().index_keys) == [1, 2]
    assert home.private.domains[0].epoch == 2
    assert found.integrity == []
    home.close()
    thief = KeeperHome(lost, PosixFs(), lambda _: pytest.fail("it is not known"))
    async with Federation(thief, world.edge):
        assert sorted(thief.keys().index_keys) == [1]
    thief.close()
    assert (await world.backup()).datasets[0].published
    node = world.node()
    assert sorted(node.keys().index_keys) == [1, 2]
    node.close()


async def test_charters_that_name_ever_more_providers_end_no_recovery(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever had the owner key once can sign one for each provider that he makes up."""
    asked: list[Target] = []

    async def ask(_edge: object, _root: object, target: Target) -> Answer:
        asked.append(target)
        assert len(asked) < 1000, "without end"
        charter: Any = object()
        bag: Any = SimpleNamespace(member_key=b"")
        return Answer(name=target.name, identity=target.identity, charter=charter, bag=bag)

    def another(*_: object) -> Any:
        pin = SimpleNamespace(identity=len(asked).to_bytes(32), name="x", endpoints=["x.example:1"])
        return SimpleNamespace(peers=[pin])

    monkeypatch.setattr("replicator.engine.recover._ask", ask)
    monkeypatch.setattr("replicator.engine.recover.open_private", another)
    assert world.tenant is not None
    root = root_of(from_words(world.tenant.words))
    key = SigningKey(bytes(32))
    answers = await _ask_all(world.edge, root, key, [("x.example:1", world.identity(0))])
    assert len(asked) == ROUNDS + 1
    assert "ever more providers" in str(answers[-1].error)
