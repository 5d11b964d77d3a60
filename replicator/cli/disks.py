"""provider move: a provider's objects on another disk."""

import os
from typing import TYPE_CHECKING

import click

from replicator.cli import exits
from replicator.cli.base import Session, command
from replicator.config import config_path, counted, format_size
from replicator.errors import HomeError, LockedError, UsageError

if TYPE_CHECKING:
    from replicator.provider.home import Provider
    from replicator.provider.moving import Copied


@click.command("move")
@click.option("--data", required=True, metavar="DIR", help="The new folder: empty, or not there yet.")
@click.option("--remove-old", is_flag=True, help="Delete the old folder's objects, each once the new one was read.")
@click.option("--forget-old", is_flag=True, help="Old folders are no more (a disk was destroyed): deletes nothing.")
@click.option("--dry-run", is_flag=True, help="Only say what would be copied, or deleted.")
@command(keys="provider identity")
def move(session: Session, data: str, *, remove_old: bool, forget_old: bool, dry_run: bool) -> None:
    """Move the objects to another disk; stopped anywhere, the same command goes on.

    The daemon may run while most is copied, each object compared with its name. For the end it has to be stopped: run
    the same command again then, which takes minutes. The old folder stays as it is, under another name for its store,
    until --remove-old deletes each object in it whose copy was read and is good. Receipts go on counting.

    A tenant that is erased is erased in old folders too. While the disk of one is not there, that cannot be said to be
    done; --forget-old is your word that the disk is no more.
    """
    from replicator.provider.daemon import only_daemon  # noqa: PLC0415 - commands import what they use
    from replicator.provider.home import open_provider  # noqa: PLC0415

    if remove_old and forget_old:
        raise UsageError(
            "--forget-old is for a disk that is no more, --remove-old empties one", hint="give one of the two"
        )
    opened = open_provider(session.home, fs=session.fs, clock=session.clock, rng=session.rng)
    try:
        moving = opened.move_to(data)
        if remove_old or forget_old:
            _must_have_moved(opened, os.path.abspath(data), "forgotten" if forget_old else "deleted")
            if forget_old:
                _forget_old(session, opened, dry_run=dry_run)
            else:
                _remove_old(session, opened, dry_run=dry_run)
            return
        if opened.data == os.path.abspath(data):
            if not dry_run:
                moving.settle()
            session.out.result(
                {"data": opened.data, "moved_from": opened.moved_from, "switched": True},
                f"The objects lie in {opened.data}; copies still in {', '.join(opened.old_folders)} ({_LET_GO}).",
            )
            return
        plan = moving.plan()
        document = {
            "data": plan.target,
            "moved_from": plan.source,
            "objects": plan.objects,
            "bytes": plan.size,
            "left_objects": plan.left_objects,
            "left_bytes": plan.left,
            "room": plan.room,
            "switched": False,
        }
        what = (
            f"{plan.left_objects} of {counted(plan.objects, 'object')}, {format_size(plan.left)} of "
            f"{format_size(plan.size)},"
        )
        if dry_run:
            room = f"there is room for {format_size(plan.room)}"
            session.out.result(document, f"Would copy {what} from {plan.source} to {plan.target}; {room}.")
            return
        _must_agree(session, plan.target)
        session.out.notice(f"copies {what} to {plan.target}")
        done = moving.copy()
        try:
            with only_daemon(opened.folder):
                rest = moving.finish()
        except LockedError:
            session.worsen(exits.GAPS)
            session.out.result(
                document | _copied(done),
                [
                    (
                        f"{counted(done.objects, 'object is', 'objects are')} copied, {format_size(done.size)}, "
                        "and nothing is switched yet."
                    ),
                    "Stop the daemon and run the same command again: it copies what came meanwhile, and switches.",
                ],
            )
            return
        if rest.damaged:
            session.worsen(exits.INTEGRITY)
            session.out.notice(
                f"INTEGRITY: {counted(len(rest.damaged), 'damaged object was', 'damaged objects were')} set aside: the "
                "tenants see it and store such objects again"
            )
        done.objects, done.size = done.objects + rest.objects, done.size + rest.size
        done.damaged, done.removed = rest.damaged, rest.removed
    finally:
        opened.close()
    session.out.result(
        document | _copied(done) | {"left_objects": 0, "left_bytes": 0, "switched": True},
        [
            (
                f"The objects lie in {plan.target} now; {counted(done.objects, 'was', 'were')} copied by this "
                f"run, {format_size(done.size)}."
            ),
            f"Copies still lie in {plan.source}, which is no store any more; later {_LET_GO}.",
            "If `replicator service install` wrote the unit, run it again: the unit names the folders it may write to.",
        ],
    )


