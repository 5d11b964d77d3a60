"""Write format, crypto, pack and shards.json: what every release must read, and most of it write, for ever.

    python -m tests.vectors.make_vectors            what is deterministic; what is sealed stays as it is
    python -m tests.vectors.make_vectors --fresh    all, with new ephemeral keys: only before a format's first release

Everything comes from the fixed values of ``tests.format.samples`` and seeded randomness, except what HPKE seals:
its ephemeral key cannot be chosen, so those bytes were made once and tests open them.
"""

import base64
import json
import pathlib
import sys
from typing import Any

from replicator.crypto.derive import chunk_id_key, commitment, content_key, hkdf, object_key
from replicator.crypto.handing import hand, montgomery_of
from replicator.crypto.passphrase import wrap
from replicator.crypto.recovery import root_of, to_words
from replicator.crypto.seal import PURPOSE_GRANT, PURPOSE_KEYBAG, seal_box, seal_to
from replicator.crypto.sign import Context, SigningKey
from replicator.crypto.unseal import public_of
from replicator.format.claim import set_root
from replicator.format.codec import encode
from replicator.format.codes import write_code
from replicator.format.container import Kind, record_fill, wrap_record
from replicator.format.keybag import WrappedSecret
from replicator.format.merkle import LEAF_SIZE, hashes_of, name_of, prove
from replicator.format.policy import policy_id
from replicator.format.sizes import MOST_SHARDS, SMALLEST, is_cut, shard_size
from replicator.ids import address_form, identity_of
from replicator.pack.packer import seal_pack
from replicator.pack.sealed import seal_object
from replicator.pack.shards import split
from tests.fakes import SeededRng
from tests.format.samples import CODED, DETAILS, GRANT_1, INVITE, KEYBAG, MEMBER_KEYS_1, ORDER, POLICY, SAMPLES, run
from tests.pack.support import HASHERS, KEYS, RESTORE, chunk
from tests.pack.support import POLICY as PACK_POLICY

FOLDER = pathlib.Path(__file__).parent
SEED = bytes(range(32))
PASSPHRASE = "correct horse båttery"
BOX_CONTEXT = b"replicator/1 snapshot details\x00" + KEYS.tenant + KEYS.domain + bytes(32) + (9).to_bytes(8, "little")
PLAINS = [b"", b"a short chunk", b"zeros compress: " + bytes(5000), SeededRng("noise").bytes(3000)]
CODINGS = ((2, 1), (4, 2), (6, 3), (16, 16))
SHARD_PACK = 1 << 20
OBJECT_SIZES = (0, 1, LEAF_SIZE - 1, LEAF_SIZE, LEAF_SIZE + 1, 3 * LEAF_SIZE, 65536, 5 * LEAF_SIZE + 300)


