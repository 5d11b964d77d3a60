"""``python -m bench.placement``: capacity, moves, losses and time, to bench/results/placement.{json,md}.

``--quick`` leaves out 10,000 peers and what takes minutes, and writes nothing.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.cut_report import machine
from bench.placement.federations import UNIT, Case, changed, federation, uneven
from bench.placement.others import greedy, rendezvous, straw2
from scheduler.planner import moves, solve
from scheduler.settle import Kind
from scheduler.shape import Field, Rule, Sets, Shape

RESULTS: Final = Path(__file__).parents[1] / "results"
SEED: Final = 20_26
SIZE: Final = 2 * UNIT
COPIES: Final = Rule(name="3 copies in 3 regions", width=3, caps={"owner": 1, "site": 1, "region": 1})
CODING: Final = Rule(name="4+2, at most 2 in a region", width=6, needed=4, caps={"owner": 1, "site": 1, "region": 2})
SMALL: Final = Rule(name="3 copies in 3 houses", width=3, caps={"owner": 1, "site": 1})
MIXED: Final = (2 * UNIT, 3 * UNIT, 4 * UNIT)

Row = dict[str, Any]
Ints = npt.NDArray[np.int64]


def cases(quick: bool) -> list[tuple[str, Case, int]]:
    """Federations with the number of packs that just fit."""
    wanted = [
        (5, SMALL, 10_000),
        (50, COPIES, 10_000),
        (50, CODING, 10_000),
        (1000, COPIES, 100_000),
        (1000, CODING, 100_000),
    ]
    if not quick:
        wanted += [(10_000, COPIES, 1_000_000), (10_000, CODING, 1_000_000)]
    return [
        (f"{peers:,} peers, {rule.name}", federation(peers, rule, packs=packs, size=SIZE, seed=SEED), packs)
        for peers, rule, packs in wanted
    ]


# -- capacity ---------------------------------------------------------------------------------------------


def merged(kind: Kind, fresh: Sets) -> Kind:
    """The kind with new sets among those it holds, equal tuples as one."""
    tuples = np.concatenate([kind.held.tuples, fresh.tuples])
    packs = np.concatenate([kind.held.packs, fresh.packs])
    rows, which = np.unique(tuples, axis=0, return_inverse=True)
    total = np.bincount(which.reshape(-1), weights=packs, minlength=len(rows)).astype(np.int64)
    return Kind(rule=kind.rule, size=kind.size, held=Sets(tuples=rows, packs=total))


def first_refusal(case: Case, sizes: tuple[int, ...], nights: int) -> float:
    """Bytes placed by sets, night after night, when the first pack is refused, over the bound in bytes.

    Sizes come in a random order. A night that would end with a refusal is halved, down to the pack that is refused.
    """
    unit = UNIT if len(sizes) > 1 else sizes[0]
    bound = case.bound(unit * case.rule.needed if len(sizes) > 1 else unit)
    ceiling = bound * unit * (case.rule.needed if len(sizes) > 1 else 1)
    source = np.random.default_rng(SEED)
    kinds = [Kind(rule=case.rule, size=size, held=Sets.none(case.rule.width)) for size in sizes]
    night = max(1, ceiling // nights // int(np.mean(sizes)))
    queue = source.integers(0, len(sizes), night)
    placed = 0
    while True:
        counts = np.bincount(queue, minlength=len(sizes)).tolist()
        asked = [
            Kind(rule=kind.rule, size=kind.size, held=kind.held, new=count)
            for kind, count in zip(kinds, counts, strict=True)
        ]
        settled = solve(case.ground, case.room, asked)
        if any(row.refused for row in settled):
            if len(queue) == 1:
                return placed / ceiling
            queue = queue[: len(queue) // 2]
            continue
        kinds = [
            merged(Kind(rule=kind.rule, size=kind.size, held=row.sets), row.fresh)
            for kind, row in zip(kinds, settled, strict=True)
        ]
        placed += sum(count * size for count, size in zip(counts, sizes, strict=True))
        left = ceiling - placed
        night = max(1, min(night, left // int(np.mean(sizes)) + 1))
        queue = source.integers(0, len(sizes), night)


def capacity(quick: bool) -> list[Row]:
    """Sets beside others: placed at the first refusal over the bound."""
    rows = []
    for name, case, packs in cases(quick):
        shard = case.rule.shard(SIZE)
        slots = np.array([there // shard for there in case.room], dtype=np.int64)
        bound = case.bound(SIZE)
        large = len(slots) > 1000
        row: Row = {"federation": name, "bound": bound}
        row["sets"] = first_refusal(case, (SIZE,), 3 if large else 10)
        row["sets, uneven"] = first_refusal(uneven(case, seed=SEED), (SIZE,), 3 if large else 10)
        row["sets, mixed sizes"] = first_refusal(case, MIXED, 3 if large else 10)
        row["sets, mixed, uneven"] = first_refusal(uneven(case, seed=SEED), MIXED, 3 if large else 10)
        if not large:
            row["straw2"] = straw2(case, slots, packs)[0] / bound
            row["rendezvous"] = rendezvous(case, slots, packs + 1, overflow=False)[0] / bound
            row["rendezvous, overflow"] = rendezvous(case, slots, packs + 1, overflow=True)[0] / bound
            row["random"] = rendezvous(case, slots, packs + 1, overflow=True, weighted=False)[0] / bound
            row["greedy"] = greedy(case, slots, bound + 1)[0] / bound
            other = uneven(case, seed=SEED)
            rest = np.array([there // shard for there in other.room], dtype=np.int64)
            row["greedy, uneven"] = greedy(other, rest, bound)[0] / max(1, other.bound(SIZE))
        print(json.dumps(row), file=sys.stderr)
        rows.append(row)
    return rows


# -- moves ------------------------------------------------------------------------------------------------


def _placed(case: Case, packs: int) -> Sets:
    return solve(case.ground, case.room, [Kind(rule=case.rule, size=SIZE, held=Sets.none(case.rule.width), new=packs)])[
        0
    ].fresh


def _event(case: Case, held: Sets, what: str) -> tuple[Field, tuple[int, ...], int]:
    """The federation after an event, and how many shards cannot stay."""
    load = held.load(len(case.room))
    shard = case.rule.shard(SIZE)
    second = int(np.argsort(load)[-2])
    room = list(case.room)
    if what in ("dies", "leaves"):
        state = {"dies": "lost", "leaves": "draining"}[what]
        return changed(case.ground, **{case.ground.ids[second]: state}), case.room, int(load[second])
    if what == "grant cut to half of what is used":
        room[second] = int(load[second]) // 2 * shard
        return case.ground, tuple(room), int(load[second]) - int(load[second]) // 2
    if what == "grant doubled":
        room[second] *= 2
        return case.ground, tuple(room), 0
    raise AssertionError(what)


def movement(quick: bool) -> list[Row]:
    """Shards moved over those that cannot stay, and what the federation can hold afterwards over what it could."""
    rows = []
    for name, case, packs in cases(quick):
        held = _placed(case, packs * 6 // 10)
        for what in ("dies", "leaves", "grant cut to half of what is used", "grant doubled"):
            ground, room, must = _event(case, held, what)
            kind = Kind(rule=case.rule, size=SIZE, held=held)
            begun = time.perf_counter()
            settled = solve(ground, room, [kind])[0]
            spent = time.perf_counter() - begun
            shard = case.rule.shard(SIZE)
            slots = np.where(ground.takes, np.array(room) // shard, 0)
            shape = Shape(ground, case.rule, ground.takes)
            best = shape.bound(slots)
            rest = np.maximum(slots - np.where(ground.takes, settled.sets.load(len(slots)), 0), 0)
            moved = moves(kind, settled)
            row = {
                "federation": name,
                "event": what,
                "must": must,
                "moved": moved,
                "without a place": int(settled.due.sum()),
                "ratio": moved / must if must else float(moved > 0),
                "capacity kept": (shape.bound(rest) + int(held.packs.sum())) / best,
                "seconds": spent,
            }
            print(json.dumps(row), file=sys.stderr)
            rows.append(row)
    return rows


# -- losses -----------------------------------------------------------------------------------------------


def losing_triples(rows: Ints, width: int, needed: int) -> int:
    """How many sets of three peers take so many shards of some pack with them that it cannot be read."""
    bad: set[tuple[int, ...]] = set()
    beyond = width - needed + 1
    for row in np.unique(np.sort(rows, axis=1), axis=0).tolist():
        if beyond == 3:
            bad.update(combinations(row, 3))
    return len(bad)


def losses() -> list[Row]:
    """The chance that some pack is lost when three random peers die, at 1,000 peers."""
    rows = []
    for rule in (COPIES, CODING):
        case = federation(1000, rule, packs=200_000, size=SIZE, seed=SEED)
        slots = np.array([there // rule.shard(SIZE) for there in case.room], dtype=np.int64)
        ways = {
            "sets": _placed(case, 100_000).tuples,
            "random": rendezvous(case, slots, 100_000, overflow=True, weighted=False)[1],
            "rendezvous, overflow": rendezvous(case, slots, 100_000, overflow=True)[1],
            "straw2": straw2(case, slots, 100_000)[1],
        }
        chance = {name: losing_triples(found, rule.width, rule.needed) / comb(1000, 3) for name, found in ways.items()}
        row = {"policy": rule.name, **chance, "random / sets": chance["random"] / chance["sets"]}
        row["tuples of sets"] = len(np.unique(np.sort(ways["sets"], axis=1), axis=0))
        print(json.dumps(row), file=sys.stderr)
        rows.append(row)
    return rows


# -- time -------------------------------------------------------------------------------------------------


def timed(peers: int, packs: int) -> Row:
    """Seconds to plan and to give every pack its set, and the process's memory; in a process of its own."""
    rule = SMALL if peers < 50 else COPIES
    case = federation(peers, rule, packs=packs * 10 // 6, size=SIZE, seed=SEED)
    plan, assign = [], []
    for _ in range(5):
        begun = time.perf_counter()
        fresh = _placed(case, packs)
        planned = time.perf_counter()
        which = fresh.in_turn()
        plan.append(planned - begun)
        assign.append(time.perf_counter() - planned)
        assert len(which) == packs
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "peers": peers,
        "packs": packs,
        "plan s": statistics.median(plan),
        "assign s": statistics.median(assign),
        "peak MiB": peak,
        "sets": len(fresh.packs),
    }


