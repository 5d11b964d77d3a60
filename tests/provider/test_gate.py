"""Who stores an object and who deletes it never do so at once."""

import threading

import pytest

from replicator.ids import ObjectName, TenantId
from replicator.provider.gate import Gate

TENANT, OTHER = TenantId(bytes(16)), TenantId(bytes([1]) * 16)
A, B = ObjectName(bytes(32)), ObjectName(bytes([1]) * 32)


def test_what_is_being_stored_does_not_leave() -> None:
    gate = Gate()
    with gate.arriving(TENANT, A), gate.arriving(TENANT, A), gate.leaving(TENANT, [A, B]) as free:
        assert free == [B]
    with gate.arriving(OTHER, A), gate.leaving(TENANT, [A, B]) as free:
        assert free == [A, B]


def test_who_stores_what_leaves_waits_until_it_is_gone() -> None:
    gate = Gate()
    order: list[str] = []
    asked = threading.Event()

    def store() -> None:
        asked.set()
        with gate.arriving(TENANT, A):
            order.append("stored")

    with gate.leaving(TENANT, [A]):
        thread = threading.Thread(target=store)
        thread.start()
        assert asked.wait(60)
        with gate.arriving(TENANT, B):
            order.append("another")
        order.append("gone")
    thread.join(60)
    assert order == ["another", "gone", "stored"]


def test_an_error_opens_the_gate_again() -> None:
    gate = Gate()
    with pytest.raises(OSError, match="disk"), gate.leaving(TENANT, [A]):
        raise OSError("disk")
    with pytest.raises(OSError, match="disk"), gate.arriving(TENANT, A):
        raise OSError("disk")
    with gate.leaving(TENANT, [A]) as free:
        assert free == [A]
    with gate.arriving(TENANT, A):
        pass
