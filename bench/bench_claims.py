"""What a claim costs a provider that holds 100,000 objects of a writer: the first, and one that changes a hundred.

Objects are holes of 64 KiB, so that the disk has names and sizes and no bytes. What is measured is the answer to a
request as it came from the wire, its commit on the disk of the temporary folder among it.
"""

import os
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from replicator.format.codec import encode
from replicator.wire.messages import Signed
from tests.provider.stand import Stand

SEED = 20261128
OBJECTS = 100_000
CHANGES = 100
SIZE = 64 << 10


@pytest.fixture(scope="module")
def names() -> list[bytes]:
    """Return the names of objects, sorted."""
    rng = random.Random(SEED)
    return sorted(rng.randbytes(32) for _ in range(OBJECTS + 20 * CHANGES))


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory, names: list[bytes]) -> Stand:
    """Return a provider with these objects."""
    made = Stand(str(tmp_path_factory.mktemp("claims")))
    folder = Path(made.house.objects(made.tenant))
    for name in names:
        with open(folder / name.hex(), "wb") as file:
            os.truncate(file.fileno(), SIZE)

    def add(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE tenants SET quota = ?", (1 << 50,))
        connection.executemany(
            "INSERT INTO objects (tenant, name, size, holder, received_ns, lock_until_ns, arrival) "
            "VALUES (?, ?, ?, x'', 1, 1, ?)",
            [(made.tenant.id, name, SIZE, at) for at, name in enumerate(names, 1000)],
        )

    made.provider._database.write("objects", add)
    return made


def _claim(stand: Stand, number: int, held: list[bytes], **changes: Any) -> bytes:
    return encode(Signed(statement=stand.tenant.claim(stand.service.identity, number, held, **changes)))


def _forget_claims(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM claimed")
    connection.execute("DELETE FROM claims")


def test_first_claim(benchmark: Any, stand: Stand, names: list[bytes]) -> None:
    """All objects in one request: at most 3 s."""
    body = _claim(stand, 1, names[:OBJECTS])

    def again() -> None:
        stand.provider._database.write("claims", _forget_claims)

    benchmark.pedantic(lambda: stand.node.handle("claim", body), setup=again, rounds=5)


def test_nightly_claim(benchmark: Any, stand: Stand, names: list[bytes]) -> None:
    """A hundred new objects and a hundred that are not needed any more: at most 50 ms."""
    stand.provider._database.write("claims", _forget_claims)
    stand.node.handle("claim", _claim(stand, 1, names[:OBJECTS]))
    bodies = []
    held = names[:OBJECTS]
    for night in range(15):
        fresh = names[OBJECTS + night * CHANGES :][:CHANGES]
        gone = held[night * 1000 :][:CHANGES]
        held = sorted({*held, *fresh} - {*gone})
        bodies.append(_claim(stand, night + 2, held, base=night + 1, added=fresh, dropped=gone))
    nights = iter(bodies)
    benchmark.pedantic(lambda: stand.node.handle("claim", next(nights)), rounds=15)
