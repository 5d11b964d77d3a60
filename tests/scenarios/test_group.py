"""Groups of friends: nobody is in charge, one code a person, and nothing that anybody says gives rights over data."""

import dataclasses
import os
from collections.abc import Callable, Iterator

import msgspec
import pytest

from replicator.catalog.snapshots import Dataset
from replicator.charter.group import Voice
from replicator.crypto.sign import Context, SigningKey
from replicator.engine.backup import backup
from replicator.engine.browse import Library
from replicator.engine.federation import Federation
from replicator.engine.groups import GROUP_FILE
from replicator.engine.joining import (
    candidates,
    codes,
    expel,
    find_member,
    in_group,
    invite,
    join,
    leave,
    look,
    new_group,
    read_group_code,
    revoke_code,
    same_household,
)
from replicator.engine.members import add_peer
from replicator.engine.node import NodeHome
from replicator.engine.restore import restore
from replicator.engine.status import status
from replicator.errors import NotFoundError, PeerError, RefusedError, UnreachableError, UsageError
from replicator.format.codec import decode, encode
from replicator.format.codes import write_code
from replicator.format.group import Fact, Member
from replicator.ids import Identity
from replicator.provider.groups import declared_member
from replicator.transport.handler import RequestRefusedError, Session
from replicator.wire.messages import EnrolRequest, GroupReply
from tests.scenarios.friends import GB, Friend, Friends
from tests.scenarios.liars import Liar
from tests.scenarios.world import PROMISE, read, write

DAY = 86400


@pytest.fixture
def friends(fast_folder: str, fresh: str) -> Iterator[Friends]:
    everybody = Friends(fresh, os.path.join(fast_folder, "friends"))
    yield everybody
    everybody.close()


def found(friend: Friend) -> None:
    with friend.here() as here:
        new_group(here, name="friends", called=friend.name)


async def hear(friend: Friend) -> list[str]:
    with friend.here() as here:
        return await look(here)


async def put_out(friend: Friend, name: str, reason: str = "") -> None:
    with friend.here() as here:
        known, own, _ = in_group(here)
        await expel(here, find_member(known.members((own,)), name), reason=reason)


async def go(friend: Friend) -> None:
    with friend.here() as here:
        await leave(here)


def used_and_quota(holder: Friend, tenant: Friend) -> tuple[int, int]:
    """Return what a tenant uses at somebody's provider, and what it may."""
    assert holder.provider is not None
    with tenant.here() as here:
        assert here.keeper is not None
        wanted = here.keeper.tenant.hex()
    [row] = [one for one in holder.provider.status()["tenants"] if one["id"] == wanted]
    return row["used"], row["quota"]


async def advised(friend: Friend) -> list[str]:
    """Return what `status` says is to do about the group, on the node and offline."""
    with friend.here() as here:
        found = await status(here.siblings[0], friend.edge, offline=True)
    return [one for one in found.advice if "friends" in one]


async def three(friends: Friends) -> tuple[Friend, Friend, Friend]:
    """Alice founds, Bob comes by her code, Carol by Bob's; everybody takes everybody's disk."""
    alice, bob, carol = (friends.add(name) for name in ("alice", "bob", "carol"))
    found(alice)
    assert (await bob.joins(await alice.invites())).failures == {}
    assert (await carol.joins(await bob.invites())).failures == {}
    await hear(alice)
    assert (await alice.accepts()).failures == {}
    assert (await bob.accepts()).failures == {}
    return alice, bob, carol


async def stores(friend: Friend, text: bytes = b"dear reader\n" * 999) -> None:
    """Back up a small folder to everybody."""
    folder = os.path.join(friend.home, "letters")
    write(os.path.join(folder, "letter"), text)
    friend.clock.advance(60)
    with friend.here() as here:
        [node] = here.siblings
        assert isinstance(node, NodeHome)
        if not node.catalog.datasets.all():
            policy = msgspec.structs.replace(PROMISE, copies=2, minimum=1, spread=["owner"])
            node.catalog.datasets.add(
                Dataset(
                    name="letters",
                    roots=(os.fsencode(folder),),
                    policy=policy,
                    exclude=(),
                    one_file_system=False,
                    created_ns=friend.clock.now_ns(),
                )
            )
        await backup(node, friend.edge, ())


