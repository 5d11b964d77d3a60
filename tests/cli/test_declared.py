"""config.toml: datasets of a node, tenants of a provider, and what a build can know of the file."""

import json
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from replicator.cli.declared import plan_declared
from replicator.endpoints import parse_identity
from replicator.fs import PosixFs
from replicator.provider.home import open_provider
from tests.cli.federation import PLACES, PROGRAM, Federation, Place
from tests.fakes import FakeClock, SeededRng

IDENTITY = "replicator-identity"


def declare(federation: Federation, home: str, text: str) -> None:
    (federation.path / home / "config.toml").write_text(text)


def dataset(federation: Federation, name: str, **more: object) -> str:
    lines = [f"[dataset.{name}]", f'paths = ["{federation.path / "docs"}"]']
    return "\n".join([*lines, *(f"{key} = {json.dumps(value)}" for key, value in more.items())]) + "\n"


def test_datasets_are_what_the_file_declares_again_and_again(breakable: Federation) -> None:
    assert [one["id"] for one in breakable.json("dataset", "list", home="node")] == ["docs"]
    declare(breakable, "node", dataset(breakable, "papers", copies=2, minimum=1, exclude=["*.bin"]))
    first = breakable.ok("backup", "papers", home="node")
    assert "dataset 'papers' is new, by config.toml" in first.said
    again = breakable.ok("backup", "papers", home="node")
    assert not [line for line in again.said if "config.toml" in line], "nothing changed"
    rows = {one["id"]: one for one in breakable.json("dataset", "list", home="node")}
    assert set(rows) == {"docs", "papers"}, "what was added by hand stays"
    assert (rows["papers"]["copies"], rows["papers"]["exclude"]) == (2, ["*.bin"])

    breakable.ok("dataset", "set", "papers", "--copies", "4", home="node")
    declare(breakable, "node", dataset(breakable, "papers", copies=3, minimum=1))
    assert "dataset 'papers' is changed, by config.toml" in breakable.ok("backup", "papers", home="node").said
    rows = {one["id"]: one for one in breakable.json("dataset", "list", home="node")}
    assert (rows["papers"]["copies"], rows["papers"]["exclude"]) == (3, [])

    declare(breakable, "node", "")
    said = breakable.ok("backup", "docs", home="node").said
    assert "dataset 'papers' is not in config.toml any more and no longer backed up; snapshots stay" in said
    assert [one["id"] for one in breakable.json("dataset", "list", home="node")] == ["docs"]
    assert {one["dataset"] for one in breakable.json("snapshots", home="node")} == {"docs", "papers"}


def test_a_dataset_that_cannot_be_meant_fails_the_run_and_keeps_no_other_from_it(breakable: Federation) -> None:
    cut = dataset(breakable, "cut", coding="4+2")
    declare(breakable, "node", dataset(breakable, "good", copies=2) + dataset(breakable, "bad", residency=["US"]) + cut)
    result = breakable.run("backup", "--json", home="node")
    assert result.code == 1
    assert any(line.startswith("dataset.bad in config.toml: ") for line in result.said), result.err
    assert any("dataset.cut in config.toml: coding is offered from 6 households on" in line for line in result.said)
    assert {one["dataset"]: one["published"] for one in result.json()["datasets"]} == {"docs": True, "good": True}


def test_a_peer_that_is_declared_and_not_in_the_charter_is_named_with_the_command(breakable: Federation) -> None:
    known = breakable.json("peer", "show", "alice", home="node")["address"]
    stranger = "nova.example.org:7144/" + "a" * 52
    declare(breakable, "node", f'[peer.alice]\naddress = "{known}"\n[peer.nova]\naddress = "{stranger}"\n')
    said = breakable.ok("backup", home="node").said
    assert f"peer 'nova' is declared and not in the charter; on the keeper: replicator peer add {stranger}" in said
    assert not [line for line in said if "'alice' is declared" in line]


def test_what_was_never_declared_is_never_removed() -> None:
    plan = plan_declared([], [], frozenset({"gone"}))
    assert (plan.add, plan.change, plan.remove) == ((), (), ())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(path=tmp_path)


PROVIDER = """
[provider]
data = "{data}"
capacity = "1G"
owner = "nova"
site = "cellar"
region = "gotland"
country = "SE"
listen = "127.0.0.1:{port}"
identity = "{identity}"
[tenant.bjorkby]
root = "{root}"
quota = "{quota}"
"""


