"""borg import|export."""

import os
from typing import TYPE_CHECKING, Any

import click

from replicator.cli import exits
from replicator.cli.base import Session, as_error, command, common_options, wait_in_order
from replicator.cli.output import moment
from replicator.config import counted, format_size, parse_name
from replicator.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from replicator.catalog.snapshots import Dataset
    from replicator.engine.borg import Archive, Borg
    from replicator.engine.borgexport import ExportedArchive
    from replicator.engine.browse import Library
    from replicator.engine.edge import Edge
    from replicator.engine.home import Half
    from replicator.engine.importing import ImportedArchive, ImportReport
    from replicator.engine.node import NodeHome
    from replicator.process import Stop
    from replicator.settings import Config

_SHOWN = 20
_ENCRYPTIONS = (
    "repokey",
    "repokey-blake2",
    "keyfile",
    "keyfile-blake2",
    "authenticated",
    "authenticated-blake2",
    "none",
)
_BASE = "borg"
"""Where borg keeps what it must remember, in a home, if its user has no place for that."""


@click.group()
@common_options
def borg() -> None:
    """BorgBackup: bring archives along, take snapshots with you.

    Borg is found on PATH. Its passphrase comes from BORG_PASSPHRASE, BORG_PASSCOMMAND or BORG_PASSPHRASE_FD.
    """


@borg.command("import")
@click.argument("repository", metavar="REPO")
@click.option("--archive", metavar="GLOB", help="Only archives whose names match.")
@click.option("--dataset", metavar="NAME", help="One dataset for all; else each archive's name up to the date in it.")
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="A further tag; `keep` holds them for ever.")
@click.option("--staging", metavar="DIR", help="Where archives are extracted; must hold the largest of each series.")
@click.option("--dry-run", is_flag=True, help="Only say which archives would be imported, and as what.")
@command(keys="owner (keeper): an import is a writer of its own", run="borg import")
def borg_import(
    session: Session,
    repository: str,
    archive: str | None,
    dataset: str | None,
    tags: tuple[str, ...],
    staging: str | None,
    dry_run: bool,
) -> None:
    """Make a snapshot of every archive of a Borg repository, with its own time, host, owners and names.

    REPO is as borg takes it, also over ssh; nothing is written to it. Run as root: any other user cannot give files to
    whom they belong. A run that was stopped goes on where it was, and a later one brings what is new.
    """
    from replicator.engine.borg import environment_of  # noqa: PLC0415 - commands import what they use
    from replicator.engine.importing import chosen, home_of, import_archives, writer_left  # noqa: PLC0415

    words = [parse_name(tag, "a tag") for tag in tags]
    if dataset is not None:
        from replicator.cli.dataset import check_name  # noqa: PLC0415

        check_name(dataset)
    config = _config(session)
    with session.keeper() as keeper, session.siblings() as siblings, session.edge() as edge:
        environment = environment_of(edge.environment)

        def make(stop: "Stop") -> "Borg":
            return _borg(session, edge, repository, environment, stop, reads=True)

        tool = make(lambda: False)
        tool.version()
        edge.progress.stage("reading what the repository has")
        found = tool.look()
        archives = chosen(found, archive)
        home = home_of(session.home, found)
        if not archives:
            raise UsageError(f"{repository}: no archive matches", hint="`borg list REPO` says what there is")
        if dry_run:
            _plan(session, archives, home, dataset)
            return
        keeper.owner()
        staged = os.path.abspath(staging) if staging else os.path.join(config.cache or home, "staging")

        def open_node() -> "NodeHome":
            return _node(session, home, config)

        work = import_archives(
            keeper,
            siblings,
            edge,
            make,
            found,
            archives,
            home=home,
            open_node=open_node,
            dataset_of=lambda name: _dataset(keeper, siblings, edge, name),
            series=dataset,
            staging=os.path.join(staged, f"borg-{found.id[:16]}"),
            tags=words,
            privileged=os.geteuid() == 0,
            readers=os.cpu_count() or 1,
        )
        try:
            report = wait_in_order(work)
        finally:
            # However it ended: nobody else says of a writer that nobody runs that it is waited for.
            _say_left(session, lambda: writer_left(keeper, home, open_node))
    _take(session, report)
    session.out.result(_document(report), _text(report))


def _say_left(session: Session, left_of: "Callable[[], str]") -> None:
    """Say who can write still. Called where something else may be under way, so that what fails here is said too."""
    try:
        left = left_of()
    except Exception as error:  # whatever it is, it must not take the place of why the import ended
        session.out.notice(
            f"whether the import's own node can write still is not known: {as_error(error)}; `replicator node list` "
            "tells, and until its right is taken away `prune` waits for it"
        )
        session.worsen(exits.GAPS)
        return
    if left:
        session.out.notice(
            f"'{left}' can write until all is in, and `prune` waits for it: run the import again, or take its "
            f"right away with `replicator node revoke '{left}'` (a later import gets another by itself)"
        )


