"""The most packs from a list of admissible tuples, exactly: a small integer program.

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


def most_packs(uses: npt.NDArray[np.int64], room: _Ints) -> tuple[npt.NDArray[np.int64], bool]:
    """How often to take each column of ``uses`` (0 or 1 for each peer and column) so that most are taken in all.

    No row may exceed ``room``. Also whether that is proven to be the most.
    """
    search = _Search(uses, np.asarray(room, dtype=np.int64))
    search.run(np.zeros(uses.shape[1], dtype=np.int64), search.room, ())
    return search.best, search.branches < _BRANCHES


class _Search:
    def __init__(self, uses: npt.NDArray[np.int64], room: npt.NDArray[np.int64]) -> None:
        self.uses, self.room = uses, room
        self.best = np.zeros(uses.shape[1], dtype=np.int64)
        self.branches = 0

    def run(self, taken: npt.NDArray[np.int64], room: npt.NDArray[np.int64], limits: tuple[tuple[int, int], ...]) -> None:
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
        )
        if int(taken.sum()) + int(share.sum() + _EPSILON) <= int(self.best.sum()):
            return
        whole = np.floor(share + _EPSILON).astype(np.int64)
        self._offer(taken + whole, room - self.uses @ whole)
        part = share - whole
        column = int(part.argmax())
        if part[column] <= _EPSILON or int(taken.sum()) + int(share.sum() + _EPSILON) <= int(self.best.sum()):
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
            fits = np.flatnonzero((self.uses <= room[:, None]).all(axis=0))
            if not len(fits):
                break
            column = fits[int((self.uses[:, fits].T @ room).argmax())]
            taken[column] += 1
            room = room - self.uses[:, column]
        if taken.sum() > self.best.sum():
            self.best = taken


def _relaxed(uses: _Reals, room: _Reals) -> _Reals:
    """The columns' shares of a best fractional answer, by the simplex method with the smallest index first."""
    rows, columns = uses.shape
    table = np.zeros((rows + 1, columns + rows + 1))
    table[:rows, :columns] = uses
    table[:rows, columns : columns + rows] = np.eye(rows)
    table[:rows, -1] = room
    table[rows, :columns] = -1.0
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
