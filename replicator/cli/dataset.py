"""dataset add|list|show|set|remove."""

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from replicator.cli.base import Session, command, common_options
from replicator.cli.consistency import Asked, consistency_document, consistency_options
from replicator.cli.keeping import asked_rules, keep_options
from replicator.cli.output import fields, moment, table
from replicator.config import LEAST_CODED, counted, parse_coding, parse_duration, parse_name, parse_size
from replicator.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from replicator.catalog.snapshots import Dataset
    from replicator.engine.home import Half
    from replicator.format.policy import Policy
    from replicator.snapshot.retention import KeepRules

STALE_AFTER = "30d"
_NAME = re.compile(r"[^@:/.-][^@:/]*")
"""Of what stays whole; of shards one more than suffice."""
_DOMAINS = ("owner", "site", "region", "country")


@click.group()
@common_options
def dataset() -> None:
    """What this node backs up, and what is promised for it."""


def _policy_options(function: Any) -> Any:
    # The last decorator applied is the first option in the help.
    for option in reversed(
        (
            click.option("--copies", type=click.IntRange(1, 64), help="Copies elsewhere that are promised."),
            click.option(
                "--coding",
                metavar="K+M",
                help="In place of copies: cut packs into K+M shards, any K of which suffice (from six households on).",
            ),
            click.option(
                "--minimum",
                type=click.IntRange(1, 64),
                help="Copies without which nothing is published; with --coding K-1 more shards.",
            ),
            click.option(
                "--spread", help="Copies share none of these: owner, site, region, country (comma-separated)."
            ),
            click.option("--residency", help='Where copies may lie: "EEA", "SE,NO", or "any" where root allows it.'),
        )
    ):
        function = option(function)
    return function


def _selection_options(function: Any) -> Any:
    # Likewise in reverse. All of them come to selection().
    for option in reversed(
        (
            click.option(
                "--exclude", metavar="PATTERN", multiple=True, help="Leave out what matches, as in a .gitignore."
            ),
            click.option(
                "--exclude-from", metavar="FILE", multiple=True, help="Likewise, patterns from a file as it is now."
            ),
            click.option(
                "--include", metavar="PATTERN", multiple=True, help="Keep what matches and would be left out by them."
            ),
            click.option(
                "--exclude-if-present",
                metavar="NAME",
                multiple=True,
                help="Of a folder with a file of this name, keep only that.",
            ),
            click.option(
                "--exclude-larger-than",
                metavar="SIZE",
                help='Leave out and name larger files: 4G, 500Mi; "none" for no limit.',
            ),
            click.option(
                "--skip-caches/--keep-caches",
                default=None,
                help="Of cache folders (CACHEDIR.TAG) keep only the tag, or all; new datasets skip them.",
            ),
            click.option(
                "-x",
                "--one-file-system/--all-file-systems",
                default=None,
                help="Do not cross mount points, or only those of local file systems.",
            ),
        )
    ):
        function = option(function)
    return function