async def test_three_people_from_nothing_keep_for_each_other(friends: Friends) -> None:
    alice, bob, carol = await three(friends)
    everybody = {"alice": "in", "bob": "in", "carol": "in"}
    assert alice.members() == bob.members() == carol.members() == everybody
    assert (alice.peers(), bob.peers(), carol.peers()) == (["bob", "carol"], ["alice", "carol"], ["alice", "bob"])
    for friend in (alice, bob, carol):
        with friend.here() as here:
            assert here.keeper is not None
            quotas = [here.keeper.catalog.peers.get(Identity(pin.identity)).quota for pin in here.keeper.peers]
        assert quotas == [GB, GB]


async def test_a_new_member_appears_to_all_at_their_next_contact_and_is_nobodys_peer_unasked(friends: Friends) -> None:
    alice, bob, carol = await three(friends)
    dave = friends.add("dave")
    await dave.joins(await carol.invites())
    said = [line for line in await hear(bob) if "dave" in line]
    assert said == [
        "friends: 'dave' has joined, invited by 'carol'; `replicator group accept` shows the disk that it offers"
    ]
    assert (bob.members()["dave"], bob.peers()) == ("in", ["alice", "carol"])
    assert [line for line in await hear(bob) if "dave" in line] == []
    assert await advised(bob) == ["dave of 'friends' offer disk: `replicator group accept` shows it, on the keeper"]
    await go(alice)
    await hear(bob)
    assert (await advised(bob))[1] == (
        "'alice' has left 'friends': `replicator peer set alice --state draining` has its copies made elsewhere"
    )
    await hear(alice)
    assert await advised(alice) == ["this tenant is not in 'friends' any more: bob, carol take nothing new of it"]


async def test_the_night_of_a_node_hears_of_it_too(friends: Friends) -> None:
    _, bob, carol = await three(friends)
    await friends.add("dave").joins(await carol.invites())
    with bob.here() as here:
        async with Federation(here.siblings[0], bob.edge) as federation:
            assert any("'dave' has joined" in line for line in federation.notices)


async def test_the_founder_may_vanish(friends: Friends) -> None:
    alice, bob, carol = await three(friends)
    friends.stop(alice)
    dave = friends.add("dave")
    assert list((await dave.joins(await bob.invites())).failures) == ["alice"]
    assert dave.peers() == ["bob", "carol"]
    await hear(carol)
    assert carol.members()["dave"] == "in"


async def test_a_code_works_once(friends: Friends) -> None:
    alice, bob, carol = (friends.add(name) for name in ("alice", "bob", "carol"))
    found(alice)
    code = await alice.invites("bob")
    await bob.joins(code)
    with pytest.raises(RefusedError, match="used already, by somebody else"):
        await carol.joins(code)
    with alice.here() as here:
        assert [(one.label, one.state, one.used_by) for one in codes(here)] == [("bob", "used", "bob")]


@pytest.mark.parametrize("request_lost", [1, 2])
async def test_who_did_not_hear_the_answer_asks_again_with_the_same_code(request_lost: int, friends: Friends) -> None:
    """The first lets it in; with the second it brings its offer, which nobody would hear of otherwise."""
    alice, bob = friends.add("alice"), friends.add("bob")
    found(alice)
    code = await alice.invites()
    lost = iter([number == request_lost for number in (1, 2)])

    def lose(_: Identity, op: str, phase: str) -> None:
        if (op, phase) == ("join", "after") and next(lost, False):
            raise UnreachableError("alice", "the answer was lost")

    friends.network.faults = lose
    with pytest.raises(UnreachableError):
        await bob.joins(code)
    with bob.here() as here:
        assert here.known() is None
    await bob.joins(code)
    assert bob.members() == {"alice": "in", "bob": "in"}
    assert alice.provider is not None
    known = alice.provider.group()
    assert known is not None
    assert [one.offer is not None for one in known.members()] == [True, True]


