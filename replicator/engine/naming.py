"""What people call a snapshot: the beginning of its id, ``latest``, ``latest:DATASET``, ``DATASET@2026-11-17``."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from replicator.clock import NS
from replicator.errors import NotFoundError, UsageError

_SHOWN = 5
_ID = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What a snapshot can be called by. ``dataset`` is empty where names cannot be read."""

    id: str
    dataset: str
    created_ns: int

    @property
    def day(self) -> datetime.date:
        """The day on which it was taken, in UTC."""
        return datetime.datetime.fromtimestamp(self.created_ns / NS, datetime.UTC).date()


def choose(labels: Sequence[Label], text: str) -> int:
    """Return the place of the snapshot that ``text`` means; labels come oldest first.

    Of several snapshots of one day the last is meant.

    Raises:
        NotFoundError: none, or a prefix of more than one.
        UsageError: nothing, or a date that is none.
    """
    if not text:
        raise UsageError("an empty name means no snapshot", hint="`replicator snapshots` lists them")
    dataset: str | None = None
    day: datetime.date | None = None
    if text.startswith("latest:"):
        dataset = text.removeprefix("latest:")
    elif "@" in text:
        dataset, _, date = text.rpartition("@")
        day = _day(date)
    if not labels:
        raise NotFoundError("there are no snapshots yet", hint="`replicator backup` on a node makes one")
    if text == "latest":
        return len(labels) - 1
    if dataset is not None:
        return _of_dataset(labels, dataset, day)
    found = [place for place, one in enumerate(labels) if one.id.startswith(text.lower())]
    if len(found) > 1:
        some = ", ".join(f"{labels[place].id[:_ID]} ({_called(labels[place])})" for place in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise NotFoundError(
            f"more than one snapshot has an id that begins with '{text}'",
            hint=f"give more of it; there are: {some}{more}",
        )
    if not found:
        known = any(one.dataset == text for one in labels)
        raise NotFoundError(
            f"no snapshot has an id that begins with '{text}'",
            hint=f"for the newest of dataset '{text}' write latest:{text}" if known else "`snapshots` lists them",
        )
    return found[0]


def check_dataset(labels: Sequence[Label], dataset: str) -> None:
    """Check that there are snapshots of a dataset.

    Raises:
        NotFoundError: there are none; those datasets that have some are named.
    """
    if all(one.dataset != dataset for one in labels):
        names = sorted({one.dataset for one in labels if one.dataset})
        raise NotFoundError(
            f"no snapshot of dataset '{dataset}'", hint=f"there are: {', '.join(names)}" if names else ""
        )


def _of_dataset(labels: Sequence[Label], dataset: str, day: datetime.date | None) -> int:
    check_dataset(labels, dataset)
    places = [place for place, one in enumerate(labels) if one.dataset == dataset]
    if day is None:
        return places[-1]
    found = [place for place in places if labels[place].day == day]
    if not found:
        before = [labels[place].day for place in places if labels[place].day < day]
        after = [labels[place].day for place in places if labels[place].day > day]
        nearest = [f"{dataset}@{one}" for one in (*before[-1:], *after[:1])]
        raise NotFoundError(
            f"no snapshot of dataset '{dataset}' on {day} (UTC)", hint=f"the nearest: {', '.join(nearest)}"
        )
    return found[-1]


def _called(label: Label) -> str:
    return f"{label.dataset} of {label.day}" if label.dataset else str(label.day)


def _day(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"'{text}' is not a date such as 2026-11-17") from error
