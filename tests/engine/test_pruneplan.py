import dataclasses
import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import replicator.engine.pruneplan as module
from replicator.catalog.objects import split_ids
from replicator.engine.pruneplan import (
    Change,
    DeadObject,
    Kept,
    PackFacts,
    PrunePlan,
    RecordFacts,
    StoredIds,
    chain_gaps,
    needed_among,
    plan_prune,
    sizes_of,
    unique,
)
from replicator.format.sizes import LARGEST, size_class
from replicator.fs import PosixFs
from tests.fakes import SeededRng

MIB = 1 << 20
WRITER, OTHER = b"w" * 32, b"o" * 32
DOMAIN, ELSEWHERE = b"d" * 16, b"e" * 15 + b"\0"


def name(text: str) -> bytes:
    """Return a name, or a chunk's id, spread over the id space as a hash is."""
    from blake3 import blake3

    return blake3(text.encode()).digest()


def ids(*texts: str) -> bytes:
    """Return joined, sorted ids."""
    return b"".join(sorted(name(text) for text in texts))


def change(text: str, added: Iterable[str] = (), dropped: Iterable[str] = (), base: str = "") -> Change:
    """Return references that add and drop chunks."""
    return Change(
        name=name(text),
        writer=WRITER,
        domain=DOMAIN,
        base=name(base) if base else b"",
        added=ids(*added),
        dropped=ids(*dropped),
    )


def kept(text: str, *references: str, indexes: tuple[str, ...] = ("i",)) -> Kept:
    """Return a snapshot that stays."""
    return Kept(
        name=name(text),
        writer=WRITER,
        domain=DOMAIN,
        indexes=tuple(name(one) for one in indexes),
        references=tuple(name(one) for one in references),
    )


class Case:
    """Packs by name, each with its chunks, in the order of preference."""

    def __init__(self, packs: dict[str, tuple[str, ...]], **facts: object) -> None:
        self.packs = [
            dataclasses.replace(
                PackFacts(
                    number=10 + place,
                    name=name(text),
                    index=name("i"),
                    writer=WRITER,
                    domain=DOMAIN,
                    kind="data",
                    policy=bytes(16),
                    size=16 * MIB,
                ),
                **facts,  # type: ignore[arg-type] # fields of it
            )
            for place, text in enumerate(packs)
        ]
        self.ids = [b"".join(name(one) for one in chunks) for chunks in packs.values()]

    def __add__(self, other: "Case") -> "Case":
        both = Case({})
        both.packs = [dataclasses.replace(one, number=place) for place, one in enumerate([*self.packs, *other.packs])]
        both.ids = [*self.ids, *other.ids]
        return both

    def plan(
        self,
        keep: list[Kept],
        changes: list[Change],
        records: Iterable[RecordFacts] = (),
        *,
        gaps: Iterable[str] = (),
        max_unused: float = 0.3,
    ) -> PrunePlan:
        """Plan with these packs."""
        return plan_prune(
            keep,
            {one.name: one for one in changes},
            self.packs,
            lambda: zip([one.number for one in self.packs], self.ids, strict=True),
            records,
            gaps=gaps,
            max_unused=max_unused,
        )


def dead(plan: PrunePlan) -> set[bytes]:
    """Return the names of what is dead."""
    assert plan.gaps == []
    return {one.name for one in plan.dead}


def moving(plan: PrunePlan) -> list[set[bytes]]:
    """Return the names of the packs that are repacked, by group."""
    return [{one.facts.name for one in group.packs} for group in plan.groups]


def test_a_pack_of_which_nothing_is_needed_is_dead() -> None:
    case = Case({"old": ("a", "b"), "new": ("c",)})
    plan = case.plan([kept("s", "r")], [change("r", ["c"])])
    assert dead(plan) == {name("old")}
    assert (plan.dead_bytes, plan.packs, plan.chunks, plan.needed) == (16 * MIB, 2, 3, 1)


def test_a_chunk_that_was_dropped_between_two_kept_snapshots_is_not_needed_and_one_that_came_back_is() -> None:
    changes = [
        change("r1", ["a", "b"]),
        change("r2", ["c"], ["b"], base="r1"),
        change("r3", ["b"], ["c"], base="r2"),
    ]
    case = Case({one: (one,) for one in "abc"})
    assert dead(case.plan([kept("s1", "r1"), kept("s3", "r1", "r2", "r3")], changes)) == {name("c")}
    assert dead(case.plan([kept("s2", "r1", "r2")], changes)) == {name("b")}
    assert dead(case.plan([kept("s1", "r1")], changes)) == {name("c")}
    assert dead(case.plan([kept("s1", "r1"), kept("s2", "r1", "r2")], changes)) == set()


