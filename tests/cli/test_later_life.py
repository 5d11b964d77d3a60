"""A provider's later life, as people call for it: leaving, another disk, a disk that is brought, reading from one."""

from pathlib import Path

import pytest

from tests.cli.federation import PLACES, Federation

pytestmark = pytest.mark.process


def fullest(federation: Federation) -> str:
    return max(PLACES, key=lambda name: len(federation.objects(name)))


def test_who_leaves_says_so_shows_how_far_everybody_is_and_takes_it_back(breakable: Federation) -> None:
    name = fullest(breakable)
    assert "told nobody" in breakable.ok("provider", "drain", home=name).text
    planned = breakable.json("provider", "drain", "--by", "60d", "--dry-run", home=name)
    assert planned["tenants"][0]["left"] > 0
    assert breakable.json("provider", "drain", home=name) == {"whole": None, "tenants": []}
    [told] = breakable.json("provider", "drain", "--by", "60d", home=name, code=3)["tenants"]
    assert (told["left"], told["late"], told["told"]) == (planned["tenants"][0]["left"], False, None)
    assert "by its claims" in breakable.run("provider", "drain", home=name).text
    held = breakable.objects(name)
    for words, said in (
        (("--cancel", "--dry-run"), "takes back what was said"),
        (("--cancel", "--by", "60d"), "takes back what was said"),
        (("--to", "1G"), "by when?"),
        (("--tenant", "x", "--to", "1G", "--by", "60d"), "give one of the two"),
        (("--by", "2020-01-01"), "that day is over"),
    ):
        assert said in breakable.fails(2, "provider", "drain", *words, home=name)
    assert breakable.json("provider", "drain", home=name, code=3)["whole"] is not None
    shown = breakable.json("peer", "show", name, home="keeper")
    assert shown["state"] == "ok", "it was not asked yet"
    [peer] = [one for one in breakable.json("status", home="node")["peers"] if one["name"] == name]
    assert (peer["stands"], bool(peer["leaves"])) == ("leaving", True)
    assert "taken back" in breakable.ok("provider", "drain", "--cancel", home=name).err
    assert "nothing was said" in breakable.fails(2, "provider", "drain", "--cancel", home=name)
    assert breakable.objects(name) == held


def test_objects_move_to_another_disk_and_the_old_one_is_emptied_last(breakable: Federation) -> None:
    name = fullest(breakable)
    new, held = breakable.path / name / "new", len(breakable.objects(name))
    planned = breakable.json("provider", "move", "--data", new, "--dry-run", home=name)
    assert (planned["left_objects"], planned["switched"], new.exists()) == (held, False, False)
    begun = breakable.json("provider", "move", "--data", new, home=name, code=3)
    assert (begun["copied_objects"], begun["switched"]) == (held, False)
    assert "nothing was deleted" in breakable.fails(1, "provider", "move", "--data", new, "--remove-old", home=name)
    breakable.stop(name)
    assert breakable.json("provider", "move", "--data", new, home=name)["switched"] is True
    breakable.start(name)
    breakable.ok("audit", home="node")
    gone = breakable.json("provider", "move", "--data", new, "--remove-old", "--dry-run", home=name)
    assert (gone["removed"], len(breakable.objects(name))) == (held, held)
    spoilt = next(new.glob("*/objects/*"))
    data = spoilt.read_bytes()
    spoilt.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    kept = breakable.json("provider", "move", "--data", new, "--remove-old", home=name, code=4)
    assert (kept["removed"], kept["kept"]) == (held - 1, 1)
    assert [path.name for path in breakable.objects(name)] == [spoilt.name]


def test_a_disk_is_seeded_adopted_and_counts_and_folders_are_read_without_a_network(
    breakable: Federation, tmp_path: Path
) -> None:
    disk, later = tmp_path / "disk", tmp_path / "later"
    disk.mkdir()
    later.mkdir()
    (later / "letter.txt").write_text("written while erin was away\n")
    breakable.stop("erin")
    breakable.ok("dataset", "add", "later", later, home="node")
    breakable.run("backup", "later", home="node")
    breakable.start("erin")
    assert "no such folder" in breakable.fails(1, "peer", "seed", "erin", "--dir", tmp_path / "nowhere", home="node")
    done = breakable.json("peer", "seed", "erin", "--dir", disk, home="node")
    assert done["objects"] > 0
    assert (done["left_objects"], done["nowhere"]) == (0, [])
    assert "a daemon serves this home" in breakable.fails(1, "provider", "adopt", disk, home="erin")
    breakable.stop("erin")
    [taken] = breakable.json("provider", "adopt", disk, home="erin")
    assert (taken["objects"] + taken["here"], taken["missing"], taken["damaged"]) == (done["objects"], 0, 0)
    empty = breakable.run("provider", "adopt", tmp_path, home="erin")
    assert (empty.code, "nothing of any tenant" in empty.err) == (3, True)
    breakable.start("erin")
    assert f"erin took in {done['objects']} objects from a disk" in breakable.ok("status", home="node").text
    months = breakable.json("peer", "usage", "erin", home="keeper")
    assert [row["peer"] for row in months] == ["erin"]
    breakable.stop()
    folders = [word for name in PLACES for word in ("--from", str(breakable.path / name / "data"))]
    assert [one["dataset"] for one in breakable.json("snapshots", *folders, home="keeper")] == ["docs", "later"]
    breakable.ok("restore", "latest:later", "--target", tmp_path / "back", *folders, home="keeper")
    assert (tmp_path / "back" / "later" / "letter.txt").read_text() == "written while erin was away\n"
    assert "nothing of this tenant" in breakable.fails(
        1, "restore", "latest", "--target", tmp_path / "none", "--from", tmp_path, home="keeper"
    )
    where = ("--target", tmp_path / "all", "--keeper-only")
    paper = breakable.run("recover", "--sheet", breakable.sheet, *folders, *where, home="paper")
    assert paper.code == 3, paper.err
    assert "NOT DONE YET: no provider has heard of this recovery" in paper.err
    assert "this is as of " in paper.err
    assert (tmp_path / "all" / "later" / "later" / "letter.txt").read_text() == "written while erin was away\n"
    neither = breakable.fails(2, "recover", "--sheet", breakable.sheet, home="none")
    assert "give --peer ADDR, --from DISK, or both" in neither
    silent = breakable.run("peer", "usage", "erin", home="keeper")
    assert (silent.code, "no endpoint answers" in silent.err) == (3, True)
