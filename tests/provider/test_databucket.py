"""A provider whose objects lie in a bucket: what it is tried for, what its silence means, who else uses it."""

import os
import threading
from collections.abc import Callable, Iterator

import pytest

from replicator.errors import HomeError, UsageError
from replicator.format.merkle import name_of
from replicator.ids import ObjectName
from replicator.provider import databucket
from replicator.provider.databucket import FRESH_S
from replicator.provider.home import Provider
from replicator.wire.messages import CheckReply, CheckRequest, Empty, Info, Inventory, InventoryRequest
from tests.buckets import FaultyBucket, silent
from tests.fakes import SeededRng
from tests.provider.stand import Stand, refusal
from tests.provider.tenant import House, data_object, put, terms

FIRST, SECOND = data_object(1), data_object(2)
PLACE = "s3://attic/friends"


@pytest.fixture
def bucket() -> FaultyBucket:
    return FaultyBucket()


def house_in(bucket: FaultyBucket, path: str) -> House:
    return House(path, bucket=PLACE, make_bucket=bucket.maker)


@pytest.fixture
def stand(bucket: FaultyBucket, tmp_path: str) -> Iterator[Stand]:
    found = Stand(str(tmp_path), house=house_in(bucket, str(tmp_path)))
    yield found
    found.provider.close()


def key_of(stand: Stand, data: bytes, folder: str = "objects") -> str:
    return f"friends/{stand.tenant.id.hex()}/{folder}/{name_of(data).hex()}"


def inventory(stand: Stand) -> Inventory:
    page = stand.call("inventory", InventoryRequest(after=b"", limit=1000))
    assert isinstance(page, Inventory)
    return page


def fresh_look(stand: Stand) -> None:
    """Let what the bucket said of itself be too old."""
    stand.clock.advance(FRESH_S + 1)


def test_what_is_stored_is_served_after_a_restart_and_nothing_of_it_lies_here(
    stand: Stand, bucket: FaultyBucket
) -> None:
    put(stand.node, FIRST)
    incarnation = stand.service.incarnation
    assert key_of(stand, FIRST) in bucket.held()
    stand.restart()
    assert stand.node.get(ObjectName(name_of(FIRST))) == FIRST
    assert stand.service.incarnation == incarnation
    here = [name for _, _, names in os.walk(stand.house.path) for name in names]
    assert not any(name_of(FIRST).hex() in name for name in here)
    found = stand.provider.status()
    assert (found["data"], found["mounted"]) == (PLACE, True)
    assert found["disk_free"] == terms().capacity - found["used"]
    assert stand.provider.scrub(stand.service, seconds=None).found == ()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("careless", "writes over what is there"),
        ("versions", "keeps versions"),
        ("keeping", "still there"),
        ("losing", "written is not there"),
        ("blind", "listing lacks"),
    ],
)
def test_a_bucket_that_cannot_be_relied_on_is_refused_and_nothing_is_made(
    bucket: FaultyBucket, tmp_path: str, fault: str, said: str
) -> None:
    setattr(bucket, fault, True)
    with pytest.raises(HomeError, match=said) as caught:
        house_in(bucket, str(tmp_path)).init()
    assert caught.value.hint
    assert not os.path.exists(os.path.join(tmp_path, "home"))
    setattr(bucket, fault, False)
    house = house_in(bucket, str(tmp_path))
    house.rng = SeededRng("another day")
    house.init().close()


def test_a_bucket_that_does_not_answer_is_named_when_a_home_is_made(bucket: FaultyBucket, tmp_path: str) -> None:
    bucket.fault = silent
    with pytest.raises(HomeError, match=f"{PLACE}: .*503 Slow Down") as caught:
        house_in(bucket, str(tmp_path)).init()
    assert "--s3-endpoint" in caught.value.hint
    assert not os.path.exists(os.path.join(tmp_path, "home"))


def test_a_probe_leaves_nothing_behind(bucket: FaultyBucket, tmp_path: str) -> None:
    house = house_in(bucket, str(tmp_path))
    provider = house.init()
    assert provider.try_out(SeededRng("try")) == 16 << 20
    provider.close()
    assert bucket.held() == ["friends/.generation", "friends/.replicator-store"]


def test_a_prefix_has_one_provider(stand: Stand, bucket: FaultyBucket, tmp_path: str) -> None:
    with pytest.raises(HomeError, match="belongs to a provider"):
        house_in(bucket, os.path.join(tmp_path, "other")).init()
    assert inventory(stand).names