def test_a_snapshot_that_was_dropped_and_again_added_before_the_next_kept_one_counts() -> None:
    changes = [change("r1", ["a"]), change("r2", [], ["a"], base="r1"), change("r3", ["a"], base="r2")]
    assert dead(Case({"p": ("a",)}).plan([kept("s", "r1", "r2", "r3")], changes)) == set()


def test_what_a_snapshot_of_another_domain_needs_keeps_nothing_here() -> None:
    foreign = dataclasses.replace(change("r", ["a"]), domain=ELSEWHERE)
    snapshot = dataclasses.replace(kept("s", "r"), domain=ELSEWHERE)
    both = Case({"here": ("a",)}) + Case({"there": ("a",)}, domain=ELSEWHERE)
    assert dead(both.plan([snapshot], [foreign])) == {name("here")}


def test_a_chunk_that_two_writers_have_is_needed_in_both_their_packs() -> None:
    both = Case({"own": ("a",)}) + Case({"others": ("a",)}, writer=OTHER)
    assert dead(both.plan([kept("s", "r")], [change("r", ["a"])])) == set()


def test_a_chunk_in_two_packs_keeps_both_as_snapshots_may_be_read_through_either() -> None:
    plan = Case({"first": ("a",), "second": ("a", "b")}).plan([kept("s", "r")], [change("r", ["a"])])
    assert dead(plan) == set()


def test_what_was_moved_is_not_needed_where_it_was_and_only_once_where_it_went() -> None:
    moved = Case({"new": ("a", "b"), "newer": ("a",)}, moved=True, index=name("the maintainer's"))
    plan = (moved + Case({"old": ("a", "b", "x")})).plan([kept("s", "r")], [change("r", ["a", "b"])])
    assert dead(plan) == {name("old"), name("newer")}
    plan = (moved + Case({"old": ("a", "b", "c", "x")})).plan([kept("s", "r")], [change("r", ["a", "b", "c"])])
    assert dead(plan) == {name("newer")}
    assert moving(plan) == [{name("old")}]


def test_the_index_of_what_was_moved_stays_while_something_in_it_is_needed() -> None:
    moved = Case({"new": ("a",)}, moved=True, index=name("m"))
    records = [RecordFacts(name=name("m"), kind="index", size=65536)]
    keep, changes = [kept("s", "r")], [change("r", ["a"])]
    assert dead(moved.plan(keep, changes, records)) == set()
    assert dead((moved + Case({"own": ("b",)})).plan(keep, [change("r", ["b"])], records)) == {name("new"), name("m")}


def test_a_move_of_another_writer_or_policy_makes_nothing_unneeded() -> None:
    for facts in ({"writer": OTHER}, {"policy": b"p" * 16}, {"kind": "tree"}):
        both = Case({"new": ("a",)}, moved=True, **facts) + Case({"old": ("a",)})
        assert dead(both.plan([kept("s", "r")], [change("r", ["a"])])) == set()


def test_a_pack_whose_index_no_kept_snapshot_names_is_dead_and_holds_nothing() -> None:
    unnamed = Case({"unnamed": ("a",)}, index=name("j"))
    plan = (unnamed + Case({"named": ("a",)})).plan([kept("s", "r")], [change("r", ["a"])])
    assert dead(plan) == {name("unnamed")}
    assert unnamed.plan([kept("s", "r")], [change("r", ["a"])]).gaps
    foreign = dataclasses.replace(kept("t", "q", indexes=("j",)), domain=ELSEWHERE)
    changes = [change("r", ["a"]), dataclasses.replace(change("q"), domain=ELSEWHERE)]
    assert dead((unnamed + Case({"named": ("a",)})).plan([kept("s", "r"), foreign], changes)) == {name("unnamed")}


def test_a_chunk_under_two_policies_keeps_both_packs() -> None:
    both = Case({"weak": ("a",)}) + Case({"strong": ("a",)}, policy=b"p" * 16)
    assert dead(both.plan([kept("s", "r")], [change("r", ["a"])])) == set()


