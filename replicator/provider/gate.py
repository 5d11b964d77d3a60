"""Who comes and who goes: an object that is being stored is not deleted meanwhile, nor the other way round."""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterable, Iterator

from replicator.ids import ObjectName, TenantId

Key = tuple[TenantId, ObjectName]


class Gate:
    """Between a file and its row is a moment that no transaction covers; this does, inside the one daemon."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._arriving: Counter[Key] = Counter()
        self._leaving: set[Key] = set()

    @contextlib.contextmanager
    def arriving(self, tenant: TenantId, name: ObjectName) -> Iterator[None]:
        """Hold an object from before its file is linked until its row is there; waits for one that is going."""
        key = (tenant, name)
        with self._changed:
            self._changed.wait_for(lambda: key not in self._leaving)
            self._arriving[key] += 1
        try:
            yield
        finally:
            with self._changed:
                self._arriving[key] -= 1
                if not self._arriving[key]:
                    del self._arriving[key]

    @contextlib.contextmanager
    def leaving(self, tenant: TenantId, names: Iterable[ObjectName]) -> Iterator[list[ObjectName]]:
        """Give those of the names that nobody is storing now; whoever begins to waits until this ends."""
        with self._changed:
            free = [name for name in names if (tenant, name) not in self._arriving]
            self._leaving.update((tenant, name) for name in free)
        try:
            yield free
        finally:
            with self._changed:
                self._leaving.difference_update((tenant, name) for name in free)
                self._changed.notify_all()
