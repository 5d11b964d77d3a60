"""The charter a provider goes by: the newest that root vouches for."""

import os
from functools import partial
from typing import Any

import pytest

from replicator.charter.verify import signed_hash, verify_charter
from replicator.crypto.sign import SigningKey
from replicator.format.container import record_fill, wrap_record
from replicator.format.merkle import name_of
from replicator.ids import ObjectName
from replicator.provider import session
from replicator.provider.charters import MOST_FORKS, store_charter
from replicator.wire.messages import CharterNotice
from tests.fakes import SeededRng
from tests.provider.stand import Stand, refusal
from tests.provider.tenant import SMALL, Tenant, charter_object, data_object, publish_charter, put, right

KEYBAG = name_of(data_object(7))


def _announce(stand: Stand, signed: bytes) -> None:
    data = charter_object(signed)
    put(stand.keeper, data)
    stand.call("charter", CharterNotice(name=name_of(data)), stand.keeper)


def test_a_newer_charter_is_taken_over_and_named_in_info(stand: Stand) -> None:
    signed = stand.tenant.charter(keybag=KEYBAG)
    _announce(stand, signed)
    info = stand.node.info()
    assert (info.charter_number, info.charter) == (2, name_of(charter_object(signed)))


def test_the_same_charter_again_changes_nothing(stand: Stand) -> None:
    _announce(stand, stand.tenant.charters[0])
    assert stand.node.info().charter_number == 1


def test_an_older_charter_is_a_conflict_and_another_of_its_number_a_fork(stand: Stand) -> None:
    first = stand.tenant.charters[0]
    _announce(stand, stand.tenant.charter(keybag=KEYBAG))
    assert refusal(lambda: _announce(stand, first)) == "conflict"
    rival = stand.tenant.charter(number=2, keybag=KEYBAG, private=b"rival")
    assert refusal(lambda: _announce(stand, rival)) == "fork"
    assert stand.node.info().charter_number == 2
    assert kept_forks(stand) == {stand.tenant.charters[1], rival}


def test_a_charter_that_does_not_follow_ours_is_a_fork_but_a_jump_is_not(stand: Stand) -> None:
    astray = stand.tenant.charter(number=2, keybag=KEYBAG, previous=bytes(32))
    assert refusal(lambda: _announce(stand, astray)) == "fork"
    assert kept_forks(stand) == {stand.tenant.charters[0], astray}
    _announce(stand, stand.tenant.charter(number=9, keybag=KEYBAG))
    assert stand.node.info().charter_number == 9


def kept_forks(stand: Stand) -> set[bytes]:
    """Return the charters that the provider keeps as evidence."""
    rows = stand.service._core.database.rows("SELECT signed FROM orders WHERE kind = 'charter fork'")
    return {signed for (signed,) in rows}


def test_of_two_charters_at_one_time_one_is_taken_and_the_other_is_held_against_it(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = stand.tenant.charter(keybag=KEYBAG)
    rival = stand.tenant.charter(number=2, previous=signed_hash(stand.tenant.charters[0]), keybag=KEYBAG, private=b"r")
    work, begun = store_charter, list[bool]()

    def first(*args: Any, **kwargs: Any) -> None:
        if not begun:
            begun.append(True)
            work(args[0], verify_charter(rival, root_key=stand.tenant.root.public, known=None), *args[2:], **kwargs)
        work(*args, **kwargs)

    monkeypatch.setattr(session, "store_charter", first)
    assert refusal(lambda: _announce(stand, signed)) == "conflict"  # and the rival's transaction, which was ours, ends
    monkeypatch.undo()
    _announce(stand, rival)
    assert refusal(lambda: _announce(stand, signed)) == "fork"
    assert kept_forks(stand) == {signed, rival}


def test_a_flood_of_forks_takes_no_more_space(stand: Stand) -> None:
    _announce(stand, stand.tenant.charter(keybag=KEYBAG))
    for number in range(MOST_FORKS * 2 + 4):
        rival = stand.tenant.charter(number=2, keybag=KEYBAG, private=b"rival %d" % number)
        assert refusal(partial(_announce, stand, rival)) == "fork"
    assert len(kept_forks(stand)) <= 2 * MOST_FORKS + 1


def test_a_new_owner_must_be_roots_choice(stand: Stand) -> None:
    tenant = stand.tenant
    former, first_root = tenant.owner, tenant.root_statement()
    tenant.owner = SigningKey(SeededRng("new owner").bytes(32))
    statement = tenant.root_statement(owner_key=former.public)
    assert refusal(lambda: _announce(stand, tenant.charter(number=2, keybag=KEYBAG, root=statement))) == "bad-request"
    tenant.root_number, tenant.root_previous = 2, signed_hash(first_root)
    _announce(stand, tenant.charter(number=2, keybag=KEYBAG, previous=signed_hash(tenant.charters[0])))
    tenant.owner, tenant.root_number = former, 1
    assert refusal(lambda: _announce(stand, tenant.charter(number=3, keybag=KEYBAG))) == "fork"


def test_another_tenants_charter_is_refused(stand: Stand) -> None:
    other = Tenant("other")
    assert refusal(lambda: _announce(stand, other.charter(keybag=KEYBAG))) == "bad-request"
    namesake = Tenant("namesake", id=stand.tenant.id)
    assert refusal(lambda: _announce(stand, namesake.charter(keybag=KEYBAG))) == "bad-request"


def test_charter_and_keybag_must_be_here(stand: Stand) -> None:
    absent = stand.tenant.charter(keybag=b"\x01" * 32)
    assert refusal(lambda: _announce(stand, absent)) == "not-found"
    notice = CharterNotice(name=b"\x01" * 32)
    assert refusal(lambda: stand.call("charter", notice, stand.keeper)) == "not-found"
    os.truncate(stand.house.file(stand.tenant, ObjectName(KEYBAG)), SMALL // 2)
    cut = stand.tenant.charter(number=2, keybag=KEYBAG, previous=signed_hash(stand.tenant.charters[0]))
    assert refusal(lambda: _announce(stand, cut)) == "not-found"
    assert stand.node.info().charter_number == 1


def test_an_object_that_is_damaged_or_no_charter_is_refused(stand: Stand) -> None:
    data = charter_object(stand.tenant.charter(keybag=KEYBAG))
    put(stand.keeper, data)
    with open(stand.house.file(stand.tenant, name_of(data)), "r+b") as file:
        file.write(b"x")
    notice = CharterNotice(name=name_of(data))
    assert refusal(lambda: stand.call("charter", notice, stand.keeper)) == "damaged"
    words = []
    for junk in (data_object(5), wrap_record(b"no record", bytes(record_fill(9)))):
        put(stand.keeper, junk)
        words.append(refusal(lambda j=junk: stand.call("charter", CharterNotice(name=name_of(j)), stand.keeper)))  # type: ignore[misc]
    assert words == ["bad-request", "bad-request"]


def test_rights_follow_the_charter_at_once_and_after_a_restart(stand: Stand) -> None:
    rights = [right(stand.tenant.keeper, "keeper")]
    session = stand.node
    put(session, data_object(1))
    publish_charter(stand.keeper, stand.tenant.charter(rights, keybag=KEYBAG))
    assert refusal(lambda: put(session, data_object(2))) == "forbidden"
    stand.restart()
    assert refusal(lambda: put(stand.node, data_object(2))) == "forbidden"
    put(stand.keeper, data_object(2))
