"""Keys as people handle them: at a terminal and from files, in homes of every role."""

import json
import os
import stat
from pathlib import Path

import pytest

from tests.cli.federation import PASSPHRASE, PLACES, Federation
from tests.cli.test_terminal import at_terminal

pytestmark = pytest.mark.process
NEW = "quite another passphrase"


@pytest.fixture
def new_file(tmp_path: Path) -> Path:
    path = tmp_path / "new"
    path.write_text(NEW + "\n")
    path.chmod(0o600)
    return path


def join(federation: Federation, role: str, home: str) -> str:
    """Let a machine join; return the name it got."""
    request = federation.json("node", "request", "--role", role, "--name", home, home=home)["code"]
    added = federation.json("node", "add", "-", home="keeper", stdin=request)
    assert added["role"] == role
    accepted = federation.json("node", "add", "-", home=home, stdin=added["code"])
    assert accepted["role"] == role
    assert accepted["fingerprint"] == added["fingerprint"]
    return str(added["name"])


def test_the_list_has_every_key_once_with_who_holds_it(federation: Federation) -> None:
    rows = federation.json("key", "list", home="keeper")
    kinds = [row["kind"] for row in rows]
    assert kinds.count("provider") == len(PLACES)
    assert {"root", "owner", "restore", "index", "member", "keeper", "node", "maintainer"} < set(kinds)
    assert len({row["id"] for row in rows}) == len(rows)
    [owner] = [row for row in rows if row["kind"] == "owner"]
    assert owner["here"] == str(federation.path / "keeper" / "keeper" / "owner.key")
    assert (owner["revoked"], owner["can"], owner["cannot"]) == (
        False,
        "sign charters: peers, members, rights, within root's floors",
        "go below a floor",
    )
    text = federation.ok("key", "list", home="node").text
    assert "attic" in text
    assert "In this home:" in text
    assert "owner.key" not in text


def test_a_check_opens_what_the_passphrase_and_the_sheet_should(federation: Federation) -> None:
    rows = federation.json("key", "check", home="keeper")
    assert [row["id"] for row in rows] == [
        *("owner key", "maintenance key", "restore key of main", "index keys of main")
    ]
    assert all(row["opens"] for row in rows)
    rows = federation.json("key", "check", "--sheet", federation.sheet, home="keeper")
    assert sum(row["id"].startswith("keybag at") and row["opens"] for row in rows) == len(PLACES)
    assert "this home is no keeper" in federation.fails(6, "key", "check", home="node")


def test_a_check_of_another_sheet_is_no_integrity_failure_but_a_wrong_key(
    federation: Federation, tmp_path: Path
) -> None:
    federation.ok("init", "--name", "other", "--recovery-sheet", tmp_path / "sheet", home="other-tenant")
    said = federation.fails(1, "key", "check", "--sheet", tmp_path / "sheet", home="keeper")
    assert "this is the sheet of tenant" in said


def test_the_words_may_be_typed_by_their_first_four_letters_and_a_slip_is_asked_for_again(
    federation: Federation,
) -> None:
    words = [word[:4] for word in federation.words]
    answers = [PASSPHRASE, *words]
    answers.insert(5, "xyzzy")  # no word at all, for the fifth
    wrong = "academic" if federation.words[20] != "academic" else "acid"
    answers[22] = wrong  # word 21, behind the passphrase and the slip; a sheet may have the same word twice
    answers.append(federation.words[20])  # asked for once more, when the checksum has told which
    code, out, shown = at_terminal(federation, "key", "check", "--sheet", "-", home="keeper", answers=tuple(answers))
    assert code == 0, shown
    assert "'xyzzy' is not a word of such sheets" in shown
    assert "it is word 21: compare it with the paper" in shown
    assert out.count("opens, and is the right one") == 4 + 2 + len(PLACES)


def test_init_asks_for_words_from_the_paper(federation: Federation) -> None:
    code, out, shown = at_terminal(
        federation, "init", "--name", "rehearsed", home="rehearsed", answers=(PASSPHRASE, PASSPHRASE, *["academic"] * 9)
    )
    assert code == 0
    assert "Is everything on paper?" in shown
    assert "the words were not checked" in shown or "these words are right" in shown
    words = [cell for line in out.splitlines() if line and line.lstrip()[0].isdigit() for cell in line.split()]
    assert len(words) == 66
    code, _, shown = at_terminal(
        federation, "init", "--name", "unasked", "--yes", home="unasked", answers=(PASSPHRASE, PASSPHRASE)
    )
    assert code == 0
    assert "Is everything on paper?" not in shown


