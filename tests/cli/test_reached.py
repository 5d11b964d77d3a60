"""Where a provider says that it is, what others find there, and what its operator is told to do."""

from contextlib import closing
from pathlib import Path

import pytest

from replicator.cli.probing import Asked, in_words
from replicator.clock import SystemClock
from replicator.endpoints import via
from replicator.fs import PosixFs
from replicator.ids import Identity, address_form
from replicator.provider.home import open_provider
from replicator.rng import SystemRng
from replicator.wire.messages import ProbeAnswer, Probed, ProbeReply
from tests.cli.federation import Federation, Place
from tests.fakes import START_NS

RELAY = Identity(bytes(range(32)))
OTHER = Identity(bytes(range(1, 33)))
NAMES = {"me.example": ["8.8.8.8", "2600::1"], "lan.example": ["192.168.1.7"], "ours.example": ["9.9.9.9"]}


def resolve(host: str, _port: int) -> list[str]:
    if host not in NAMES:
        raise OSError(-2, "Name or service not known")
    return NAMES[host]


def said(*found: tuple[str, int, ProbeAnswer], listen: str = "0.0.0.0:7144") -> tuple[str, bool]:
    """What people read of one peer's answers, and whether all is well."""
    probed = [Probed(endpoint=endpoint, family=family, answer=answer) for endpoint, family, answer in found]  # type: ignore[arg-type] # 0, 4 or 6
    reply = ProbeReply(incarnation=bytes(16), probed=probed, seen="198.51.100.9")
    _, lines, good = in_words(
        [Asked(name="bob", reply=reply)], list(dict.fromkeys(one[0] for one in found)), listen, resolve
    )
    return "\n".join(map(str, lines)), good


@pytest.mark.parametrize(
    ("found", "words", "good"),
    [
        (
            [("me.example:1", 4, "your key"), ("me.example:1", 6, "your key")],
            "open, with your key (IPv4 and IPv6)",
            True,
        ),
        ([("me.example:1", 4, "your key"), ("me.example:1", 6, "nothing")], "the router's IPv6 firewall", True),
        (
            [("me.example:1", 4, "nothing"), ("me.example:1", 6, "nothing")],
            "forward TCP 1 to this machine's port 7144",
            False,
        ),
        ([("me.example:1", 4, "another key")], "another provider answers there", False),
        ([("lan.example:1", 0, "nothing")], "leads to 192.168.1.7, which is no public address", False),
        ([("gone.example:1", 0, "nothing")], "set a DNS record for gone.example", False),
        ([("192.168.1.7:1", 0, "private")], "a number of a private network", False),
        ([("8.8.8.8:2", 4, "nothing")], "forward TCP 2 to this machine's port 7144", False),
        ([(via(RELAY, "ours.example:1"), 4, "your key")], "through a relay, IPv4", True),
        ([(via(RELAY, "ours.example:1"), 4, "nothing")], "--relay-for name you", False),
        ([(via(RELAY, "ours.example:1"), 4, "another key")], "the relay answered itself", False),
    ],
)
def test_each_answer_says_what_to_do(found: list[tuple[str, int, ProbeAnswer]], words: str, good: bool) -> None:
    text, well = said(*found)
    assert words in text
    assert "seen as 198.51.100.9" in text
    assert well == good


def test_one_peer_that_gets_through_is_enough_and_one_that_cannot_be_asked_is_named() -> None:
    rows: list[tuple[str, list[Probed] | None]] = [
        ("bob", [Probed(endpoint="me.example:1", family=4, answer="nothing")]),
        ("carol", [Probed(endpoint="me.example:1", family=4, answer="your key")]),
        ("dave", None),
    ]
    asked = [
        Asked(
            name=name,
            reply=None if probed is None else ProbeReply(incarnation=bytes(16), probed=probed, seen="::1\nb:2: open"),
            problem="is of an earlier release, which does not dial back",
        )
        for name, probed in rows
    ]
    document, lines, good = in_words(asked, ["me.example:1"], "0.0.0.0:7144", resolve)
    assert good
    assert document["endpoints"] == [
        {"id": "me.example:1", "open": True, "families": [4], "answers": ["nothing", "your key"]}
    ]
    assert (document["asked"], document["seen"]) == (["bob", "carol"], [])
    assert any("dave could not be asked" in str(line) for line in lines)


