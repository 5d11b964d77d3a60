"""Units that the program writes: what systemd says of them, and that they have the walls of the NixOS modules."""

import dataclasses
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from replicator.cli.units import HARDENING, Installed, to_enable, units
from replicator.errors import UsageError
from tests.cli.federation import Federation

NIX = Path(__file__).parents[2] / "nix" / "lib" / "hardening.nix"
ANALYZE = shutil.which("systemd-analyze")
WANTED = Installed(
    home="/srv/a b/home",
    user="daemon",
    group="daemon",
    program=["/bin/true", "-P", "-m"],
    roles=("node", "provider"),
    writes=("/srv/a b/home", "/srv/100%"),
    credentials=("replicator-ping",),
    tells=True,
)
LOOSE = Installed(home="/srv/x", user="root", group="root", program=["/bin/true"], roles=(), writes=("/srv/x",))


def values(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_walls_are_those_of_the_nixos_modules() -> None:
    text = NIX.read_text().partition("base = {")[2].partition("\n  };")[0]
    nix = {
        key: " ".join(re.findall(r'"([^"]*)"', value)) if '"' in value else value.replace("true", "yes")
        for key, value in re.findall(r"^    (\w+) = ([^;]+);", text, flags=re.MULTILINE)
    }
    ours = dict(HARDENING)
    assert ours.keys() == nix.keys()
    assert nix.pop("SystemCallFilter") == f"{ours.pop('SystemCallFilter')} ~@privileged @resources"
    assert ours == nix


def test_a_node_has_its_one_capability_and_a_provider_none() -> None:
    made = units(WANTED)
    node, daemon = values(made["replicator-run.service"]), values(made["replicator-provider.service"])
    assert node["CapabilityBoundingSet"] == node["AmbientCapabilities"] == ["CAP_DAC_READ_SEARCH"]
    assert (daemon["CapabilityBoundingSet"], daemon.get("AmbientCapabilities")) == ([""], None)
    assert values(made["replicator-notify.service"])["CapabilityBoundingSet"] == [""]
    assert daemon["Type"] == ["notify"]
    assert daemon["LoadCredential"] == ["replicator-ping"]
    assert node["ExecStart"] == ["/bin/true -P -m run"]
    assert node["ReadWritePaths"] == ['"/srv/a b/home" /srv/100%%']


def test_a_repository_beside_can_be_written_and_need_not_be_there() -> None:
    made = units(replace(WANTED, besides=("/mnt/usb disk/borg",)))
    node = values(made["replicator-run.service"])
    assert node["ReadWritePaths"] == ['"/srv/a b/home" /srv/100%%', '"-/mnt/usb disk/borg"']
    assert node["RequiresMountsFor"] == ['"/srv/a b/home" /srv/100%%']
    assert len(values(made["replicator-notify.service"])["ReadWritePaths"]) == 1


def test_a_home_below_home_can_be_written_and_no_other() -> None:
    provider = Installed(
        home="/home/ole/r", user="ole", group="ole", program=["/x"], roles=("provider",), writes=("/home/ole/r",)
    )
    assert values(units(provider)["replicator-provider.service"])["ProtectHome"] == ["read-only"]
    assert values(units(WANTED)["replicator-provider.service"])["ProtectHome"] == ["yes"]


def test_what_is_timed_is_enabled_by_its_timer() -> None:
    assert to_enable(units(WANTED)) == [
        "replicator-notify.timer",
        "replicator-provider.service",
        "replicator-run.timer",
    ]
    assert units(LOOSE) == {}


@pytest.mark.process
@pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze here")
def test_systemd_understands_the_units_and_finds_them_closed(tmp_path: Path) -> None:
    assert ANALYZE is not None
    made = units(WANTED)
    for name, text in made.items():
        (tmp_path / name).write_text(text)
    paths = [str(tmp_path / name) for name in made]
    checked = subprocess.run([ANALYZE, "verify", "--man=no", *paths], capture_output=True, text=True, check=False)
    ours = [line for line in checked.stderr.splitlines() if "replicator-" in line and "not found" not in line]
    assert ours == []
    for path in paths:
        if path.endswith(".service"):
            scored = subprocess.run(
                [ANALYZE, "security", "--offline=true", "--threshold=20", path],
                capture_output=True,
                text=True,
                check=False,
            )
            assert scored.returncode == 0, scored.stdout[-400:] + scored.stderr


def test_units_are_shown_written_and_left_alone(federation: Federation, tmp_path: Path) -> None:
    shown = federation.json("service", "install", "--dry-run", "--dir", tmp_path, home="node")
    assert [one["id"] for one in shown["units"]] == ["replicator-run.service", "replicator-run.timer"]
    assert list(tmp_path.iterdir()) == []
    federation.ok("service", "install", "--dir", tmp_path, "--start", "02:30", home="node")
    timer = tmp_path / "replicator-run.timer"
    assert "OnCalendar=*-*-* 02:30:00" in timer.read_text()
    assert timer.stat().st_mode & 0o777 == 0o644
    assert (
        "as they were" in federation.ok("service", "install", "--dir", tmp_path, "--start", "02:30", home="node").text
    )
    timer.write_text("[Timer]\n")
    assert "somebody else wrote it" in federation.fails(2, "service", "install", "--dir", tmp_path, home="node")
    federation.ok("service", "install", "--dir", tmp_path, "--force", home="node")
    assert "01:00" in timer.read_text()
    made = federation.json("service", "install", "--dry-run", "--dir", tmp_path, home="alice")["units"]
    assert [one["id"] for one in made] == ["replicator-provider.service"]
    assert str(federation.path / "alice" / "data") in made[0]["text"]
    assert "neither a node" in federation.fails(1, "service", "install", "--dir", tmp_path, home="keeper")
    for time in ("1am", "24:00", "01:60", "٠١:٠٠"):
        assert "no time of day" in federation.fails(2, "service", "install", "--start", time, home="node")
    assert "no such user" in federation.fails(2, "service", "install", "--user", "no-one-here", home="node")


@pytest.mark.parametrize("field", ["home", "config", "writes", "credentials", "program"])
def test_no_name_adds_a_line_to_a_unit_that_root_installs(field: str) -> None:
    """config.toml is the service's user's, who would be root by a line more."""
    text = "/srv/x\nExecStartPre=+/bin/sh -c evil"
    value: Any = (text,) if field in ("writes", "credentials", "program") else text
    with pytest.raises(UsageError):
        units(dataclasses.replace(WANTED, **{field: value}))


def test_a_dollar_is_a_variable_in_a_command_and_nowhere_else() -> None:
    made = units(dataclasses.replace(WANTED, home="/srv/a$b", writes=("/srv/a$b",), program=["/opt/c$d"]))
    found = values(made["replicator-run.service"])
    assert (found["Environment"], found["ReadWritePaths"]) == (["REPLICATOR_HOME=/srv/a$b"], ["/srv/a$b"])
    assert found["ExecStart"] == ["/opt/c$$d run"]