def test_objects_move_neither_out_of_a_bucket_nor_into_one(stand: Stand, tmp_path: str) -> None:
    for target in (os.path.join(str(tmp_path), "elsewhere"), "s3://other/place"):
        with pytest.raises(UsageError, match="from one folder to another"):
            stand.provider.move_to(target)
    assert not os.path.exists(os.path.join(str(tmp_path), "elsewhere"))


def test_an_init_that_was_stopped_leaves_the_prefix_free(bucket: FaultyBucket, tmp_path: str) -> None:
    house_in(bucket, os.path.join(tmp_path, "first")).init().close()  # never started
    house = house_in(bucket, os.path.join(tmp_path, "second"))
    house.rng = SeededRng("second")
    provider = house.init()
    provider.start().stop()
    provider.close()
    left = house_in(bucket, os.path.join(tmp_path, "first")).open()
    assert not left.mounted()
    left.close()


def test_a_bucket_that_falls_silent_is_unavailable_and_nothing_is_missing(stand: Stand, bucket: FaultyBucket) -> None:
    put(stand.node, FIRST)
    bucket.fault = silent
    for _ in range(2):
        assert refusal(lambda: inventory(stand)) == "unavailable"
        assert refusal(lambda: stand.node.get(ObjectName(name_of(FIRST)))) == "unavailable"
        assert refusal(lambda: put(stand.node, SECOND)) == "unavailable"
        assert refusal(lambda: stand.call("check", CheckRequest(names=name_of(FIRST)))) == "unavailable"
        fresh_look(stand)
    bucket.fault = lambda _verb, _key: None
    page = inventory(stand)
    assert bytes(name_of(FIRST)) in page.names
    assert (page.missing, page.damaged) == (b"", b"")
    put(stand.node, SECOND)


