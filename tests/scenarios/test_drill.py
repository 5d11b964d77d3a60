"""Trial restores: what comes back, what the check sees, what is signed, and what is left behind."""

import os
import stat
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec.structs import asdict

from replicator.clock import DAY_S
from replicator.crypto.seal import seal_box
from replicator.crypto.sign import Context, SigningKey
from replicator.crypto.unseal import open_box
from replicator.engine.browse import Library
from replicator.engine.checks import Wanted, drop_check, keep_check, kept_checks, limit_of, new_check
from replicator.engine.drill import DrillReport, drill
from replicator.engine.drills import RUN, drills, remember_datasets
from replicator.engine.federation import Federation
from replicator.engine.keeper import sign_charter
from replicator.engine.recover import recover
from replicator.engine.status import Status, status
from replicator.errors import IntegrityError, KeyWrongError, NotFoundError, RestoreError, UsageError
from replicator.format.charter import KeepersBox
from replicator.format.codec import encode
from replicator.format.drill import Drill1, DrillCheck, DrillChecks
from replicator.snapshot import gaps
from replicator.snapshot.metadata import unset_in_words
from tests.scenarios.world import PASSPHRASE, World, read, write

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs another owner")


@pytest.fixture
def scratch(world: World) -> str:
    path = os.path.join(world.root, "scratch")
    os.mkdir(path)
    return path


def looking(command: str, limit_s: int = 60) -> DrillCheck:
    """Return a check of the small dataset."""
    return DrillCheck(dataset="docs", command=command, limit_s=limit_s)


async def drilled(world: World, scratch: str, **options: Any) -> DrillReport:
    keeper = world.keeper()
    try:
        async with Federation(keeper, world.edge, ticket=lambda _: keeper.ticket()) as federation:
            library = Library(keeper, federation)
            await library.refresh()
            snapshot = await library.find("latest")
            return await drill(library, world.edge, snapshot, scratch=scratch, **options)
    finally:
        keeper.close()


async def test_everything_comes_back_is_looked_at_and_goes_again(world: World, source: str, scratch: str) -> None:
    await world.backup()
    seen = os.path.join(world.root, "seen")
    check = f"cmp docs/letter.txt {source}/letter.txt && env > {seen} && pwd >> {seen}"
    report = await drilled(world, scratch, check=looking(check))
    assert (report.exit_code, report.said, report.folder) == (0, "", "")
    assert (report.drill.files, report.drill.whole, report.drill.check, report.drill.problems) == (4, True, "passed", 0)
    assert os.listdir(scratch) == []
    told = read(seen).decode()
    assert "REPLICATOR_DATASET=docs" in told
    assert f"{scratch}/replicator-drill-" in told
    assert "PASSPHRASE" not in told
    assert [one.check for one in (await world.status(keeper=True)).drills] == ["passed"]


@pytest.mark.parametrize(
    ("check", "why"),
    [
        (looking("echo broken >&2; exit 3"), "ended with exit code 3; it said last: broken"),
        (looking("sleep 60", limit_s=0), "did not end within 0 s"),
    ],
)
async def test_a_check_that_fails_fails_the_drill(
    world: World, source: str, scratch: str, check: DrillCheck, why: str
) -> None:
    await world.backup()
    report = await drilled(world, scratch, check=check)
    assert (report.exit_code, report.drill.check) == (1, "failed")
    assert why in report.said
    assert os.listdir(scratch) == []


async def test_a_sample_has_files_of_the_snapshot_alone(world: World, source: str, scratch: str) -> None:
    for number in range(200):
        write(os.path.join(source, "many", str(number)), b"%d" % number)
    await world.backup()
    report = await drilled(world, scratch, share=0.2, keep=True)
    assert not report.drill.whole
    assert 15 < report.drill.files < 75
    for name in os.listdir(os.path.join(report.folder, "docs", "many")):
        assert read(os.path.join(report.folder, "docs", "many", name)) == name.encode()
    least = await drilled(world, scratch, share=0.0)
    assert least.drill.files == 1


