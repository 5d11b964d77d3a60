"""The best choice from a list of admissible tuples, exactly: a small integer program.

Only for limits that cross each other in three ways or more, which no flow describes, on few peers. The relaxation is
solved by the simplex method, and what is fractional is branched on; as a rule the first rounding is best already.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["most_packs"]

_EPSILON: Final = 1e-7
_BRANCHES: Final = 400

_Reals = npt.NDArray[np.float64]
_Ints = npt.NDArray[Any]


def most_packs(
    uses: npt.NDArray[np.int64], room: _Ints, worth: _Ints | None = None
) -> tuple[npt.NDArray[np.int64], bool]:
    """How often to take each column of ``uses`` (0 or 1 for each row and column) for the greatest ``worth`` in all.

    No row may exceed ``room``; without ``worth`` every column is worth 1. Also whether that is proven to be the most.
    """
    value = np.ones(uses.shape[1], dtype=np.int64) if worth is None else worth
    search = _Search(uses, np.asarray(room, dtype=np.int64), value)
    search.run(np.zeros(uses.shape[1], dtype=np.int64), search.room, ())
    return search.best, search.branches < _BRANCHES


class _Search:
    def __init__(self, uses: npt.NDArray[np.int64], room: npt.NDArray[np.int64], worth: _Ints) -> None:
        self.uses, self.room, self.worth = uses, room, worth
        self.best = np.zeros(uses.shape[1], dtype=np.int64)
        self.branches = 0

    def _hopeless(self, taken: npt.NDArray[np.int64], share: _Reals) -> bool:
        most = int(self.worth @ taken) + int(self.worth @ share + _EPSILON * max(1, int(self.worth.max(initial=1))))
        return most <= int(self.worth @ self.best)

    def run(
        self, taken: npt.NDArray[np.int64], room: npt.NDArray[np.int64], limits: tuple[tuple[int, int], ...]
    ) -> None:
        """Improve on the best with what can be added to ``taken``; ``limits`` are columns and the most more of each."""
        if self.branches >= _BRANCHES:
            return
        self.branches += 1
        size = self.uses.shape[1]
        extra = np.zeros((len(limits), size))
        for row, (column, _) in enumerate(limits):
            extra[row, column] = 1
        share = _relaxed(
            np.vstack([self.uses, extra]).astype(np.float64),
            np.concatenate([room, np.array([most for _, most in limits], dtype=np.int64)]).astype(np.float64),
            self.worth.astype(np.float64),
        )
        if self._hopeless(taken, share):
            return
        whole = np.floor(share + _EPSILON).astype(np.int64)
        self._offer(taken + whole, room - self.uses @ whole)
        part = share - whole
        column = int(part.argmax())
        if part[column] <= _EPSILON or self._hopeless(taken, share):
            return
        more = taken.copy()
        more[column] += whole[column] + 1
        left = room - self.uses[:, column] * (whole[column] + 1)
        if (left >= 0).all():
            rest = tuple((at, most - (int(whole[column]) + 1 if at == column else 0)) for at, most in limits)
            self.run(more, left, rest)
        self.run(taken, room, (*(row for row in limits if row[0] != column), (column, int(whole[column]))))

    def _offer(self, taken: npt.NDArray[np.int64], room: npt.NDArray[np.int64]) -> None:
        """Fill up what a rounding leaves, those columns first that use the emptiest peers."""
        taken = taken.copy()
        while True:
            fits = np.flatnonzero((self.uses <= room[:, None]).all(axis=0) & (self.worth > 0))
            if not len(fits):
                break
            best = fits[self.worth[fits] == self.worth[fits].max()]
            column = best[int((self.uses[:, best].T @ room).argmax())]
            taken[column] += 1
            room = room - self.uses[:, column]
        if self.worth @ taken > self.worth @ self.best:
            self.best = taken


def _relaxed(uses: _Reals, room: _Reals, worth: _Reals) -> _Reals:
    """The columns' shares of a best fractional answer, by the simplex method with the smallest index first."""
    rows, columns = uses.shape
    table = np.zeros((rows + 1, columns + rows + 1))
    table[:rows, :columns] = uses
    table[:rows, columns : columns + rows] = np.eye(rows)
    table[:rows, -1] = room
    table[rows, :columns] = -worth
    basis = np.arange(columns, columns + rows)
    while True:
        entering = np.flatnonzero(table[rows, :-1] < -_EPSILON)
        if not len(entering):
            break
        column = int(entering[0])
        usable = np.flatnonzero(table[:rows, column] > _EPSILON)
        ratio = table[usable, -1] / table[usable, column]
        ties = usable[ratio <= ratio.min() + _EPSILON]
        row = int(ties[basis[ties].argmin()])
        table[row] /= table[row, column]
        for other in range(rows + 1):
            if other != row and table[other, column]:
                table[other] -= table[other, column] * table[row]
        basis[row] = column
    share = np.zeros(columns + rows)
    share[basis] = table[:rows, -1]
    return np.maximum(share[:columns], 0.0)