@borg.command("export")
@click.argument("snapshot")
@click.option("--repo", "repository", required=True, metavar="REPO", help="Where to, as borg takes it.")
@click.option(
    "--init", "encryption", type=click.Choice(_ENCRYPTIONS), help="Make REPO, so encrypted, if it is not there."
)
@click.option("--archive", metavar="NAME", help="What the archive is called; else DATASET-TIME.")
@click.option("--staging", metavar="DIR", help="Where the snapshot is restored first; must hold all of it.")
@command(keys="restore (keeper)", run="borg export")
def borg_export(
    session: Session, snapshot: str, repository: str, encryption: str | None, archive: str | None, staging: str | None
) -> None:
    """Write a snapshot into a Borg repository, as an archive with the snapshot's time.

    SNAPSHOT: id prefix, latest, latest:DATASET, DATASET@2026-11-17. Run as root: any other user's restore lacks owners,
    and so does what is made of it. Exported again under the same name, it is there already.
    """
    from replicator.cli.browse import take_restore, with_library  # noqa: PLC0415
    from replicator.engine.borg import environment_of  # noqa: PLC0415
    from replicator.engine.borgexport import export_to_borg  # noqa: PLC0415

    folder = os.path.abspath(staging or os.path.join(_config(session).cache or session.home, "staging"))

    async def work(library: "Library", edge: "Edge") -> "ExportedArchive":
        environment = environment_of(edge.environment)
        found = await library.find(snapshot)
        return await export_to_borg(
            library,
            edge,
            found,
            lambda stop: _borg(session, edge, repository, environment, stop, reads=False),
            name=archive,
            encryption=encryption,
            staging=f"{folder}/export-{found.id[:16]}",
            privileged=os.geteuid() == 0,
            writers=os.cpu_count() or 1,
        )

    done = with_library(session, work, in_order=True)
    for said in done.warnings:
        session.out.notice(f"borg: {said.text}")
        session.worsen(exits.GAPS)
    document: dict[str, Any] = {"archive": done.name, "already": done.already}
    if done.restored is None:
        session.out.result(
            {"id": done.snapshot.id, **document},
            f"Archive '{done.name}' has snapshot {done.snapshot.id[:12]} already.",
        )
        return
    take_restore(session, done.restored)
    document |= {
        "dataset": done.snapshot.details.dataset,
        "time": moment(done.snapshot.row.created_ns),
        "files": done.restored.files,
        "bytes": done.restored.bytes,
        "gaps": [{"id": path, "reason": reason} for path, reason in done.restored.gaps],
    }
    session.out.result(
        {"id": done.snapshot.id, **document},
        f"Exported {counted(done.restored.files, 'file')} ({format_size(done.restored.bytes)}) to archive "
        f"'{done.name}'.",
    )


def _config(session: Session) -> "Config":
    from replicator.settings import load_config  # noqa: PLC0415

    return load_config(session.home)


def _borg(
    session: Session,
    edge: "Edge",
    repository: str,
    environment: "Mapping[str, str]",
    stop: "Stop",
    *,
    reads: bool,
) -> "Borg":
    from replicator.engine.borg import Borg, place_of  # noqa: PLC0415

    return Borg(
        place_of(repository),
        programs=edge.programs,
        environment=environment,
        home=os.path.join(session.home, _BASE),
        stop=stop,
        reads=reads,
    )


def _node(session: Session, home: str, config: "Config") -> "NodeHome":
    from replicator.engine.node import NodeHome  # noqa: PLC0415

    name = os.path.basename(home)
    return NodeHome(
        home,
        session.fs,
        spool_path=os.path.join(config.spool, "imports", name) if config.spool else None,
        cache_path=os.path.join(config.cache, "imports", name) if config.cache else None,
    )


def _dataset(keeper: "Half", siblings: "list[Half]", edge: "Edge", name: str) -> "Dataset":
    """Return the dataset that archives of a series belong to: with what is promised for one that is called so here."""
    from replicator.catalog.snapshots import Dataset  # noqa: PLC0415
    from replicator.cli.dataset import build_policy  # noqa: PLC0415

    known = {one.name: one for half in siblings for one in half.catalog.datasets.all()}.get(name)
    policy = build_policy(
        keeper, None if known is None else known.policy, copies=None, minimum=None, spread=None, residency=None
    )
    return Dataset(
        name=name,
        roots=(),
        policy=policy,
        exclude=(),
        one_file_system=False,
        keep_caches=True,
        created_ns=edge.clock.now_ns(),
        domain=b"" if known is None else known.domain,
    )


def _plan(session: Session, archives: "Sequence[Archive]", home: str, dataset: str | None) -> None:
    from replicator.engine.home import has_half  # noqa: PLC0415
    from replicator.engine.importing import imported, series_of  # noqa: PLC0415

    known: set[str] = set()
    if has_half(home, "node"):
        node = _node(session, home, _config(session))
        try:
            known = imported(node)
        finally:
            node.close()
    rows = [
        {
            "id": one.id,
            "archive": one.name,
            "time": moment(one.start_ns),
            "dataset": dataset or series_of(one),
            "imported": one.id in known,
        }
        for one in archives
    ]
    session.out.result(
        rows,
        [
            f"{row['time']}  {row['archive']} -> {row['dataset']}" + (" (is in)" if row["imported"] else "")
            for row in rows
        ],
    )