_LET_GO = "`replicator provider move --data DIR --remove-old` with the new DIR deletes them"


def _copied(done: "Copied") -> dict[str, object]:
    return {
        "copied_objects": done.objects,
        "copied_bytes": done.size,
        "removed": done.removed,
        "damaged": [{"id": name.hex(), "tenant": tenant.hex()} for tenant, name in done.damaged],
    }


def _must_have_moved(opened: "Provider", target: str, what: str) -> None:
    """Make sure that ``target`` is where the objects lie.

    Raises:
        UsageError: it is where they lay before.
        HomeError: the move there is not at its end, or did not begin.
    """
    if opened.data == target:
        return
    if target in opened.old_folders:
        raise UsageError(f"the objects lie in {opened.data}", hint="give that with --data")
    raise HomeError(
        f"nothing was {what}: the objects still lie in {opened.data}",
        hint="end the move first: stop the daemon, and run `replicator provider move` with this --data alone",
    )


def _must_agree(session: Session, target: str) -> None:
    """Make sure that config.toml does not send the daemon back.

    Raises:
        UsageError: it names another folder.
    """
    from replicator.settings import load_config  # noqa: PLC0415 - commands import what they use

    declared = load_config(session.home).provider
    if declared is not None and os.path.abspath(declared.data) != target:
        raise UsageError(
            f"{config_path(session.home)} says that the objects lie in {declared.data}",
            hint=f"write {target} there (provider.data), then run this again; the daemon need not be started for it",
        )


def _forget_old(session: Session, opened: "Provider", *, dry_run: bool) -> None:
    folders = opened.old_folders if dry_run else opened.forget_old()
    word = "would be" if dry_run else "are"
    session.out.result(
        {"forgotten": folders, "dry_run": dry_run},
        f"Copies in {', '.join(folders)} {word} forgotten. What lies there still stays, of erased tenants too.",
    )


def _remove_old(session: Session, opened: "Provider", *, dry_run: bool) -> None:
    from replicator.provider.moving import Copied  # noqa: PLC0415 - commands import what they use

    folders = opened.old_folders
    source = ", ".join(folders)
    done = Copied()
    for folder in folders:
        gone = opened.move_to(opened.data, source=folder).remove_old(opened.is_stored, dry_run=dry_run)
        done.objects, done.size, done.kept = done.objects + gone.objects, done.size + gone.size, done.kept + gone.kept
    if done.kept:
        session.worsen(exits.INTEGRITY)
        session.out.notice(
            f"INTEGRITY: {counted(done.kept, 'object is', 'objects are')} not, or not good, in the new folder; the old "
            "one's stay. Stop the daemon, copy them over, start it again; or let their tenants store them anew"
        )
    word = "would be deleted" if dry_run else "deleted"
    session.out.result(
        {
            "moved_from": folders[-1],
            "folders": folders,
            "removed": done.objects,
            "removed_bytes": done.size,
            "kept": done.kept,
            "dry_run": dry_run,
        },
        f"{counted(done.objects, 'object')}, {format_size(done.size)}, {word} in {source}; {done.kept} kept.",
    )
