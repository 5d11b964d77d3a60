"""Machines that join a tenant in a role, as scenarios need them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from replicator.engine.home import Half
from replicator.engine.keeper import DrillHome, KeeperHome
from replicator.engine.maintainer import MaintainerHome
from replicator.engine.members import accept_grant, add_node, request_node
from replicator.engine.node import NodeHome
from replicator.format.keybag import JoiningRole
from replicator.fs import PosixFs
from tests.scenarios.world import World

DRILL_PASSPHRASE = "a drill host's own"


@contextmanager
def keeping(world: World) -> Iterator[tuple[KeeperHome, list[Half]]]:
    """Open the keeper, and the node beside it."""
    keeper, node = world.keeper(), world.node()
    try:
        yield keeper, [node]
    finally:
        keeper.close()
        node.close()


async def joined(world: World, role: JoiningRole, name: str) -> str:
    """Let a machine join; return its home."""
    home = os.path.join(world.root, name)
    code = request_node(home, world.edge, name=name, role=role)
    with keeping(world) as (keeper, siblings):
        added = await add_node(keeper, siblings, world.edge, code)
    accept_grant(home, world.edge, added.code, lambda _: DRILL_PASSPHRASE)
    return home


def opened(home: str, role: JoiningRole) -> Half:
    """Open the home of a machine that joined."""
    if role == "node":
        return NodeHome(home, PosixFs())
    if role == "maintainer":
        return MaintainerHome(home, PosixFs())
    return DrillHome(home, PosixFs(), lambda _: DRILL_PASSPHRASE)