def _take(session: Session, report: "ImportReport") -> None:
    """Say what did not come along, and take over the exit code."""
    from replicator.engine.importing import on_one_line  # noqa: PLC0415 - commands import what they use

    if report.encryption == "none":
        session.out.notice("the repository is not encrypted: whoever can write there can have changed what it says")
    for one in report.archives:
        _take_archive(session, one)
    for left in report.left:
        session.out.notice(f"not come to: {on_one_line(left.name)}")
    backup = report.backup
    for notice in (*report.notices, *backup.notices, *backup.unreachable):
        session.out.notice(notice)
    for problem in backup.integrity:
        session.out.notice(f"INTEGRITY: {problem}")
        session.worsen(exits.INTEGRITY)
    if report.left:
        session.worsen(exits.FAILED)


def _take_archive(session: Session, one: "ImportedArchive") -> None:
    from replicator.engine.importing import on_one_line  # noqa: PLC0415 - commands import what they use

    name = on_one_line(one.archive.name)
    if one.error is not None:
        code = exits.code_of(one.error)
        session.worsen(exits.FAILED if code == exits.USAGE else code)
        session.out.notice(f"{name}: {one.error.message}")
        if one.error.hint:
            session.out.notice(f"  {one.error.hint}")
    if one.broken:
        session.out.notice(
            f"INTEGRITY: {name}: {counted(one.broken, 'file is', 'files are')} damaged in the repository (`borg check`)"
        )
        session.worsen(exits.INTEGRITY)
    for what, count in one.lacking.items():
        session.out.notice(
            f"{name}: {counted(count, 'name')} came without {'its' if count == 1 else 'their'} {what}; "
            "root could set it"
        )
        session.worsen(exits.GAPS)
    for said in one.warnings[:_SHOWN]:
        session.out.notice(f"{name}: borg: {on_one_line(said.text)}")
    if one.warnings:
        session.worsen(exits.GAPS)
    if one.report is None:
        return
    for path, reason in one.report.gaps[:_SHOWN]:
        session.out.notice(f"{name}: {path}: {reason}")
    if len(one.report.gaps) > _SHOWN:
        session.out.notice(f"{name}: ... and {counted(len(one.report.gaps) - _SHOWN, 'more gap')}")
    for debt in (*one.report.debts, *one.report.owed):
        session.out.notice(f"{name}: owed: {debt}")
    if one.report.gaps or one.report.debts or one.report.owed:
        session.worsen(exits.GAPS)


def _document(report: "ImportReport") -> dict[str, Any]:
    return {
        "repository": report.repository,
        "encryption": report.encryption,
        "node": report.node,
        "already": report.already,
        "ended": report.ended,
        "archives": [
            {
                "id": one.archive.id,
                "archive": one.archive.name,
                "time": moment(one.archive.start_ns),
                "dataset": one.dataset,
                "snapshot": one.report.snapshot.name.hex() if one.report and one.report.snapshot else None,
                "published": one.report is not None and one.report.published,
                "items": one.items,
                "extracted": one.extracted,
                "bytes": one.report.bytes if one.report else 0,
                "bytes_read": one.report.bytes_read if one.report else 0,
                "stored_bytes": one.report.stored_bytes if one.report else 0,
                "gaps": [{"id": path, "reason": reason} for path, reason in (one.report.gaps if one.report else ())],
                "damaged": one.broken,
                "lacking": dict(one.lacking),
                "warnings": [said.text for said in one.warnings],
                "error": one.error.message if one.error else None,
            }
            for one in report.archives
        ],
        "finished": [{"id": one.id, "archive": one.name} for one in report.finished],
        "left": [{"id": one.id, "archive": one.name} for one in report.left],
        "sent_bytes": report.backup.sent_bytes,
        "seconds": round(report.backup.seconds, 3),
    }


def _text(report: "ImportReport") -> list[str]:
    from replicator.engine.importing import on_one_line  # noqa: PLC0415 - commands import what they use

    lines = []
    for one in report.archives:
        done, name = one.report, on_one_line(one.archive.name)
        if done is None or done.snapshot is None or not done.published:
            lines.append(f"{name}: NOT imported")
            continue
        lines.append(
            f"{name}: {one.dataset}, {moment(one.archive.start_ns)}, {counted(done.files, 'file')}, "
            f"{format_size(done.bytes)}; extracted {one.extracted} of {counted(one.items, 'name')}, read "
            f"{format_size(done.bytes_read)}; snapshot {done.snapshot.name.hex()[:12]}"
        )
    lines += [f"{on_one_line(one.name)}: extracted by an earlier run, published now" for one in report.finished]
    whole = sum(1 for one in report.archives if one.error is None) + len(report.finished)
    lines.append(f"{counted(whole, 'archive')} imported, {counted(report.already, 'was', 'were')} in before.")
    if report.archives:
        names = sorted({one.dataset for one in report.archives})
        lines.append(
            f"`forget` treats them as any other snapshot: by the rules of {', '.join(names)} (`dataset set NAME "
            "--keep-...`); see what would go with `forget --dry-run`."
        )
    return lines
