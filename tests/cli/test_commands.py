"""Every command of the contract that exists, as a person or a script calls it."""

import base64
import datetime
import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from replicator.cli.base import Session
from replicator.cli.exits import HELP
from replicator.cli.main import OTHER_WORDS, cli
from replicator.engine.parting import Parting, Short, Unproved
from tests.cli.federation import PASSPHRASE, PLACES, Federation, Place

pytestmark = pytest.mark.process


def _commands() -> Iterator[tuple[str, ...]]:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        if isinstance(command, click.Group):
            yield from ((name, inner) for inner in command.list_commands(context))
        else:
            yield (name,)


@pytest.mark.parametrize("words", list(_commands()), ids=" ".join)
def test_every_command_names_its_keys_and_exit_codes_and_takes_the_common_options(words: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(cli, [*words, "--help"], obj=Session(), terminal_width=200)
    assert shown.exit_code == 0
    text = " ".join(shown.output.split())
    assert "Keys: " in text
    assert HELP in text
    for option in ("--home DIR", "--passphrase-file FILE", "--json"):
        assert option in text
    assert "--passphrase TEXT" not in text


def test_options_count_wherever_they_stand_on_the_line(federation: Federation) -> None:
    home = str(federation.path / "node")
    for line in (
        ("--home", home, "--json", "dataset", "list"),
        ("dataset", "--home", home, "--json", "list"),
        ("dataset", "list", "--json", "--home", home),
    ):
        [row] = federation.ok(*line).json()
        assert row["id"] == "docs"


def test_the_environment_names_home_and_passphrase_file(federation: Federation, tmp_path: Path) -> None:
    home: dict[str, str | None] = {"REPLICATOR_HOME": str(federation.path / "keeper")}
    assert federation.run("snapshots", env=home).code == 0
    nothing: dict[str, str | None] = {**home, "REPLICATOR_PASSPHRASE_FILE": None}
    refused = federation.run("snapshots", env=nothing)
    assert refused.code == 1
    assert "there is no terminal to ask on" in refused.err
    assert "--passphrase-file" in refused.err
    assert federation.run("snapshots", "--passphrase-file", federation.passphrase_file, env=nothing).code == 0
    (tmp_path / "replicator-passphrase").write_text(PASSPHRASE)
    (tmp_path / "replicator-passphrase").chmod(0o600)
    assert federation.run("snapshots", env={**nothing, "CREDENTIALS_DIRECTORY": str(tmp_path)}).code == 0


def test_snapshots_are_listed_alike_on_keeper_and_node(federation: Federation) -> None:
    for home in ("keeper", "node"):
        row = federation.json("snapshots", home=home)[0]
        assert len(row["id"]) == 64
        assert (row["dataset"], row["node"], row["size"]) == ("docs", "attic", _size(federation.path / "docs"))
        assert datetime.datetime.fromisoformat(row["time"]).tzinfo is not None
        assert federation.json("snapshots", "nope", home=home) == []
        assert row["id"][:12] in federation.ok("snapshots", home=home).text


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def test_ls_and_cat_show_what_was_backed_up(federation: Federation) -> None:
    assert [row["path"] for row in federation.json("ls", "latest:docs", home="keeper")] == ["docs"]
    rows = {row["path"]: row for row in federation.json("ls", "-R", "latest:docs", home="keeper")}
    assert set(rows) == {
        *("docs", "docs/letters", "docs/letters/empty", "docs/letters/one.txt", "docs/letters/två.txt"),
        *("docs/link", "docs/noise.bin", "docs/run.sh", "docs/void"),
    }
    assert (rows["docs/run.sh"]["mode"], rows["docs/run.sh"]["type"]) == ("0755", "file")
    assert (rows["docs/link"]["type"], rows["docs/link"]["target"]) == ("link", "letters/one.txt")
    assert "docs/link -> letters/one.txt" in federation.ok("ls", "latest:docs", "docs", home="keeper").text
    noise = (federation.path / "docs" / "noise.bin").read_bytes()
    assert federation.ok("cat", "latest:docs", "docs/noise.bin", home="keeper").out == noise
    document = federation.json("cat", "latest:docs", "noise.bin", home="keeper")
    assert base64.b64decode(document["base64"]) == noise


def test_status_says_where_everything_is(federation: Federation) -> None:
    document = federation.json("status", home="node")
    assert document["safe"]
    assert document["exit"] == 0
    [docs] = [one for one in document["datasets"] if one["id"] == "docs"]
    assert (docs["state"], docs["copies"], docs["promised"]) == ("safe", 3, 3)
    assert {one["name"] for one in document["peers"]} == set(PLACES)
    assert all(one["reachable"] and one["probes"] for one in document["peers"])
    offline = federation.json("status", "--offline", home="node")
    assert offline["safe"]
    assert not offline["asked"]
    assert offline["as_of"]
    text = federation.ok("status", home="node").text
    assert text.startswith("Your data is safe, as of 2")
    assert "3 of 3" in text
    assert "nobody was asked" in federation.ok("status", "--offline", home="node").text.lower()
    assert federation.json("status", home="keeper")["safe"]


def test_a_backup_says_on_one_line_what_it_did(federation: Federation) -> None:
    done = federation.ok("backup", "docs", home="node")
    said, sent = done.text.splitlines()
    assert said.startswith("docs: 5 files, 304 kB; read ")
    assert said.endswith(" published")
    assert sent.startswith("sent ")
    assert done.err == ""
    [row] = federation.json("backup", home="node")["datasets"]
    assert (row["id"], row["published"], row["files"], row["error"]) == ("docs", True, 5, None)
    assert row["snapshot"] in {one["id"] for one in federation.json("snapshots", home="keeper")}


def test_a_night_does_what_the_nodes_keys_allow_and_names_the_rest(federation: Federation) -> None:
    document = federation.json("run", home="node")
    assert document["datasets"][0]["published"]
    assert (document["repair"]["missing"], document["repair"]["damaged"]) == (0, 0)
    assert "due elsewhere" in federation.ok("run", home="node").text


def test_verify_opens_seals_on_a_node_and_content_on_a_keeper(federation: Federation) -> None:
    sealed = federation.json("verify", "--all", home="node")
    assert sealed["level"] == "sealed"
    assert sealed["fetched"] == sealed["objects"] > 0
    assert sealed["problems"] == sealed["absent"] == []
    content = federation.json("verify", "--all", home="keeper")
    assert content["level"] == "content"
    assert content["chunks"] > 0
    assert federation.ok("verify", "--sample", "1%", home="node").text.startswith("sealed check: ")


def test_repair_of_what_is_whole_plans_and_makes_nothing(federation: Federation) -> None:
    assert federation.json("repair", "--dry-run", home="node")["planned"] == []
    assert federation.json("repair", home="node")["made"] == 0
    assert "Every object has its promised copies." in federation.ok("repair", home="node").text


def test_why_explains_each_form_of_snap_on_node_and_keeper(federation: Federation) -> None:
    row = federation.json("snapshots", home="node")[0]
    forms = {"node": ("docs", "latest", f"docs@{row['time'][:10]}", row["id"][:20]), "keeper": ("docs", row["id"][:9])}
    for home, whats in forms.items():
        for what in whats:
            document = federation.json("why", what, home=home)
            assert {one["name"] for one in document["places"] if one["objects"]} == set(PLACES)
            assert any("3 of 3 copies" in line for line in document["reasons"])
            assert any("losing the worst country" in line for line in document["survives"])
        assert "'nope' is neither a dataset" in federation.fails(1, "why", "nope", home=home)


def test_rebalance_shows_its_plan_and_moves_nothing_where_all_lies_well(federation: Federation) -> None:
    for home in ("node", "keeper"):
        shown = federation.json("rebalance", "--dry-run", home=home)
        assert (shown["moves"], shown["refused"], shown["dry_run"]) == ([], [], True)
    assert federation.ok("rebalance", home="node").text.startswith("Nothing has to move.")


def test_providers_are_listed_shown_corrected_and_removed_on_the_keeper(federation: Federation) -> None:
    rows = federation.json("peer", "list", home="keeper")
    assert [row["name"] for row in rows] == list(PLACES)
    shown = federation.json("peer", "show", "carol", home="node")
    assert shown["address"].startswith(federation.endpoints["carol"] + "/")
    assert (shown["country"], shown["region"], shown["site"]) == ("NO", "oslo", "shed")
    assert federation.json("peer", "set", "carol", "--site", "barn", home="keeper")["site"] == "barn"
    assert federation.json("peer", "set", "carol", "--site", "shed", home="keeper")["site"] == "shed"
    assert federation.json("peer", "set", "carol", "--state", "away", "--until", "3d", home="keeper")["state"] == "away"
    row = next(one for one in federation.json("peer", "list", home="keeper") if one["name"] == "carol")
    assert (row["state"], row["until"][:2]) == ("away", "20")
    assert federation.json("peer", "set", "carol", "--state", "ok", home="keeper")["until"] is None
    assert federation.json("peer", "show", "carol", home="keeper")["state"] == "ok"
    gone = federation.json("peer", "remove", "carol", "--dry-run", home="keeper")
    assert (gone["id"], gone["removed"], gone["marked"], gone["goes"]) == (shown["id"], False, 0, None)
    assert len(federation.json("peer", "list", home="keeper")) == len(PLACES)


@pytest.mark.parametrize("disproved", [False, True])
def test_a_provider_stays_while_copies_elsewhere_are_not_proved(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, disproved: bool
) -> None:
    copy = Unproved(name=bytes(32), peer="bob", why="it gave no proof in time")

    async def look(*_: object) -> Parting:
        return Parting(objects=3, bytes=1 << 20, stays="3 objects", unproved=[copy], disproved=disproved)

    monkeypatch.setattr("replicator.engine.parting.look_at_parting", look)
    home, secret = str(federation.path / "keeper"), str(federation.passphrase_file)
    common = ("--home", home, "--passphrase-file", secret, "peer", "remove", "carol")
    for words in (("--json",), ("--json", "--dry-run")):
        done = CliRunner().invoke(cli, [*common, *words], obj=Session())
        found = json.loads(done.stdout)
        assert (done.exit_code, found["removed"], found["marked"]) == (4 if disproved else 3, False, 0)
        assert found["unproved"] == [{"id": "00" * 32, "peer": "bob", "why": "it gave no proof in time"}]
    assert "'carol' stays in the charter" in CliRunner().invoke(cli, common, obj=Session()).stdout
    assert "carol" in [row["name"] for row in federation.json("peer", "list", home="keeper")]


@pytest.mark.parametrize(
    ("below", "unsure", "code"), [(True, True, 5), (False, True, 3), (None, True, 3), (None, False, 0)]
)
def test_a_provider_that_is_removed_while_copies_elsewhere_are_too_few_is_no_success(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, below: bool | None, unsure: bool, code: int
) -> None:
    few = [] if below is None else [Short(name=bytes(32), below=below, proved=False)]

    async def look(*_: object) -> Parting:
        return Parting(objects=3, bytes=1 << 20, stays="not all is known: bob", short=few, unsure=unsure)

    async def remove(*_: object) -> list[str]:
        return []

    monkeypatch.setattr("replicator.engine.parting.look_at_parting", look)
    monkeypatch.setattr("replicator.engine.members.remove_peer", remove)
    home, secret = str(federation.path / "keeper"), str(federation.passphrase_file)
    common = ("--home", home, "--passphrase-file", secret, "peer", "remove", "carol")
    done = CliRunner().invoke(cli, [*common, "--json"], obj=Session())
    found = json.loads(done.stdout)
    assert (done.exit_code, found["removed"]) == (code, True)
    assert found["short"] == [{"id": "00" * 32, "below_minimum": one.below, "proved_elsewhere": False} for one in few]
    said = CliRunner().invoke(cli, common, obj=Session()).stdout
    assert ("no copy elsewhere that was proved within a week" in said) == bool(few)


def test_a_node_joins_writes_and_is_revoked(federation: Federation) -> None:
    federation.add_node("second", "cabin")
    names = {row["name"]: row["revoked"] for row in federation.json("node", "list", home="keeper")}
    assert names["cabin"] is False
    again = federation.fails(1, "node", "request", home="second")
    assert "there is a node here already" in again
    (federation.path / "logs").mkdir()
    (federation.path / "logs" / "today").write_text("all is well\n")
    federation.ok("dataset", "add", "logs", federation.path / "logs", home="second")
    federation.ok("backup", home="second")
    assert ("logs", "cabin") in {(row["dataset"], row["node"]) for row in federation.json("snapshots", home="keeper")}
    assert federation.json("node", "revoke", "cabin", home="keeper")["revoked"]
    names = {row["name"]: row["revoked"] for row in federation.json("node", "list", home="keeper")}
    assert names["cabin"] is True
    assert federation.run("backup", home="second").code in (1, 5)
    assert federation.ok("cat", "latest:logs", "today", home="keeper").text == "all is well\n"


def test_datasets_are_added_changed_listed_and_removed(federation: Federation) -> None:
    folder = federation.path / "docs" / "letters"
    options = ("--minimum", "1", "--residency", "SE,NO", "--exclude", "*.tmp", "-x")
    made = federation.json("dataset", "add", "letters", folder, "--copies", "2", *options, home="node")
    assert made["id"] == "letters"
    assert (made["copies"], made["minimum"], made["residency"], made["paths"]) == (2, 1, ["NO", "SE"], [str(folder)])
    changed = federation.json("dataset", "set", "letters", "--copies", "4", "--spread", "country", home="node")
    assert (changed["copies"], changed["spread"], changed["exclude"]) == (4, ["country"], ["*.tmp"])
    assert federation.json("dataset", "show", "letters", home="node") == changed
    assert [row["id"] for row in federation.json("dataset", "list", home="node")] == ["docs", "letters"]
    assert federation.json("dataset", "remove", "letters", "--dry-run", home="node")["removed"] is False
    assert federation.json("dataset", "remove", "letters", home="node")["removed"] is True
    assert [row["id"] for row in federation.json("dataset", "list", home="node")] == ["docs"]


def test_a_dataset_says_what_it_leaves_out(federation: Federation) -> None:
    folder = federation.path / "docs" / "letters"
    patterns = federation.path / "patterns"
    patterns.write_bytes(b"# mine\n*.o\n\xff*\n")
    add = ("dataset", "add", "choosy", folder, "--exclude", "*.tmp", "--include", "keep.tmp")
    made = federation.json(
        *add,
        "--exclude-from",
        patterns,
        "--exclude-if-present",
        ".nobackup",
        "--exclude-larger-than",
        "4G",
        home="node",
    )
    names = ("exclude", "exclude_if_present", "exclude_larger_than", "keep_caches", "one_file_system")

    def changed(*options: str) -> list[object]:
        document = federation.json("dataset", "set", "choosy", *options, home="node")
        assert federation.json("dataset", "show", "choosy", home="node") == document
        return [document[name] for name in names]

    first = [["*.o", "\udcff*", "*.tmp", "!keep.tmp"], [".nobackup"], 4 * 10**9, False, False]
    assert [made[name] for name in names] == first
    assert changed("--copies", "3") == first
    assert changed("--keep-caches", "-x", "--exclude-larger-than", "2Mi") == [*first[:2], 2 * 2**20, True, True]
    assert changed("--skip-caches", "--all-file-systems") == [*first[:2], 2 * 2**20, False, False]
    assert changed("--exclude", f"{folder}/old", "--exclude-larger-than", "none")[:3] == [
        [f"{folder}/old"],
        [".nobackup"],
        None,
    ]
    assert changed("--no-exclude", "--exclude-if-present", "x")[:2] == [[], ["x"]]
    assert changed("--no-exclude")[:2] == [[], []]
    federation.ok("dataset", "remove", "choosy", home="node")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--exclude", "#x"), "'#x' is no pattern"),
        (("--exclude", "a["), "'a[' is no pattern"),
        (("--include", "x"), "neither is given"),
        (("--exclude-from", "/nowhere"), "/nowhere: No such file"),
        (("--exclude-from", "/dev/null"), "/dev/null: there is no pattern in it"),
        (("--exclude-if-present", "a/b"), "'a/b' cannot be the name of a file"),
        (("--exclude-if-present", ""), "'' cannot be the name of a file"),
        (("--exclude-larger-than", "much"), "'much' is not a size"),
        (("--exclude-larger-than", "0"), "nothing would be saved"),
    ],
)
def test_what_cannot_be_left_out_is_said_and_changes_nothing(
    federation: Federation, options: tuple[str, ...], said: str
) -> None:
    before = federation.json("dataset", "show", "docs", home="node")
    assert said in federation.fails(2, "dataset", "set", "docs", *options, home="node")
    assert said in federation.fails(2, "dataset", "add", "new", federation.path, *options, home="node")
    assert federation.json("dataset", "show", "docs", home="node") == before
    assert [row["id"] for row in federation.json("dataset", "list", home="node")] == ["docs"]


