"""Keepers, nodes and strangers: who can come back from paper, who is shut out, and what lies on a node's disk."""

import os
import shutil
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from replicator.crypto.recovery import from_words, new_secret, root_of, to_words
from replicator.crypto.sign import SigningKey
from replicator.engine import tenant
from replicator.engine.federation import Federation
from replicator.engine.keeper import DOMAIN_LABEL, MAINTENANCE_LABEL, OWNER_LABEL, unwrap_record_bytes
from replicator.engine.members import accept_grant, add_node, add_peer, request_node, revoke_node
from replicator.engine.recover import Recovered, recover
from replicator.engine.tenant import create_tenant, seal_keybag
from replicator.engine.usage import usage
from replicator.errors import (
    HomeError,
    IntegrityError,
    KeyMissingError,
    KeyWrongError,
    MinimumNotMetError,
    NotFoundError,
    RefusedError,
    ReplicatorError,
    UnreachableError,
)
from replicator.format.codec import decode
from replicator.format.keybag import DomainKeyFile, Keybag
from replicator.ids import Identity
from replicator.rng import Rng
from replicator.wire.messages import Info
from tests.fakes import SeededRng
from tests.scenarios.liars import Liar, changed
from tests.scenarios.world import PASSPHRASE, PLACES, World, read
from tests.scenarios.world import write as write_file

DAY = 86400


def words(world: World) -> list[str]:
    assert world.tenant is not None
    return world.tenant.words


async def from_paper(world: World, number: int, home: str) -> Recovered:
    """Recover from one provider's address."""
    return await recover(
        home,
        world.edge,
        words=words(world),
        addresses=[f"somewhere.example:7144/{world.identity(number).hex()}"],
        passphrase="a new passphrase",
    )


async def restored_with(world: World, home: str, source: str) -> list[str]:
    keeper, world.keeper = world.keeper, lambda *_: keeper(home, "a new passphrase")  # type: ignore[method-assign]
    try:
        return await world.differences(source, home=home)
    finally:
        world.keeper = keeper  # type: ignore[method-assign]


@pytest.mark.parametrize("number", range(5))
async def test_everything_comes_back_from_the_sheet_and_any_one_address(number: int, world: World, source: str) -> None:
    await world.backup()
    shutil.rmtree(world.home)
    home = os.path.join(world.root, "recovered")
    found = await from_paper(world, number, home)
    assert (found.peers, found.unreachable) == (5, [])
    assert await restored_with(world, home, source) == []


@pytest.mark.parametrize("number", range(3))
async def test_any_one_living_provider_of_three_gives_everything_back(
    number: int, worlds: Callable[[int], World]
) -> None:
    world = worlds(3)
    source = world.small_dataset()
    await world.backup()
    world.silence(*(other for other in range(3) if other != number))
    home = os.path.join(world.root, "recovered")
    found = await from_paper(world, number, home)
    assert (found.peers, len(found.unreachable)) == (1, 2)
    assert await restored_with(world, home, source) == []


async def test_a_provider_that_missed_a_night_still_gives_the_newest(world: World, source: str) -> None:
    """It lacks an old snapshot in the middle of the chain: that must not hide the others."""
    await world.backup()
    write_file(os.path.join(source, "two"), b"two")
    await world.backup()
    write_file(os.path.join(source, "three"), b"three")
    await world.backup()
    node = world.node()
    second = next(row for row in node.catalog.snapshots.all() if row.number == 2)
    node.close()
    for number in range(5):
        os.unlink(os.path.join(world.objects(number), second.name.hex()))
    home = os.path.join(world.root, "recovered")
    await from_paper(world, 0, home)
    assert await restored_with(world, home, source) == []
    assert (await world.repair()).exit_code in {3, 4, 5}


