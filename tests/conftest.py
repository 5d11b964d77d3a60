"""What every test may do without doing it twice."""

from collections.abc import Callable, Iterator
from hashlib import sha256

import pytest

from replicator.crypto import sign

Check = Callable[[bytes, bytes, bytes], None]


@pytest.fixture(autouse=True, scope="session")
def _check_once() -> Iterator[None]:
    """Check each signature over each message only once: copies of a world bring the same ones a hundred times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sign, "_check", checked_once(sign._check))
        yield


def checked_once(check: Check) -> Check:
    """Return a check that remembers what held, and looks again at all else."""
    held: set[bytes] = set()

    def checked(public: bytes, signature: bytes, message: bytes) -> None:
        key = sha256(b"".join((public, signature, message))).digest()
        if key not in held:
            check(public, signature, message)
            held.add(key)

    return checked