def test_a_run_names_what_it_leaves_out_and_snapshots_are_found_by_their_tags(breakable: Federation) -> None:
    top = breakable.path / "studio"
    top.mkdir()
    for number in range(7):
        (top / f"film {number}").write_bytes(bytes(2000))
    cache = top / "cache"
    cache.mkdir()
    (cache / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n")
    breakable.ok("dataset", "add", "studio", top, "--exclude-larger-than", "1K", home="node")
    tags = ("--tag", "before the move", "--tag", "ö")
    run = breakable.ok("backup", "studio", *tags, home="node")
    films = ", ".join(f"{top}/film {number}" for number in range(5))
    assert f"studio: left out, larger than 1 kB: {films} and 2 more\n" in run.text
    assert f"studio: left out, what is in a cache folder (CACHEDIR.TAG): {cache}\n" in run.text
    [document] = breakable.json("backup", "studio", "--tag", "ö", home="node")["datasets"]
    assert document["skipped_by_reason"] == {
        "larger than 1 kB": 7,
        "what is in a cache folder (CACHEDIR.TAG)": 1,
    }
    assert len(document["skipped"]) == 8
    assert {"id": f"{top}/film 6", "reason": "larger than 1 kB"} in document["skipped"]
    for home in ("node", "keeper"):
        rows = breakable.json("snapshots", "studio", home=home)
        assert [row["tags"] for row in rows] == [["before the move", "ö"], ["ö"]]
        assert [row["tags"] for row in breakable.json("snapshots", "docs", home=home)][:1] == [[]]
        ids = [row["id"] for row in rows]  # ages and who answers differ from call to call
        assert [row["id"] for row in breakable.json("snapshots", "--tag", "ö", home=home)] == ids
        assert [row["id"] for row in breakable.json("snapshots", *tags, home=home)] == ids[:1]
        assert breakable.json("snapshots", "--tag", "none", home=home) == []
        assert "before the move, ö\n" in breakable.ok("snapshots", home=home).text
    assert "cannot be a tag" in breakable.fails(2, "backup", "--tag", " ", home="node")


def test_a_provider_shows_its_tenants_and_invites(federation: Federation) -> None:
    code = federation.json("provider", "invite", "--quota", "5Gi", "--for", "aunt", home="dave")
    assert code["code"].startswith("rpl-invite-")
    assert code["quota"] == 5 * 2**30
    assert federation.invite("dave") != code["code"]
    document = federation.json("provider", "status", home="dave")
    assert [one["quota"] for one in document["tenants"]] == [10**9]
    assert document["tenants"][0]["objects"] == len(federation.objects("dave"))
    assert {one["label"]: one["state"] for one in document["invites"]}["aunt"] == "open"
    assert code["code"] not in federation.ok("provider", "status", home="dave").text


def test_a_tenant_is_made_with_keeper_and_node_and_its_words_are_shown_once(tmp_path: Path) -> None:
    place = Place(path=tmp_path)
    document = place.json("init", "--name", "hut", home="home")
    assert len(document["words"]) == 33
    assert document["node"] is not None
    assert place.json("dataset", "list", home="home") == []
    status = place.run("status", "--json", home="home")
    assert (status.code, status.json()["safe"]) == (0, False)
    text = place.ok("init", "--name", "hut", home="other").text
    assert " 1. " in text
    assert "33. " in text


def test_everything_comes_back_from_the_sheet_and_one_address(breakable: Federation) -> None:
    place = breakable
    with_pin = place.json("peer", "show", "erin", home="node")["address"]
    back = place.path / "back"
    document = place.json("recover", "--sheet", place.sheet, "--peer", with_pin, "--target", back, home="new")
    assert (document["name"], document["peers"]) == ("björkby", 5)
    assert {one["dataset"]: one["files"] for one in document["restored"]}["docs"] == 5
    # Several datasets lie apart, each below its own name.
    if len(document["restored"]) > 1:
        back = back / "docs"
    assert (back / "docs" / "noise.bin").read_bytes() == (place.path / "docs" / "noise.bin").read_bytes()
    typed = place.run(
        *("recover", "--sheet", "-", "--peer", place.endpoints["bob"], "--keeper-only"),
        home="newer",
        stdin=" ".join(place.words).upper(),
    )
    assert typed.code == 0
    assert place.ok("cat", "latest:docs", "docs/run.sh", home="newer").text == "#!/bin/sh\n"
    assert place.run("dataset", "list", home="newer").code == 6
    # The node, which nobody asked, goes on; the keeper that was lost has no rights any more.
    place.ok("backup", home="node")


@pytest.mark.parametrize("word", sorted(OTHER_WORDS))
def test_words_of_other_programs_are_answered_with_ours(word: str) -> None:
    said = CliRunner().invoke(cli, [word], obj=Session())
    assert said.exit_code == 2
    assert OTHER_WORDS[word] in said.stderr


def test_help_and_version_need_no_home(tmp_path: Path) -> None:
    place = Place(path=tmp_path)
    assert "backup" in place.ok("--help").text
    assert place.ok("--version").text.startswith("replicator, version ")
    assert place.run().code == 2
