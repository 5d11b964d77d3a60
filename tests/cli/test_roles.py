"""Which secrets lie where: what a node's home can do and what is not in it, modes of files, what is said aloud."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from replicator.crypto.recovery import from_words, root_of
from replicator.engine.keeper import KeeperHome
from replicator.fs import PosixFs
from tests.cli.federation import PASSPHRASE, PLACES, Federation, make_files, words_on

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def both(federation: Federation) -> Path:
    """Make a home that is keeper and node of a second tenant with three of the providers; it has written once."""
    home = federation.path / "both"
    federation.ok("init", "--name", "both", "--recovery-sheet", federation.path / "sheet-2", home=home)
    federation.join("both", ("alice", "carol", "dave"))
    make_files(federation.path / "papers")
    federation.ok("dataset", "add", "papers", federation.path / "papers", home=home)
    federation.ok("backup", home=home)
    return home


def test_the_node_half_alone_works_and_cannot_read(federation: Federation, both: Path) -> None:
    alone = federation.path / "alone"
    alone.mkdir()
    shutil.copytree(both / "node", alone / "node")
    nothing: dict[str, str | None] = {"REPLICATOR_PASSPHRASE_FILE": None, "REPLICATOR_HOME": str(alone)}
    for line in ("backup", "repair", "verify --all", "status", "status --offline", "snapshots"):
        assert federation.run(*line.split(), env=nothing).code == 0
    for line in ("ls latest", "cat latest papers/run.sh", "restore latest --target x", "ls latest --json"):
        refused = federation.run(*line.split(), env=nothing)
        assert refused.code == 6
        assert "this home is no keeper" in refused.err
        assert "run this on the keeper" in refused.err
    assert not (federation.path / "x").exists()
    for line in ("peer remove alice", "peer add rpl-invite-aa", "node revoke x"):
        assert federation.run(*line.split(), env=nothing).code == 6


def test_no_byte_of_a_keepers_secrets_is_in_the_node_half_wrapped_or_not(federation: Federation, both: Path) -> None:
    keeper = KeeperHome(str(both), PosixFs(), lambda _: PASSPHRASE)
    try:
        domains = [keeper.domain_secrets(domain.id) for domain in keeper.member.domains]
        secrets = {
            "owner": keeper.owner().seed(),
            "maintenance": keeper.unlock("maintenance.key", b"maintenance key"),
            **{f"restore {domain.name}": domain.restore_private for domain in domains},
        }
    finally:
        keeper.close()
    secret = from_words(words_on(federation.path / "sheet-2"))
    secrets |= {"recovery": secret, "root": root_of(secret).signing.seed(), "root seal": root_of(secret).seal_private}
    wrapped = {path.name: path.read_bytes() for path in (both / "keeper").glob("*.key")}
    assert set(wrapped) >= {"owner.key", "maintenance.key"}
    for path in (both / "node").rglob("*"):
        if not path.is_file():
            continue
        held = path.read_bytes()
        for name, value in secrets.items():
            assert value not in held, (name, path)
            assert value.hex().encode() not in held, (name, path)
        for name, value in wrapped.items():
            # Any run of 32 bytes of what is sealed in it; the beginning holds parameters that are alike everywhere.
            assert not any(value[at : at + 32] in held for at in range(len(value) - 48, 0, -16)), (name, path)


def test_secrets_have_mode_0600_and_homes_0700(federation: Federation, both: Path) -> None:
    homes = [federation.path / name for name in (*PLACES, "keeper", "node")]
    seen = 0
    for home in (*homes, both):
        for folder, _, names in os.walk(home):
            assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700, folder
            for name in names:
                path = os.path.join(folder, name)
                # SQLite gives its helpers the mode of the database.
                assert stat.S_IMODE(os.stat(path).st_mode) & 0o077 == 0, path
                seen += 1
    assert seen > 50
    for sheet in ("sheet", "sheet.html"):
        assert stat.S_IMODE((federation.path / sheet).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("node/node/identity.seed", ("status",)),
        ("node/node/member.bin", ("status",)),
        ("keeper/keeper/owner.key", ("peer", "set", "alice", "--site", "x")),
        ("alice/provider/identity.seed", ("provider", "status")),
    ],
)
def test_a_secret_that_others_can_read_is_refused_with_the_way_out(
    federation: Federation, file: str, line: tuple[str, ...]
) -> None:
    path = federation.path / file
    path.chmod(0o640)
    try:
        error = federation.fails(1, *line, home=file.split("/", maxsplit=1)[0])
    finally:
        path.chmod(0o600)
    assert str(path) in error
    assert f"chmod 600 {path}" in error


def test_logs_of_providers_hold_neither_object_names_nor_secrets(federation: Federation) -> None:
    for name in PLACES:
        log = (federation.path / f"{name}.log").read_text()
        for secret in (*federation.secrets, PASSPHRASE, "docs", "björkby"):
            assert secret not in log
        for path in federation.objects(name):
            assert path.name[:16] not in log