def selection(
    roots: Sequence[bytes],
    old: "Dataset | None",
    *,
    exclude: Sequence[str],
    exclude_from: Sequence[str],
    include: Sequence[str],
    exclude_if_present: Sequence[str],
    exclude_larger_than: str | None,
    skip_caches: bool | None,
    one_file_system: bool | None,
    no_exclude: bool = False,
) -> dict[str, Any]:
    """Return what a dataset leaves out, from what was said and what was before, by the dataset's own fields.

    Patterns replace all there were: their order means something. Files come first and what to keep last, so that this
    decides.

    Raises:
        UsageError: a pattern, name or size that cannot be meant, or a file that cannot be read.
    """
    from replicator.snapshot.exclude import check_patterns  # noqa: PLC0415 - commands import what they use

    patterns = [pattern for path in exclude_from for pattern in _patterns(path)]
    patterns += exclude
    if include and not patterns:
        raise UsageError(
            "--include names exceptions to --exclude and --exclude-from, and neither is given",
            hint="say both: the patterns that are given replace those there are",
        )
    patterns += ["!" + pattern for pattern in include]
    names = list(exclude_if_present)
    for name in names:
        if not name or "/" in name or name in (".", ".."):
            raise UsageError(
                f"'{name}' cannot be the name of a file", hint="--exclude-if-present takes a name without its folder"
            )
    if old is not None and not no_exclude:
        patterns = patterns or list(old.exclude)
        names = names or list(old.exclude_if_present)
    check_patterns(patterns, roots)
    if exclude_larger_than is None:
        largest = old.exclude_larger_than if old else None
    else:
        largest = None if exclude_larger_than.lower() == "none" else parse_size(exclude_larger_than)
        if largest == 0:
            raise UsageError(
                "with --exclude-larger-than 0 nothing would be saved", hint='name a size, or "none" for no limit'
            )
    return {
        "exclude": tuple(patterns),
        "exclude_if_present": tuple(names),
        "exclude_larger_than": largest,
        "keep_caches": not skip_caches if skip_caches is not None else bool(old and old.keep_caches),
        "one_file_system": (one_file_system if one_file_system is not None else bool(old and old.one_file_system)),
    }


def _patterns(path: str) -> list[str]:
    """Return the patterns of a file.

    Raises:
        UsageError: it cannot be read, or has none.
    """
    from replicator.snapshot.exclude import patterns_in  # noqa: PLC0415 - commands import what they use

    try:
        with open(path, "rb") as file:
            found = patterns_in(os.fsdecode(file.read()))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint="--exclude-from names a file of patterns") from error
    if not found:
        raise UsageError(f"{path}: there is no pattern in it", hint="one a line, as in a .gitignore")
    return found


