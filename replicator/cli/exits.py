"""Errors to exit codes: the one place.

0 done, 1 failed, 2 usage, 3 finished with named gaps, 4 integrity failure, 5 minimum not met, 6 this home lacks
the key. Of several, the worst wins: 4 > 1 > 6 > 5 > 3 > 0.
"""

from collections.abc import Iterable

from replicator.errors import IntegrityError, KeyMissingError, MinimumNotMetError, UsageError

DONE, FAILED, USAGE, GAPS, INTEGRITY, MINIMUM, NO_KEY = range(7)
INTERRUPTED = 130
"""128 + SIGINT, as shells say it."""
_WORST_LAST = (DONE, GAPS, MINIMUM, NO_KEY, FAILED, INTEGRITY)
HELP = (
    "Exit: 0 done, 1 failed, 2 usage, 3 finished with named gaps, 4 integrity failure, 5 minimum not met, "
    "6 this home lacks the key."
)


def code_of(error: BaseException) -> int:
    """Return the exit code of an error."""
    match error:
        case IntegrityError():
            return INTEGRITY
        case KeyMissingError():
            return NO_KEY
        case MinimumNotMetError():
            return MINIMUM
        case UsageError():
            return USAGE
        case _:
            return FAILED


def worst(codes: Iterable[int]) -> int:
    """Return the code that wins."""
    return max(codes, key=_WORST_LAST.index, default=DONE)
