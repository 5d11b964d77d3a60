"""What cannot be right: each is answered in a line or two that say what, where and what to do, with its code."""

import fcntl
import json
import os
import shutil
from pathlib import Path

import pytest

from replicator.format.codec import decode, encode
from replicator.format.codes import read_code, write_code
from replicator.format.offer import Invite
from tests.cli.federation import Federation, Place

pytestmark = pytest.mark.process


def test_mistyped_lines_are_usage_errors_and_one_document(federation: Federation) -> None:
    for line in (
        ("statsu",),
        ("status", "--offlin"),
        ("backup", "--json", "--nope"),
        ("restore", "latest"),
        ("dataset", "add", "x"),
        ("provider", "init", "--data", "x"),
        ("provider", "nope"),
    ):
        document = federation.json(*line, home="node", code=2)
        assert document["exit"] == 2
        assert document["error"]["message"]
        assert "--help" in document["error"]["hint"]
        assert len(federation.fails(2, *line, home="node").splitlines()) == 2


def test_a_home_that_is_not_there_or_of_another_kind_lacks_the_key(federation: Federation) -> None:
    for line, home, said in (
        (("status",), "nowhere", "neither keeper nor node"),
        (("status",), "alice", "neither keeper nor node"),
        (("status",), "passphrase", "neither keeper nor node"),
        (("backup",), "nowhere", "this home is no node: no tenant is here yet"),
        (("backup",), "keeper", "this home is no node"),
        (("ls", "latest"), "node", "this home is no keeper"),
        (("peer", "add", "rpl-invite-x"), "node", "this home is no keeper"),
        (("provider", "invite", "--quota", "1G"), "node", "no provider lives here"),
        (("provider", "serve"), "keeper", "no provider lives here"),
    ):
        document = federation.json(*line, home=home, code=6)
        assert said in document["error"]["message"]
        assert document["error"]["hint"]
    assert not (federation.path / "nowhere").exists()


