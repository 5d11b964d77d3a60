"""What was stored since: in the order it came, by size, each time again, and nothing twice under one number."""

import os
import shutil

import msgspec
import pytest

from replicator.format.merkle import name_of
from replicator.ids import ObjectName
from replicator.wire.messages import ARRIVALS_PAGE, Arrivals, ArrivalsRequest, VouchReply, VouchRequest
from tests.provider.stand import Stand, refusal
from tests.provider.tenant import MIB, Tenant, data_object, put, settle
from tests.provider.test_session import break_file

ALL = 16 * MIB


def arrivals(stand: Stand, after: int = 0, *, largest: int = ALL, limit: int = 1000) -> Arrivals:
    """Ask as a member does."""
    answer = stand.call("arrivals", ArrivalsRequest(after=after, largest=largest, limit=limit))
    assert isinstance(answer, Arrivals)
    return answer


def names(found: Arrivals) -> list[ObjectName]:
    """Return the names in an answer."""
    return [ObjectName(found.names[at : at + 32]) for at in range(0, len(found.names), 32)]


def stored(stand: Stand, *seeds: int, size: int = 64 << 10) -> list[ObjectName]:
    """Store objects; return their names in that order."""
    made = [data_object(seed, size) for seed in seeds]
    for data in made:
        put(stand.node, data)
    return [name_of(data) for data in made]


def test_objects_are_told_in_the_order_they_came_after_a_place_in_it(stand: Stand) -> None:
    before = arrivals(stand)
    assert len(names(before)) == before.last > 0
    made = stored(stand, 3, 1, 2)
    found = arrivals(stand, before.last)
    assert (names(found), found.last, found.more) == (made, before.last + 3, False)
    assert found.incarnation == stand.service.incarnation
    assert arrivals(stand, found.last) == Arrivals(
        incarnation=found.incarnation, names=b"", last=found.last, more=False
    )
    assert names(arrivals(stand)) == names(before) + made


def test_large_ones_are_passed_over_and_pages_go_on_behind_them(stand: Stand) -> None:
    start = arrivals(stand).last
    small = stored(stand, 1)
    stored(stand, 2, 3, size=2 * MIB)
    small += stored(stand, 4, size=MIB)
    for limit in (1, 2, 3, 4):
        found: list[ObjectName] = []
        after, more, asked = start, True, 0
        while more:
            page = arrivals(stand, after, largest=MIB, limit=limit)
            found += names(page)
            assert page.last > after
            after, more, asked = page.last, page.more, asked + 1
        assert (found, asked) == (small, -(-4 // limit))


def test_what_is_stored_again_or_vouched_for_arrives_again(stand: Stand) -> None:
    [first, second] = stored(stand, 1, 2)
    seen = arrivals(stand).last
    break_file(stand.house.file(stand.tenant, first), "gone")
    stored(stand, 1)
    assert names(arrivals(stand, seen)) == [first]
    answer = stand.call("vouch", VouchRequest(names=second))
    assert isinstance(answer, VouchReply)
    assert names(arrivals(stand, seen)) == [first, second]
    assert names(arrivals(stand)).count(first) == 1


def test_a_number_is_never_used_again_also_if_the_newest_object_goes(stand: Stand) -> None:
    [gone] = stored(stand, 1)
    seen = arrivals(stand).last
    stand.provider._database.write(
        "swept", lambda connection: connection.execute("DELETE FROM objects WHERE name = ?", (gone,))
    )
    assert arrivals(stand).last == seen
    [fresh] = stored(stand, 2)
    assert names(arrivals(stand, seen)) == [fresh]


def test_who_asks_from_beyond_the_end_sees_that_it_is_beyond_it(stand: Stand) -> None:
    seen = arrivals(stand).last
    found = arrivals(stand, seen + 5)
    assert (found.names, found.last, found.more) == (b"", seen, False)


def test_of_another_tenant_nothing_is_told_and_counts_are_apart(stand: Stand) -> None:
    seen = arrivals(stand).last
    other = Tenant("other")
    settle(stand.provider, stand.service, other)
    put(stand.service.session(other.node.public), data_object(9))
    assert arrivals(stand, seen).names == b""
    assert arrivals(stand, seen).last == seen


def test_it_is_told_again_after_a_restart_and_says_nothing_without_the_disk(stand: Stand) -> None:
    stored(stand, 1)
    before = arrivals(stand)
    stand.restart()
    assert arrivals(stand) == before
    shutil.move(stand.house.data, stand.house.data + ".away")
    try:
        assert refusal(lambda: arrivals(stand)) == "unavailable"
    finally:
        shutil.move(stand.house.data + ".away", stand.house.data)


@pytest.mark.parametrize("kind", ["gone", "cut"])
def test_what_does_not_lie_there_is_not_told_until_it_is_stored_again(stand: Stand, kind: str) -> None:
    seen = arrivals(stand).last
    [broken, sound] = stored(stand, 1, 2)
    break_file(stand.house.file(stand.tenant, broken), kind)
    found = arrivals(stand, seen)
    assert names(found) == [sound]
    stored(stand, 1)
    assert names(arrivals(stand, found.last)) == [broken]


def test_what_a_start_takes_in_arrives_then(stand: Stand) -> None:
    seen = arrivals(stand).last
    stray = data_object(77)
    with open(os.path.join(stand.house.objects(stand.tenant), name_of(stray).hex()), "wb") as file:
        file.write(stray)
    assert arrivals(stand, seen).names == b""
    stand.restart()
    assert names(arrivals(stand, seen)) == [name_of(stray)]


@pytest.mark.parametrize("limit", [0, ARRIVALS_PAGE + 1])
def test_a_page_is_bounded(stand: Stand, limit: int) -> None:
    request = msgspec.msgpack.encode([1, 0, ALL, limit])
    assert refusal(lambda: stand.node.handle("arrivals", request)) == "bad-request"