def test_a_new_passphrase_opens_the_home_and_the_old_one_does_not(breakable: Federation, new_file: Path) -> None:
    breakable.ok("key", "passphrase", "--new-passphrase-file", new_file, "--memory", "80Mi", home="keeper")
    assert "the passphrase is wrong" in breakable.fails(1, "snapshots", home="keeper")
    assert breakable.json("snapshots", "--passphrase-file", new_file, home="keeper")[0]["dataset"] == "docs"


@pytest.mark.parametrize(
    "options", [("--memory", "64G"), ("--memory", "1Mi"), ("--passes", "2"), ("--passes", "1000")], ids=" ".join
)
def test_a_passphrase_costs_within_bounds(federation: Federation, new_file: Path, options: tuple[str, ...]) -> None:
    said = federation.fails(2, "key", "passphrase", "--new-passphrase-file", new_file, *options, home="keeper")
    assert "allowed are 65536–4194304, 3–16, 1–16" in said


def test_the_sheet_replaces_a_lost_passphrase_without_any_provider(breakable: Federation, new_file: Path) -> None:
    breakable.stop()
    sheet = breakable.sheet
    breakable.ok("key", "reset", "--sheet", sheet, "--new-passphrase-file", new_file, home="keeper")
    assert all(row["opens"] for row in breakable.json("key", "check", "--passphrase-file", new_file, home="keeper"))
    breakable.start()


def test_a_new_passphrase_may_be_a_credential_of_the_unit(breakable: Federation, tmp_path: Path) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir(mode=0o700)
    (folder / "replicator-new-passphrase").write_text(NEW)
    (folder / "replicator-new-passphrase").chmod(0o440)  # as systemd shows one that a unit's user may read
    done = breakable.run("key", "passphrase", home="keeper", env={"CREDENTIALS_DIRECTORY": str(folder)})
    assert done.code == 0, done.err
    (folder / "replicator-passphrase").write_text(NEW)
    (folder / "replicator-passphrase").chmod(0o440)
    nothing = {"CREDENTIALS_DIRECTORY": str(folder), "REPLICATOR_PASSPHRASE_FILE": None}
    assert breakable.run("key", "check", home="keeper", env=nothing).code == 0


def test_a_passphrase_that_others_can_read_is_refused_with_the_way_out(federation: Federation, tmp_path: Path) -> None:
    path = tmp_path / "loose"
    path.write_text(PASSPHRASE)
    for mode in (0o644, 0o640, 0o604):
        path.chmod(mode)
        said = federation.fails(1, "key", "check", "--passphrase-file", path, home="keeper")
        assert f"others can read it (mode {mode:04o})" in said
        assert f"chmod 600 {path}" in said


def test_keys_are_put_in_the_place_of_others_and_all_goes_on(breakable: Federation) -> None:
    for what in (("index",), ("maintenance",), ("owner", "--sheet", str(breakable.sheet))):
        breakable.ok("key", "rotate", *what, home="keeper")
    assert all(row["opens"] for row in breakable.json("key", "check", "--sheet", breakable.sheet, home="keeper"))
    (breakable.path / "docs" / "later").write_text("later")
    breakable.ok("backup", home="node")
    breakable.ok("restore", "latest", "--target", breakable.path / "all", home="keeper")
    assert (breakable.path / "all" / "docs" / "later").read_text() == "later"
    (breakable.path / "docs" / "later").unlink()


def test_another_owner_waits_until_all_that_this_home_did_not_sign_was_looked_at(breakable: Federation) -> None:
    """A home that was made anew from the sheet remembers no charter, as one of an earlier release."""
    (breakable.path / "keeper" / "keeper" / "signed-here.json").unlink()
    rotate = ("key", "rotate", "owner", "--sheet", str(breakable.sheet))
    refused = breakable.run(*rotate, "--json", home="keeper")
    assert refused.code == 2
    rows = refused.json()["unconfirmed"]
    assert {row["kind"] for row in rows} == {"node", "provider"}
    said = breakable.fails(2, *rotate, "--keep", rows[0]["name"], home="keeper")
    assert rows[0]["id"][:12] not in said
    assert all(row["id"][:12] in said for row in rows[1:])
    assert "--keep and --drop have no meaning" in breakable.fails(
        2, "key", "rotate", "index", "--drop", "alice", home="keeper"
    )
    keep = [word for row in rows[1:] for word in ("--keep", row["id"])]
    done = breakable.json(*rotate, *keep, "--drop", rows[0]["id"][:16], home="keeper")
    assert [row["id"] for row in done["dropped"]] == [rows[0]["id"]]
    left = breakable.json("key", "list", home="keeper")
    assert rows[0]["id"] not in {row["id"] for row in left}


def test_only_the_sheet_names_another_owner(federation: Federation) -> None:
    assert "only root can name another owner" in federation.fails(2, "key", "rotate", "owner", home="keeper")
    said = federation.fails(2, "key", "rotate", "index", "--sheet", federation.sheet, home="keeper")
    assert "no meaning" in said


