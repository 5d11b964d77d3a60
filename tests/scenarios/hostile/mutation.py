"""Changes at random, always the same for one seed: of bytes, and of values before they are encoded."""

from collections.abc import Iterator
from random import Random
from typing import Any

import msgspec

_BYTES = (
    b"\xc0",
    b"\xc1",
    b"\xc2",
    b"\xcb",
    b"\xcf",
    b"\xd3",
    b"\xdd\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\x91" * 300,
)
"""What MessagePack makes much of: nothing, what it does not use, wide numbers, lists and bytes without end."""
_VALUES: tuple[Any, ...] = (
    *(0, 1, -1, 2**31, 2**32, 2**62, 2**62 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 4097, 1.0, float("nan")),
    *(None, True, False, b"", b".", b"..", b"/", b"\0", b"a/b", b"x" * 256, bytes(16), bytes(32), bytes(80), b"\xff"),
    *("", "x", "x" * 65, "\x1b[2J", "\u202e", "file", "dir", "link", "EEA", [], [[]], [0], [None], {}, {"a": 1}),
)


def of_bytes(data: bytes, random: Random) -> bytes:
    """Return bytes with one to four changes."""
    out = bytearray(data)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(out) + 1)
        match random.randrange(7):
            case 0 if out:
                out[at % len(out)] ^= 1 << random.randrange(8)
            case 1 if out:
                out[at % len(out)] = random.randrange(256)
            case 2:
                out[at:at] = random.choice(_BYTES)
            case 3:
                del out[at : at + random.randint(1, 8)]
            case 4:
                del out[at:]
            case 5:
                other = random.randrange(len(out) + 1)
                out[at:at] = out[other : other + random.randint(1, 64)]
            case _:
                out[at : at + 4] = random.randbytes(4)
    return bytes(out)


def of_value(value: Any, random: Random) -> Any:
    """Return a value of lists with one to three of its places changed."""
    for _ in range(random.randint(1, 3)):
        places = list(_places(value, ()))
        value = _with(value, random.choice(places), random)
    return value


def _places(value: Any, here: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    yield here
    if isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _places(inner, (*here, number))


def _with(value: Any, place: tuple[int, ...], random: Random) -> Any:
    if place:
        inner = _with(value[place[0]], place[1:], random)
        return [*value[: place[0]], inner, *value[place[0] + 1 :]]
    match value:
        case list() if value and random.random() < 0.7:
            at = random.randrange(len(value))
            return random.choice(
                (value[:at] + value[at + 1 :], [*value, value[at]], value[::-1], [*value[:at], value[at], *value[at:]])
            )
        case bool():
            pass
        case int() if random.random() < 0.6:
            return max(-(2**63), min(2**64 - 1, value + random.choice((-1, 1, 255, 1 << 20))))
        case bytes() if value and random.random() < 0.4:
            return of_bytes(value, random)
        case _:
            pass
    return random.choice(_VALUES)


def of_record(data: bytes, random: Random) -> bytes:
    """Return an encoded record with its bytes or its values changed."""
    if random.random() < 0.4:
        return of_bytes(data, random)
    try:
        return msgspec.msgpack.encode(of_value(msgspec.msgpack.decode(data), random))
    except (msgspec.MsgspecError, OverflowError):
        return of_bytes(data, random)