def pattern(length: int) -> bytes:
    """Return the bytes that object vectors are made of: byte i is i*i + i//251, modulo 256."""
    return bytes((i * i + i // 251) & 255 for i in range(length))


def format_vectors() -> dict[str, Any]:
    """Return encodings, names and codes; all of it deterministic."""
    signer = SigningKey(SEED)
    data = pattern(OBJECT_SIZES[-1])
    leaves = [data[at : at + LEAF_SIZE] for at in range(0, len(data), LEAF_SIZE)]
    proof = prove(hashes_of(leaves), len(data), 5, leaves[5])
    record = b"a record that a provider may read"
    return {
        "records": {name: encode(value).hex() for name, value in SAMPLES.items()},
        "policy ids": {"policy": policy_id(POLICY).hex(), "coded policy": policy_id(CODED).hex()},
        "signed": {context.value.decode(): signer.sign(context, encode(ORDER)).hex() for context in Context},
        "names": [{"size": size, "name": name_of(pattern(size)).hex()} for size in OBJECT_SIZES],
        "proof": {
            "size": proof.size,
            "index": proof.index,
            "leaf": proof.leaf.hex(),
            "path": [step.hex() for step in proof.path],
            "name": name_of(data).hex(),
        },
        "record object": {
            "record": record.hex(),
            "fill": "zeros",
            "name": name_of(wrap_record(record, bytes(record_fill(len(record))))).hex(),
        },
        "codes": {
            "invite": write_code("invite", encode(INVITE)),
            "request": write_code("request", run(1, 40)),
            "grant": write_code("grant", run(2, 41)),
        },
        "set root": {"names": [run(9, 32).hex(), run(3, 32).hex()], "root": set_root([run(9, 32), run(3, 32)]).hex()},
        "identity": {
            "key": signer.public.hex(),
            "identity": signer.identity.hex(),
            "text": address_form(signer.identity),
        },
    }


def crypto_vectors(old: dict[str, Any] | None) -> dict[str, Any]:
    """Return derivations and, made once, what is sealed or random."""
    root = root_of(SEED)
    made: dict[str, Any] = {
        "derived": {
            "secret": SEED.hex(),
            "hkdf label=a label salt=salt context=context": hkdf(
                SEED, label=b"a label", salt=b"salt", context=b"context"
            ).hex(),
            "chunk id 1": chunk_id_key(SEED, 1).hex(),
            "chunk id 2": chunk_id_key(SEED, 2).hex(),
            "chunk id 3": chunk_id_key(SEED, 3).hex(),
            "object": object_key(SEED, run(0x40, 32), run(0x10, 16), run(0x70, 16)).hex(),
            "content": content_key(SEED, run(0x40, 32), run(0x10, 16), run(0x70, 16)).hex(),
            "commitment": commitment(SEED).hex(),
            "root sign public": root.signing.public.hex(),
            "root seal private": root.seal_private.hex(),
            "root seal public": public_of(root.seal_private).hex(),
            "identity of root": identity_of(root.signing.public).hex(),
        },
        "wrapped": {"passphrase": PASSPHRASE, "label": b"owner key".hex(), "secret": SEED.hex(), "record": _wrapped()},
    }
    made["sealed"] = (
        old["sealed"]
        if old
        else {
            "private": root.seal_private.hex(),
            "keybag": seal_to(public_of(root.seal_private), encode(KEYBAG), PURPOSE_KEYBAG).hex(),
            "grant": seal_to(public_of(root.seal_private), encode(GRANT_1), PURPOSE_GRANT).hex(),
            "words": " ".join(to_words(SEED)),
            "box": {
                "restore private": RESTORE.hex(),
                "mix": KEYS.mix.hex(),
                "tenant": KEYS.tenant.hex(),
                "domain": KEYS.domain.hex(),
                "associated": BOX_CONTEXT.hex(),
                "box": seal_box(
                    KEYS.restore_key,
                    KEYS.mix,
                    KEYS.tenant,
                    KEYS.domain,
                    encode(DETAILS),
                    BOX_CONTEXT,
                    SeededRng("vector box"),
                ).hex(),
            },
        }
    )
    if "handed" not in made["sealed"]:
        made["sealed"]["handed"] = hand(SigningKey(SEED).public, encode(MEMBER_KEYS_1)).hex()
    made["derived"]["x25519 of ed25519"] = montgomery_of(SigningKey(SEED).public).hex()
    return made


def _wrapped() -> str:
    wrapped = wrap(PASSPHRASE, SEED, b"owner key", SeededRng("vector passphrase"))
    return encode(
        WrappedSecret(
            salt=wrapped.salt,
            memory_kib=wrapped.memory_kib,
            passes=wrapped.passes,
            lanes=wrapped.lanes,
            commitment=wrapped.commitment,
            sealed=wrapped.sealed,
        )
    ).hex()


def pack_vectors(old: dict[str, Any] | None) -> dict[str, Any]:
    """Return a domain's keys, a sealed object, and a pack that was made once."""
    body = encode(ORDER)
    made: dict[str, Any] = {
        "keys": {
            "tenant": KEYS.tenant.hex(),
            "domain": KEYS.domain.hex(),
            "restore private": RESTORE.hex(),
            "restore public": KEYS.restore_key.hex(),
            "mix": KEYS.mix.hex(),
            "id key": KEYS.id_key.hex(),
            "epoch": KEYS.epoch,
            "index keys": {str(epoch): key.hex() for epoch, key in KEYS.index_keys.items()},
        },
        "policy": PACK_POLICY.hex(),
        "object": {
            "kind": int(Kind.SNAPSHOT),
            "body": body.hex(),
            "data": _text(seal_object(Kind.SNAPSHOT, body, KEYS, SeededRng("vector object"))),
        },
        "chunks": [
            {"kind": one[1], "id": one[0].hex(), "plain": _text(plain)}
            for plain, one in ((plain, chunk(plain)) for plain in PLAINS)
        ],
    }
    if old:
        made["pack"] = old["pack"]
    else:
        pack = seal_pack(
            [chunk(plain) for plain in PLAINS], Kind.DATA_PACK, PACK_POLICY, KEYS, SeededRng("vector pack"), HASHERS
        )
        made["pack"] = {"name": pack.name.hex(), "data": _text(pack.data)}
    return made


def shard_vectors() -> dict[str, Any]:
    """Return single bytes across a code, names of shards, and what is cut at all; all of it deterministic."""
    made: dict[str, Any] = {"bytes": [], "packs": [], "cut": []}
    for needed, spare in CODINGS:
        data = bytes(17 * number + 1 & 255 for number in range(needed))
        rows = split(b"".join(bytes([value]) * SMALLEST for value in data), (needed, spare))
        made["bytes"].append(
            {
                "needed": needed,
                "spare": spare,
                "data": data.hex(),
                "parity": bytes(row[0] for row in rows[needed:]).hex(),
            }
        )
    for needed, spare in CODINGS:
        shards = split(pattern(SHARD_PACK), (needed, spare))
        made["packs"].append(
            {
                "needed": needed,
                "spare": spare,
                "size": SHARD_PACK,
                "shard": len(shards[0]),
                "names": [name_of(shard).hex() for shard in shards],
            }
        )
    for needed in range(2, MOST_SHARDS + 1):
        for size in (1 << power for power in range(19, 25)):
            shard = shard_size(size, needed) if is_cut(size, needed) else 0
            made["cut"].append({"size": size, "needed": needed, "shard": shard})
    return made


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def main(arguments: list[str]) -> None:
    """Write the files."""
    fresh = "--fresh" in arguments
    crypto, pack = (None if fresh else load(name) for name in ("crypto", "pack"))
    for name, vectors in (
        ("format", format_vectors()),
        ("crypto", crypto_vectors(crypto)),
        ("pack", pack_vectors(pack)),
        ("shards", shard_vectors()),
    ):
        (FOLDER / f"{name}.json").write_text(json.dumps(vectors, indent=1, ensure_ascii=False) + "\n")


def load(name: str) -> dict[str, Any]:
    """Return a frozen file."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
