"""What was given and taken at each provider, as it counted it: for fairness among friends, and nothing else."""

from dataclasses import dataclass, field

from replicator.engine.asking import ask_all
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation, Link
from replicator.engine.home import Half
from replicator.errors import RefusedError
from replicator.ids import Identity
from replicator.wire.messages import PULLS_VERSION, Empty, Usage, UsageMonth


@dataclass(slots=True)
class UsageReport:
    """Months by the provider's name; who could not say, and why."""

    months: dict[str, list[UsageMonth]] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)


async def usage(half: Half, edge: Edge) -> UsageReport:
    """Ask every provider what it kept, took and gave, month by month."""
    report = UsageReport()
    async with Federation(half, edge) as federation:
        found = await ask_all(federation.links.values(), _ask)
        for pin in half.peers:
            identity = Identity(pin.identity)
            months = found.given.get(identity)
            if months is not None:
                report.months[pin.name] = months
            else:
                failure = federation.failures.get(identity) or found.failed.get(identity)
                report.silent[pin.name] = (
                    "is of a build that does not say" if failure is None else getattr(failure, "reason", str(failure))
                )
    return report


async def _ask(link: Link) -> list[UsageMonth] | None:
    if PULLS_VERSION not in link.info.wire:
        return None
    try:
        return (await link.connection.call("usage", Empty(), Usage)).months
    except RefusedError:  # an earlier build
        return None
