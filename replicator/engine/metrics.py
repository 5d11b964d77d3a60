"""How a member's home stands, as numbers for Prometheus. Labels are names of datasets, providers and commands."""

from collections.abc import Sequence
from itertools import groupby

from replicator.clock import NS
from replicator.engine.home import Half
from replicator.engine.status import Status
from replicator.notify.alarms import Alarm
from replicator.notify.metrics import Gauge

_GOOD = (0, 3)


def metrics_of(half: Half, found: Status, present: Sequence[Alarm], now_ns: int) -> list[Gauge]:
    """Return the gauges of one half."""
    gauges = [
        Gauge(name="written_seconds", meaning="When these numbers were written, since 1970.", value=now_ns / NS),
        Gauge(name="safe", meaning="1 if every dataset is as it was promised.", value=int(found.exit_code == 0)),
        Gauge(name="status_exit", meaning="Exit code of status.", value=found.exit_code, labels={"half": half.role}),
        Gauge(name="spooled_bytes", meaning="Bytes that wait for more copies.", value=found.spooled_bytes),
        Gauge(name="findings", meaning="Findings that nobody has acknowledged.", value=len(found.findings)),
    ]
    for code, group in groupby(sorted(present, key=lambda one: one.code), key=lambda one: one.code):
        gauges.append(Gauge(name="alarms", meaning="Alarms now.", value=len(list(group)), labels={"code": code}))
    gauges += [
        Gauge(name="run_exit", meaning="Exit code of the last run.", value=run.code, labels={"run": run.kind})
        for run in half.catalog.log.last()
    ]
    gauges += [
        Gauge(
            name="run_last_success_seconds",
            meaning="End of the last run with exit 0 or 3, since 1970.",
            value=ended_ns / NS,
            labels={"run": kind},
        )
        for kind, ended_ns in half.catalog.log.successes(_GOOD).items()
    ]
    for one in found.datasets:
        labels = {"dataset": one.name}
        gauges += [
            Gauge(name=f"dataset_{name}", meaning=meaning, value=value, labels=labels)
            for name, meaning, value in (
                ("copies", "The fewest copies that an object of it has.", one.copies),
                ("promised", "Copies that are promised.", one.promised),
                ("debt_objects", "Objects of it with fewer copies than promised.", one.debt),
                ("newest_seconds", "When its newest published snapshot was made, since 1970.", one.newest_ns / NS),
                ("age_seconds", "Age of that snapshot when this was written.", one.age_s),
                ("stored_bytes", "Bytes of its objects, each counted once.", one.stored_bytes),
            )
        ]
    for peer in found.peers:
        labels = {"peer": peer.name}
        gauges += [
            Gauge(name=f"peer_{name}", meaning=meaning, value=value, labels=labels)
            for name, meaning, value in (
                ("contacted_seconds", "When it last answered, since 1970.", peer.contacted_ns / NS),
                ("held_objects", "Objects of ours that it holds.", peer.objects),
                ("missing_objects", "Objects that it had receipted and are gone.", peer.missing),
                ("damaged_objects", "Objects there that are damaged.", peer.damaged),
                ("free_bytes", "What may still be stored there.", peer.free),
            )
        ]
    return gauges
