"""domain add|list."""

import click

from replicator.cli.base import Session, command, common_options, wait
from replicator.cli.dataset import check_name
from replicator.cli.output import moment, table


@click.group()
@common_options
def domain() -> None:
    """Parts of a tenant that share no chunk, each with a restore key of its own."""


@domain.command("add")
@click.argument("name")
@command(keys="owner")
def domain_add(session: Session, name: str) -> None:
    """Make a domain. Nodes and maintainers are given its keys by the next charter that they see.

    A drill host that is to read it is revoked and joins anew. Datasets are put into it by `dataset add --domain NAME`.
    """
    from replicator.engine.domains import add_domain  # noqa: PLC0415 - commands import what they use

    check_name(name)
    with session.edge() as edge, session.keeper() as keeper, session.siblings() as siblings:
        added = wait(add_domain(keeper, siblings, edge, name))
    for notice in added.notices:
        session.out.notice(notice)
    session.out.result(
        {"id": added.id.hex(), "name": added.name},
        f"Domain '{name}' is made. On a node: replicator dataset add NAME PATH --domain {name}",
    )


@domain.command("list")
@command(keys="none beyond being a member")
def domain_list(session: Session) -> None:
    """List the tenant's domains, and whether this home has their keys."""
    with session.member() as half:
        rows = [
            {
                "id": one.id.hex(),
                "name": one.name,
                "epoch": one.epoch,
                "here": one.id in half.domain_ids,
                "erased": "",
            }
            for one in half.private.domains
        ]
        rows += [
            {"id": one.id.hex(), "name": one.name, "epoch": 0, "here": False, "erased": moment(one.erased_ns)}
            for one in half.private.erased
        ]
    session.out.result(
        rows,
        table(
            ("NAME", "ID", "EPOCH", "KEYS HERE", "ERASED"),
            [
                (row["name"], str(row["id"])[:12], row["epoch"] or "", "yes" if row["here"] else "no", row["erased"])
                for row in rows
            ],
        ),
    )