async def test_a_recovered_keeper_shuts_the_old_one_out_and_nodes_go_on(world: World, source: str) -> None:
    await world.backup()
    home = os.path.join(world.root, "recovered")
    await from_paper(world, 0, home)
    assert await world.snapshots() == []
    keeper = world.keeper()
    async with Federation(keeper, world.edge, ticket=lambda _: keeper.ticket()) as federation:
        assert federation.links == {}
        assert all("revoked" in str(error) for error in federation.failures.values())
    keeper.close()
    assert (await world.backup()).datasets[0].published
    assert await restored_with(world, home, source) == []


async def test_a_recovered_home_is_a_node_of_its_own(world: World, source: str) -> None:
    await world.backup()
    home = os.path.join(world.root, "recovered")
    await from_paper(world, 0, home)
    world.add_dataset("docs", source, home=home)
    assert (await world.backup(home=home)).datasets[0].published
    assert (await world.status(home)).exit_code == 0


@pytest.mark.parametrize("address", ["nowhere", "host:port", "host:1/zz", "host:1/" + "0" * 64])
async def test_an_address_that_is_none_or_does_not_answer_is_a_clear_error(address: str, world: World) -> None:
    with pytest.raises(ReplicatorError):
        await recover(
            os.path.join(world.root, "x"), world.edge, words=words(world), addresses=[address], passphrase=PASSPHRASE
        )
    assert "x" not in os.listdir(world.root)


async def test_words_with_a_mistake_are_refused_before_anybody_is_asked(world: World, source: str) -> None:
    await world.backup()
    world.network.faults = lambda *_: pytest.fail("somebody was asked")
    other = "academic" if words(world)[0] != "academic" else "acid"
    for wrong in (words(world)[:-1], [other, *words(world)[1:]], [*words(world)[:-1], "xyzzy"], []):
        with pytest.raises(KeyWrongError):
            await recover(
                os.path.join(world.root, "x"),
                world.edge,
                words=wrong,
                addresses=[f"a.example:1/{world.identity(0).hex()}"],
                passphrase=PASSPHRASE,
            )


async def test_words_of_another_sheet_find_no_tenant(world: World, source: str) -> None:
    await world.backup()
    with pytest.raises(NotFoundError, match="no tenant with this sheet"):
        await recover(
            os.path.join(world.root, "x"),
            world.edge,
            words=to_words(new_secret(SeededRng("another"))),
            addresses=[f"a.example:1/{world.identity(0).hex()}"],
            passphrase=PASSPHRASE,
        )


async def test_recovery_needs_an_empty_home(world: World) -> None:
    with pytest.raises(HomeError, match="there is a keeper here already"):
        await from_paper(world, 0, world.home)


async def test_a_wrong_passphrase_opens_nothing_and_changes_nothing(world: World, source: str) -> None:
    await world.backup()
    keeper = world.keeper(passphrase="not it at all")
    number = keeper.charter.number
    with pytest.raises(KeyWrongError):
        keeper.owner()
    with pytest.raises(KeyWrongError):
        keeper.reader(keeper.member.domains[0].id)
    with pytest.raises(KeyWrongError):
        await revoke_node(keeper, [], world.edge, "testhost")
    with pytest.raises(KeyWrongError):
        await add_peer(keeper, [], world.edge, world.opened[0].invite(quota=10, label=""), name="x", own=False)
    assert keeper.charter.number == number
    keeper.close()


# invites


async def invited(world: World, code: str) -> None:
    keeper, node = world.keeper(), world.node()
    try:
        await add_peer(keeper, [node], world.edge, code, name=None, own=False)
    finally:
        keeper.close()
        node.close()


async def test_an_invite_works_once(worlds: Callable[[int], World]) -> None:
    world, other = worlds(0), worlds(1)
    code = other.start_provider(1).invite(quota=10**6, label="")
    await invited(other, code)
    world.network.add(other.services[1])
    with pytest.raises(RefusedError, match="used already") as caught:
        await invited(world, code)
    assert caught.value.code == "spent"
    keeper = world.keeper()
    assert keeper.peers == []
    keeper.close()


