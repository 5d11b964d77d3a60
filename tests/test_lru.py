"""What was used last stays, and never more than the limit."""

from concurrent.futures import ThreadPoolExecutor

from replicator.lru import Lru


def test_what_was_used_longest_ago_makes_room() -> None:
    kept: Lru[str, int] = Lru(10)
    for number, key in enumerate("abc"):
        kept.put(key, number, 4 if key != "c" else 2)
    assert kept.weight == 10
    assert kept.get("a") == 0
    kept.put("d", 3, 1)
    assert [kept.get(key) for key in "abcd"] == [0, None, 2, 3]
    assert kept.weight == 7


def test_to_look_whether_it_is_there_is_no_use() -> None:
    kept: Lru[str, int] = Lru(2)
    kept.put("a", 0, 1)
    kept.put("b", 1, 1)
    assert "a" in kept
    kept.put("c", 2, 1)
    assert [key in kept for key in "abc"] == [False, True, True]


def test_a_key_is_counted_once_and_what_is_too_heavy_is_not_kept() -> None:
    kept: Lru[str, int] = Lru(10)
    kept.put("a", 1, 6)
    kept.put("a", 2, 7)
    assert (kept.get("a"), kept.weight) == (2, 7)
    kept.put("a", 3, 11)
    assert (kept.get("a"), kept.weight) == (None, 0)


def test_threads_do_not_miscount() -> None:
    kept: Lru[int, int] = Lru(50)

    def work(seed: int) -> None:
        for number in range(2000):
            kept.put((seed * 7 + number) % 31, number, number % 9)
            kept.get(number % 31)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert kept.weight == sum(weight for _, weight in kept._kept.values()) <= 50