async def test_a_code_is_revoked_and_expires_by_the_clock_of_the_door(friends: Friends) -> None:
    alice, bob = friends.add("alice"), friends.add("bob")
    found(alice)
    revoked, old = await alice.invites("revoked"), await alice.invites("old", valid_s=DAY)
    with alice.here() as here:
        [one] = [one for one in codes(here) if one.label == "revoked"]
        assert (await revoke_code(here, one.id))[1] == []
        with pytest.raises(NotFoundError):
            await revoke_code(here, one.id)
    with pytest.raises(RefusedError, match="was revoked"):
        await bob.joins(revoked)
    alice.clock.advance(DAY + 16 * 60)
    with pytest.raises(RefusedError, match="was good until 2040-01-02, and here it is 2040-01-02"):
        await bob.joins(old)
    with alice.here() as here:
        assert sorted(one.state for one in codes(here)) == ["expired", "revoked"]


@pytest.mark.parametrize("days", [-1, 1])
async def test_a_clock_that_is_a_day_off_keeps_nobody_out(friends: Friends, days: int) -> None:
    alice, bob, carol = (friends.add(name) for name in ("alice", "bob", "carol"))
    bob.clock.advance(days * DAY)
    found(alice)
    assert (await bob.joins(await alice.invites(valid_s=3600))).failures == {}
    assert (await carol.joins(await bob.invites(valid_s=3600))).failures == {}
    await hear(alice)
    assert alice.members() == {"alice": "in", "bob": "in", "carol": "in"}


async def test_a_code_from_a_clock_a_day_behind_is_refused_with_both_days(friends: Friends) -> None:
    """A taker's code is judged by another member's provider."""
    alice, bob, carol = friends.add("alice"), friends.add("bob", disk=False), friends.add("carol")
    found(alice)
    await bob.joins(await alice.invites())
    bob.clock.advance(-DAY)
    code = await bob.invites(valid_s=3600)
    with pytest.raises(RefusedError, match="was good until 2039-12-31, and here it is 2040-01-01"):
        await carol.joins(code)


async def test_two_friends_with_one_name_are_told_apart(friends: Friends) -> None:
    alice, bob, other = friends.add("alice"), friends.add("bob", owner="anna"), friends.add("carol", owner="anna")
    found(alice)
    await bob.joins(await alice.invites(), "Anna")
    code = await alice.invites()
    with pytest.raises(RefusedError, match="called 'anna' already"):
        await other.joins(code, "anna")
    accepted = await other.joins(code, "anna-two")
    await hear(alice)
    await alice.accepts()
    with alice.here() as here:
        assert here.keeper is not None
        [pin] = [pin for pin in here.keeper.peers if pin.name == "anna-two"]
        assert same_household(pin, here.keeper.peers) == ["Anna"]
    assert accepted.failures == {}


async def test_two_who_took_one_name_at_two_doors_are_named_by_their_ids(friends: Friends) -> None:
    alice, bob, _ = await three(friends)
    first, second = friends.add("dave"), friends.add("erin")
    for friend, code in ((first, await alice.invites()), (second, await bob.invites())):
        with friend.here() as here:  # nobody else has heard of the first when the second comes
            await join(here, code, called="anna")
    await hear(alice)
    with alice.here() as here:
        known, own, _ = in_group(here)
        seats = known.members((own,))
        assert [one.name for one in seats].count("anna") == 2
        with pytest.raises(NotFoundError, match="more than one member 'anna'"):
            find_member(seats, "anna")
        for one in seats:
            assert find_member(seats, one.id.hex()[:12]) is one


async def test_who_has_no_disk_takes_and_invites_through_others(friends: Friends) -> None:
    alice, bob, carol = friends.add("alice"), friends.add("bob", disk=False), friends.add("carol")
    found(alice)
    await bob.joins(await alice.invites())
    assert bob.peers() == ["alice"]
    await carol.joins(await bob.invites("carol"))
    with bob.here() as here:
        await look(here)
        assert [(one.state, one.used_by) for one in codes(here)] == [("used", "carol")]
        made = await invite(here, label="never")
        assert (await revoke_code(here, made.id))[1] == []
        await invite(here, label="silent")
    friends.stop(alice)
    friends.stop(carol)
    with bob.here() as here:
        [still_open] = [one for one in codes(here) if one.state == "open"]
        assert (await revoke_code(here, still_open.id))[1] != []


