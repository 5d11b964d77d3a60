"""simulate."""

import math
from typing import TYPE_CHECKING, Any

import click

from replicator.cli import exits
from replicator.cli.base import Session, command, read_stdin
from replicator.cli.output import table
from replicator.config import counted
from replicator.errors import UsageError

if TYPE_CHECKING:
    from replicator.engine.simulate import Case, Scene, Simulation
    from scheduler.outlook import Left, Outlook, Rate
    from scheduler.schemes import Choice, Scheme

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_CAUSES = {
    "peer": "a machine lost alone",
    "rot": "damage not noticed",
    "owner": "a person's mistake",
    "site": "a house",
    "region": "a region",
    "country": "a country",
    "common": "something that strikes everybody",
}


@click.command()
@click.option(
    "--problem", metavar="FILE", help='Peers, policies and packs as JSON instead of this home\'s; "-": stdin.'
)
@click.option("--copies", type=click.IntRange(1, 64), help="Try so many copies on these peers.")
@click.option("--coding", metavar="K+M", help="Try shards of which any K of K+M suffice.")
@click.option(
    "--nines", type=float, metavar="NUMBER", help="Find the cheapest scheme that loses a pack in 1 of 10^NUMBER years."
)
@click.option("--assume", metavar="NAME=VALUE", multiple=True, help="Assume otherwise: peer=20%, repair=3d, common=0%.")
@click.option("--svg", metavar="FILE", help="Draw disks and copies.")
@command(keys="none beyond being a member; none at all with --problem")
def simulate(
    session: Session,
    problem: str | None,
    copies: int | None,
    coding: str | None,
    nines: float | None,
    assume: tuple[str, ...],
    svg: str | None,
) -> None:
    """Say how likely it is that something is lost, and what one loss would leave. Asks nobody.

    Two figures for each policy: if losses were independent, and with shocks that strike several copies at once.
    """
    from replicator.engine.simulate import simulate as work  # noqa: PLC0415 - commands import what they use
    from scheduler.errors import SchedulerError  # noqa: PLC0415
    from scheduler.hazards import assuming  # noqa: PLC0415

    try:
        hazards = assuming(assume)
    except SchedulerError as error:
        raise UsageError(str(error), hint="docs/operate/durability.md says what each means") from error
    scene = _scene(session, problem)
    found = work(scene, hazards, target=nines, scheme=_scheme(copies, coding))
    if svg is not None:
        _draw(svg, scene, found)
    if found.choice is not None and found.choice.chosen is None:
        session.worsen(exits.GAPS)
    if any(one.gone for one in found.outlooks):
        session.worsen(exits.GAPS)
    document = {
        "assumptions": hazards.words(),
        "peers": len(scene.peers),
        "policies": [_document(case, one, scene) for case, one in zip(scene.cases, found.outlooks, strict=True)],
        "tried": _scheme_document(found.tried),
        "target": _choice_document(found.choice),
        "svg": svg,
    }
    session.out.result(document, _text(scene, found, hazards.words()))


def _scene(session: Session, problem: str | None) -> "Scene":
    from replicator.engine.simulate import home_scene, problem_scene  # noqa: PLC0415

    if problem is None:
        with session.member() as half, session.edge() as edge:
            return home_scene(half, edge)
    if problem == "-":
        return problem_scene(read_stdin())
    try:
        with open(problem, encoding="utf-8") as file:
            return problem_scene(file.read())
    except OSError as error:
        raise UsageError(f"{problem}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{problem}: not text in UTF-8") from error


def _scheme(copies: int | None, coding: str | None) -> tuple[int, int] | None:
    if copies is not None and coding is not None:
        raise UsageError("--copies and --coding are two schemes", hint="try one at a time")
    if copies is not None:
        return 1, copies
    if coding is None:
        return None
    needed, _, spare = coding.partition("+")
    if not (needed.isdecimal() and spare.isdecimal() and int(needed) >= 1 and int(spare) >= 1 and len(coding) < 6):
        raise UsageError(f"'{coding}' is no coding", hint="write it like 4+2: any 4 of 6 shards suffice")
    return int(needed), int(needed) + int(spare)