def times(quick: bool) -> list[Row]:
    """`timed` at the sizes that have a limit."""
    rows = []
    for peers, packs, limit in ((12, 10**5, 0.05), (1000, 10**5, 0.5), (10_000, 10**6, 2.0))[: 2 if quick else 3]:
        command = [sys.executable, "-m", "bench.placement", "--timed", str(peers), str(packs)]
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        row["limit s"] = limit
        print(json.dumps(row), file=sys.stderr)
        rows.append(row)
    return rows


# -- report -----------------------------------------------------------------------------------------------


def demands(found: dict[str, list[Row]]) -> list[tuple[str, float, str, float, bool]]:
    """What is asked of the figures: name, worst figure, comparison, limit, reached."""
    capacity_rows, moved, lost, spent = (found[name] for name in ("capacity", "moves", "losses", "times"))
    rows = [
        ("equal sizes, from empty, least", min(row["sets"] for row in capacity_rows), ">=", 0.9999),
        ("equal sizes, from uneven, least", min(row["sets, uneven"] for row in capacity_rows), ">=", 0.9999),
        ("mixed sizes, from empty, least", min(row["sets, mixed sizes"] for row in capacity_rows), ">=", 0.998),
        ("mixed sizes, from uneven, least", min(row["sets, mixed, uneven"] for row in capacity_rows), ">=", 0.998),
        (
            "moves / must, up to 1,000 peers",
            max(r["ratio"] for r in moved if "10,000" not in r["federation"]),
            "<=",
            1.0,
        ),
        (
            "moves / must, 10,000 peers",
            max([r["ratio"] for r in moved if "10,000" in r["federation"]], default=0),
            "<=",
            1.05,
        ),
        ("random / sets, P(loss), least", min(row["random / sets"] for row in lost), ">=", 10),
        *(
            (f"{r['peers']:,} peers, {r['packs']:,} packs, seconds", r["plan s"] + r["assign s"], "<=", r["limit s"])
            for r in spent
        ),
        ("memory, MiB", max(row["peak MiB"] for row in spent), "<=", 400),
    ]
    return [(*row, row[1] >= row[3] if row[2] == ">=" else row[1] <= row[3]) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--timed", nargs=2, type=int, metavar=("PEERS", "PACKS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.timed:
        print(json.dumps(timed(*arguments.timed)))
        return
    load = os.getloadavg()[0]
    found = {
        "times": times(arguments.quick),
        "moves": movement(arguments.quick),
        "losses": losses(),
        "capacity": capacity(arguments.quick),
    }
    conditions = {
        "machine": machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "seed": SEED,
        "load before and after": [round(load, 2), round(os.getloadavg()[0], 2)],
    }
    text = report(conditions, found)
    print(text)
    if not arguments.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "placement.json").write_text(json.dumps({**conditions, **found}, indent=1) + "\n")
        (RESULTS / "placement.md").write_text(text)


def report(conditions: Row, found: dict[str, list[Row]]) -> str:
    """The figures as Markdown."""
    lines = ["# Placement", "", *(f"{name}: {value}  " for name, value in conditions.items()), ""]
    lines += ["| what | figure | asked | reached |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {figure:.5g} | {sign} {limit:g} | {'yes' if ok else 'no'} |"
        for name, figure, sign, limit, ok in demands(found)
    ]
    titles = {
        "capacity": "Bytes placed at the first refusal / exact bound",
        "moves": "Shards moved when 60 % are full, and the capacity that is left of what there could be",
        "losses": "P(some pack is lost when 3 of 1,000 random peers die), 100,000 packs",
        "times": "Time and memory, in process, median of 5",
    }
    for name, title in titles.items():
        rows = found[name]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        lines += ["", f"## {title}", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        lines += ["| " + " | ".join(_cell(row.get(key, "–")) for key in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    main()