def test_a_wrong_short_missing_or_binary_passphrase(federation: Federation, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("not-the-one\n")
    wrong.chmod(0o600)

    def said(path: Path) -> str:
        return federation.fails(1, "snapshots", "--passphrase-file", path, home="keeper")

    assert "the passphrase is wrong" in said(wrong)
    assert "recover" in said(wrong)
    assert f"{tmp_path / 'no'}: the passphrase cannot be read (No such file or directory)" in said(tmp_path / "no")
    assert "Is a directory" in said(tmp_path)
    wrong.write_bytes(b"\xff\xfe\x00")
    assert "binary" in said(wrong)
    wrong.write_text("short\n")
    error = federation.fails(2, "init", "--name", "x", "--passphrase-file", wrong, home="fresh")
    assert "5 characters, at least 8" in error
    wrong.chmod(0o644)
    assert f"chmod 600 {wrong}" in federation.fails(1, "init", "--name", "x", "--passphrase-file", wrong, home="fresh")
    assert not (federation.path / "fresh").exists()


def test_codes_that_are_damaged_of_another_kind_used_or_expired(federation: Federation) -> None:
    code = federation.invite("alice")
    request = federation.json("node", "request", home="asks")["code"]
    assert federation.json("node", "request", home="asks")["code"] == request
    for line, wrong, status, said in (
        (("peer", "add"), "hello", 1, "not a replicator code"),
        (("peer", "add"), "", 2, "no code was given"),
        (("peer", "add"), code[:-5] + "aaaaa", 1, "damaged or incomplete"),
        (("peer", "add"), code[:60], 1, "damaged or incomplete"),
        (("peer", "add"), request, 1, "kind 'request'; one of kind 'invite'"),
        (("node", "add"), code, 1, "kind 'invite'; one of kind 'request'"),
        (("node", "add"), "rpl-grant-aaaa", 1, ""),
    ):
        error = federation.fails(status, *line, "-", home="keeper", stdin=wrong)
        assert said in error
    invite = decode(Invite, read_code("invite", code))
    past = Invite(
        identity=invite.identity,
        endpoints=invite.endpoints,
        secret=invite.secret,
        quota=invite.quota,
        expires_ns=invite.expires_ns - 8 * 86400 * 10**9,
    )
    assert "expired" in federation.fails(1, "peer", "add", write_code("invite", encode(past)), home="keeper")
    federation.ok("init", "--name", "first", "--recovery-sheet", federation.path / "sheet-first", home="first")
    federation.ok("peer", "add", f" {code.upper()}\n", home="first")
    used = federation.fails(1, "peer", "add", code, home="keeper")
    assert "used already" in used
    assert "alice" in used


def test_a_grant_is_for_the_machine_that_asked(federation: Federation) -> None:
    request = federation.json("node", "request", home="one")["code"]
    grant = federation.json("node", "add", "-", home="keeper", stdin=request)["code"]
    federation.ok("node", "request", home="two")
    federation.fails(1, "node", "add", "-", home="two", stdin=grant)
    assert "no request was made here" in federation.fails(1, "node", "add", "-", home="three", stdin=grant)
    federation.ok("node", "revoke", federation.json("node", "list", home="keeper")[-1]["name"], home="keeper")


def test_names_sizes_terms_and_countries_that_cannot_be(federation: Federation) -> None:
    docs = federation.path / "docs"
    for name in ("", "..", "a/b", "a:b", "a@b", "x\ny", "å" * 65):
        assert "cannot be a dataset's name" in federation.fails(2, "dataset", "add", "--", name, docs, home="node")
    for options, said in (
        (("--copies", "0"), "1<=x<=64"),
        (("--copies", "2", "--minimum", "3"), "more than 2 copies"),
        (("--spread", "town"), "unknown failure domain town"),
        (("--residency", "US"), "goes beyond EEA, which is all that root allows"),
        (("--residency", "any"), "root allows only EEA"),
        (("--residency", "XX"), "unknown residency 'XX'"),
        (("--residency", ""), "unknown residency ''"),
    ):
        assert said in federation.fails(2, "dataset", "add", "other", docs, *options, home="node")
    terms = {"--data": "d", "--capacity": "1G", "--country": "SE", "--region": "r", "--site": "s", "--owner": "o"}
    for option, value, said in (
        ("--capacity", "lots", "is not a size"),
        ("--capacity", "-5G", "is not a size"),
        ("--capacity", "0", "is nothing"),
        ("--capacity", "9999999P", "more than any disk"),
        ("--lock", "30", "is not a duration"),
        ("--grace", "9999w", "more than ten years"),
        ("--country", "XX", "unknown country 'XX'"),
        ("--owner", "", "cannot be an owner"),
        ("--site", "a\tb", "cannot be a site"),
        ("--listen", "here", "'here' is not HOST:PORT"),
        ("--advertise", "::1:7144", "write an IPv6 address as"),
    ):
        words = [word for pair in {**terms, option: value}.items() for word in pair]
        assert said in federation.fails(2, "provider", "init", *words, home="no-provider")
    assert not (federation.path / "no-provider").exists()
    for options, said in (
        (("--quota", "0"), "a quota of 0 bytes"),
        (("--quota", "11G"), "this provider offers 10000000000"),
        (("--quota", "1G", "--valid", "soon"), "is not a duration"),
        (("--quota", "1G", "--valid", "0d"), "never valid"),
    ):
        assert said in federation.fails(2, "provider", "invite", *options, home="alice")
    for sample in ("x", "nan%", "101%", "-1%"):
        assert "%" in federation.fails(2, "verify", "--sample", sample, home="node")
    for line in (("peer", "set", "alice"), ("peer", "set", "alice", "--country", "Sweden")):
        federation.fails(2, *line, home="keeper")
    for options, said in (
        (("--state", "away"), "until when is it away"),
        (("--state", "away", "--until", "2020-01-01"), "not within the next 30 days"),
        (("--state", "away", "--until", "31d"), "not within the next 30 days"),
        (("--state", "away", "--until", "soon"), "neither a day nor a duration"),
        (("--state", "gone", "--until", "3d"), "goes with --state away"),
        (("--until", "3d"), "--until says when"),
    ):
        assert said in federation.fails(2, "peer", "set", "alice", *options, home="keeper")


def test_a_tenant_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    place = Place(path=tmp_path)
    sheet = tmp_path / "sheet"
    for options, said in (
        (("--name", ""), "cannot be a tenant's name"),
        (("--name", "a\nb"), "cannot be a tenant's name"),
        (("--name", "x", "--country", "XX"), "unknown country 'XX'"),
        (("--name", "x", "--recovery-sheet", tmp_path / "no" / "sheet"), "no such folder"),
        (("--name", "x", "--recovery-sheet", place.passphrase_file), "exists already"),
        (("--country", "SE"), "Missing option '--name'"),
    ):
        assert said in place.fails(2, "init", "--recovery-sheet", sheet, *options, home="home")
    assert "cannot be written" in place.fails(1, "init", "--name", "x", "--recovery-sheet", "/proc/sheet", home="home")
    assert os.listdir(tmp_path) == ["passphrase"]
    place.ok("init", "--name", "x", "--recovery-sheet", sheet, home="home")
    again = place.fails(1, "init", "--name", "x", "--recovery-sheet", tmp_path / "other", home="home")
    assert "there is a keeper here already" in again
    assert not (tmp_path / "other").exists()


def test_names_of_what_is_not_there_are_answered_with_what_is(federation: Federation) -> None:
    for line, home, said in (
        (("backup", "nope"), "node", "no dataset 'nope' in this home (there are: docs)"),
        (("dataset", "show", "nope"), "node", "there are: docs"),
        (("dataset", "remove", "nope"), "node", "there are: docs"),
        (("peer", "show", "nope"), "node", "there are: alice, bob, carol, dave, erin"),
        (("peer", "remove", "nope"), "keeper", "there are: alice"),
        (("node", "revoke", "nope"), "keeper", "there are: attic"),
        (("dataset", "add", "ghost", "/nowhere/at/all"), "node", "/nowhere/at/all: there is nothing here"),
        (("dataset", "add", "docs", "/"), "node", "exists already"),
    ):
        code = 2 if "already" in said else 1
        assert said in federation.fails(code, *line, home=home)


def test_a_path_that_vanished_is_named_and_what_was_stored_stays(federation: Federation) -> None:
    folder = federation.path / "brief"
    folder.mkdir()
    (folder / "note").write_text("here today\n")
    federation.ok("dataset", "add", "brief", folder, home="node")
    federation.ok("backup", "brief", home="node")
    shutil.rmtree(folder)
    result = federation.run("backup", "brief", home="node")
    assert result.code == 1
    assert str(folder) in result.err
    assert "brief: NOT backed up" in result.text
    assert federation.ok("cat", "latest:brief", "note", home="keeper").text == "here today\n"
    federation.ok("dataset", "remove", "brief", home="node")


def test_sheets_that_are_damaged_say_where(federation: Federation, tmp_path: Path) -> None:
    words = federation.words
    known = "academic" if words[4] != "academic" else "acid"

    def said(sheet: str) -> str:
        return federation.fails(
            1, "recover", "--sheet", "-", "--peer", federation.endpoints["alice"], home="rescue", stdin=sheet
        )

    assert "word 5 ('zzzz')" in said(" ".join([*words[:4], "zzzz", *words[5:]]))
    assert "at least one is wrong" in said(" ".join([*words[:4], known, *words[5:]]))
    assert "33 words, 32 were given" in said(" ".join(words[:32]))
    assert "no words in this sheet" in said("")
    assert "word 7" in said("\n".join(f"{i}. {word}" for i, word in enumerate(words, 1) if i != 7))
    for path in (tmp_path / "none", tmp_path):
        line = ("recover", "--sheet", path, "--peer", federation.endpoints["alice"])
        assert str(path) in federation.fails(1, *line, home="rescue")
    assert not (federation.path / "rescue").exists()


def test_addresses_to_recover_from_that_are_none_silent_strangers_or_someone_else(federation: Federation) -> None:
    def said(code: int, address: str, home: str = "rescue") -> str:
        return federation.fails(code, "recover", "--sheet", federation.sheet, "--peer", address, home=home)

    alice = federation.endpoints["alice"]
    for address in ("nope", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", "::1:7144", f"{alice}/zz"):
        assert "--peer" in said(2, address) or "example.org:7144" in said(2, address) or "identity" in said(2, address)
    assert "does not answer" in said(1, "127.0.0.1:1")
    assert "not the peer that was pinned" in said(1, f"{alice}/{'00' * 32}")
    assert "there is a keeper here already" in said(1, alice, home="keeper")
    stranger = federation.path / "sheet-of-stranger"
    federation.ok("init", "--name", "s", "--keeper-only", "--recovery-sheet", stranger, home="stranger")
    unknown = federation.fails(1, "recover", "--sheet", stranger, "--peer", alice, home="rescue")
    assert "knows no tenant with this sheet" in unknown
    occupied = ("recover", "--sheet", federation.sheet, "--peer", alice, "--target", federation.passphrase_file)
    assert "is not a folder" in federation.fails(1, *occupied, home="rescue")
    assert not (federation.path / "rescue").exists()


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("node/node/home.json", ("backup",)),
        ("keeper/keeper/home.json", ("snapshots",)),
        ("alice/provider/home.json", ("provider", "status")),
    ],
)
def test_a_home_of_a_newer_format_damaged_or_half_there_is_left_alone(
    federation: Federation, file: str, line: tuple[str, ...]
) -> None:
    path = federation.path / file
    home = file.split("/", maxsplit=1)[0]
    kept = path.read_text()
    try:
        path.write_text(json.dumps({**json.loads(kept), "format": 2}))
        error = federation.fails(1, *line, home=home)
        assert "format 2" in error
        assert "newer release" in error
        for damaged in ("{", "[]", "5", ""):
            path.write_text(damaged)
            error = federation.fails(1, *line, home=home)
            assert "damaged" in error
            assert str(path) in error
    finally:
        path.write_text(kept)
    federation.ok(*line, home=home)


