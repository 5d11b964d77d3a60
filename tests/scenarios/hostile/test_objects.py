"""What a writer with all rights of a node can publish does no harm: neither to the disk nor to other snapshots."""

import os
import re
import resource

import pytest

from replicator.engine.browse import ChunkFetcher, find_path
from replicator.errors import IntegrityError, NotFoundError, ReplicatorError
from tests.scenarios.hostile.cases import CASES, EVIL, Case
from tests.scenarios.hostile.specwriter import Writer
from tests.scenarios.hostile.stage import Stage
from tests.scenarios.world import read

LEAST = 60
ROOM = 200 << 10
"""KiB that the largest bomb may add to what the process has held at most; undone it would be 300 MiB or more."""
INNOCENT = b"innocent" * 1000


def test_there_are_many_cases_and_no_two_are_one() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= LEAST


async def good(stage: Stage) -> None:
    """Publish a snapshot that is all right."""
    writer = stage.writer()
    await stage.write(writer, writer.folder([writer.file(b"good", INNOCENT)]), dataset="good")


def tree_of(case: Case, writer: Writer, outside: str) -> list[object]:
    """Return the top directory: the case's own, or its folder beside a file that must come back."""
    made = case.build(writer, outside)
    if case.top:
        return made
    owner = {"uid": os.geteuid(), "gid": os.getegid()}
    evil = writer.directory(b"evil", made, **owner)
    return writer.folder([evil, writer.file(b"innocent", INNOCENT, **owner)])


ROLES = {
    "user": CASES,
    # Objects are refused alike whoever reads them, so that only trees are played by root too; and without privilege,
    # only what is written at all can make a difference.
    "root": [case for case in CASES if not case.bend],
    "root without privilege": [case for case in CASES if case.outcome in {"restored", "gap"}],
}
PLAYED = [
    pytest.param(role, case, id=f"{role}-{case.name}".replace(" ", "-"))
    for role, cases in ROLES.items()
    for case in cases
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("stage", "case"), PLAYED, indirect=["stage"])
async def test_it_does_no_harm_and_is_told(stage: Stage, case: Case) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await good(stage)
    async with stage.library() as library:
        assert len(await library.snapshots()) == 1
    writer = stage.writer()
    writer.bend = case.bend
    tree = tree_of(case, writer, stage.outside)
    writer.random.seed(2)
    made = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await stage.write(writer, tree, **case.details)
    outcome = case.users or case.outcome if not stage.privileged else case.outcome
    async with stage.library() as library:
        assert (await library.find("latest:good")).details.dataset == "good", "others are still to be seen"
        told = [*library.federation.integrity, *library.federation.notices]
        if outcome == "hidden":
            with pytest.raises(NotFoundError, match="no snapshot of dataset 'evil'"):
                await library.find("latest:evil")
            told = [*library.federation.integrity, *library.federation.notices]
            assert re.search(case.why, "\n".join(told)), told
            assert told != []
            return
        found = await library.find("latest:evil")
        if outcome == "refused":
            with pytest.raises(ReplicatorError, match=case.why or None):
                await stage.restore(library, found)
        else:
            report = await stage.restore(library, found)
            said = [
                *report.damaged,
                *report.lost,
                *(f"{path}: {reason}" for path, reason in (*report.gaps, *report.unset)),
            ]
            if outcome == "restored":
                assert [line for line in said if "owner and group" not in line] == []
                case.then(os.path.join(stage.target, "evil"))
            else:
                assert outcome in {"damaged", "gap"}, said
                assert bool(report.damaged or report.lost) == (outcome == "damaged"), said
                assert re.search(case.why, "\n".join(said)), said
            assert read(os.path.join(stage.target, "innocent")) == INNOCENT, "the rest is restored"
            if "file" in os.listdir(os.path.join(stage.target, "evil")):
                assert read(os.path.join(stage.target, "evil", "file")) == EVIL, "a file is whole or not there"
        if not stage.privileged:
            await stage.look(library, found)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - max(made, before) < ROOM


async def test_where_no_snapshot_can_be_opened_that_is_said_and_not_that_there_is_none(stage: Stage) -> None:
    writer = stage.writer()
    writer.bend = {"box": lambda _: bytes(200)}
    await stage.write(writer, writer.folder([writer.file(b"file", EVIL)]))
    async with stage.library() as library:
        with pytest.raises(IntegrityError, match="its details: not sealed to this key"):
            await library.snapshots()


async def test_a_root_that_claims_a_way_out_stands_in_no_other_ones_way(stage: Stage) -> None:
    writer = stage.writer()
    tree = writer.folder([writer.directory(b"docs", [writer.file(b"file", EVIL)])])
    await stage.write(writer, tree, roots=[[b"/srv/../../etc", b"evil"], [b"/srv/docs", b"docs"]])
    async with stage.library() as library:
        found = await library.find("latest:evil")
        fetcher = ChunkFetcher(library, found.snapshot.domain)
        path = await fetcher.in_thread(lambda reader: find_path(reader, found, "/srv/docs/file"))
        assert path == (b"docs", b"file")