async def test_a_machine_that_is_only_a_provider_is_a_member_too(friends: Friends) -> None:
    alice, store = friends.add("alice"), friends.add("store", tenant=False)
    found(alice)
    await store.joins(await alice.invites())
    assert store.members() == {"alice": "in", "store": "in"}
    assert (await alice.accepts()).failures == {}
    assert alice.peers() == ["store"]
    bob = friends.add("bob")
    await bob.joins(await store.invites())
    assert bob.peers() == ["alice", "store"]
    assert store.members()["bob"] == "in"


async def test_a_provider_that_gives_members_nothing_says_so_and_one_that_is_full_too(friends: Friends) -> None:
    alice, bob = friends.add("alice", gives=0), friends.add("bob", gives=6 * GB)
    carol, dave = friends.add("carol"), friends.add("dave")
    found(alice)
    failures = (await bob.joins(await alice.invites())).failures
    assert "gives nothing to members" in failures["alice"]
    assert (await carol.joins(await bob.invites())).failures.keys() == {"alice"}
    failures = (await dave.joins(await bob.invites())).failures
    assert "each member gets 6 GB here" in failures["bob"]
    assert dave.peers() == ["carol"]


async def test_what_members_get_goes_up_and_down_for_those_who_are_there(friends: Friends) -> None:
    alice, bob, _ = await three(friends)
    assert alice.provider is not None
    assert used_and_quota(alice, bob)[1] == GB
    alice.provider.set_for_members(3 * GB)
    assert used_and_quota(alice, bob)[1] == 3 * GB
    alice.provider.set_for_members(0)
    assert used_and_quota(alice, bob)[1] == 0


async def test_an_invite_of_its_own_counts_beside_what_members_get(friends: Friends) -> None:
    alice, bob, carol = await three(friends)
    assert alice.provider is not None
    code = alice.provider.invite(quota=2 * GB, label="bob")
    with bob.here() as here:
        assert here.keeper is not None
        await add_peer(here.keeper, list(here.siblings), bob.edge, code, name="alice", own=False)
    assert used_and_quota(alice, bob)[1] == 3 * GB
    await go(bob)
    assert used_and_quota(alice, bob)[1] == 2 * GB
    del carol


async def test_who_leaves_destroys_nothing(friends: Friends) -> None:
    """Its copies of others stay and are given back, others' of its own too; nothing more is taken on either side."""
    alice, bob, carol = await three(friends)
    for friend in (alice, bob, carol):
        await stores(friend)
    before = {(a.name, b.name): used_and_quota(a, b)[0] for a, b in pairs(alice, bob, carol)}
    assert all(before.values())
    await go(carol)
    [said] = [line for line in await hear(alice) if "carol" in line]
    assert said.startswith("friends: 'carol' has left; its provider keeps what it has of yours: `replicator peer set")
    await hear(bob)
    after = {(a.name, b.name): used_and_quota(a, b) for a, b in pairs(alice, bob, carol)}
    for (holder, tenant), (used, quota) in after.items():
        assert used == before[holder, tenant]
        assert quota == (used if "carol" in (holder, tenant) else GB)
    assert alice.members() == {"alice": "in", "bob": "in", "carol": "left"}
    assert alice.peers() == ["bob", "carol"]
    for friend in (alice, carol):
        assert await restored(friend) == b"dear reader\n" * 999
    with carol.here() as here, pytest.raises(UsageError, match="not in 'friends' any more"):
        await invite(here, label="")


async def test_who_left_comes_back_by_a_new_code_only(friends: Friends) -> None:
    alice, bob, carol = await three(friends)
    await go(carol)
    await hear(bob)
    code = await alice.invites()
    await carol.joins(code)
    assert carol.members() == {"alice": "in", "bob": "in", "carol": "in"}
    await hear(bob)
    assert bob.members()["carol"] == "in"
    assert used_and_quota(alice, carol)[1] == GB


