"""Random changes of everything that is read from others: an error of the project comes of it, or nothing does.

The seeds are fixed. What the normal run tries takes seconds; ``make test-slow`` goes on for minutes with other seeds.
"""

import asyncio
import json
import logging
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import ParamSpec, TypeVar

import msgspec
import pytest

from replicator.charter.verify import verify_charter, verify_enrol_order
from replicator.clock import SystemClock
from replicator.crypto.seal import PURPOSE_GRANT, PURPOSE_KEYBAG, seal_to
from replicator.crypto.sign import Context, SigningKey, verify
from replicator.crypto.unseal import open_box, public_of, unseal
from replicator.engine.members import is_grant
from replicator.errors import NotFoundError, ReplicatorError
from replicator.format import charter, claim, drill, index, keybag, offer, pack, policy, snapshot, tree
from replicator.format.codec import Record, decode, decode_own, version_of
from replicator.format.codes import CodeKind, read_code
from replicator.format.container import Kind, decode_header, decode_locator, unwrap_record
from replicator.format.index import Index, References
from replicator.format.merkle import name_of
from replicator.format.snapshot import ChunkRef, Snapshot
from replicator.ids import ObjectName
from replicator.pack.keys import DomainKeys
from replicator.pack.reader import PackReader, ReaderKeys
from replicator.pack.sealed import open_object
from replicator.snapshot.apply import Applier
from replicator.snapshot.chunklist import extents
from replicator.snapshot.metadata import Rights
from replicator.snapshot.tree import TreeReader
from replicator.transport import server
from replicator.wire import messages
from tests.fakes import SeededRng
from tests.scenarios.hostile import mutation
from tests.scenarios.hostile.specwriter import Chunk, Keys, Writer, encoded, object_name
from tests.scenarios.hostile.stage import Stage
from tests.scenarios.hostile.test_specwriter import small
from tests.scenarios.world import World

