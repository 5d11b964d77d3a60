"""Prometheus' text format, and the two ways out: a text file for its node exporter, and a small listener.

The format is sixty lines of a page that has not changed in ten years
(https://prometheus.io/docs/instrumenting/exposition_formats/); every value here is a gauge.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from replicator.fs import Fs, write_atomic

PREFIX: Final = "replicator_"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_IN_LABELS: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
_IN_HELP: Final = str.maketrans({"\\": "\\\\", "\n": "\\n"})
_FOR_ALL: Final = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """One value. ``name`` is without the prefix; labels are names that people gave, never those of files."""

    name: str
    meaning: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def exposition(gauges: Iterable[Gauge]) -> str:
    """Return the text of gauges, those of one name together as the format asks."""
    ordered = sorted(gauges, key=lambda one: one.name)  # stable: labels stay in their order
    lines = []
    for name, group in groupby(ordered, key=lambda one: one.name):
        members = list(group)
        lines.append(f"# HELP {PREFIX}{name} {members[0].meaning.translate(_IN_HELP)}")
        lines.append(f"# TYPE {PREFIX}{name} gauge")
        lines += [f"{PREFIX}{name}{_labels(one.labels)} {_number(one.value)}" for one in members]
    return "".join(f"{line}\n" for line in lines)


def write_textfile(fs: Fs, path: str, text: str) -> None:
    """Make a file hold this text, at once or not at all; whoever collects it reads it.

    Raises:
        OSError: its folder is missing, or not ours to write in.
    """
    write_atomic(fs, path, text.encode())
    # Others may write in that folder: what lies there by now may be a link to a file that is not for all.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_nlink == 1:
            os.fchmod(descriptor, _FOR_ALL)
    finally:
        os.close(descriptor)


def _labels(labels: Mapping[str, str]) -> str:
    said = ",".join(f'{key}="{text.translate(_IN_LABELS)}"' for key, text in labels.items())
    return f"{{{said}}}" if said else ""


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
