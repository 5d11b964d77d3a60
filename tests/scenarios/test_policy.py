"""A promise that changes: a stronger one is kept before status is green, a weaker one asks for nothing."""

import shutil

import msgspec
import pytest

from replicator.engine.placing import objects_of
from replicator.format.policy import Policy
from tests.scenarios.world import PROMISE, World


def with_(**changes: object) -> Policy:
    return msgspec.structs.replace(PROMISE, **changes)


@pytest.mark.parametrize(
    "stronger",
    [
        with_(copies=4),
        with_(copies=5, minimum=3),
        with_(spread=["country", "owner", "region"]),
        with_(residency=["NO", "SE"]),
        with_(stale_after_s=7 * 86400),
    ],
)
async def test_a_stronger_policy_is_not_green_before_everything_is_stored_under_it(
    stronger: Policy, world: World, source: str
) -> None:
    await world.backup()
    assert (await world.status()).exit_code == 0
    world.set_policy("docs", stronger)
    found = await world.status()
    assert found.exit_code == 3
    assert "policy became stronger" in " ".join(found.datasets[0].gaps)
    [done] = (await world.backup()).datasets
    assert (done.error, done.published) == (None, True)
    assert done.new_bytes >= done.bytes, "each chunk is in a pack under the new promise"
    found = await world.status()
    assert found.exit_code == (3 if done.debts else 0)
    assert await world.differences(source) == []
    assert (await world.backup()).datasets[0].new_chunks == 0


async def test_four_copies_are_four_copies(world: World, source: str) -> None:
    await world.backup()
    world.set_policy("docs", with_(copies=4))
    await world.backup()
    found = await world.status()
    assert (found.exit_code, found.datasets[0].promised) == (0, 4)
    node = world.node()
    newest = node.catalog.snapshots.all()[-1]
    packs = [row for row in objects_of(node, [newest]) if row.kind in ("data", "tree")]
    holders = [len([one for one in node.catalog.objects.holdings_of(row.id) if one.state == "held"]) for row in packs]
    node.close()
    assert min(holders) == 4


@pytest.mark.parametrize(
    "weaker", [with_(copies=2), with_(copies=2, minimum=1), with_(spread=["owner"]), with_(count_own=True)]
)
async def test_a_weaker_policy_stores_nothing_again(weaker: Policy, world: World, source: str) -> None:
    await world.backup()
    world.set_policy("docs", weaker)
    assert (await world.status()).exit_code == 0
    [done] = (await world.backup()).datasets
    assert (done.new_chunks, done.published) == (0, True)
    assert (await world.status()).exit_code == 0
    assert await world.differences(source) == []


async def test_a_policy_that_went_up_and_down_again_stores_nothing_again(world: World, source: str) -> None:
    await world.backup()
    world.set_policy("docs", with_(copies=4))
    world.set_policy("docs", PROMISE)
    assert (await world.status()).exit_code == 0
    assert (await world.backup()).datasets[0].new_chunks == 0


async def test_below_a_floor_of_root_nothing_is_committed(world: World, source: str) -> None:
    world.set_policy("docs", with_(residency=["US"]))
    report = await world.backup()
    [done] = report.datasets
    assert done.snapshot is None
    assert "residency" in str(done.error)
    assert report.sent_objects == 0


async def test_two_datasets_with_two_policies_share_what_the_stronger_one_stored(world: World, source: str) -> None:
    await world.backup()
    twin = f"{source}-twin"
    shutil.copytree(source, twin, symlinks=True)
    world.add_dataset("lax", twin, policy=with_(copies=2, minimum=1))
    [done] = (await world.backup("lax")).datasets
    assert done.new_bytes < 20_000
    other = f"{source}-other"
    shutil.copytree(source, other, symlinks=True)
    world.add_dataset("strict", other, policy=with_(copies=4))
    [done] = (await world.backup("strict")).datasets
    assert done.new_bytes >= done.bytes
    assert (await world.status()).exit_code == 0
