"""Least-cost flow in whole numbers.

The primal-dual method: distances from the source price the arcs, all shortest paths are filled at once by blocking
flows, and the next distances follow. The number of rounds is that of different path costs, which are few here,
however much flows. Costs must not be negative.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush

__all__ = ["Network"]


class Network:
    """Arcs are numbered by twos: arc ``a`` has its reverse at ``a ^ 1``, whose capacity is what flows in ``a``."""

    def __init__(self, nodes: int = 0) -> None:
        self._out: list[list[int]] = [[] for _ in range(nodes)]
        self._to: list[int] = []
        self._free: list[int] = []
        self._cost: list[int] = []

    def node(self) -> int:
        """A new node."""
        self._out.append([])
        return len(self._out) - 1

    def arc(self, tail: int, head: int, capacity: int, cost: int = 0) -> int:
        """A new arc; its number."""
        number = len(self._to)
        self._to += (head, tail)
        self._free += (capacity, 0)
        self._cost += (cost, -cost)
        self._out[tail].append(number)
        self._out[head].append(number + 1)
        return number

    def through(self, arc: int) -> int:
        """How much flows in an arc."""
        return self._free[arc ^ 1]

    def reached(self, source: int) -> list[bool]:
        """For every node whether more could still flow there: the near side of a least cut once `run` is done."""
        near = [False] * len(self._out)
        near[source] = True
        waiting = [source]
        while waiting:
            for arc in self._out[waiting.pop()]:
                head = self._to[arc]
                if self._free[arc] and not near[head]:
                    near[head] = True
                    waiting.append(head)
        return near

    def run(self, source: int, sink: int) -> int:
        """Send as much as fits at the least cost; how much that is."""
        price = [0] * len(self._out)
        sent = 0
        while self._reprice(source, sink, price):
            while (level := self._levels(source, sink, price)) is not None:
                sent += self._block(source, sink, price, level)
        return sent

    def _reprice(self, source: int, sink: int, price: list[int]) -> bool:
        """Add to the prices the distances in reduced costs; whether the sink can be reached."""
        far = -1
        distance = [far] * len(self._out)
        best = [far] * len(self._out)
        heap = [(0, source)]
        best[source] = 0
        to, free, cost = self._to, self._free, self._cost
        while heap:
            here, node = heappop(heap)
            if distance[node] != far:
                continue
            distance[node] = here
            if node == sink:
                break
            base = here + price[node]
            for arc in self._out[node]:
                if free[arc]:
                    head = to[arc]
                    if distance[head] == far:
                        there = base + cost[arc] - price[head]
                        if best[head] == far or there < best[head]:
                            best[head] = there
                            heappush(heap, (there, head))
        end = distance[sink]
        if end == far:
            return False
        # What lies farther than the sink, or out of reach, moves as far as the sink: reduced costs stay whole.
        for node, there in enumerate(distance):
            price[node] += end if there == far else there
        return True

    def _levels(self, source: int, sink: int, price: list[int]) -> list[int] | None:
        """Steps from the source over arcs that cost nothing at these prices, if the sink can be reached."""
        level = [-1] * len(self._out)
        level[source] = 0
        queue = deque([source])
        to, free, cost = self._to, self._free, self._cost
        while queue:
            node = queue.popleft()
            if node == sink:
                return level
            here = price[node]
            for arc in self._out[node]:
                head = to[arc]
                if free[arc] and level[head] < 0 and here + cost[arc] == price[head]:
                    level[head] = level[node] + 1
                    queue.append(head)
        return None

    def _block(self, source: int, sink: int, price: list[int], level: list[int]) -> int:
        """Fill paths of free arcs, one step down the levels each, until none is left."""
        to, free, cost = self._to, self._free, self._cost
        turn = [0] * len(self._out)
        sent = 0
        path: list[int] = []
        node = source
        while True:
            if node == sink:
                amount = min(free[arc] for arc in path)
                sent += amount
                cut = 0
                for at in range(len(path) - 1, -1, -1):
                    arc = path[at]
                    free[arc] -= amount
                    free[arc ^ 1] += amount
                    if not free[arc]:
                        cut = at
                del path[cut + 1 :]
                node = to[path.pop() ^ 1]
                continue
            arcs = self._out[node]
            here = price[node]
            deeper = level[node] + 1
            at = turn[node]
            while at < len(arcs):
                arc = arcs[at]
                head = to[arc]
                if free[arc] and level[head] == deeper and here + cost[arc] == price[head]:
                    break
                at += 1
            turn[node] = at
            if at < len(arcs):
                path.append(arcs[at])
                node = to[arcs[at]]
                continue
            if not path:
                return sent
            level[node] = -1
            node = to[path.pop() ^ 1]