def test_records_that_no_kept_snapshot_names_die_with_it() -> None:
    records = [
        RecordFacts(name=name(text), kind=kind, size=65536)
        for text, kind in (("s", "snapshot"), ("r", "references"), ("i", "index"), ("gone", "snapshot"), ("j", "index"))
    ]
    plan = Case({"p": ("a",)}).plan([kept("s", "r", indexes=("i",))], [change("r", ["a"])], records)
    assert plan.dead == [
        DeadObject(name=name("gone"), kind="snapshot", size=65536),
        DeadObject(name=name("j"), kind="index", size=65536),
    ]


def test_packs_with_too_much_unused_are_repacked_and_those_with_less_are_left() -> None:
    case = Case({"half": ("a", "x"), "other half": ("b", "y"), "good": ("c", "d", "e", "z")})
    plan = case.plan([kept("s", "r")], [change("r", ["a", "b", "c", "d", "e"])])
    assert moving(plan) == [{name("half"), name("other half")}]
    assert (plan.groups[0].old_bytes, plan.groups[0].new_bytes) == (32 * MIB, 16 * MIB)
    assert plan.repacked_bytes == 16 * MIB
    assert dead(plan) == set()
    assert moving(case.plan([kept("s", "r")], [change("r", ["a", "b", "c", "d", "e"])], max_unused=0.2)) == [
        {name("half"), name("other half"), name("good")}
    ]


def test_what_would_free_nothing_is_not_repacked() -> None:
    plan = Case({"p": ("a", "b", "x", "y")}, size=65536).plan([kept("s", "r")], [change("r", ["a", "b"])])
    assert (plan.groups, dead(plan)) == ([], set())


def test_packs_of_two_kinds_policies_or_writers_never_go_into_one() -> None:
    case = Case({"a": ("a", "x"), "b": ("b", "y")})
    for facts in ({"kind": "tree"}, {"policy": b"p" * 16}, {"writer": OTHER}):
        both = case + Case({"c": ("c", "x"), "d": ("d", "y")}, **facts)
        plan = both.plan([kept("s", "r")], [change("r", ["a", "b", "c", "d"])])
        assert sorted(map(sorted, moving(plan))) == sorted(
            [sorted([name("a"), name("b")]), sorted([name("c"), name("d")])]
        )


# gaps: something is not known, so nothing is decided


def test_with_a_gap_nothing_is_planned() -> None:
    case = Case({"old": ("a",), "half": ("b", "x")})
    records = [RecordFacts(name=name("gone"), kind="snapshot", size=65536)]
    plan = case.plan([kept("s", "r")], [change("r", ["b"])], records, gaps=["a provider does not answer"])
    assert (plan.gaps, plan.dead, plan.groups) == (["a provider does not answer"], [], [])


def test_a_needed_chunk_that_is_in_no_pack_is_a_gap() -> None:
    plan = Case({"old": ("x",)}).plan([kept("s", "r")], [change("r", ["a", "b"])])
    assert (plan.gaps, plan.dead) == (["2 chunks that kept snapshots need are in no pack that is known and left"], [])
    plan = Case({}).plan([kept("s", "r")], [change("r", ["a"])])
    assert plan.gaps


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([change("r1", ["a"])], "cannot be read"),
        ([change("r1", ["a"]), change("r2", base="r0")], "do not follow"),
        ([change("r1", ["a"], base="r0"), change("r2", base="r1")], "do not follow"),
        ([change("r1", ["a"]), dataclasses.replace(change("r2", base="r1"), writer=OTHER)], "another writer's"),
        ([dataclasses.replace(change("r1"), domain=ELSEWHERE), change("r2", base="r1")], "or domain's"),
    ],
)
def test_a_chain_that_cannot_be_folded_is_a_gap(changes: list[Change], said: str) -> None:
    plan = Case({"p": ("a",), "old": ("x",)}).plan([kept("s", "r1", "r2")], changes)
    assert len(plan.gaps) == 1
    assert said in plan.gaps[0]
    assert plan.dead == []


def test_a_snapshot_without_references_is_a_gap_and_a_good_chain_is_none() -> None:
    assert "names no references" in chain_gaps([kept("s")], {})[0]
    good = {one.name: one for one in (change("r1", ["a"]), change("r2", base="r1"))}
    assert chain_gaps([kept("s", "r1", "r2"), kept("t", "r1")], good) == []


# against a plain computation