@contextmanager
def serving(words: Sequence[str], environment: Mapping[str, str]) -> Iterator[str]:
    """Start a provider; give where it listens."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=dict(environment)) as process:
        assert process.stdout is not None
        try:
            lines = ""
            for line in process.stdout:
                lines += line
                if line.rstrip() == "}":
                    break
            yield json.loads(lines)["listening"]
        finally:
            process.terminate()
            assert process.wait(60) == 0


def new_host(place: Place, name: str) -> dict[str, str]:
    made: dict[str, str] = place.json("host", "new", name, "--out", "keys")
    credentials = place.path / f"credentials-{name}"
    credentials.mkdir(mode=0o700)
    key = credentials / IDENTITY
    key.write_bytes((place.path / "keys" / f"{name}.identity").read_bytes())
    key.chmod(0o600)
    return made


def test_a_tenant_that_a_provider_declares_needs_no_code(breakable: Federation) -> None:
    made = new_host(breakable, "nova")
    root = next(one["id"] for one in breakable.json("key", "list", home="keeper") if one["kind"] == "root")
    config = breakable.path / "nova.toml"
    known = {"data": breakable.path / "nova-data", "identity": made["identity"], "port": 0}
    config.write_text(PROVIDER.format(root=root, quota="300M", **known))
    environment: dict[str, str | None] = {
        "CREDENTIALS_DIRECTORY": str(breakable.path / "credentials-nova"),
        "REPLICATOR_CONFIG": str(config),
    }
    words = [*PROGRAM, "provider", "serve", "--json", "--home", str(breakable.path / "nova")]
    with serving(words, breakable.environment(environment)) as listening:
        address = f"{listening}/{made['identity']}"
        added = breakable.json("peer", "add", address, "--name", "nova", home="keeper")
        assert (added["id"], added["quota"]) == (made["id"], 300 * 10**6)
        breakable.ok("dataset", "set", "docs", "--copies", "6", home="node")
        assert breakable.run("backup", home="node").code == 0, "the node is let in on the owner's word"
        assert breakable.json("peer", "show", "nova", home="node")["objects"] > 0
        other = breakable.path / "other-sheet"
        breakable.ok("init", "--name", "other", "--keeper-only", "--recovery-sheet", other, home="other")
        said = breakable.fails(1, "peer", "add", address, home="other")
        assert "no tenant here has the key that signed this order" in said
    hours = 'window = "22:00-06:00"\nzone = "Europe/Stockholm"\nstreams = 2\npull_from = ["nobody"]\nsite = "loft"'
    config.write_text(PROVIDER.format(root=root, quota="200M", **known).replace('site = "cellar"', hours))
    breakable.run("provider", "prove", home="nova", env=environment)
    status = breakable.json("provider", "status", home="nova")
    assert (status["tenants"][0]["quota"], status["offer"]["site"]) == (200 * 10**6, "loft")
    assert (status["window"], status["zone"], status["streams"]) == ("22:00-06:00", "Europe/Stockholm", 2)
    assert status["pull_from"] == ["nobody"]
    config.write_text(PROVIDER.format(root=root, quota="200M", **known))
    breakable.run("provider", "prove", home="nova", env=environment)
    status = breakable.json("provider", "status", home="nova")
    assert (status["window"], status["streams"]) == ("22:00-06:00", 2), "what is not declared stays"
    assert status["pull_from"] == ["nobody"]


def test_a_provider_proves_its_key_and_its_disk(place: Place) -> None:
    nova, vega = new_host(place, "nova"), new_host(place, "vega")
    config = place.path / "config"
    known = {"data": place.path / "data", "root": "a" * 64, "quota": "1M", "port": 7144}
    environment: dict[str, str | None] = {
        "CREDENTIALS_DIRECTORY": str(place.path / "credentials-nova"),
        "REPLICATOR_CONFIG": str(config),
    }
    config.write_text(PROVIDER.format(identity=vega["identity"], **known))
    result = place.run("provider", "prove", home="home", env=environment)
    assert (result.code, "was expected" in result.err, (place.path / "data").exists()) == (1, True, False)

    config.write_text(PROVIDER.format(identity=nova["identity"], **known))
    result = place.run("provider", "prove", "--json", home="home", env=environment)
    assert (result.code, result.json()["id"]) == (0, nova["id"])
    assert result.json()["written"] == 16 << 20
    assert {one.name for one in (place.path / "data").iterdir()} == {".generation", ".replicator-store"}
    opened = open_provider(str(place.path / "home"), fs=PosixFs(), clock=FakeClock(), rng=SeededRng("x"))
    assert opened.key.identity == parse_identity(nova["identity"])
    opened.close()

    config.write_text(PROVIDER.format(identity=nova["identity"], **known).replace('"1G"', '"4000P"'))
    result = place.run("provider", "prove", home="home", env=environment)
    assert (result.code, "lower provider.capacity" in result.err) == (1, True)
    config.write_text(PROVIDER.format(identity=nova["identity"], **known | {"data": place.path / "elsewhere"}))
    result = place.run("provider", "prove", home="home", env=environment)
    assert (result.code, f"the objects lie in {place.path / 'data'}" in result.err) == (1, True)


def test_a_new_hosts_keys_are_private_its_stanza_is_public_and_nothing_is_overwritten(place: Place) -> None:
    where = ("--out", "keys", "--address", "fd12::9", "--endpoint", "nova.example.org:51820", "--capacity", "500G")
    labels = ("--owner", "alice", "--site", "cellar", "--region", "umea", "--country", "se")
    result = place.ok("host", "new", "nova", *where, *labels, "--json")
    made = result.json()
    keys = {path.name: path for path in (place.path / "keys").iterdir()}
    assert set(keys) == {"nova.identity", "nova.wireguard", "nova.luks"}
    for path in keys.values():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_text().strip() not in result.text + result.err, "a secret was printed"
    assert 'address = "fd12::9"' in made["stanza"]
    assert 'country = "SE"' in made["stanza"]
    assert place.ok("host", "identity", keys["nova.identity"]).text.strip() == made["identity"]
    assert place.ok("host", "identity", "-", stdin=keys["nova.identity"].read_text()).text.strip() == made["identity"]
    assert "not the key of a host" in place.fails(1, "host", "identity", keys["nova.luks"])
    assert made["stanza"].startswith("[host.nova]\nidentity = ")
    before = {name: path.read_bytes() for name, path in keys.items()}
    assert "is there already" in place.fails(1, "host", "new", "nova", *where, *labels)
    assert {name: path.read_bytes() for name, path in keys.items()} == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("Nova",), "cannot be a host's name"),
        (("nova", "--address", "10.0.0"), "'10.0.0' does not appear to be an IPv4 or IPv6 address"),
        (("nova", "--endpoint", "nova"), "is not HOST:PORT"),
        (("nova", "--country", "Sweden"), "unknown country"),
        (("nova", "--capacity", "1T", "--owner", "a"), "site, region, country is missing"),
    ],
)
def test_a_host_that_cannot_be_meant_gets_no_keys(place: Place, words: tuple[str, ...], said: str) -> None:
    assert said in place.fails(2, "host", "new", *words, "--out", "keys")
    assert not (place.path / "keys").exists()


def test_a_build_can_check_the_file_without_a_home(place: Place) -> None:
    good = place.path / "good.toml"
    good.write_text('[dataset.docs]\npaths = ["/srv/docs"]\nkeep.daily = 14\n')
    found = place.json("check-config", good)
    assert (found["datasets"][0]["id"], found["keeper"]) == ("docs", ["replicator dataset set docs --keep-daily 14"])
    bad = place.path / "bad.toml"
    bad.write_text('[dataset."a/b"]\npaths = ["/srv/docs"]\n')
    assert "dataset.a/b: 'a/b' cannot be a dataset's name" in place.fails(1, "check-config", bad)
    bad.write_text('[dataset.a]\npaths = ["/srv/docs"]\nexclude = ["/"]\n')
    assert "dataset.a: '/' is no pattern" in place.fails(1, "check-config", bad)
    bad.write_text('[dataset.a]\npaths = ["/srv/docs"]\nhook_timeout = "8d"\n')
    assert "dataset.a: --hook-timeout 8d is out of bounds" in place.fails(1, "check-config", bad)
    assert "there is no such file" in place.fails(1, "check-config", place.path / "no.toml")


def test_a_repair_at_night_waits_for_who_is_away(breakable: Federation) -> None:
    held = {name: breakable.json("peer", "show", name, home="node")["objects"] for name in PLACES}
    breakable.stop(max(held, key=lambda name: held[name]))  # all have records, only some a pack
    assert breakable.json("repair", "--unattended", "--dry-run", home="node")["planned"] == []
    assert breakable.run("repair", "--dry-run", "--json", home="node").json()["planned"]


def test_the_first_run_of_a_node_beside_a_keeper_is_kept_though_its_datasets_came_with_it(place: Place) -> None:
    place.ok("init", "--name", "one", "--recovery-sheet", place.path / "sheet", "--yes", home="both")
    source = place.path / "docs"
    source.mkdir()
    (source / "letter").write_text("dear friend\n")
    (place.path / "both" / "config.toml").write_text(f'[dataset.docs]\npaths = ["{source}"]\n')
    place.fails(5, "backup", home="both")
    assert [(run["run"], run["exit"]) for run in place.json("runs", "list", home="both")] == [("backup", 5)]
