"""The frozen bytes of tests/vectors/crypto.json: what was sealed once is opened for ever."""

from replicator.crypto.handing import take
from replicator.crypto.passphrase import Wrapped, unwrap
from replicator.crypto.recovery import from_words, root_of
from replicator.crypto.seal import PURPOSE_GRANT, PURPOSE_KEYBAG
from replicator.crypto.sign import SigningKey
from replicator.crypto.unseal import open_box, public_of, unseal
from replicator.format.codec import decode
from replicator.format.keybag import Keybag, MemberKeys1, NodeGrant1, WrappedSecret
from replicator.format.snapshot import SnapshotDetails
from tests.format.samples import DETAILS, GRANT_1, KEYBAG, MEMBER_KEYS_1
from tests.vectors import make_vectors

FROZEN = make_vectors.load("crypto")
SEALED = FROZEN["sealed"]


def test_frozen_words_give_root() -> None:
    secret = from_words(SEALED["words"].split())
    assert secret == make_vectors.SEED
    root = root_of(secret)
    assert root.seal_private.hex() == SEALED["private"] == FROZEN["derived"]["root seal private"]
    assert root.signing.public.hex() == FROZEN["derived"]["root sign public"]
    assert public_of(root.seal_private).hex() == FROZEN["derived"]["root seal public"]


def test_a_frozen_keybag_and_grant_open() -> None:
    private = bytes.fromhex(SEALED["private"])
    keybag = unseal(private, bytes.fromhex(SEALED["keybag"]), PURPOSE_KEYBAG, "keybag")
    assert decode(Keybag, keybag) == KEYBAG
    grant = unseal(private, bytes.fromhex(SEALED["grant"]), PURPOSE_GRANT, "grant")
    assert decode(NodeGrant1, grant) == GRANT_1


def test_frozen_keys_that_were_handed_on_are_taken() -> None:
    taken = take(SigningKey(make_vectors.SEED), bytes.fromhex(SEALED["handed"]), "keys")
    assert decode(MemberKeys1, taken) == MEMBER_KEYS_1


def test_a_frozen_box_opens() -> None:
    box = {field: bytes.fromhex(value) for field, value in SEALED["box"].items()}
    details = open_box(
        box["restore private"], box["mix"], box["tenant"], box["domain"], box["box"], box["associated"], "box"
    )
    assert decode(SnapshotDetails, details) == DETAILS


def test_a_frozen_wrapped_secret_opens() -> None:
    frozen = FROZEN["wrapped"]
    record = decode(WrappedSecret, bytes.fromhex(frozen["record"]))
    wrapped = Wrapped(
        salt=record.salt,
        memory_kib=record.memory_kib,
        passes=record.passes,
        lanes=record.lanes,
        commitment=record.commitment,
        sealed=record.sealed,
    )
    assert unwrap(frozen["passphrase"], wrapped, bytes.fromhex(frozen["label"])).hex() == frozen["secret"]


def test_everything_that_can_be_is_written_again_the_same_way() -> None:
    assert make_vectors.crypto_vectors(FROZEN) == FROZEN
