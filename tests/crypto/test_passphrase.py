import dataclasses
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from replicator.crypto.derive import commitment, hkdf
from replicator.crypto.passphrase import LANES, MAX_MEMORY_KIB, MEMORY_KIB, PASSES, Cost, Wrapped, unwrap, wrap
from replicator.errors import FormatError, IntegrityError, KeyWrongError, SpaceError, UsageError
from tests.fakes import SeededRng

PASSPHRASE = "correct horse båttery"
SECRET = bytes(range(32))


@pytest.fixture(scope="module")
def wrapped() -> Wrapped:
    return wrap(PASSPHRASE, SECRET, b"owner key", SeededRng("wrap"))


def test_a_secret_is_wrapped_as_the_specification_says(wrapped: Wrapped) -> None:
    assert (wrapped.memory_kib, wrapped.passes, wrapped.lanes) == (MEMORY_KIB, PASSES, LANES) == (65536, 3, 4)
    stretched = Argon2id(salt=wrapped.salt, length=32, iterations=3, lanes=4, memory_cost=65536).derive(
        PASSPHRASE.encode()
    )
    key = hkdf(stretched, label=b"passphrase", context=b"owner key")
    assert wrapped.commitment == commitment(key)
    assert AESGCM(key).decrypt(wrapped.sealed[:12], wrapped.sealed[12:], b"owner key") == SECRET


def test_the_right_passphrase_opens(wrapped: Wrapped) -> None:
    assert unwrap(PASSPHRASE, wrapped, b"owner key") == SECRET


def test_accents_may_be_typed_either_way(wrapped: Wrapped) -> None:
    decomposed = PASSPHRASE.replace("å", "a\u030a")
    assert decomposed != PASSPHRASE
    assert unwrap(decomposed, wrapped, b"owner key") == SECRET


@pytest.mark.parametrize("passphrase", ["", "correct horse battery", PASSPHRASE + " ", PASSPHRASE.upper()])
def test_a_wrong_passphrase_is_told_from_damage(wrapped: Wrapped, passphrase: str) -> None:
    with pytest.raises(KeyWrongError, match="the passphrase is wrong") as caught:
        unwrap(passphrase, wrapped, b"owner key")
    assert "recovery sheet" in caught.value.hint


def test_a_secret_wrapped_as_one_thing_does_not_open_as_another(wrapped: Wrapped) -> None:
    with pytest.raises(KeyWrongError):
        unwrap(PASSPHRASE, wrapped, b"maintenance key")


def test_damaged_bytes_under_the_right_passphrase_are_damage(wrapped: Wrapped) -> None:
    for at in (0, 12, len(wrapped.sealed) - 1):
        broken = bytearray(wrapped.sealed)
        broken[at] ^= 1
        with pytest.raises(IntegrityError, match="damaged"):
            unwrap(PASSPHRASE, dataclasses.replace(wrapped, sealed=bytes(broken)), b"owner key")


def test_a_changed_salt_or_commitment_does_not_open(wrapped: Wrapped) -> None:
    for changes in ({"salt": bytes(16)}, {"commitment": bytes(32)}, {"passes": 4}, {"lanes": 1}):
        with pytest.raises(KeyWrongError):
            unwrap(PASSPHRASE, dataclasses.replace(wrapped, **changes), b"owner key")


@pytest.mark.parametrize(
    "changes",
    [
        {"memory_kib": 65535},
        {"memory_kib": 8},
        {"memory_kib": (4 << 20) + 1},
        {"passes": 2},
        {"passes": 17},
        {"passes": 2**31},
        {"lanes": 0},
        {"lanes": 17},
    ],
)
def test_parameters_out_of_bounds_are_refused_before_any_work(wrapped: Wrapped, changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="allowed are"):
        unwrap(PASSPHRASE, dataclasses.replace(wrapped, **changes), b"owner key")


def test_a_label_may_end_in_any_bytes() -> None:
    label = b"domain keys \xff\x80"
    again = wrap(PASSPHRASE, SECRET, label, SeededRng("label"))
    assert unwrap(PASSPHRASE, again, label) == SECRET
    with pytest.raises(IntegrityError):
        unwrap(PASSPHRASE, dataclasses.replace(again, sealed=b""), label)


def test_a_secret_may_cost_more_to_try(wrapped: Wrapped) -> None:
    dear = wrap(PASSPHRASE, SECRET, b"owner key", SeededRng("dear"), Cost(memory_kib=65537, passes=4, lanes=2))
    assert (dear.memory_kib, dear.passes, dear.lanes) == (65537, 4, 2)
    assert unwrap(PASSPHRASE, dear, b"owner key") == SECRET


@pytest.mark.parametrize(
    "changes",
    [{"memory_kib": 65535}, {"memory_kib": 64 << 20}, {"passes": 2}, {"passes": 17}, {"lanes": 0}, {"lanes": 17}],
)
def test_nothing_cheaper_or_dearer_is_ever_written(changes: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="allowed are"):
        Cost(**changes)
    Cost(memory_kib=MAX_MEMORY_KIB, passes=16, lanes=16)


def test_memory_that_is_not_there_is_told_in_mebibytes(wrapped: Wrapped, monkeypatch: pytest.MonkeyPatch) -> None:
    class Starved:
        def __init__(self, **_: object) -> None:
            pass

        def derive(self, _: bytes) -> bytes:
            raise MemoryError

    monkeypatch.setattr("replicator.crypto.passphrase.Argon2id", Starved)
    with pytest.raises(SpaceError, match="takes 64 MiB of memory"):
        unwrap(PASSPHRASE, wrapped, b"owner key")