def build_policy(
    half: "Half",
    old: "Policy | None",
    *,
    copies: int | None,
    minimum: int | None,
    spread: str | None,
    residency: str | None,
    coding: tuple[int, int] | None = None,
) -> "Policy":
    """Return a policy from what was said, what was before and the defaults.

    Raises:
        UsageError: it contradicts itself or goes below root's floors.
        ReplicatorError: this machine cannot make shards.
    """
    from replicator.charter.verify import below_floors  # noqa: PLC0415 - commands import what they use
    from replicator.engine.placing import check_coding, scheduler_policy  # noqa: PLC0415
    from replicator.format.policy import Policy  # noqa: PLC0415
    from replicator.pack.shards import check_library  # noqa: PLC0415
    from scheduler import EEA, default_copies  # noqa: PLC0415

    others = sum(not pin.own for pin in half.peers)
    default, least = (old.copies, old.minimum) if old else default_copies(others)
    shards = coding
    if shards is not None:
        check_library(shards)
        if copies is not None:
            raise UsageError(
                "--coding and --copies are two promises",
                hint=f"give one: what {shards[0]}+{shards[1]} leaves whole has "
                f"{counted(shards[1] + 1, 'copy', 'copies')}",
            )
        default, least = shards[1] + 1, 1 + -(-shards[1] // 2)
    elif copies is None and old is not None:
        shards = old.coding
    wanted = copies if copies is not None else default
    if spread is not None:
        domains = sorted({word.strip() for word in spread.split(",") if word.strip()})
        unknown = [word for word in domains if word not in _DOMAINS]
        if unknown:
            raise UsageError(f"unknown failure domain {', '.join(unknown)}", hint=f"use {', '.join(_DOMAINS)}")
    else:
        domains = old.spread if old else ["owner"]
    if residency is not None:
        words = [] if residency.lower() == "any" else sorted({word.strip().upper() for word in residency.split(",")})
    else:
        words = old.residency if old else (["EEA"] if half.private.country in EEA else [])
    if minimum is not None and minimum > wanted:
        raise UsageError(
            f"a minimum of {minimum} is more than {counted(wanted, 'copy', 'copies')}",
            hint="lower --minimum or raise --copies",
        )
    if shards is not None and minimum is not None and minimum < LEAST_CODED:
        raise UsageError(
            f"with coding the minimum is at least {LEAST_CODED}",
            hint="below it a pack could be published that not one loss may strike",
        )
    policy = Policy(
        copies=wanted,
        minimum=minimum if minimum is not None else min(least, wanted),
        coding=shards,
        spread=list(domains),
        residency=list(words),
        count_own=False,
        stale_after_s=old.stale_after_s if old else parse_duration(STALE_AFTER),
    )
    scheduler_policy(b"new", policy)
    floors = below_floors(policy, half.charter.root)
    if floors:
        raise UsageError("; ".join(floors), hint="only the recovery sheet can go below what root allows")
    if coding is not None:
        check_coding(half, policy)
    return policy


def _also_borg_option(function: Any) -> Any:
    return click.option(
        "--also-borg",
        metavar="REPO",
        help="Also make an archive in this Borg repository, outside of every promise; '' for none.",
    )(function)


def also_borg_of(said: str | None, roots: "Sequence[bytes]", old: str) -> str:
    """Return where archives of a dataset go, by what was said and what was before.

    Raises:
        UsageError: the dataset has no paths, or it cannot be a place.
    """
    from replicator.engine.borg import place_of  # noqa: PLC0415 - commands import what they use

    chosen = old if said is None else said and place_of(said)
    if chosen and (not roots or "::" in chosen or "\0" in chosen or not chosen.isprintable()):
        raise UsageError(
            f"{chosen!a} cannot be the repository beside this dataset",
            hint="a path, or ssh://USER@HOST/PATH, of a repository; and a dataset with paths",
        )
    return chosen


def check_name(name: str) -> None:
    """Hold a dataset's name to what can be said in SNAP and be a folder's name.

    Raises:
        UsageError: it cannot.
    """
    if not _NAME.fullmatch(parse_name(name, "a dataset's name")):
        raise UsageError(f"'{name}' cannot be a dataset's name", hint="no @, : and / in it, no . or - as its first")


def _roots(paths: Sequence[str]) -> tuple[bytes, ...]:
    roots = tuple(os.fsencode(os.path.abspath(path)) for path in paths)
    for root in roots:
        if not os.path.lexists(root):
            raise NotFoundError(f"{os.fsdecode(root)}: there is nothing here", hint="a dataset names paths that exist")
    return roots


@dataset.command("add")
@click.argument("name")
@click.argument("paths", nargs=-1)
@_policy_options
@_selection_options
@keep_options
@consistency_options
@_also_borg_option
@click.option("--stdin", is_flag=True, help="No paths: it takes what `backup --stdin-from-command` is given.")
@click.option("--domain", metavar="NAME", help="Share chunks only inside this domain (`domain list`); else the first.")
@command(keys="write (a node's home)")
def dataset_add(
    session: Session,
    name: str,
    paths: tuple[str, ...],
    copies: int | None,
    coding: str | None,
    minimum: int | None,
    spread: str | None,
    residency: str | None,
    consistency: Asked,
    also_borg: str | None,
    stdin: bool,
    domain: str | None,
    **selected: Any,
) -> None:
    """Name paths to back up and what is promised for them."""
    from replicator.catalog.snapshots import Dataset  # noqa: PLC0415
    from replicator.format.consistency import Consistency  # noqa: PLC0415

    check_name(name)
    rules = asked_rules(selected)
    if rules is not None:
        with session.keeper():
            pass  # who may say so is known before anything is made
    if bool(paths) == stdin:
        raise UsageError(
            "a dataset has paths or takes a command's output (--stdin), one of them",
            hint="`replicator dataset add --help` says what is possible",
        )
    shards = None if coding is None else parse_coding(coding)
    with session.node() as half:
        policy = build_policy(
            half, None, copies=copies, coding=shards, minimum=minimum, spread=spread, residency=residency
        )
        roots = _roots(paths)
        new = Dataset(
            name=name,
            roots=roots,
            policy=policy,
            created_ns=session.clock.now_ns(),
            consistency=consistency.change(Consistency(), stdin=stdin),
            domain=_domain(half, domain, b""),
            also_borg=also_borg_of(also_borg, roots, ""),
            **selection(roots, None, **_without_keep(selected)),
        )
        half.catalog.datasets.add(new)
        document = _document(new, half)
        peers = sum(not pin.own for pin in half.peers)
    if rules is not None:
        _set_rules(session, name, rules)
    if peers < policy.minimum:
        session.out.notice(
            f"there {'is' if peers == 1 else 'are'} {counted(peers, 'provider')} yet; at least {policy.minimum} must "
            "hold a copy before a backup counts: `peer add` with a friend's code"
        )
    following = (
        f"replicator backup {name} --stdin-from-command --as FILE -- COMMAND ..." if stdin else "replicator backup"
    )
    session.out.result(
        document | _keeps(session, name),
        f"Dataset '{name}': {_promise(policy)}. Next: {following}",
    )


@dataset.command("set")
@click.argument("name")
@_policy_options
@_selection_options
@click.option("--no-exclude", is_flag=True, help="Take away all patterns and names of --exclude-if-present there were.")
@click.option("--path", "paths", multiple=True, help="New paths (all of them).")
@click.option("--domain", metavar="NAME", help="Another domain; all is stored anew there, and old snapshots stay.")
@keep_options
@click.option("--keep-usual", is_flag=True, help="How long its snapshots stay: as if nothing had been said.")
@consistency_options
@_also_borg_option
@command(keys="write (a node's home); for --keep-...: any keeper's, without its passphrase")
def dataset_set(
    session: Session,
    name: str,
    paths: tuple[str, ...],
    copies: int | None,
    coding: str | None,
    minimum: int | None,
    spread: str | None,
    residency: str | None,
    consistency: Asked,
    also_borg: str | None,
    domain: str | None,
    keep_usual: bool,
    **selected: Any,
) -> None:
    """Change a dataset. Patterns that are given replace all there were, and so do rules of how long snapshots stay.

    The next backup stores again what the new promise needs. Rules (--keep-...) are set on the keeper, also on one that
    is no node, and count from the next `forget` on.
    """
    from dataclasses import replace  # noqa: PLC0415

    from replicator.engine.home import has_half  # noqa: PLC0415

    rules = asked_rules(selected)
    shards = None if coding is None else parse_coding(coding)
    if rules is not None and keep_usual:
        raise UsageError("--keep-usual takes back what other --keep-... options say", hint="say one of them")
    here = has_half(session.home, "node")
    if here:
        with session.node() as half:
            half.catalog.datasets.get(name)
    if rules is not None or keep_usual:
        _set_rules(session, name, rules)
        if not here:
            session.out.result({"id": name} | _keeps(session, name), f"Snapshots of '{name}' stay by other rules now.")
            return
    with session.node() as half:
        old = half.catalog.datasets.get(name)
        policy = build_policy(
            half, old.policy, copies=copies, coding=shards, minimum=minimum, spread=spread, residency=residency
        )
        roots = _roots(paths) if paths else old.roots
        asked = consistency.change(old.consistency, stdin=not roots)
        chosen = _domain(half, domain, old.domain)
        new = replace(
            old,
            policy=policy,
            roots=roots,
            consistency=asked,
            domain=chosen,
            also_borg=also_borg_of(also_borg, roots, old.also_borg),
            **selection(roots, old, **_without_keep(selected)),
        )
        half.catalog.datasets.update(new)
        document = _document(new, half)
    session.out.result(document | _keeps(session, name), f"Dataset '{name}' is changed.")


@dataset.command("list")
@command(keys="write (a node's home)")
def dataset_list(session: Session) -> None:
    """List the datasets of this node."""
    with session.node() as half:
        rows = [_document(one, half) for one in half.catalog.datasets.all()]
    session.out.result(
        rows,
        table(
            ("NAME", "COPIES", "MINIMUM", "SPREAD", "RESIDENCY", "PATHS"),
            [
                (
                    row["name"],
                    row["coding"] or row["copies"],
                    row["minimum"],
                    ",".join(row["spread"]),
                    ",".join(row["residency"]) or "any",
                    " ".join(row["paths"]) or "(a command's output)",
                )
                for row in rows
            ],
        ),
    )


@dataset.command("show")
@click.argument("name")
@command(keys="write (a node's home)")
def dataset_show(session: Session, name: str) -> None:
    """Show one dataset."""
    with session.node() as half:
        document = _document(half.catalog.datasets.get(name), half) | _keeps(session, name)
    session.out.result(document, fields(document))


@dataset.command("remove")
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Only say what would happen.")
@command(keys="write (a node's home)")
def dataset_remove(session: Session, name: str, dry_run: bool) -> None:
    """Stop backing a dataset up. Its snapshots stay."""
    with session.node() as half:
        half.catalog.datasets.get(name)
        if not dry_run:
            half.catalog.datasets.remove(name)
    said = "Would stop" if dry_run else "Stopped"
    session.out.result({"id": name, "removed": not dry_run}, f"{said} backing up '{name}'; its snapshots stay.")


def _domain(half: "Half", name: str | None, otherwise: bytes) -> bytes:
    """Return the id of a domain that was named."""
    return otherwise if name is None else half.domain_named(name).id


def _domain_name(half: "Half", domain: bytes) -> str:
    """Return what a dataset's domain is called."""
    named = {one.id: one.name for one in half.private.domains}
    named |= {one.id: one.name for one in half.private.erased}
    return named.get(domain or half.domain_ids[0], domain.hex())


def _without_keep(selected: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in selected.items() if not name.startswith("keep_")}


def _set_rules(session: Session, name: str, rules: "KeepRules | None") -> None:
    from replicator.engine.keeping import set_rules  # noqa: PLC0415

    with session.keeper() as keeper:
        set_rules(keeper, name, rules)


def _keeps(session: Session, name: str) -> dict[str, Any]:
    """Return how long a dataset's snapshots stay, where this home decides that."""
    from replicator.engine.home import has_half  # noqa: PLC0415
    from replicator.engine.keeping import in_words, rules_for  # noqa: PLC0415

    if not has_half(session.home, "keeper"):
        return {}
    with session.keeper() as keeper:
        return {"keep": in_words(rules_for(keeper, name))}


def _promise(policy: "Policy") -> str:
    from replicator.format.policy import coding_in_words, shards_promised  # noqa: PLC0415

    whole = f"{counted(policy.copies, 'copy', 'copies')}, at least {policy.minimum}"
    if policy.coding is None:
        return whole
    shards, least = shards_promised(policy)
    return f"{coding_in_words(policy)}, {shards} shards, at least {least}; of what stays whole {whole}"


def _shards(policy: "Policy") -> dict[str, int]:
    """Return what is promised of packs that are cut, if any are."""
    from replicator.format.policy import shards_promised  # noqa: PLC0415

    return (
        {} if policy.coding is None else dict(zip(("shards", "minimum_shards"), shards_promised(policy), strict=True))
    )


def _document(one: "Dataset", half: "Half") -> dict[str, Any]:
    from replicator.format.policy import coding_in_words  # noqa: PLC0415

    return {
        "id": one.name,
        "name": one.name,
        "paths": [os.fsdecode(root) for root in one.roots],
        "domain": _domain_name(half, one.domain),
        "copies": one.policy.copies,
        "minimum": one.policy.minimum,
        "coding": coding_in_words(one.policy),
        **_shards(one.policy),
        "spread": list(one.policy.spread),
        "residency": list(one.policy.residency),
        "exclude": list(one.exclude),
        "exclude_if_present": list(one.exclude_if_present),
        "exclude_larger_than": one.exclude_larger_than,
        "keep_caches": one.keep_caches,
        "one_file_system": one.one_file_system,
        "also_borg": one.also_borg,
        "created": moment(one.created_ns),
        **consistency_document(one.consistency),
    }