async def test_an_invite_whose_answer_was_lost_can_be_used_again_by_who_used_it(world: World) -> None:
    code = world.start_provider(5).invite(quota=10**6, label="")
    lost = [True]

    def lose(_identity: Identity, op: str, phase: str) -> None:
        if (op, phase) == ("enrol", "after") and lost:
            lost.clear()
            raise UnreachableError("frank", "the connection broke")

    world.network.faults = lose
    with pytest.raises(UnreachableError):
        await invited(world, code)
    await invited(world, code)
    keeper = world.keeper()
    assert len(keeper.peers) == 6
    keeper.close()


async def test_an_invite_expires(world: World) -> None:
    code = world.start_provider(5).invite(quota=10**6, label="")
    world.clock.advance(8 * DAY)
    with pytest.raises(KeyWrongError, match="expired"):
        await invited(world, code)


@pytest.mark.parametrize("change", ["cut", "letter", "another kind", "text"])
async def test_an_invite_that_was_mistyped_is_refused_before_anybody_is_asked(change: str, world: World) -> None:
    code = world.start_provider(5).invite(quota=10**6, label="")
    middle = len(code) // 2
    wrong = {
        "cut": code[:-1],
        "letter": code[:middle] + ("a" if code[middle] != "a" else "b") + code[middle + 1 :],
        "another kind": request_node(os.path.join(world.root, "n"), world.edge, name="n"),
        "text": "an invite",
    }[change]
    world.network.faults = lambda *_: pytest.fail("somebody was asked")
    with pytest.raises(KeyWrongError):
        await invited(world, wrong)


async def test_an_invite_of_a_provider_that_does_not_answer_stays_good(world: World) -> None:
    code = world.start_provider(5).invite(quota=10**6, label="")
    world.silence(5)
    with pytest.raises(UnreachableError):
        await invited(world, code)
    world.answer(5)
    await invited(world, code)


# charters


async def test_a_provider_that_shows_an_older_charter_is_given_the_newer_one(world: World, source: str) -> None:
    await world.backup()
    folder = os.path.join(world.root, "provider-2", "provider")
    world.stop_provider(2)
    shutil.copy2(os.path.join(folder, "provider.db"), os.path.join(folder, "older"))
    world.start_provider(2)
    await world.add_peer(world.start_provider(5))
    node = world.node()
    number = node.charter.number
    node.close()
    world.stop_provider(2)
    os.replace(os.path.join(folder, "older"), os.path.join(folder, "provider.db"))
    world.start_provider(2)
    await world.backup()
    node = world.node()
    assert node.charter.number == number
    async with Federation(node, world.edge) as federation:
        assert {link.info.charter_number for link in federation.links.values()} == {number}
        assert len(federation.links) == 6
    node.close()


async def test_a_provider_that_claims_a_newer_charter_and_shows_an_older_one_is_reported(
    world: World, source: str
) -> None:
    await world.backup()
    more = changed("info", Info, lambda info: msgspec.structs.replace(info, charter_number=info.charter_number + 5))
    world.network.add(Liar(world.services[2], ops=more))
    node = world.node()
    number = node.charter.number
    node.close()
    await world.status()
    node = world.node()
    assert node.charter.number == number
    node.close()


async def test_another_charter_of_the_same_number_is_an_integrity_failure(world: World, source: str) -> None:
    await world.backup()
    copy = os.path.join(world.root, "clone")
    shutil.copytree(world.home, copy)
    world.silence(0, 1, 2)
    keeper = world.keeper(copy)
    await revoke_node(keeper, [], world.edge, "testhost")
    keeper.close()
    world.silence(3, 4)
    world.answer(0, 1, 2)
    keeper, node = world.keeper(), world.node()
    keeper.write_charter(world.edge)
    async with Federation(keeper, world.edge):
        pass
    node.adopt_charter(keeper.charter_object()[1])
    keeper.close()
    node.close()
    world.answer(3, 4)
    found = await world.status(keeper=True)
    assert found.exit_code == 4
    assert any("charter" in line for line in found.problems)
    found = await world.status()
    # Whoever follows the other charter refuses this node: silence that counts as an outage until it has lasted a week.
    assert found.exit_code == 3
    refusing = [one.name for one in found.peers if any("has revoked this key" in line for line in one.problems)]
    assert refusing == ["dave", "erin"]