async def test_what_providers_lost_is_found_although_the_keeper_has_looked_at_it(
    world: World, source: str, scratch: str
) -> None:
    await world.backup()
    await world.restore(os.path.join(world.root, "target"))
    for number in range(5):
        for path in world.stored(number, ["data"]):
            os.unlink(path)
    report = await drilled(world, scratch, check=looking("exit 9"))
    assert report.exit_code == 3
    assert report.drill.check == "not run", "nothing can be said of what is not whole"
    assert report.drill.problems > 0
    assert not report.drill.passed


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("damage", ["gone", "flipped"])
async def test_that_nothing_could_be_had_is_kept_too(
    world: World, source: str, scratch: str, damage: str, share: float
) -> None:
    await world.backup()
    assert (await drilled(world, scratch)).exit_code == 0
    for number in range(5):
        for path in world.stored(number, ["tree"]):
            data = bytearray(read(path))
            os.unlink(path)
            if damage == "flipped":
                data[len(data) // 2] ^= 1
                write(path, bytes(data))
    report = await drilled(world, scratch, share=share)
    assert report.exit_code == 3
    assert (report.drill.files, report.drill.problems) == (0, 1)
    assert os.listdir(scratch) == []
    assert (await world.status(keeper=True)).drills == [report.drill]


async def test_only_what_this_home_signed_counts(world: World, source: str, scratch: str) -> None:
    await world.backup()
    report = await drilled(world, scratch)
    keeper = world.keeper()
    try:
        assert drills(keeper) == [report.drill]
        stranger = SigningKey(bytes(32)).sign(Context.DRILL, encode(report.drill)).hex()
        for signed in (stranger, "zz", ""):
            keeper.catalog.record_run(RUN, started_ns=1, ended_ns=2, exit_code=0, summary={"signed": signed})
        assert drills(keeper) == [report.drill]
    finally:
        keeper.close()


@pytest.mark.parametrize("scratch_of", [lambda root: root + "/none", lambda root: root + "/file"])
async def test_without_a_folder_there_is_no_drill(world: World, source: str, scratch_of: Callable[[str], str]) -> None:
    await world.backup()
    write(os.path.join(world.root, "file"), b"")
    with pytest.raises(RestoreError):
        await drilled(world, scratch_of(world.root))


@needs_root
async def test_what_a_user_may_not_set_is_counted_and_fails_no_drill(
    world: World, source: str, scratch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(os.path.join(source, "letter.txt"), 4321, 4321)
    os.chmod(os.path.join(source, "photos", "one.raw"), 0o4700)
    os.mknod(os.path.join(source, "null"), stat.S_IFCHR | 0o600, os.makedev(1, 3))
    await world.backup()
    assert (await drilled(world, scratch)).drill.unset == 0, "root may"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    report = await drilled(world, scratch, check=looking("test -s docs/letter.txt"))
    assert (report.exit_code, report.drill.problems, report.drill.unset, report.drill.check) == (0, 0, 3, "passed")
    assert report.drill.passed
    said = unset_in_words(report.restored.unset_reasons)
    assert said == "1 owner not set, 1 setuid or setgid bit not set, 1 device not made: not root"


async def test_bytes_that_a_user_did_not_get_back_are_a_problem_all_the_same(
    world: World, source: str, scratch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.backup()
    for number in range(5):
        for path in world.stored(number, ["data"]):
            os.unlink(path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    report = await drilled(world, scratch)
    assert report.exit_code == 3
    assert not report.drill.passed


async def test_metadata_that_was_not_set_is_a_problem_and_no_reason_not_to_look(
    world: World, source: str, scratch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.backup()

    def refused(*_: object, **__: object) -> None:
        raise PermissionError("not here")

    monkeypatch.setattr(os, "utime", refused)
    report = await drilled(world, scratch, check=looking("test -s docs/letter.txt"))
    assert (report.exit_code, report.drill.check) == (3, "passed")
    assert report.drill.problems > 0
    assert not report.drill.passed


async def test_more_problems_than_are_named_are_counted(
    world: World, source: str, scratch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.backup()
    monkeypatch.setattr(gaps, "MAX_NAMED", 1)
    monkeypatch.setattr(os, "utime", lambda *_, **__: os.stat("/not there"))
    report = await drilled(world, scratch)
    assert len(report.restored.gaps) == 1
    assert report.drill.problems == 7, "four files, a link and two folders"


async def test_a_drill_of_the_first_version_is_still_shown(world: World, source: str, scratch: str) -> None:
    await world.backup()
    made = asdict((await drilled(world, scratch)).drill)
    del made["unset"]
    keeper = world.keeper()
    try:
        old = Drill1(**made | {"dataset": "older", "problems": 2})
        signed = keeper.signing.sign(Context.DRILL, encode(old)).hex()
        keeper.catalog.record_run(RUN, started_ns=1, ended_ns=2, exit_code=3, summary={"signed": signed})
        [_, found] = drills(keeper)
    finally:
        keeper.close()
    assert (found.dataset, found.problems, found.unset, found.passed) == ("older", 2, 0, False)


class TestKeptChecks:
    async def keep(self, world: World, check: DrillCheck) -> list[str]:
        keeper, node = world.keeper(), world.node()
        try:
            return await keep_check(keeper, [node], world.edge, check)
        finally:
            keeper.close()
            node.close()

    def kept(self, world: World, home: str | None = None) -> dict[str, DrillCheck]:
        keeper = world.keeper(home)
        try:
            return kept_checks(keeper)
        finally:
            keeper.close()

    async def test_checks_are_kept_changed_and_dropped_by_dataset(self, world: World, source: str) -> None:
        assert self.kept(world) == {}
        assert await self.keep(world, looking("true")) == []
        other = DrillCheck(dataset="a shop", command="test -s dump", limit_s=7)
        await self.keep(world, other)
        await self.keep(world, looking("false", limit_s=9))
        assert list(self.kept(world).items()) == [("a shop", other), ("docs", looking("false", limit_s=9))]
        keeper = world.keeper()
        try:
            assert await drop_check(keeper, [], world.edge, "a shop") == []
            with pytest.raises(NotFoundError, match="there are: docs"):
                await drop_check(keeper, [], world.edge, "a shop")
            assert await drop_check(keeper, [], world.edge, "docs") == []
            assert keeper.private.checks is None
        finally:
            keeper.close()

    async def test_a_new_keeper_from_paper_has_them_too(self, world: World, source: str) -> None:
        await self.keep(world, looking("true"))
        home = os.path.join(world.root, "recovered")
        assert world.tenant is not None
        address = f"{world.identity(0).hex()}:1"
        await recover(home, world.edge, words=list(world.tenant.words), addresses=[address], passphrase=PASSPHRASE)
        assert self.kept(world, home) == {"docs": looking("true")}

    async def test_a_node_has_the_box_and_can_neither_open_nor_change_it(self, world: World, source: str) -> None:
        await self.keep(world, looking("test -s secret-ledger"))
        node = world.node()
        try:
            box = node.private.checks
            assert box is not None
            assert b"secret-ledger" not in box.sealed
            [domain] = node.member.domains
            mine = SigningKey(bytes(32))
            mix, context = domain.mix, b"replicator/1 drill checks\x00" + node.tenant + domain.id
            with pytest.raises(KeyWrongError):
                open_box(mine.seed(), mix, node.tenant, domain.id, box.sealed, context, "a box")
            forged = encode(DrillChecks(checks=[looking("touch /tmp/owned")]))
            sealed = seal_box(domain.restore_key, mix, node.tenant, domain.id, forged, context, world.rng)
            private = msgspec.structs.replace(node.private, checks=KeepersBox(domain=domain.id, sealed=sealed))
            data = sign_charter(
                owner=node.signing,
                member_key=node.member.member_key,
                previous=node.charter.hash,
                number=node.charter.number + 1,
                root=node.charter.charter.root,
                rights=node.charter.charter.rights,
                keybag=node.charter.charter.keybag,
                private=private,
                tenant=node.tenant,
                edge=world.edge,
            )
        finally:
            node.close()
        keeper = world.keeper()
        try:
            with pytest.raises(IntegrityError):
                keeper.adopt_charter(data)
        finally:
            keeper.close()
        assert self.kept(world) == {"docs": looking("test -s secret-ledger")}

    @pytest.mark.parametrize("command", ["", "  ", "a\0b", "x" * 4097, "\ud800"])
    def test_what_cannot_be_a_command_is_not_kept(self, command: str) -> None:
        with pytest.raises(UsageError, match="cannot be kept"):
            new_check("docs", command, 60)
        with pytest.raises(UsageError, match="cannot be kept"):
            new_check("d" * 65, "true", 60)

    @pytest.mark.parametrize("seconds", [0.5, 604_801])
    def test_a_limit_out_of_bounds_is_refused(self, seconds: float) -> None:
        with pytest.raises(UsageError, match="no time limit"):
            limit_of(seconds)
        assert limit_of(604_800) == 604_800

    @pytest.mark.parametrize(
        ("wanted", "of_kept", "of_none"),
        [
            (Wanted(), (looking("true", 9), False), (None, False)),
            (Wanted(limit_s=5), (looking("true", 5), False), (None, False)),
            (Wanted(none=True), (None, True), (None, False)),
            (Wanted(command="false"), (looking("false", 3600), False), (looking("false", 3600), False)),
            (Wanted(command="false", limit_s=5), (looking("false", 5), False), (looking("false", 5), False)),
        ],
    )
    def test_what_is_said_on_the_line_goes_before_what_is_kept(
        self, wanted: Wanted, of_kept: object, of_none: object
    ) -> None:
        assert wanted.of("docs", looking("true", 9)) == of_kept
        assert wanted.of("docs", None) == of_none


class TestStatus:
    async def seen(self, world: World, *, both: bool) -> Status:
        keeper, node = world.keeper(), world.node()
        try:
            return await status(node if both else keeper, world.edge, keeper=keeper if both else None)
        finally:
            keeper.close()
            node.close()

    @pytest.mark.parametrize("both", [True, False], ids=["node and keeper", "keeper"])
    async def test_it_says_what_was_never_drilled_then_how_the_newest_went_then_that_it_is_old(
        self, world: World, source: str, scratch: str, both: bool
    ) -> None:
        await world.backup()
        if not both:
            await world.snapshots()
        found = await self.seen(world, both=both)
        assert found.advice == ["nothing was ever restored for trial: run `replicator drill` on the keeper"]
        await drilled(world, scratch)
        found = await self.seen(world, both=both)
        assert ([one.check for one in found.drills], found.advice, found.exit_code) == (["none"], [], 0)
        world.clock.advance(36 * DAY_S)
        found = await self.seen(world, both=both)
        assert "the last trial restore of docs is 36 days old: run `replicator drill latest:docs`" in found.advice

    @pytest.mark.parametrize("both", [True, False], ids=["node and keeper", "keeper"])
    async def test_a_dataset_that_came_later_is_named(
        self, world: World, source: str, scratch: str, both: bool
    ) -> None:
        await world.backup()
        await drilled(world, scratch)
        world.small_dataset("notes")
        await world.backup()
        keeper = world.keeper()
        try:
            remember_datasets(keeper, ["docs", "notes"])
        finally:
            keeper.close()
        found = await self.seen(world, both=both)
        assert found.undrilled == ["notes"]
        assert "never restored for trial: notes; run `replicator drill` on the keeper" in found.advice

    async def test_data_whose_last_drill_failed_is_not_called_safe(
        self, world: World, source: str, scratch: str
    ) -> None:
        await world.backup()
        await drilled(world, scratch, check=looking("exit 1"))
        found = await self.seen(world, both=True)
        assert found.exit_code == 3
        assert found.advice == [
            "the last trial restore of docs failed: `replicator drill latest:docs` shows what is wrong"
        ]
        await drilled(world, scratch, check=looking("true"))
        assert (await self.seen(world, both=True)).exit_code == 0

    async def test_a_node_alone_says_nothing_of_drills(self, world: World, source: str) -> None:
        await world.backup()
        found = await world.status()
        assert (found.drills, found.undrilled, found.advice) == ([], [], [])
