"""Trial restores: what comes back, what the check sees, what is signed, and what is left behind."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from replicator.crypto.sign import Context, SigningKey
from replicator.engine.browse import Library
from replicator.engine.drill import DrillReport, drill
from replicator.engine.drills import RUN, drills
from replicator.engine.federation import Federation
from replicator.errors import RestoreError
from replicator.format.codec import encode
from tests.scenarios.world import World, read, write


@pytest.fixture
def scratch(world: World) -> str:
    path = os.path.join(world.root, "scratch")
    os.mkdir(path)
    return path


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
    report = await drilled(world, scratch, check=check)
    assert (report.exit_code, report.said, report.folder) == (0, "", "")
    assert (report.drill.files, report.drill.whole, report.drill.check, report.drill.problems) == (4, True, "passed", 0)
    assert os.listdir(scratch) == []
    told = read(seen).decode()
    assert "REPLICATOR_DATASET=docs" in told
    assert f"{scratch}/replicator-drill-" in told
    assert "PASSPHRASE" not in told
    assert [one.check for one in (await world.status(keeper=True)).drills] == ["passed"]


@pytest.mark.parametrize(
    ("check", "why"), [("echo broken >&2; exit 3", "ended with exit code 3; it said last: broken"), ("sleep 60", "0 s")]
)
async def test_a_check_that_fails_fails_the_drill(
    world: World, source: str, scratch: str, check: str, why: str
) -> None:
    await world.backup()
    report = await drilled(world, scratch, check=check, limit_s=0.3)
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
    report = await drilled(world, scratch, check="exit 9")
    assert report.exit_code == 3
    assert report.drill.check == "none", "nothing can be said of what is not whole"
    assert report.drill.problems > 0


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