async def test_an_expulsion_is_ones_own_word_until_most_say_it(friends: Friends) -> None:
    alice, bob, carol = await three(friends)
    await stores(carol)
    await put_out(alice, "carol", "her disk is a lie")
    assert alice.members()["carol"] == "expelled"
    said = await hear(bob)
    assert "friends: 'alice' has expelled 'carol' (her disk is a lie)" in said
    assert bob.members()["carol"] == "in"
    used, quota = used_and_quota(alice, carol)
    assert used == quota > 0
    assert used_and_quota(bob, carol)[1] == GB
    await put_out(bob, "carol")
    dave = friends.add("dave")
    await dave.joins(await bob.invites())
    assert dave.members()["carol"] == "expelled"
    assert dave.peers() == ["alice", "bob"]
    await hear(carol)
    assert carol.members()["carol"] == "expelled"
    assert await restored(carol) == b"dear reader\n" * 999


async def test_most_others_alone_take_nothing_back_that_an_operator_gave(friends: Friends) -> None:
    alice, bob, carol = await three(friends)
    dave = friends.add("dave")
    await dave.joins(await alice.invites())
    for friend in (carol, alice, carol):
        await hear(friend)
    await put_out(alice, "dave")
    await put_out(carol, "dave")
    await hear(bob)
    assert bob.members()["dave"] == "expelled"
    assert used_and_quota(bob, dave)[1] == GB
    assert alice.members()["dave"] == "expelled"
    erin = friends.add("erin")
    await erin.joins(await bob.invites())
    assert erin.peers() == ["alice", "bob", "carol"]


async def test_whom_an_expelled_member_brought_stays_if_it_was_known(friends: Friends) -> None:
    alice, bob, carol = await three(friends)
    dave = friends.add("dave")
    await dave.joins(await carol.invites())
    await hear(alice)
    await put_out(alice, "carol")
    assert alice.members()["dave"] == "in"
    erin = friends.add("erin")
    await erin.joins(await carol.invites())
    await hear(alice)
    assert alice.members()["erin"] == "expelled"
    assert bob.members()["carol"] == "in"


async def test_inviting_again_ends_an_expulsion(friends: Friends) -> None:
    alice, _, carol = await three(friends)
    await put_out(alice, "carol")
    await hear(carol)
    await go(carol)
    await carol.joins(await alice.invites())
    assert alice.members()["carol"] == "in"


async def test_a_recovered_keeper_hears_which_group_it_is_in(friends: Friends) -> None:
    alice, _, _ = await three(friends)
    for half in ("keeper", "node"):
        os.unlink(os.path.join(alice.home, half, GROUP_FILE))
    assert alice.provider is not None
    provider, alice.provider = alice.provider, None
    with alice.here() as here:
        with pytest.raises(NotFoundError):
            in_group(here)
        assert here.keeper is not None
        here.keeper.passphrase()
        await look(here)
    assert alice.members() == {"alice": "in", "bob": "in", "carol": "in"}
    alice.provider = provider


async def test_a_provider_that_lies_about_the_group_changes_nothing(friends: Friends) -> None:
    """It makes up members, hides what it heard, tells of another group: only what members signed counts."""
    alice, bob, carol = await three(friends)
    assert bob.provider is not None
    assert bob.identity is not None
    honest = friends.network.services[bob.identity]
    stranger = Voice(key=SigningKey(bytes(range(32))))
    with alice.here() as here:
        known = here.known()
        assert known is not None

    def lies(made: Callable[[GroupReply], GroupReply]) -> None:
        def lie(session: Session, body: bytes) -> bytes:
            return encode(made(decode(GroupReply, session.handle("group", body))))

        friends.network.add(Liar(honest, ops={"group": lie}))

    word = Member(
        group=known.group, number=9, name="mallory", root=b"", provider=b"", state="in", said_ns=alice.clock.now_ns()
    )
    invented = Fact(kind="member", signed=stranger.say(Context.MEMBER, word))
    forged = Fact(kind="member", signed=invented.signed[:40] + bytes(8) + invented.signed[48:])
    for facts in ([invented], [forged]):
        lies(lambda reply, facts=facts: msgspec.structs.replace(reply, facts=facts))  # type: ignore[misc]
        said = await hear(alice)
        assert alice.members() == {"alice": "in", "bob": "in", "carol": "in"}
        assert any("does not hold" in line for line in said) == (facts == [forged])
    dave = friends.add("dave")
    await dave.joins(await carol.invites())
    lies(lambda reply: msgspec.structs.replace(reply, facts=[], wanted=b""))
    await hear(alice)  # another of her providers has heard
    assert alice.members()["dave"] == "in"