def test_a_drill_host_reads_and_drills_and_can_do_nothing_else(breakable: Federation) -> None:
    join(breakable, "drill", "barn")
    held = {path.name: path.read_bytes() for path in (breakable.path / "barn" / "drill").iterdir() if path.is_file()}
    assert "owner.key" not in held
    assert "request.json" not in held
    assert [name for name in held if name.startswith("domain-")]
    assert breakable.json("snapshots", home="barn")[0]["dataset"] == "docs"
    [drilled] = breakable.json("drill", home="barn")
    assert drilled["dataset"] == "docs"
    assert breakable.json("drill", "--list", home="barn") != []
    assert breakable.ok("status", home="barn").code == 0
    assert all(row["opens"] for row in breakable.json("key", "check", home="barn"))
    for line in ("backup", "peer remove alice", "node revoke attic", "key rotate index", "key sheet --addresses"):
        breakable.fails(6, *line.split(), home="barn")
    assert "keeper" in breakable.fails(6, "forget", "--keep-last", "1", home="barn")
    planned = breakable.run("forget", "--keep-last", "1", "--dry-run", "--json", home="barn")
    assert (planned.code, [row["keep"] for row in planned.json()][-1]) == (6, True)
    assert any("no maintenance key, so this home could not do it" in line for line in planned.said)
    breakable.ok("key", "revoke", "barn", home="keeper")
    assert breakable.run("cat", "latest", "docs/run.sh", home="barn").code != 0
    [row] = [row for row in breakable.json("key", "list", "--all", home="keeper") if row["name"] == "barn"]
    assert row["revoked"]


def test_a_maintainer_checks_what_is_sealed_and_reads_nothing(breakable: Federation) -> None:
    join(breakable, "maintainer", "shed")
    folder = breakable.path / "shed" / "maintainer"
    assert stat.S_IMODE((folder / "index.bin").stat().st_mode) == 0o600
    assert breakable.json("verify", "--all", home="shed")["problems"] == []
    assert breakable.ok("status", home="shed").code == 0
    for line in ("snapshots", "ls latest", "cat latest docs/run.sh", "drill", "backup", "key check"):
        breakable.fails(6, *line.split(), home="shed")
    said = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"docs" not in said


def test_a_role_that_was_not_asked_for_is_not_accepted(breakable: Federation) -> None:
    request = breakable.json("node", "request", "--role", "drill", "--name", "a", home="asks-a")["code"]
    breakable.json("node", "request", "--role", "maintainer", "--name", "b", home="asks-b")
    grant = breakable.json("node", "add", "-", home="keeper", stdin=request)["code"]
    said = breakable.fails(1, "node", "add", "-", home="asks-b", stdin=grant)
    assert "not sealed to this key" in said
    assert not (breakable.path / "asks-b" / "drill").exists()


def test_the_address_part_is_printed_as_often_as_one_likes_and_has_no_secret(
    breakable: Federation, tmp_path: Path
) -> None:
    def asked() -> bool:
        return "no address of a provider was printed" in breakable.run("status", home="keeper").text

    assert asked()
    text = breakable.ok("key", "sheet", "--addresses", home="keeper").text
    assert not asked()
    for endpoint in breakable.endpoints.values():
        assert f"{endpoint}/" in text
    assert not any(" ".join(breakable.words[i : i + 2]) in text for i in range(32))
    page = tmp_path / "addresses"
    rows = breakable.json("key", "sheet", "--addresses", "--file", page, home="keeper")["addresses"]
    assert len(rows) == len(PLACES)
    assert rows[0]["address"] in page.read_text()
    assert "exists already" in breakable.fails(2, "key", "sheet", "--addresses", "--file", page, home="keeper")
    home = breakable.path / "from-paper"
    breakable.ok("recover", "--sheet", breakable.sheet, "--peer", rows[2]["address"], home=home)


def test_a_sheet_that_others_can_read_is_used_and_told_of(federation: Federation, tmp_path: Path) -> None:
    path = tmp_path / "sheet"
    path.write_text(federation.sheet.read_text())
    os.chmod(path, 0o644)
    done = federation.run("key", "check", "--sheet", path, home="keeper")
    assert done.code == 0
    assert "others can read it" in done.err


def test_a_revocation_by_hand_says_what_it_cannot_undo(breakable: Federation) -> None:
    name = join(breakable, "drill", "porch")
    done = breakable.ok("key", "revoke", name, home="keeper")
    assert "whatever objects it can still get hold of, it can read" in done.text
    assert json.loads(breakable.run("key", "list", "--json", home="keeper").out)
    assert "no right any more" in breakable.fails(2, "key", "revoke", name, home="keeper")