def test_where_a_provider_is_and_who_relays_it_is_set_shown_and_taken_back(tmp_path: Path) -> None:
    place = Place(path=tmp_path)
    words = ("--capacity", "1G", "--country", "SE", "--region", "r", "--site", "s", "--owner", "o")
    place.ok("provider", "init", "--data", tmp_path / "data", *words, "--listen", "127.0.0.1:7144", home="p")
    moved = place.json("provider", "set", "--advertise", "new.example:1", "--advertise", "[2001:db8::1]:2", home="p")
    assert (moved["number"], moved["endpoints"]) == (2, ["new.example:1", "[2001:db8::1]:2"])
    assert place.json("provider", "set", "--advertise", "listen", home="p")["endpoints"] == ["127.0.0.1:7144"]
    relay = f"relay.example:7144/{address_form(RELAY)}"
    other = f"other.example:7144/{address_form(OTHER)}"
    named = ("--via", relay, "--via", other, "--relay-for", "members", "--relay-for", RELAY.hex(), "--relay-rate", "2M")
    assert place.json("provider", "set", *named, home="p")["relay_for"] == ["members", address_form(RELAY)]
    status = place.json("provider", "status", home="p")
    assert (status["via"], status["relay_rate"], status["relayed"]) == ([relay, other], 2_000_000, [])
    with closing(open_provider(str(tmp_path / "p"), fs=PosixFs(), clock=SystemClock(), rng=SystemRng())) as provider:
        provider.relay_lost(OTHER, START_NS, "is not passed on to here")
    text = place.ok("provider", "status", home="p").text
    assert f"Waits at relays: {relay}" in text
    assert "Passes connections on to: members, " in text
    assert f"LOST ITS RELAY {other} at 2026-01-01T00:00:00+00:00: is not passed on to here" in text
    assert "ask the relay's operator" in text
    assert "has not waited there yet" in place.fails(1, "provider", "invite", "--quota", "1M", home="p")
    place.ok("provider", "set", "--via", "nobody", "--relay-for", "nobody", home="p")
    assert place.json("provider", "status", home="p")["via"] == []
    for line, why in (
        (("--advertise", "nowhere"), "is not HOST:PORT"),
        (("--via", "relay.example:7144/x"), "is not a provider's identity"),
        (("--via", "bob"), "neither keeper nor node"),
        (("--relay-for", "everybody"), "is not a provider's identity"),
        (("--relay-rate", "0"), "passes nothing on"),
    ):
        code = 6 if line == ("--via", "bob") else 2
        assert why in place.fails(code, "provider", "set", *line, home="p")
    assert "no tenant whose peers" in place.fails(2, "provider", "probe", home="p")
    config = f'data = "{tmp_path / "data"}"\ncapacity = "1G"\nowner = "o"\nsite = "s"\nregion = "r"\ncountry = "SE"\n'
    (tmp_path / "p" / "config.toml").write_text(f"[provider]\n{config}")
    place.ok("provider", "set", "--relay-for", "nobody", home="p")
    declared = f'{config}via = ["nobody"]\nrelay_for = ["members"]\nwindow = "22:00-06:00"\nnotice = "60d"\n'
    (tmp_path / "p" / "config.toml").write_text(f"[provider]\n{declared}")
    for option, value in (
        ("--advertise", "a.example:1"),
        ("--via", relay),
        ("--relay-for", "nobody"),
        ("--window", "always"),
        ("--notice", "0d"),
    ):
        said = place.fails(2, "provider", "set", "--contact", "somebody else", option, value, home="p")
        assert "config.toml declares the" in said
    assert place.json("provider", "status", home="p")["offer"]["contact"] == "", "what is refused changes nothing"


@pytest.mark.process
@pytest.mark.slow  # an answer that is not all good takes nine seconds, whatever was found
def test_a_peer_dials_back_and_an_address_inside_is_not_dialled(federation: Federation) -> None:
    tenant = ("--tenant-home", federation.path / "keeper")
    asked = federation.json("provider", "probe", "bob", *tenant, home="alice", code=3)
    assert (asked["asked"], asked["seen"]) == (["bob"], ["127.0.0.1"])
    assert [(one["open"], one["answers"]) for one in asked["endpoints"]] == [(False, ["private"])]
    address = federation.json("peer", "show", "bob", home="keeper")["address"]
    assert "a number of a private network" in federation.run("provider", "probe", address, home="alice").text


@pytest.mark.process
def test_who_is_no_tenants_provider_is_not_dialled_back(federation: Federation) -> None:
    address = federation.json("peer", "show", "bob", home="keeper")["address"]
    words = ("--capacity", "1G", "--country", "SE", "--region", "r", "--site", "s", "--owner", "o")
    data = federation.path / "lonely" / "data"
    federation.ok("provider", "init", "--data", data, *words, "--listen", "127.0.0.1:1", home="lonely")
    assert "does not know this provider" in federation.fails(1, "provider", "probe", address, home="lonely")
    tenant = ("--tenant-home", federation.path / "keeper")
    assert "no peer" in federation.fails(1, "provider", "probe", "nobody", *tenant, home="lonely")