P = ParamSpec("P")
T = TypeVar("T")
ROUNDS = [1, pytest.param(30, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]
"""How many times as much is tried; each round has a seed of its own."""
TENANT, DOMAIN = bytes(range(16)), bytes(range(16, 32))
RESTORE = bytes(range(1, 33))
CODES: tuple[CodeKind, ...] = ("invite", "request", "grant")
VECTORS = Path(__file__).parents[2] / "vectors"


def keys() -> Keys:
    return Keys(
        tenant=TENANT,
        domain=DOMAIN,
        restore_key=public_of(RESTORE),
        mix=b"m" * 32,
        id_key=b"i" * 32,
        index_key=b"x" * 32,
        epoch=1,
        seed=b"s" * 32,
    )


READER = ReaderKeys(
    keys=DomainKeys(
        tenant=TENANT,
        domain=DOMAIN,
        restore_key=public_of(RESTORE),
        mix=b"m" * 32,
        id_key=b"i" * 32,
        cut_key=b"c" * 32,
        epoch=1,
        index_keys={1: b"x" * 32},
    ),
    restore_private=RESTORE,
)


def tries(rounds: int, count: int) -> Iterator[Random]:
    """Yield a source of chance for each try."""
    for number in range(rounds * count):
        yield Random(f"{rounds} {number}")


def attempt(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Return what comes of it, None for an error of the project; anything else is a fault."""
    try:
        return work(*args, **kwargs)
    except ReplicatorError:
        return None


def records() -> dict[str, bytes]:
    found = json.loads((VECTORS / "format.json").read_text())["records"]
    return {name: bytes.fromhex(data) for name, data in found.items()}


KINDS: list[type[Record]] = sorted(
    {
        kind
        for module in (charter, claim, drill, index, keybag, offer, pack, policy, snapshot, tree, messages)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Record) and kind is not Record
    },
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_records(rounds: int) -> None:
    known = list(records().values())
    accepted = 0
    for random in tries(rounds, 8000):
        data = mutation.of_record(random.choice(known), random)
        kind = random.choice(KINDS) if random.random() < 0.3 else None
        for one in [kind] if kind else _kinds_of(data):
            found = attempt(decode, one, data)
            accepted += found is not None
            attempt(decode_own, one, data)
        version_of(data)
    assert accepted > 100 * rounds, "changes that only rarely pass would try nothing behind the codec"


def _kinds_of(data: bytes) -> list[type[Record]]:
    """Return the kinds that have about as many fields."""
    fields = data[0] & 0x0F if data else 0
    return [kind for kind in KINDS if len(kind.__struct_fields__) + 1 == fields] or KINDS[:3]


@pytest.mark.parametrize("rounds", ROUNDS)
def test_headers_locators_and_record_objects(rounds: int) -> None:
    writer = Writer(keys())
    header = writer.envelope(3, b"body", b"", "index")[:64]
    record = b"RPLREC\0\1" + (20).to_bytes(4, "little") + bytes(65536 - 12)
    for random in tries(rounds, 3000):
        attempt(decode_header, mutation.of_bytes(header, random))
        locator = random.choice((random.randbytes(32), bytes([1, 0, *bytes(6), *random.randbytes(24)])))
        attempt(decode_locator, locator, random.choice((0, 65536, 65537, 1 << 24, 1 << 25)))
        changed = mutation.of_bytes(record[:24], random) + record[24:]
        attempt(unwrap_record, changed)


def of_header(header: bytes, random: Random) -> bytes:
    return mutation.of_bytes(header, random)[:64].ljust(64, b"\0")


def replaced(said: dict[str, object], *, key: str, number: int) -> dict[str, object]:
    return said | {key: number}


@pytest.mark.parametrize("rounds", ROUNDS)
def test_packs(rounds: int) -> None:
    for random in tries(rounds, 250):
        writer = Writer(keys(), random=random)
        refs = [writer.chunk(1, bytes([number]) * 500) for number in range(3)]
        stage = random.choice(("directory", "directory bytes", "pack locator", "pack header", "pack", "stored", ""))
        if stage == "directory":
            writer.bend = {stage: partial(mutation.of_value, random=random)}
        elif stage == "pack locator":
            key = random.choice(("kind", "encoding", "body", "raw", "segments"))
            most = 1 << (8 if key in ("kind", "encoding") else 64)
            number = random.choice((0, 1, 2, 3, 5, most - 1, random.randrange(min(most, 1 << 17))))
            writer.bend = {stage: partial(replaced, key=key, number=number)}
        elif stage == "stored":
            one = random.choice(list(writer.chunks.values()))
            writer.chunks[one.id] = Chunk(one.id, 1, random.randrange(2), mutation.of_bytes(one.stored, random), 500)
        elif stage:
            bend = of_header if stage == "pack header" else mutation.of_bytes
            writer.bend = {stage: partial(bend, random=random)}
        data = writer.pack(random.choice((1, 1, 2)), list(writer.chunks.values()))
        reader = attempt(PackReader, data, READER)
        for ref in refs if reader is not None else ():
            assert reader is not None
            plain = attempt(reader.chunk, 1, ref[0])
            assert plain is None or writer.chunk_id(1, plain) == ref[0], "nothing wrong is ever given"


@pytest.mark.parametrize("rounds", ROUNDS)
def test_signed_objects(rounds: int) -> None:
    known = records()
    for random in tries(rounds, 600):
        writer = Writer(keys(), random=random)
        kind, what, record = random.choice(
            (
                (Kind.INDEX, "index", Index),
                (Kind.REFERENCES, "references", References),
                (Kind.SNAPSHOT, "snapshot", Snapshot),
            )
        )
        writer.bend = {f"{what} bytes": partial(mutation.of_record, random=random)}
        stage = random.choice((f"{what} signed", f"{what} object", ""))
        if stage:
            writer.bend[stage] = partial(mutation.of_bytes, random=random)
        data = writer.record(kind, what, msgspec.msgpack.decode(known[what]))

        attempt(read_signed, data, kind, record, Context[what.upper()], writer.keys.public)


def read_signed(data: bytes, kind: Kind, record: type[Record], context: Context, public: bytes) -> Record:
    return decode(record, verify(open_object(data, kind, READER.keys), context, [public]))


@pytest.mark.parametrize("rounds", ROUNDS)
def test_charters_orders_and_secrets(rounds: int) -> None:
    known = records()
    owner, root = SigningKey(b"o" * 32), SigningKey(b"r" * 32)
    statement = msgspec.msgpack.decode(known["root statement"])
    statement[4], statement[6] = root.public, owner.public
    # The newest version's is of another root's line, which is refused as it stands and must be as anything else too.
    values = [msgspec.msgpack.decode(known[name]) for name in ("charter", "charter 1")]
    accepted = 0
    for random in tries(rounds, 700):
        inner = encoded(statement)
        value = random.choice(values)
        value[1] = statement[1]
        value[4] = root.sign(
            Context.ROOT_STATEMENT, mutation.of_record(inner, random) if random.random() < 0.5 else inner
        )
        body = encoded(value) if random.random() < 0.3 else mutation.of_record(encoded(value), random)
        signed = owner.sign(Context.CHARTER, body)
        if random.random() < 0.2:
            signed = mutation.of_bytes(signed, random)
        accepted += attempt(verify_charter, signed, root_key=root.public, known=None) is not None
        order = owner.sign(Context.ENROL_ORDER, mutation.of_record(known["enrol order"], random))
        attempt(verify_enrol_order, order, [owner.public], now_ns=1, skew_ns=1)
        for purpose in (PURPOSE_KEYBAG, PURPOSE_GRANT):
            sealed = mutation.of_bytes(seal_to(public_of(RESTORE), b"secret", purpose), random)
            attempt(unseal, RESTORE, sealed, purpose, "it")
        writer = Writer(keys(), random=random)
        box = mutation.of_bytes(writer.box(b"details", 1), random)
        context = (
            b"replicator/1 snapshot details\0" + TENANT + DOMAIN + writer.keys.identity + (1).to_bytes(8, "little")
        )
        attempt(open_box, RESTORE, b"m" * 32, TENANT, DOMAIN, box, context, "it")
    assert accepted > 50 * rounds


@pytest.mark.parametrize("rounds", ROUNDS)
def test_codes(rounds: int) -> None:
    codes = json.loads((VECTORS / "format.json").read_text())["codes"]
    strange = "\x00\n -­é١Ⅷ=🗄\udcff0189"
    for random in tries(rounds, 5000):
        text = list(random.choice(list(codes.values())))
        for _ in range(random.randint(1, 3)):
            at = random.randrange(len(text))
            text[at : at + random.randrange(3)] = random.choice(
                (strange[random.randrange(len(strange))], text[at], "=")
            )
        code = "".join(text)
        attempt(read_code, random.choice(CODES), code)
        attempt(is_grant, code)


class Chunks:
    """A source of chunks by their ids."""

    def __init__(self, plain: dict[bytes, bytes]) -> None:
        self.plain = plain

    def get(self, _kind: int, ref: ChunkRef) -> bytes:
        if ref.id not in self.plain:
            raise NotFoundError("no such chunk")
        return self.plain[ref.id]


def restore(applier: Applier, source: Chunks, top: snapshot.ChunkList) -> bool:
    """Restore a tree; chunks that are not there are not written."""
    applier.begin()
    for path, entry in TreeReader(source).walk(top):
        job = applier.add(path, entry)
        if job is not None:
            for offset, part in extents(job.content, source):
                applier.write(job, offset, source.get(1, part))
    applier.finish()
    return True


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("rounds", ROUNDS)
def test_trees_on_the_disk(stage: Stage, rounds: int) -> None:
    """The whole neighbourhood of the target is what it was, whatever the tree says."""
    restored = 0
    for number, random in enumerate(tries(rounds, 400)):
        writer = Writer(stage.keys, random=random)
        entries = small(writer, stage.outside)
        for _ in range(random.randint(1, 2)):
            at = random.randrange(len(entries))
            if random.random() < 0.8:
                place = random.randrange(len(entries[at]))
                entries[at][place] = mutation.of_value(entries[at][place], random)
            else:
                entries[at] = entries[at - 1]
        if random.random() < 0.7:
            entries.sort(key=lambda one: one[0] if isinstance(one[0], bytes) else b"")
        piece = encoded([1, entries])
        plain = {one.id: one.stored for one in writer.chunks.values()}
        top = snapshot.ChunkList(depth=0, length=len(piece), chunks=[ChunkRef(id=b"\xfe" * 32, length=len(piece))])
        rights = Rights(privileged=stage.privileged, numeric_ids=True)
        applier = Applier(
            os.path.join(stage.target, str(number)), rng=SeededRng(number), rights=rights, overwrite="always"
        )
        try:
            restored += attempt(restore, applier, Chunks({**plain, b"\xfe" * 32: piece}), top) is not None
        finally:
            applier.abort()
    assert restored > 10 * rounds


def bodies(known: dict[str, bytes]) -> list[tuple[str, bytes]]:
    """Return a request of each operation."""
    signed = [known["claim"], known["head"]]
    made = [
        ("info", [1]),
        ("heads", [2, bytes(32)]),
        ("chain", [1, bytes(32), 0, 10]),
        ("inventory", [1, b"", 10]),
        ("prove", [1, bytes(32), [0]]),
        ("attest", [1, bytes(32), [0]]),
        ("check", [1, bytes(32)]),
        ("charter", [1, bytes(32)]),
    ]
    key = SigningKey(b"n" * 32)
    return [
        *((op, encoded(value)) for op, value in made),
        ("claim", encoded([1, key.sign(Context.CLAIM, signed[0])])),
        ("head", encoded([1, key.sign(Context.HEAD, signed[1])])),
    ]


@pytest.mark.parametrize("rounds", ROUNDS)
def test_requests_to_a_provider(worlds: Callable[[int], World], rounds: int) -> None:
    """What reaches its session: a refusal or an answer comes of it."""
    world = worlds(1)
    world.small_dataset()
    asyncio.run(world.backup())
    node = world.node()
    key = node.signing
    node.close()
    session = world.services[0].session(key.public)
    known = records()
    names = [bytes.fromhex(name) for name in os.listdir(world.objects(0))]
    answered = 0
    for random in tries(rounds, 1500):
        op, body = random.choice(bodies(known))
        if op in ("claim", "head") and random.random() < 0.7:
            context = Context.CLAIM if op == "claim" else Context.HEAD
            body = encoded([1, key.sign(context, mutation.of_record(known[op], random))])
        elif op != "info":
            body = mutation.of_record(body, random)
        answered += attempt(session.handle, op, body) is not None
        name = ObjectName(
            random.choice(names) if random.random() < 0.5 else random.randbytes(random.choice((0, 31, 32)))
        )
        offset, length = (random.choice((0, 1, -1, 1 << 20, 1 << 63)) for _ in range(2))
        attempt(session.get, name, offset, random.choice((None, length)))
        upload = attempt(session.begin_put, name, random.choice((0, -1, 1, 65536, 65537, 1 << 24, 1 << 70)))
        if upload is not None:
            upload.abort()
    assert answered > 100 * rounds


REQUEST = b"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
PATHS = (
    *(
        "/v1/info",
        "/v1/heads",
        "/v1/enrol",
        "/v1/objects/" + "0" * 64,
        "/v1/objects/" + "0" * 64 + "?offset=0&length=1",
    ),
    *("/v1/objects/", "/v1/../v1/info", "/v1/%2e%2e/%2e%2e/etc/passwd", "/v2/info", "/", "*", "http://x/v1/info", "//"),
    *("/v1/objects/" + "Z" * 64, "/v1/objects/" + "0" * 64 + "?offset=%d9%a1", "/v1/objects/%00" + "0" * 63),
    *("/v1/objects/" + "0" * 64 + "?offset=-1", "/v1/objects/" + "0" * 64 + "?length=" + "9" * 40, "/v1/\xff"),
)


@pytest.mark.parametrize("rounds", ROUNDS)
async def test_the_path_and_head_of_a_request(
    worlds: Callable[[int], World], rounds: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a socket, as the node would be behind TLS: no request becomes an internal error."""
    world = worlds(1)
    await world.status()
    node = world.node()
    public = node.signing.public
    node.close()
    monkeypatch.setattr(server, "peer_key", lambda _: public)
    caplog.set_level(logging.ERROR, "replicator.transport.server")
    async with server.serving(
        world.services[0],
        SystemClock(),
        host="127.0.0.1",
        port=0,
        context=None,  # type: ignore[arg-type] # aiohttp's own word for no TLS
    ) as [endpoint]:
        host, _, port = endpoint.rpartition(":")
        for random in tries(rounds, 250):
            method = random.choice(("GET", "PUT", "POST", "HEAD", "DELETE", "get", "\xff"))
            path, body = random.choice(PATHS), random.choice((b"", b"\x91\x01", random.randbytes(40)))
            length = str(random.choice((len(body), len(body), len(body), -1, 1 << 70, "x")))
            asked = REQUEST.replace(b"{method}", method.encode("latin-1")).replace(b"{path}", path.encode("latin-1"))
            asked = asked.replace(b"{length}", length.encode()) + body
            if random.random() < 0.5:
                asked = mutation.of_bytes(asked, random)
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(asked)
            writer.write_eof()
            try:
                answer = await asyncio.wait_for(reader.read(100_000), 20)
            except ConnectionError:
                answer = b""
            writer.close()
            assert not answer.startswith(b"HTTP/1.1 500"), asked
            assert b"internal error" not in answer, asked
    assert [line for line in caplog.messages if " at " in line] == []


def test_names_of_objects_are_the_same_for_both_ways_to_reckon_them() -> None:
    for size in (0, 1, 16384, 16385, 65536, 5 * 16384 + 1, 1 << 18):
        data = Random(size).randbytes(size)
        assert object_name(data) == name_of(data)