# nodes


async def test_a_revoked_node_is_refused_everywhere(world: World, source: str) -> None:
    await world.backup()
    keeper = world.keeper()
    assert await revoke_node(keeper, [], world.edge, "testhost") == []
    keeper.close()
    world.clock.advance(60)
    report = await world.backup()
    assert isinstance(report.datasets[0].error, MinimumNotMetError)
    assert len(report.unreachable) == 5
    assert all("revoked" in line for line in report.unreachable)
    assert len(await world.snapshots()) == 1
    assert await world.differences(source) == []


async def test_a_node_that_asks_for_nothing_new_gets_the_same_code(world: World) -> None:
    home = os.path.join(world.root, "second")
    assert request_node(home, world.edge, name="second") == request_node(home, world.edge, name="other")


async def test_a_grant_is_good_for_the_machine_that_asked_alone(world: World) -> None:
    first, second = (os.path.join(world.root, name) for name in ("first", "second"))
    code = request_node(first, world.edge, name="first")
    request_node(second, world.edge, name="second")
    keeper = world.keeper()
    added = await add_node(keeper, [], world.edge, code)
    keeper.close()
    with pytest.raises((KeyWrongError, IntegrityError)):
        accept_grant(second, world.edge, added.code)
    accept_grant(first, world.edge, added.code)


async def test_a_node_alone_can_do_its_work_and_read_nothing(world: World, source: str) -> None:
    """Its half of the home is copied to a machine of its own; everything else is gone."""
    await world.backup()
    home = os.path.join(world.root, "alone")
    shutil.copytree(os.path.join(world.home, "node"), os.path.join(home, "node"))
    os.rename(world.home, os.path.join(world.root, "in a safe"))
    write_file(os.path.join(source, "more"), b"more")
    assert (await world.backup(home=home)).datasets[0].published
    world.home = home
    for path in world.stored(2):
        os.unlink(path)
    assert (await world.status()).exit_code != 0
    assert (await world.repair()).exit_code == 0
    assert (await world.status()).exit_code == 0
    report = await world.verify()
    assert (report.problems, report.absent) == ([], [])
    with pytest.raises(KeyMissingError, match="no keeper"):
        world.keeper()
    world.home = os.path.join(world.root, "in a safe")
    assert await world.differences(source) == []


async def test_no_byte_of_a_keepers_keys_is_on_a_node(world: World, source: str) -> None:
    await world.backup()
    await world.snapshots()
    folder = os.path.join(world.home, "keeper")
    secrets: dict[str, bytes] = {}
    for name in os.listdir(folder):
        if name.endswith(".key"):
            data = read(os.path.join(folder, name))
            secrets[f"wrapped {name}"] = data
            secrets[f"end of wrapped {name}"] = data[-48:]
            label = {"owner.key": OWNER_LABEL, "maintenance.key": MAINTENANCE_LABEL}.get(
                name,
                DOMAIN_LABEL + bytes.fromhex(name.removeprefix("domain-").removesuffix(".key") or "")
                if name.startswith("domain-")
                else b"",
            )
            secret = unwrap_record_bytes(PASSPHRASE, data, label)
            if name.startswith("domain-"):
                secret = decode(DomainKeyFile, secret).secrets.restore_private
            assert len(secret) == 32
            secrets[f"unwrapped {name}"] = secret
    secrets["keeper's identity"] = read(os.path.join(folder, "identity.seed"))
    root = root_of(from_words(words(world)))
    secrets["recovery secret"] = from_words(words(world))
    secrets["root signing"] = root.signing.seed()
    secrets["root sealing"] = root.seal_private
    secrets["passphrase"] = PASSPHRASE.encode()
    secrets["words"] = " ".join(words(world)[:3]).encode()
    assert len(secrets) >= 14
    looked_at = 0
    for where, _, names in os.walk(os.path.join(world.home, "node")):
        for name in names:
            data = read(os.path.join(where, name))
            looked_at += 1
            for what, secret in secrets.items():
                for form in (secret, secret.hex().encode(), secret[::-1]):
                    assert form not in data, f"{what} is in {name}"
    assert looked_at >= 7
    assert SigningKey(secrets["unwrapped owner.key"]).public