async def test_a_thief_of_a_code_gets_a_seat_and_no_disk_is_given_him_copies_unasked(friends: Friends) -> None:
    alice, bob, mallory = friends.add("alice"), friends.add("bob"), friends.add("mallory")
    found(alice)
    code = await alice.invites("bob")
    await mallory.joins(code)
    with pytest.raises(RefusedError, match="used already"):
        await bob.joins(code)
    await hear(alice)
    assert alice.peers() == []
    await put_out(alice, "mallory")
    used, quota = used_and_quota(alice, mallory)
    assert quota == used
    await bob.joins(await alice.invites("bob"))
    assert bob.peers() == ["alice"]  # whom somebody has expelled is taken by name only
    with bob.here() as here:
        assert [one.name for one in candidates(here, ["mallory"])] == ["mallory"]


async def test_nobody_elses_voucher_speaks_of_the_same_code(friends: Friends) -> None:
    """What a voucher says of a secret is known to all members; whose code it is stays the one's who made the secret."""
    alice, bob, carol = await three(friends)
    code = read_group_code(await alice.invites("dave"))
    with alice.here() as here:
        known = here.known()
        assert known is not None
        [mine] = [one for by, _, one, _ in known.vouchers() if by == here.voice().member and one.label == "dave"]
    with bob.here() as here:
        voice = here.voice()
    copied = msgspec.structs.replace(mine, root=voice.root, revoked=True)
    assert alice.provider is not None
    alice.provider.take_facts([Fact(kind="voucher", signed=voice.say(Context.VOUCHER, copied))])
    dave = friends.add("dave")
    await dave.joins(write_code("group", encode(code)))
    with dave.here() as here:
        known, _, seat = in_group(here)
        assert [one.name for one in known.members() if one.id == seat.invited_by] == ["alice"]
    del carol


async def test_a_home_that_lost_what_it_knew_comes_back_by_a_code(friends: Friends) -> None:
    alice, bob = friends.add("alice"), friends.add("bob", disk=False)
    found(alice)
    await bob.joins(await alice.invites())
    await go(bob)
    for half in ("keeper", "node"):
        os.unlink(os.path.join(bob.home, half, GROUP_FILE))
    await bob.joins(await alice.invites())
    assert bob.members() == {"alice": "in", "bob": "in"}


async def test_a_damaged_file_of_the_group_stops_no_backup(friends: Friends) -> None:
    _, bob, _ = await three(friends)
    write(os.path.join(bob.home, "node", GROUP_FILE), b"\x93\x01")
    await stores(bob)
    with bob.here() as here:
        found_now = await status(here.siblings[0], bob.edge)
        assert found_now.exit_code == 0
        assert any("group.bin: damaged" in one for one in found_now.advice)
    assert await restored(bob) == b"dear reader\n" * 999


