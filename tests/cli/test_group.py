"""Groups as people call them: what is printed, what is refused, and how. Providers alone; nobody is dialled."""

from pathlib import Path

import pytest

from tests.cli.federation import Place

pytestmark = pytest.mark.process


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Two homes of providers that listen on addresses where nobody answers."""
    made = Place(path=tmp_path)
    for name, port in (("alice", 1), ("bob", 2)):
        made.ok(
            *("provider", "init", "--data", tmp_path / name / "data", "--capacity", "10G", "--owner", name),
            *("--site", "cellar", "--region", "umea", "--country", "SE", "--listen", f"127.0.0.1:{port}"),
            home=name,
        )
    return made


def test_a_group_from_its_beginning_to_its_end_at_one_home(place: Place) -> None:
    assert "in no group" in place.fails(1, "group", "show", home="alice")
    begun = place.ok("group", "new", "friends", home="alice")
    assert "gives nothing to members yet" in begun.text
    place.ok("provider", "set", "--for-members", "1G", home="alice")
    made = place.json("group", "invite", "--for", "bob", "--valid", "36h", home="alice")
    assert made["code"].startswith("rpl-group-")
    [row] = place.json("group", "codes", home="alice")
    assert (row["id"], row["for"], row["state"]) == (made["id"], "bob", "open")
    shown = place.json("group", "show", home="alice")
    [member] = shown["members"]
    assert (shown["name"], member["name"], member["state"], member["you"], member["site"]) == (
        *("friends", "alice", "in", True),
        "cellar",
    )
    assert place.json("group", "revoke", made["id"], home="alice")["heard"] is True
    assert "no open code" in place.fails(1, "group", "revoke", made["id"], home="alice")
    assert place.json("provider", "status", home="alice")["for_members"] == 10**9
    assert place.json("group", "leave", "--dry-run", home="alice")["left"] is False
    assert place.json("group", "show", home="alice")["state"] == "in"
    place.ok("group", "leave", home="alice")
    assert place.json("group", "show", home="alice")["state"] == "left"
    assert "not in 'friends' any more" in place.fails(2, "group", "invite", home="alice")


def test_what_cannot_be_meant_is_said_in_words(place: Place) -> None:
    place.ok("group", "new", "friends", home="alice")
    code = place.json("group", "invite", home="alice")["code"]
    (place.path / "code").write_text(f"  {code[:40]}\n{code[40:].upper()}\n")
    (place.path / "empty").write_text("\n")
    invite = place.json("provider", "invite", "--quota", "1G", home="alice")["code"]
    for line, exit_code, said in (
        (("group", "join", code), 1, "no endpoint answers"),
        (("group", "join", "--file", place.path / "code"), 1, "no endpoint answers"),
        (("group", "join", code[:-4]), 1, "damaged or incomplete"),
        (("group", "join", invite), 1, "of kind 'invite'; one of kind 'group' is needed"),
        (("group", "join", "-"), 2, "no code was given"),
        (("group", "join"), 2, "no code was given"),
        (("group", "join", "--file", place.path / "empty"), 2, "no code was given"),
        (("group", "join", "--file", place.path / "nowhere"), 2, "cannot be read"),
        (("group", "join", code, "--file", place.path / "code"), 2, "a code and a file"),
        (("group", "join", code, "--name", "x" * 65), 2, "a member's name"),
        (("group", "accept"), 6, "no keeper here"),
        (("group", "expel", "alice"), 1, "in no group"),
        (("group", "codes"), 1, "in no group"),
    ):
        assert said in place.fails(exit_code, *line, home="bob"), line
    for words, exit_code, said in (
        (("group", "new", "others"), 2, "in 'friends' already"),
        (("group", "join", code), 2, "in 'friends' already"),
        (("group", "invite", "--valid", "0d"), 2, "never valid"),
        (("group", "expel", "alice"), 2, "this very home"),
        (("group", "expel", "bob"), 1, "no member 'bob'"),
        (("group", "revoke", ""), 1, "no open code"),
        (("provider", "set", "--for-members", "11G"), 2, "this provider offers"),
        (("peer", "add", code), 6, "no keeper"),
    ):
        assert said in place.fails(exit_code, *words, home="alice"), words
    assert "neither a tenant's keeper nor a provider" in place.fails(6, "group", "show", home="nowhere")
    assert place.json("group", "expel", "alice", "--dry-run", home="alice")["expelled"] is False


def test_what_members_get_can_be_declared(place: Place) -> None:
    config = place.path / "alice" / "config.toml"
    declared = "\n".join(
        (
            "[provider]",
            f'data = "{place.path / "alice" / "data"}"',
            'capacity = "10G"',
            'owner = "alice"',
            'site = "cellar"',
            'region = "umea"',
            'country = "SE"',
            'listen = "127.0.0.1:1"',
        )
    )
    config.write_text(f'{declared}\nfor_members = "2G"\n')
    place.ok("provider", "prove", home="alice")
    assert place.json("provider", "status", home="alice")["for_members"] == 2 * 10**9
    assert "would set it back" in place.fails(2, "provider", "set", "--for-members", "1G", home="alice")
    config.write_text(f'{declared}\nfor_members = "11G"\n')
    assert "more than the capacity" in place.fails(1, "check-config", config)