def plainly(keep: list[Kept], changes: dict[bytes, Change], case: Case) -> tuple[set[bytes], dict[bytes, int]]:
    """Return what is dead and how many chunks of each pack are live, with sets and nothing clever."""
    needed: set[bytes] = set()
    for snapshot in keep:
        state: set[bytes] = set()
        for reference in snapshot.references:
            one = changes[reference]
            state -= set(split_ids(bytes_of(one.dropped)))
            state |= set(split_ids(bytes_of(one.added)))
        needed |= state
    taken: dict[bytes, set[bytes]] = {}
    live = {}
    for pack, joined in zip(case.packs, case.ids, strict=True):
        seen = taken.setdefault(pack.policy, set())
        here = {joined[at : at + 32] for at in range(0, len(joined), 32)} & needed
        live[pack.name] = len(here - seen)
        seen |= here if pack.moved else set()
    return {pack for pack, count in live.items() if not count}, live


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([3, 20, 1000]), st.sampled_from([40, 1 << 20]))
def test_any_chains_and_packs_give_what_plain_sets_give(seed: int, at_once: int, batch: int) -> None:
    choice = random.Random(seed)
    pool = [f"chunk {number}" for number in range(choice.randrange(1, 60))]
    changes, keep = {}, []
    for dataset in range(choice.randrange(1, 4)):
        state: set[str] = set()
        chain: list[str] = []
        for night in range(choice.randrange(1, 8)):
            if choice.random() < 0.15:
                state, chain = set(), []
            wanted = set(choice.sample(pool, choice.randrange(len(pool) + 1)))
            text = f"r {dataset} {night}"
            one = change(text, wanted - state, state - wanted, base=chain[-1] if chain else "")
            changes[one.name] = one
            chain, state = [*chain, text], wanted
            if choice.random() < 0.5:
                keep.append(kept(f"s {dataset} {night}", *chain))
    choice.shuffle(keep)
    packs = {
        f"pack {number}": tuple(choice.sample(pool, choice.randrange(len(pool) + 1)))
        for number in range(choice.randrange(8))
    }
    packs["all"] = tuple(pool)
    moved = {f"moved {number}": tuple(choice.sample(pool, choice.randrange(len(pool) + 1))) for number in range(3)}
    case = Case(moved, moved=True) + Case(packs) + Case({"again": tuple(pool[:5])}, policy=b"p" * 16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "IDS_AT_ONCE", at_once)
        patch.setattr(module, "_BATCH", batch)
        plan = case.plan(keep, list(changes.values()), max_unused=0.0)
    expected, live = plainly(keep, changes, case)
    assert dead(plan) == expected
    for group in plan.groups:
        assert {one.facts.name: one.live for one in group.packs} == {
            one.facts.name: live[one.facts.name] for one in group.packs
        }
    assert plan.chunks == sum(len(joined) // 32 for joined in case.ids)


@given(st.integers(0, 100 * LARGEST))
def test_what_packs_take_is_never_less_than_what_they_hold(size: int) -> None:
    found = sizes_of(size)
    assert size <= found <= size + size // 2 + size_class(1)
    assert sizes_of(LARGEST) == LARGEST
    assert sizes_of(0) == 0


def bytes_of(ids: bytes | StoredIds) -> bytes:
    """Return ids, wherever they are."""
    return ids if isinstance(ids, bytes) else ids.read()


def test_ids_that_lie_in_a_file_are_planned_with_as_those_in_memory(tmp_path: Path) -> None:
    rng = SeededRng("stored")
    run = sorted(rng.bytes(32) for _ in range(40))
    path = tmp_path / "ids"
    path.write_bytes(b"something before" + b"".join(run))
    stored = StoredIds(PosixFs(), str(path), 16, 40 * 32)
    assert (len(stored), stored.read()) == (40 * 32, b"".join(run))
    kept = [Kept(name=b"k" * 32, writer=b"w" * 32, domain=b"d" * 16, indexes=(), references=(b"r" * 32,))]
    for held in (stored, b"".join(run)):
        one = Change(name=b"r" * 32, writer=b"w" * 32, domain=b"d" * 16, base=b"", added=held, dropped=b"")
        found = needed_among(kept, {b"r" * 32: one}, b"d" * 16, b"".join([*run[:3], bytes(32), run[1]]))
        assert found == set(run[:3])
        assert needed_among(kept, {b"r" * 32: one}, b"e" * 16, b"".join(run)) == set()


def test_ids_are_sorted_and_told_apart_though_they_begin_alike() -> None:
    rng = SeededRng("alike")
    alike = [b"same eight bytes"[:8] + rng.bytes(24) for _ in range(50)]
    run = [*alike, *alike, *(rng.bytes(32) for _ in range(50))]
    found = unique(np.frombuffer(b"".join(run), "S32"))
    assert split_ids(found.tobytes()) == sorted(set(run))