def _draw(path: str, scene: "Scene", found: "Simulation") -> None:
    from scheduler.picture import draw  # noqa: PLC0415

    placement = {(case.label, pack): holders for case in scene.cases for pack, holders in case.placement.items()}
    picture = draw(
        scene.peers,
        placement,
        found.outlooks,
        names=dict(scene.names),
        policies={case.policy.name: case.label for case in scene.cases},
    )
    with open(path, "w", encoding="utf-8") as file:
        file.write(picture)


# -- JSON --


def _nines(rate: float) -> float | None:
    from scheduler.outlook import nines  # noqa: PLC0415

    found = nines(rate)
    return round(found, 2) if math.isfinite(found) else None


def _rate_document(rate: "Rate") -> dict[str, Any]:
    return {
        "nines": _nines(rate.worst),
        "nines_mean": _nines(rate.pack),
        "worst_pack_per_year": rate.worst,
        "mean_pack_per_year": rate.pack,
        "any_per_year_at_most": rate.any,
    }


def _document(case: "Case", one: "Outlook", scene: "Scene") -> dict[str, Any]:
    return {
        "id": case.policy.name,
        "label": case.label,
        "supposed": case.supposed,
        "packs": one.packs,
        "sets": one.sets,
        "needed": one.needed,
        "promised": case.policy.copies,
        "fewest": one.fewest,
        "unreadable": one.gone,
        "independent": _rate_document(one.independent),
        "shocks": _rate_document(one.shocks),
        "causes": [{"id": cause, "share": round(share, 4)} for cause, share in one.causes],
        "after_worst_loss": {left.kind: left.copies if one.packs else None for left in one.left},
        "worst_losses": {
            left.kind: {
                "place": _place(left, scene),
                "peers": [scene.names.get(peer, peer) for peer in left.peers],
                "left": left.copies,
                "unreadable": left.lost,
                "nines": _nines(left.rate),
            }
            for left in one.left
        },
    }


def _place(left: "Left", scene: "Scene") -> str | None:
    return (
        next((scene.names.get(peer, left.place) for peer in left.peers), left.place)
        if left.kind == "peer"
        else left.place
    )


def _scheme_document(scheme: "Scheme | None") -> dict[str, Any] | None:
    if scheme is None:
        return None
    return {
        "id": scheme.name,
        "needed": scheme.needed,
        "shards": scheme.shards,
        "overhead": round(scheme.overhead, 3),
        "possible": len(scheme.holders) == scheme.shards,
        "independent": _nines(scheme.independent),
        "shocks": _nines(scheme.shocks),
        "usable": scheme.usable,
    }


def _choice_document(choice: "Choice | None") -> dict[str, Any] | None:
    if choice is None:
        return None
    return {
        "nines": choice.target,
        "reachable": choice.chosen is not None,
        "households": choice.households,
        "apart": choice.apart,
        "chosen": _scheme_document(choice.chosen),
        "independent_only": _scheme_document(choice.alone),
        "strongest": _scheme_document(choice.strongest),
    }


# -- text --


def _text(scene: "Scene", found: "Simulation", assumptions: dict[str, str]) -> list[str]:
    lines = []
    for case, one in zip(scene.cases, found.outlooks, strict=True):
        lines += [*_outlook_text(case, one, scene), ""]
    if not scene.cases:
        lines += ["There is no policy here: nothing is promised.", ""]
    if found.tried is not None:
        lines += [*_tried_text(found.tried), ""]
    if found.choice is not None:
        lines += [*_choice_text(found.choice), ""]
    lines.append("Assumed, by the year: " + ", ".join(f"{name}={value}" for name, value in assumptions.items()))
    return lines


def _said(rate: float) -> str:
    found = _nines(rate)
    if found is None:
        return "never, as far as this looks"
    chance = -math.expm1(-rate)
    return f"{found:.1f} nines (1 year in {1 / chance:,.0f})" if chance < 0.5 else f"{100 * chance:.0f}% in a year"