def test_only_one_run_works_in_a_home_at_a_time(federation: Federation) -> None:
    with (federation.path / "node" / "node" / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for line in (("backup",), ("repair",), ("run",)):
            document = federation.json(*line, home="node", code=1)
            assert document["error"]["kind"] == "LockedError"
            assert "another run is working here" in document["error"]["message"]
        federation.ok("status", home="node")
        federation.ok("snapshots", home="node")
    assert "a daemon serves this home already" in federation.fails(1, "provider", "serve", home="alice")
    taken = federation.fails(1, "provider", "serve", "--listen", federation.endpoints["alice"], home="alice")
    assert "already" in taken


def test_settings_that_are_wrong_are_named(federation: Federation) -> None:
    path = federation.path / "node" / "config.toml"
    try:
        path.write_text("[node]\nspool_limit = 'much'\n")
        error = federation.fails(1, "backup", home="node")
        assert str(path) in error
        assert "'much' is not a size" in error
    finally:
        path.unlink()


def test_a_catalog_that_is_no_database_is_named(federation: Federation) -> None:
    copy = federation.path / "broken"
    shutil.copytree(federation.path / "node", copy)
    (copy / "node" / "catalog.db").write_bytes(b"this is no database" * 1000)
    for name in ("catalog.db-wal", "catalog.db-shm"):
        (copy / "node" / name).unlink(missing_ok=True)
    assert str(copy / "node" / "catalog.db") in federation.fails(1, "status", "--offline", home="broken")
    for name in ("member.bin", "charter.obj", "identity.seed"):
        path = copy / "node" / name
        kept = path.read_bytes()
        path.write_bytes(kept[:-1])
        federation.run("status", "--offline", home="broken")
        assert federation.run("status", "--offline", home="broken").code in (1, 4)
        path.unlink()
        assert str(path) in federation.fails(1, "status", "--offline", home="broken")
        path.write_bytes(kept)
        path.chmod(0o600)


def test_names_that_are_no_text_can_be_listed(federation: Federation) -> None:
    folder = federation.path / "old"
    folder.mkdir()
    name = os.path.join(os.fsencode(folder), b"caf\xe9")
    with open(name, "wb") as file:
        file.write(b"latin one\n")
    federation.ok("dataset", "add", "old", os.fsdecode(name), home="node")
    assert len(federation.json("dataset", "list", home="node")) == 2
    assert "old" in federation.ok("dataset", "list", home="node").text
    federation.ok("backup", "old", home="node")
    [row] = federation.json("ls", "latest:old", home="keeper")
    assert row["name"] == "caf\\xe9"
    federation.ok("dataset", "remove", "old", home="node")
