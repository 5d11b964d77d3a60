"""check-config: what a config.toml says, and whether it can be meant."""

import os

import click

from replicator.cli.base import Session, command
from replicator.config import format_size
from replicator.errors import HomeError, UsageError
from replicator.settings import Config, keeper_commands, read_config


@click.command("check-config")
@click.argument("file")
@command(keys="none, and no home")
def check_config(session: Session, file: str) -> None:
    """Read a config.toml as `backup`, `run` and `provider serve` do, and say all that is wrong with it.

    Of what is right it says what it declares, and what only the keeper can do so that it becomes true. Asks nobody, and
    looks at no home: meant for a build, before the file reaches the machine.
    """
    from replicator.cli.dataset import check_name  # noqa: PLC0415 - commands import what they use
    from replicator.cli.declared import declared_consistency  # noqa: PLC0415
    from replicator.snapshot.exclude import check_patterns  # noqa: PLC0415

    path = os.path.abspath(file)
    try:
        config = read_config(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise HomeError(f"{path}: there is no such file", hint="name a config.toml") from error
    for one in config.datasets:
        try:
            check_name(one.name)
            declared_consistency(one)
            check_patterns(one.exclude, [os.fsencode(root) for root in one.paths])
        except UsageError as error:
            raise HomeError(f"{path}: dataset.{one.name}: {error.message}", hint=error.hint) from error
    due = keeper_commands(config)
    session.out.result(
        {
            "file": path,
            "datasets": [{"id": one.name, "paths": list(one.paths)} for one in config.datasets],
            "peers": [{"id": one.identity.hex(), "name": one.name} for one in config.peers],
            "provider": config.provider is not None,
            "tenants": [
                {"id": one.root_key.hex(), "name": one.name, "quota": one.quota}
                for one in (config.provider.tenants if config.provider else ())
            ],
            "keeper": due,
        },
        [_summary(config), *(["", "On the keeper:", "", *(f"    {line}" for line in due)] if due else [])],
    )


def _summary(config: Config) -> str:
    parts = []
    if config.datasets:
        parts.append(f"datasets {', '.join(one.name for one in config.datasets)}")
    if config.peers:
        parts.append(f"peers {', '.join(one.name for one in config.peers)}")
    if config.provider is not None:
        offered = f"a provider of {format_size(config.provider.capacity)} in {config.provider.data}"
        for word, rate in (("takes", config.provider.down), ("gives", config.provider.up)):
            offered += f" that {word} {format_size(rate)} a second at the most" if rate else ""
        tenants = ", ".join(f"{one.name} ({format_size(one.quota)})" for one in config.provider.tenants)
        parts.append(f"{offered}, open to {tenants}" if tenants else offered)
    return f"Right: {'; '.join(parts)}." if parts else "Right: settings only."