async def test_a_node_half_is_private_to_its_user(world: World, source: str) -> None:
    await world.backup()
    path = os.path.join(world.home, "node", "member.bin")
    os.chmod(path, 0o644)
    with pytest.raises(HomeError, match="others can read it"):
        world.node()


async def test_a_home_of_a_newer_format_is_refused(world: World) -> None:
    for half in ("node", "keeper"):
        path = os.path.join(world.home, half, "home.json")
        write_file(path, read(path).replace(b'"format": 1', b'"format": 2'))
    for opening in (world.node, world.keeper):
        with pytest.raises(HomeError, match="a home of format 2, this release knows format 1"):
            opening()


def test_words_that_do_not_open_what_is_sealed_to_them_make_no_tenant(
    fresh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(fresh, providers=0)
    changed: list[dict[str, Any]] = [{"domains": []}, {"owner_seed": bytes(32)}]
    for wrong in changed:

        def seal(bag: Keybag, key: bytes, rng: Rng, changes: dict[str, Any] = wrong) -> bytes:
            return seal_keybag(msgspec.structs.replace(bag, **changes), key, rng)

        monkeypatch.setattr(tenant, "seal_keybag", seal)
        with pytest.raises(IntegrityError, match="do not open what is sealed to them"):
            create_tenant(world.home, world.edge, name="x", country="SE", passphrase=PASSPHRASE, keeper_only=False)
        assert not os.path.exists(world.home)


async def test_two_charters_of_one_number_are_told_and_both_kept(world: World) -> None:
    keeper = world.keeper()
    before = (keeper.charter, keeper.private, keeper.charter_object()[1])
    # A copy of the keeper, or whoever stole the owner key, wrote another one of the next number.
    rival = keeper.write_charter(world.edge, private=msgspec.structs.replace(keeper.private, name="rival"))
    hashes = {keeper.charter.hash}
    world.silence(1, 2, 3, 4)
    async with Federation(keeper, world.edge):
        pass
    world.answer(1, 2, 3, 4)
    world.silence(0)
    keeper.charter, keeper.private, data = before
    write_file(keeper.file("charter.obj"), data)
    own = keeper.write_charter(world.edge, private=msgspec.structs.replace(keeper.private, name="own"))
    hashes.add(keeper.charter.hash)
    async with Federation(keeper, world.edge):
        pass
    world.answer(0)
    for _ in range(2):
        async with Federation(keeper, world.edge) as federation:
            assert any("two different charters have the number" in one for one in federation.integrity)
    kept = [one for one in os.listdir(keeper.path) if one.startswith("charter-fork-")]
    assert {read(keeper.file(one)) for one in kept} == {rival, own}
    assert {one.rpartition("-")[2][:16] for one in kept} == {one.hex()[:16] for one in hashes}
    keeper.close()


async def test_providers_say_what_they_kept_took_and_gave_and_who_does_not_answer_is_named(
    world: World, source: str
) -> None:
    await world.backup()
    world.silence(4)
    node = world.node()
    try:
        found = await usage(node, world.edge)
        assert set(found.silent) == {PLACES[4][0]}
        for number in range(4):
            [month] = found.months[PLACES[number][0]]
            assert month.taken >= month.kept == world.used(number)
            assert month.month == "2040-01"
    finally:
        node.close()
