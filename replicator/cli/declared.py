"""Datasets that config.toml declares become those of the node, before it backs up; the rest is said in words."""

import json
import os
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from replicator.cli import exits
from replicator.cli.base import Session
from replicator.cli.consistency import Asked
from replicator.cli.dataset import also_borg_of, build_policy, check_name, selection
from replicator.errors import HomeError, ReplicatorError
from replicator.fs import write_atomic
from replicator.settings import Config, DeclaredDataset

if TYPE_CHECKING:
    from replicator.catalog.snapshots import Dataset
    from replicator.engine.node import NodeHome
    from replicator.format.consistency import Consistency

NAMES_FILE = "declared.json"
"""HOME/node: the names of datasets that config.toml declared the last time, so that what it drops is dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredPlan:
    """What has to change so that a node has the datasets that are declared, and those that were added by hand."""

    add: "tuple[Dataset, ...]"
    change: "tuple[Dataset, ...]"
    remove: tuple[str, ...]


def plan_declared(wanted: "list[Dataset]", known: "list[Dataset]", declared_before: frozenset[str]) -> DeclaredPlan:
    """Return what to add, change and remove. What was never declared is left alone, unless it is declared now."""
    names = {one.name for one in wanted}
    by_name = {one.name: one for one in known}
    return DeclaredPlan(
        add=tuple(one for one in wanted if one.name not in by_name),
        change=tuple(one for one in wanted if one.name in by_name and by_name[one.name] != one),
        remove=tuple(name for name in by_name if name in declared_before and name not in names),
    )


def apply_declared(session: Session, node: "NodeHome", config: Config) -> None:
    """Bring a node's datasets up to its config.toml and say what changed, and what only the keeper can do.

    A declared dataset that cannot be meant, or is below root's floors, stays as it was, and the run has failed; the
    others are backed up.

    Raises:
        LockedError: another run works in this home.
    """
    with node.lock():
        _apply(session, node, config)
    for line in missing_peers(config, {pin.identity for pin in node.peers}):
        session.out.notice(line)


def _apply(session: Session, node: "NodeHome", config: Config) -> None:
    path = node.file(NAMES_FILE)
    before = _declared_before(node, path)
    known = {one.name: one for one in node.catalog.datasets.all()}
    wanted = []
    for declared in config.datasets:
        old = known.get(declared.name)
        try:
            wanted.append(_dataset(session, node, declared, old))
        except ReplicatorError as error:
            session.worsen(exits.FAILED)
            session.out.notice(f"dataset.{declared.name} in config.toml: {error.message}; {error.hint}")
            wanted += [] if old is None else [old]
    plan = plan_declared(wanted, list(known.values()), before)
    names = sorted(one.name for one in config.datasets)
    # The names first: stopped in between, what is dropped later is still known to have been declared.
    if names != sorted(before):
        write_atomic(node.fs, path, json.dumps(sorted({*names, *plan.remove})).encode())
    for one in plan.add:
        node.catalog.datasets.add(one)
        session.out.notice(f"dataset '{one.name}' is new, by config.toml")
    for one in plan.change:
        node.catalog.datasets.update(one)
        session.out.notice(f"dataset '{one.name}' is changed, by config.toml")
    for name in plan.remove:
        node.catalog.datasets.remove(name)
        session.out.notice(f"dataset '{name}' is not in config.toml any more and no longer backed up; snapshots stay")
    if plan.remove:
        write_atomic(node.fs, path, json.dumps(names).encode())


def _declared_before(node: "NodeHome", path: str) -> frozenset[str]:
    if node.fs.size(path) is None:
        return frozenset()
    try:
        return frozenset(map(str, json.loads(node.fs.read(path))))
    except (ValueError, TypeError) as error:
        raise HomeError(
            f"{path}: damaged ({error})", hint="remove it: then no dataset is dropped that the file does not have"
        ) from error


def missing_peers(config: Config, pinned: set[bytes]) -> list[str]:
    """Return what to do on the keeper for each declared peer that is not in the charter."""
    return [
        f"peer '{peer.name}' is declared and not in the charter; on the keeper: "
        f"replicator peer add {shlex.quote(peer.address)}"
        for peer in config.peers
        if peer.identity not in pinned
    ]


def declared_consistency(declared: DeclaredDataset) -> "Consistency":
    """Return what a declared dataset's hooks and snapshot are.

    Raises:
        UsageError: a command or a limit that cannot be meant.
    """
    from replicator.format.consistency import Consistency  # noqa: PLC0415 - commands import what they use

    asked = Asked(
        before=declared.before,
        after=declared.after,
        limit=declared.hook_timeout,
        failure=declared.hook_failure,
        snapshot=declared.snapshot,
    )
    return asked.change(Consistency(), stdin=False)


def _dataset(session: Session, node: "NodeHome", declared: DeclaredDataset, old: "Dataset | None") -> "Dataset":
    from replicator.catalog.snapshots import Dataset  # noqa: PLC0415 - commands import what they use

    check_name(declared.name)
    roots = tuple(os.fsencode(os.path.normpath(path)) for path in declared.paths)
    said: dict[str, Any] = {
        "roots": roots,
        "policy": build_policy(
            node,
            old.policy if old else None,
            copies=declared.copies,
            # Unchanged, it is as what is not said: who has left since then is for `status` to tell.
            coding=None if old is not None and old.policy.coding == declared.coding else declared.coding,
            minimum=declared.minimum,
            spread=None if declared.spread is None else ",".join(declared.spread),
            residency=None if declared.residency is None else ",".join(declared.residency),
        ),
        "consistency": declared_consistency(declared),
        "also_borg": also_borg_of(declared.also_borg, roots, ""),
        **selection(
            roots,
            None,
            exclude=declared.exclude,
            exclude_from=(),
            include=(),
            exclude_if_present=declared.exclude_if_present,
            exclude_larger_than=declared.exclude_larger_than,
            skip_caches=not declared.keep_caches,
            one_file_system=declared.one_file_system,
        ),
    }
    if old is not None:
        return replace(old, **said)
    return Dataset(name=declared.name, created_ns=session.clock.now_ns(), **said)