def _outlook_text(case: "Case", one: "Outlook", scene: "Scene") -> list[str]:
    kind = (
        f"{one.needed} needed of {case.policy.copies} shards"
        if one.needed > 1
        else counted(case.policy.copies, "copy", "copies")
    )
    title = f"{case.label}: {kind}, {counted(one.packs, 'pack')} in {counted(one.sets, 'set')} of peers"
    if case.supposed:
        title = f"{case.label}: {kind}, as they would be placed"
    lines = [title]
    if not one.packs:
        return [*lines, "  No pack can be placed: `replicator status` says what would help."]
    if one.gone:
        lines.append(f"  {one.gone} of {counted(one.packs, 'pack')} cannot be read from any peer that counts now.")
    if one.gone == one.packs:
        return lines
    lines += [
        f"  A pack is lost, if losses are independent:  {_said(one.independent.worst)}",
        f"  ... and with shocks that hit several:       {_said(one.shocks.worst)}",
        f"  Anything at all is lost, with shocks:       {_said(one.shocks.any)}, at most",
    ]
    causes = [f"{_CAUSES[cause]} {100 * share:.0f}%" for cause, share in one.causes[:3] if share >= 0.005]
    if causes:
        lines.append(f"  What would complete a loss: {', '.join(causes)}")
    rows = [
        (
            "household" if left.kind == "owner" else left.kind,
            _place(left, scene) or "-",
            left.copies,
            _share(left.lost, one.packs - one.gone),
            _said(left.rate) if left.lost < one.packs - one.gone else "nothing is left",
        )
        for left in one.left
    ]
    lines += [
        f"  {line}" for line in table(("LOSS OF A", "WORST", "LEFT", "LOST PACKS", "THE OTHERS, UNREPAIRED"), rows)
    ]
    return lines


def _share(lost: int, packs: int) -> str:
    return "none" if not lost else "all" if lost == packs else f"{lost} ({max(1, 100 * lost // packs)}%)"


def _tried_text(scheme: "Scheme") -> list[str]:
    if len(scheme.holders) < scheme.shards:
        return [f"{scheme.name}: not possible, these peers have room apart for {len(scheme.holders)} only."]
    return [f"{scheme.name}: {_scheme_words(scheme)}"]


def _scheme_words(scheme: "Scheme") -> str:
    from replicator.config import format_size  # noqa: PLC0415

    return (
        f"{_short(scheme.independent)} if losses are independent, {_short(scheme.shocks)} with shocks; "
        f"{scheme.overhead:.2f} bytes stored for one; room for at most {format_size(scheme.usable)}"
    )


def _short(rate: float) -> str:
    found = _nines(rate)
    return "endless nines" if found is None else f"{found:.1f} nines"


def _friends(choice: "Choice") -> str:
    from scheduler.schemes import MOST_SHARDS  # noqa: PLC0415

    count = choice.households
    words = f"{_number(count)} friend{'s' * (count != 1)}"
    if choice.apart < min(count, MOST_SHARDS):
        words += f", of whom the spread keeps {_number(choice.apart)} apart"
    return words


def _number(count: int) -> str:
    return _NUMBERS[count] if count < len(_NUMBERS) else str(count)


def _choice_text(choice: "Choice") -> list[str]:
    target = f"{choice.target:g} nines"
    if choice.chosen is not None:
        lines = [f"For {target} with shocks: {choice.chosen.name}: {_scheme_words(choice.chosen)}"]
    else:
        lines = [f"{target} with shocks: not reachable with {_friends(choice)}."]
        if choice.strongest is not None:
            lines.append(f"  The most they give: {choice.strongest.name}: {_scheme_words(choice.strongest)}")
    if choice.alone is not None:
        lines.append(f"  If losses were independent: {choice.alone.name}: {_scheme_words(choice.alone)}")
    if choice.chosen is not None and choice.chosen.shards == choice.apart and choice.is_all:
        lines.append(
            "  It takes every household there is: after a loss, nobody is left to repair to until another joins."
        )
    return lines
