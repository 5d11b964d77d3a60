"""Opening the spool after a life that ended between writing a pack and making it durable."""

import os

import pytest

from replicator.engine.spool import Spool
from replicator.errors import NotFoundError
from replicator.format.merkle import name_of
from tests.scenarios.world import World

BYTES = bytes(range(256)) * 256
NAME = name_of(BYTES)


def put(world: World, *, held: bool = False) -> str:
    """Write a pack and its row, not yet synced; return its path."""
    node = world.node()
    try:
        node.spool().put(NAME, BYTES, durable=False)
        row = node.catalog.objects.add(
            name=NAME, writer=node.identity, kind="data", size=len(BYTES), spooled=True, created_ns=1, synced=False
        )
        if held:
            node.catalog.objects.held(row, world.identity(0), incarnation=b"i" * 16, receipt=b"signed", received_ns=1)
        return os.path.join(node.spool_path, "objects", NAME.hex())
    finally:
        node.close()


def opened(world: World) -> tuple[bool | None, bool, int]:
    """Open the spool as the next run does: is the row spooled, is the object whole there, how many are unsynced."""
    node = world.node()
    try:
        spool: Spool = node.spool()
        row = node.catalog.objects.by_name(NAME)
        return row.spooled if row else None, spool.has(NAME), len(node.catalog.objects.unsynced())
    finally:
        node.close()


def test_what_is_whole_is_made_durable_and_kept(world: World) -> None:
    put(world)
    assert opened(world) == (True, True, 0)


@pytest.mark.parametrize("damage", ["gone", "short", "zeroed"])
@pytest.mark.parametrize("held", [False, True])
def test_what_a_power_cut_took_is_forgotten_unless_a_peer_has_it(world: World, damage: str, held: bool) -> None:
    path = put(world, held=held)
    if damage == "gone":
        os.unlink(path)
    else:
        os.chmod(path, 0o600)
        with open(path, "r+b") as file:
            if damage == "short":
                file.truncate(4096)
            else:
                file.seek(4096)
                file.write(bytes(4096))
    assert opened(world) == (False if held else None, False, 0)
    assert not os.path.exists(path)


def test_to_sync_what_is_not_there_is_an_error(world: World) -> None:
    path = put(world)
    node = world.node()
    try:
        spool = node.spool()
        spool.sync([NAME])
        os.unlink(path)
        with pytest.raises(NotFoundError):
            spool.sync([NAME])
    finally:
        node.close()