async def test_a_root_statement_that_is_older_than_a_members_word_enrols_nobody(friends: Friends) -> None:
    """Its owner key may be in other hands since."""
    alice, bob, carol = friends.add("alice"), friends.add("bob"), friends.add("carol")
    found(alice)
    with bob.here() as here:
        await join(here, await alice.invites(), called="bob")
        assert here.keeper is not None
        old = here.keeper.charter.charter.root
        root = here.keeper.charter.root
    assert alice.provider is not None
    known = alice.provider.group()
    assert known is not None
    assert root.number == 1
    request = EnrolRequest(holder_key=bytes(32), secret=b"", order=b"", root=old)
    seen = [one for one in known.members() if one.name == "bob"]
    later = dataclasses.replace(seen[0], root=msgspec.structs.replace(root, number=2))
    others = [one for one in known.members() if one.name != "bob"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("replicator.provider.groups.members_here", lambda *_: [*others, later])
        with pytest.raises(RequestRefusedError, match="has said more since"):
            declared_member(alice.provider._database, request, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("replicator.provider.groups.members_here", lambda *_: [*others, seen[0]])
        assert declared_member(alice.provider._database, request, {})[1] == root.root_key
    del carol


async def test_who_calls_itself_like_the_id_of_another_is_not_taken_for_it(friends: Friends) -> None:
    alice, bob, _ = await three(friends)
    with alice.here() as here:
        known, own, _ = in_group(here)
        beginning = find_member(known.members((own,)), "bob").id.hex()[:12]
    await friends.add("dave").joins(await alice.invites(), beginning)
    with alice.here() as here:
        known, own, _ = in_group(here)
        with pytest.raises(NotFoundError, match="more than one member"):
            find_member(known.members((own,)), beginning)
    assert bob.members()[beginning] == "in"


async def test_a_quota_that_the_operator_gave_by_hand_is_left_alone(friends: Friends) -> None:
    alice, bob, _ = await three(friends)
    assert alice.provider is not None
    with bob.here() as here:
        assert here.keeper is not None
        alice.provider.set_quota(here.keeper.tenant.hex()[:12], 2 * GB)
    alice.provider.set_for_members(5 * GB)
    await hear(bob)
    assert used_and_quota(alice, bob)[1] == 2 * GB


async def test_a_provider_that_leaves_takes_no_new_member(friends: Friends) -> None:
    alice, bob = friends.add("alice"), friends.add("bob")
    found(alice)
    assert alice.provider is not None
    code = await alice.invites()
    by_ns = alice.clock.now_ns() + 60 * DAY * 10**9
    alice.provider.drain([], size=None, whole=True, by_ns=by_ns, consent=False)
    assert "takes nobody new" in (await bob.joins(code)).failures["alice"]


async def test_only_whose_it_is_signs_a_leaving(friends: Friends) -> None:
    alice, bob, carol = await three(friends)
    with bob.here() as here:
        known, _, _ = in_group(here)
        voice = here.voice()
    with carol.here() as here:
        signed = known.signed_word(here.voice().member)
    record = decode(Member, signed[96:])
    left = msgspec.structs.replace(record, number=record.number + 1, state="left", root=voice.root, provider=b"")
    fact = Fact(kind="member", signed=voice.say(Context.MEMBER, left))
    assert alice.provider is not None
    alice.provider.take_facts([fact])
    assert alice.members()["carol"] == "in"


async def test_a_home_is_in_one_group(friends: Friends) -> None:
    alice, bob, _ = await three(friends)
    with bob.here() as here, pytest.raises(UsageError, match="in 'friends' already"):
        new_group(here, name="others", called="bob")
    dave = friends.add("dave")
    found(dave)
    code = await dave.invites()
    with alice.here() as here, pytest.raises(UsageError, match="in 'friends' already"):
        await join(here, code, called="alice")


async def test_a_code_for_another_group_is_refused_at_the_door(friends: Friends) -> None:
    alice, bob = friends.add("alice"), friends.add("bob")
    found(alice)
    code = read_group_code(await alice.invites())
    with bob.here() as here:
        changed = write_code("group", encode(msgspec.structs.replace(code, group=bytes(32))))
        with pytest.raises(PeerError, match="not in that group"):
            await join(here, changed, called="bob")


def pairs(*everybody: Friend) -> list[tuple[Friend, Friend]]:
    """Return who holds for whom."""
    return [(a, b) for a in everybody for b in everybody if a is not b]


async def restored(friend: Friend) -> bytes:
    """Return the letter from the newest snapshot."""
    target = os.path.join(friend.home, f"restored-{friend.edge.rng.bytes(4).hex()}")
    with friend.here() as here:
        keeper = here.keeper
        assert keeper is not None
        async with Federation(keeper, friend.edge, ticket=lambda _: keeper.ticket()) as federation:
            library = Library(keeper, federation)
            await library.refresh()
            snapshot = await library.find("latest")
            await restore(
                *(library, friend.edge, snapshot, target),
                overwrite="never",
                delete=False,
                privileged=os.geteuid() == 0,
                dry_run=False,
                writers=0,
            )
    return read(os.path.join(target, "letters", "letter"))
