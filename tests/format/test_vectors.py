"""The frozen bytes of tests/vectors/format.json: they are read for ever, and written the same way."""

import pytest

from replicator.crypto.sign import Context, SigningKey, body_of, verify
from replicator.format.claim import set_root
from replicator.format.codec import decode, encode
from replicator.format.codes import code_kind, read_code
from replicator.format.container import unwrap_record, wrap_record
from replicator.format.merkle import Proof, name_of, proves
from replicator.format.offer import Invite
from replicator.format.policy import Policy, policy_id
from replicator.ids import identity_of, parse_address_form
from tests.format.samples import INVITE, ORDER, SAMPLES, run
from tests.vectors import make_vectors

FROZEN = make_vectors.load("format")


def test_there_is_a_vector_for_every_record_type() -> None:
    assert FROZEN["records"].keys() == SAMPLES.keys()


@pytest.mark.parametrize("name", SAMPLES)
def test_a_frozen_record_is_read_and_written(name: str) -> None:
    frozen = bytes.fromhex(FROZEN["records"][name])
    record = decode(type(SAMPLES[name]), frozen)
    assert record == SAMPLES[name]
    assert encode(record) == frozen


@pytest.mark.parametrize("name", ["policy", "coded policy"])
def test_a_frozen_policy_keeps_its_id(name: str) -> None:
    policy = decode(Policy, bytes.fromhex(FROZEN["records"][name]))
    assert policy_id(policy).hex() == FROZEN["policy ids"][name]


@pytest.mark.parametrize("context", Context)
def test_a_frozen_signature_holds_in_its_context(context: Context) -> None:
    signed = bytes.fromhex(FROZEN["signed"][context.value.decode()])
    key = SigningKey(make_vectors.SEED)
    assert verify(signed, context, [key.public]) == body_of(signed) == encode(ORDER)
    assert key.sign(context, body_of(signed)) == signed


def test_there_is_a_vector_for_every_context() -> None:
    assert FROZEN["signed"].keys() == {context.value.decode() for context in Context}


@pytest.mark.parametrize("case", FROZEN["names"], ids=lambda case: str(case["size"]))
def test_frozen_names_of_objects_hold(case: dict[str, object]) -> None:
    size = case["size"]
    assert isinstance(size, int)
    assert name_of(make_vectors.pattern(size)).hex() == case["name"]


def test_a_frozen_proof_holds() -> None:
    frozen = FROZEN["proof"]
    path = [bytes.fromhex(step) for step in frozen["path"]]
    proof = Proof(frozen["size"], frozen["index"], bytes.fromhex(frozen["leaf"]), path)
    assert proves(bytes.fromhex(frozen["name"]), frozen["index"], proof)
    assert not proves(bytes(32), frozen["index"], proof)


def test_a_frozen_record_object_keeps_its_name() -> None:
    record = bytes.fromhex(FROZEN["record object"]["record"])
    data = wrap_record(record, bytes(1 << 16))
    assert name_of(data).hex() == FROZEN["record object"]["name"]
    assert unwrap_record(data) == record


def test_frozen_codes_are_read() -> None:
    codes = FROZEN["codes"]
    assert decode(Invite, read_code("invite", codes["invite"])) == INVITE
    assert read_code("request", codes["request"]) == run(1, 40)
    assert read_code("grant", codes["grant"]) == run(2, 41)
    assert {code_kind(code) for code in codes.values()} == {"invite", "request", "grant"}


def test_a_frozen_set_has_its_root() -> None:
    frozen = FROZEN["set root"]
    assert set_root(bytes.fromhex(name) for name in frozen["names"]).hex() == frozen["root"]


def test_a_frozen_identity_is_read() -> None:
    frozen = FROZEN["identity"]
    identity = identity_of(bytes.fromhex(frozen["key"]))
    assert identity.hex() == frozen["identity"]
    assert parse_address_form(frozen["text"]) == identity


def test_everything_here_is_written_again_the_same_way() -> None:
    assert make_vectors.format_vectors() == FROZEN