class Hanging:
    """A fault: the bucket takes every question, and answers none until the test lets it."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.asked = 0

    def __call__(self, _verb: str, _key: str) -> None:
        self.asked += 1
        if not self.let.wait(120):
            silent("", "")

    def answer(self) -> None:
        """Let it answer, and wait until who asked has heard that."""
        self.let.set()
        for thread in threading.enumerate():
            if thread.name == "bucket":
                thread.join()


def test_a_bucket_that_takes_questions_and_never_answers_holds_nobody_up(
    stand: Stand, bucket: FaultyBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(stand.node, FIRST)
    incarnation, generation = stand.service.incarnation, bucket.inner.get("friends/.generation")
    fresh_look(stand)
    monkeypatch.setattr(databucket, "PATIENCE_S", 0.0)
    bucket.fault = hanging = Hanging()
    try:
        for _ in range(3):
            assert refusal(lambda: inventory(stand)) == "unavailable"
        assert refusal(lambda: put(stand.node, SECOND)) == "unavailable"
        assert isinstance(stand.call("info", Empty()), Info), "what needs no bucket is answered"
    finally:
        hanging.answer()
    assert hanging.asked == len(["the mark", "the generation"]), "it was asked once"
    assert bytes(name_of(FIRST)) in inventory(stand).names
    put(stand.node, SECOND)
    assert stand.service.incarnation == incarnation
    assert bucket.inner.get("friends/.generation") == generation, "nothing was taken up anew"


def test_where_no_thread_can_be_had_whoever_comes_next_asks_again(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    put(stand.node, FIRST)
    fresh_look(stand)
    with monkeypatch.context() as scarce:
        scarce.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start"):
            inventory(stand)
    assert bytes(name_of(FIRST)) in inventory(stand).names


def test_another_bucket_in_its_place_is_unavailable_before_and_after_it_is_noticed(
    stand: Stand, bucket: FaultyBucket
) -> None:
    put(stand.node, FIRST)
    bucket.elsewhere = True
    assert refusal(lambda: inventory(stand)) == "unavailable"
    fresh_look(stand)
    assert refusal(lambda: inventory(stand)) == "unavailable"
    assert not stand.provider.mounted()
    bucket.elsewhere = False
    fresh_look(stand)
    assert inventory(stand).missing == b""


def test_a_daemon_starts_while_its_bucket_is_away_and_takes_it_up_when_it_comes(
    stand: Stand, bucket: FaultyBucket
) -> None:
    put(stand.node, FIRST)
    incarnation = stand.service.incarnation
    bucket.fault = silent
    stand.restart(orderly=False)
    assert refusal(lambda: inventory(stand)) == "unavailable"
    bucket.fault = lambda _verb, _key: None
    fresh_look(stand)
    assert inventory(stand).missing == b""
    assert stand.service.incarnation == incarnation


def test_a_bucket_that_fails_while_it_is_taken_up_is_taken_up_later(stand: Stand, bucket: FaultyBucket) -> None:
    put(stand.node, FIRST)

    def no_lists(verb: str, key: str) -> None:
        if verb == "list":
            silent(verb, key)

    bucket.fault = no_lists
    stand.restart()
    assert refusal(lambda: inventory(stand)) == "unavailable"
    bucket.fault = lambda _verb, _key: None
    assert bytes(name_of(FIRST)) in inventory(stand).names


def test_a_second_daemon_with_a_copy_of_the_home_ends_the_first_ones_service(
    stand: Stand, bucket: FaultyBucket
) -> None:
    put(stand.node, FIRST)
    clone = Stand.__new__(Stand)
    clone.house = stand.house
    clone.provider = stand.house.open()
    clone.service = clone.provider.start()
    fresh_look(stand)
    assert refusal(lambda: inventory(stand)) == "unavailable"
    clone.provider.close()


def test_an_object_that_the_bucket_lost_later_is_missing_and_stored_again(stand: Stand, bucket: FaultyBucket) -> None:
    put(stand.node, FIRST)
    bucket.inner.delete([key_of(stand, FIRST)])
    assert inventory(stand).missing == name_of(FIRST)
    [found] = stand.provider.scrub(stand.service, seconds=None).found
    assert (found.name, found.state) == (name_of(FIRST).hex(), "missing")
    put(stand.node, FIRST)
    assert inventory(stand).missing == b""


def test_an_object_that_rots_in_the_bucket_is_set_aside_there(stand: Stand, bucket: FaultyBucket) -> None:
    put(stand.node, FIRST)
    bucket.inner.put(key_of(stand, FIRST), b"rot" + FIRST[3:], fresh=False)
    answer = stand.call("check", CheckRequest(names=name_of(FIRST)))
    assert isinstance(answer, CheckReply)
    assert answer.states == ["damaged"]
    assert inventory(stand).damaged == name_of(FIRST)
    assert key_of(stand, FIRST, "quarantine") in bucket.held()
    put(stand.node, FIRST)
    assert key_of(stand, FIRST, "quarantine") not in bucket.held()


def test_a_lost_write_gets_no_receipt(stand: Stand, bucket: FaultyBucket) -> None:
    bucket.losing = True
    assert refusal(lambda: put(stand.node, FIRST)) == "unavailable"
    bucket.losing = False
    assert bytes(name_of(FIRST)) not in inventory(stand).names


def erased(stand: Stand) -> bytes:
    return stand.service.erase(stand.tenant.erase_order())


def test_an_erasure_is_receipted_when_the_bucket_has_deleted_and_not_before(stand: Stand, bucket: FaultyBucket) -> None:
    put(stand.node, FIRST)
    bucket.keeping = True
    assert refusal(lambda: erased(stand)) == "unavailable"
    assert not stand.provider.status()["erased"][0]["done"]
    bucket.keeping = False
    assert erased(stand)
    assert bucket.held() == ["friends/.generation", "friends/.replicator-store"]


def test_an_erasure_is_not_receipted_for_another_bucket(stand: Stand, bucket: FaultyBucket) -> None:
    put(stand.node, FIRST)
    bucket.fault = _elsewhere_on_list(bucket)
    assert refusal(lambda: erased(stand)) == "unavailable"
    bucket.fault, bucket.elsewhere = (lambda _verb, _key: None), False
    assert erased(stand)


def _elsewhere_on_list(bucket: FaultyBucket) -> Callable[[str, str], None]:
    def fault(verb: str, _key: str) -> None:
        bucket.elsewhere = bucket.elsewhere or verb == "list"

    return fault


def test_a_capacity_holds_although_a_bucket_has_no_end(bucket: FaultyBucket, tmp_path: str) -> None:
    house = house_in(bucket, str(tmp_path))
    provider: Provider = house.init(capacity=1 << 20)
    state = provider.state()
    provider.close()
    assert (state.room, state.disk_free) == (1 << 20, 1 << 20)
