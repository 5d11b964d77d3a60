"""What is on a provider's disk: objects of the allowed sizes, and nothing of what is in them."""

import contextlib
import os
import re

from replicator.catalog.objects import split_ids
from replicator.format.sizes import is_allowed
from tests.fakes import SeededRng
from tests.scenarios.world import World, read, write

FILE = "canary-file-name-4711.txt"
FOLDER = "canary-folder-0815"
CONTENT = b"canary content: the quick brown fox jumps over the lazy dog. "
DATASET = "canary-dataset"
LINK = "/canary/link/target"
ATTRIBUTE = b"canary attribute value"


def chunk_ids(world: World) -> list[bytes]:
    node = world.node()
    try:
        objects = node.catalog.objects
        return [chunk for row in objects.all() for chunk in split_ids(objects.chunk_ids(row.id))]
    finally:
        node.close()


def canaries(world: World) -> dict[str, bytes]:
    """All that a provider must never see, by what it is."""
    node, keeper = world.node(), world.keeper()
    domain = node.member.domains[0]
    found = {
        "file name": FILE.encode(),
        "folder name": FOLDER.encode(),
        "content": CONTENT[:40],
        "text in random bytes": SeededRng("secret").bytes(64),
        "dataset name": DATASET.encode(),
        "link target": LINK.encode(),
        "attribute": ATTRIBUTE,
        "host name": b"testhost",
        "tenant's name": "björkby".encode(),
        "petname of a peer": b"helsinki's dave",
        "member key": node.member.member_key,
        "node seed": node.signing.seed(),
        "keeper seed": keeper.signing.seed(),
        "chunk id key": domain.id_key,
        "cut key": domain.cut_key,
        "mix": domain.mix,
        "index key": domain.index_keys[0].key,
    }
    node.close()
    keeper.close()
    found |= {f"chunk id {number}": chunk for number, chunk in enumerate(chunk_ids(world))}
    return found


async def filled(world: World) -> str:
    source = os.path.join(world.root, "source", FOLDER)
    write(os.path.join(source, FILE), CONTENT * 2000)
    write(os.path.join(source, "secret"), SeededRng("secret").bytes(300_000))
    write(os.path.join(source, "short"), CONTENT)
    os.symlink(LINK, os.path.join(source, "canary link"))
    with contextlib.suppress(OSError):  # a file system without attributes has none to leak
        os.setxattr(os.path.join(source, FILE), "user.canary", ATTRIBUTE)
    world.add_dataset(DATASET, source)
    assert (await world.backup()).datasets[0].published
    write(os.path.join(source, FILE), CONTENT * 2001)
    assert (await world.backup()).datasets[0].published
    assert (await world.status()).exit_code == 0
    assert (await world.repair()).exit_code == 0
    return source


async def test_nothing_of_what_is_backed_up_is_in_any_file_of_a_provider(world: World) -> None:
    await filled(world)
    secrets = canaries(world)
    assert len(secrets) > 20
    pattern = re.compile(b"|".join(re.escape(secret) for secret in secrets.values()))
    looked_at = 0
    for number in range(5):
        for folder, _, names in os.walk(os.path.join(world.root, f"provider-{number}")):
            for name in names:
                if name == "ballast":
                    continue
                looked_at += 1
                data = read(os.path.join(folder, name))
                match = pattern.search(data)
                assert match is None, (name, [what for what, secret in secrets.items() if match[0] == secret])
                assert FILE.encode().hex() not in name
    assert looked_at > 5 * 15


async def test_the_search_for_canaries_would_find_one(world: World) -> None:
    source = await filled(world)
    secrets = canaries(world)
    assert secrets["content"] in read(os.path.join(source, FILE))
    everything = b"".join(
        read(os.path.join(folder, name)) for folder, _, names in os.walk(world.home) for name in names
    )
    for what in ("member key", "node seed", "keeper seed", "index key", "chunk id 0"):
        assert secrets[what] in everything, what


async def test_a_providers_objects_are_nothing_but_objects_of_allowed_sizes(world: World) -> None:
    await filled(world)
    for number in range(5):
        names = os.listdir(world.objects(number))
        assert len(names) > 8
        for name in names:
            assert re.fullmatch("[0-9a-f]{64}", name)
        assert all(is_allowed(entry.stat().st_size) for entry in os.scandir(world.objects(number)))
        tenant = os.path.dirname(world.objects(number))
        assert sorted(os.listdir(tenant)) == ["incoming", "objects", "quarantine"]
        assert os.listdir(os.path.join(tenant, "incoming")) == []
        assert sorted(os.listdir(world.data(number))) == sorted(
            [".generation", ".replicator-store", os.path.basename(tenant)]
        )


async def test_two_datasets_of_the_same_shape_leave_the_same_trace(world: World) -> None:
    """Sizes and counts at every provider are the same whatever the bytes are."""
    traces = []
    for name in ("one", "two"):
        source = os.path.join(world.root, "source", name)
        for number in range(5):
            write(os.path.join(source, f"{number}"), SeededRng(f"{name} {number}").bytes(50_000))
        before = {number: {entry.name for entry in os.scandir(world.objects(number))} for number in range(5)}
        world.add_dataset(name, source)
        await world.backup(name)
        traces.append(
            sorted(
                entry.stat().st_size
                for number in range(5)
                for entry in os.scandir(world.objects(number))
                if entry.name not in before[number]
            )
        )
    assert traces[0] == traces[1]
