"""Random walks of the machine, taken by the real provider code: both say the same after every step."""

import numpy as np
import pytest

from tests.fakes import SeededRng
from tests.model.protocol import Protocol, Size, States
from tests.model.replay import Walk, expected, expire

STEPS = 200
GROUPS = (
    ("open", "claim", "put", "publish", "abort", "forget", "drop"),
    ("decide", "mark", "lose", "retire", "hang"),
    ("adopt", "leave", "repair", "decide", "mark", "lose"),
    ("expire", "sweep", "put", "arrive"),
)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "size",
    [
        Size(providers=2, late=True),
        Size(providers=1, names=2),
        Size(providers=3, writers=1, minimum=2),
    ],
    ids=str,
)
def test_the_code_does_what_the_machine_does(size: Size, seed: int, tmp_path: str) -> None:
    assert walk(Protocol(size), seed, str(tmp_path)) > STEPS // 4


def walk(protocol: Protocol, seed: int, path: str) -> int:
    """Take steps; return how many kinds of them were taken."""
    rng = SeededRng(f"walk {seed}")
    real = Walk(path, protocol, rng)
    states = protocol.start()
    taken: list[str] = []
    group = 0
    try:
        assert real.seen() == expected(protocol, states)
        for _ in range(STEPS):
            possible = [name for name in protocol.steps if offered(protocol, name, states)]
            mine = [name for name in possible if name.split()[0] in GROUPS[group]]
            # Stretches of one group: two marks on their way at once are rare otherwise.
            if not mine or rng.below(6) == 0:
                group = rng.below(len(GROUPS))
                continue
            kinds: dict[str, list[str]] = {}
            for name in mine:
                kinds.setdefault(name.split()[0], []).append(name)
            kind = sorted(kinds)[rng.below(len(kinds))]
            name = kinds[kind][rng.below(len(kinds[kind]))]
            if kind == "publish" and not protocol.steps[name](states)[0][0]:
                real.try_to_publish(int(name.split()[1]), states)
                continue
            if kind == "expire":
                real.wait()
                states = expire(protocol, states)
            else:
                told = real.take(name, states)
                enabled, after = protocol.steps[name](states)
                states = np.where(enabled, after, states)
                if told is not None:
                    w, s = (int(one) for one in name.split()[1:])
                    here = protocol.here(protocol.at(s))
                    assert told == {one for one in here if protocol.relied[w][one].on(states)[0]}, taken
            if name.startswith("put back"):
                # What is found on the disk without a row counts as received now, which holds it longer.
                real.wait()
                states = expire(protocol, states)
            taken.append(name)
            assert real.seen() == expected(protocol, states), (taken, protocol.describe(int(states[0])))
    finally:
        real.close()
    return len(taken)


def offered(protocol: Protocol, name: str, states: States) -> bool:
    """Return whether a step is worth trying: also a mark or a head that will be refused, and must change nothing."""
    if protocol.steps[name](states)[0][0]:
        return True
    word, *numbers = name.split()
    if word == "mark":
        return bool(protocol.target[int(numbers[0])].on(states)[0])
    return word == "publish" and any(protocol.relied[int(numbers[0])][s].on(states)[0] for s in protocol.copies)
