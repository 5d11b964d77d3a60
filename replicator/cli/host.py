"""host new|identity: the keys of a machine that is to be set up, and what the roster says of it."""

import base64
import os
import re
import shlex

import click

from replicator.cli.base import Session, command, common_options, read_stdin
from replicator.config import parse_name, parse_size
from replicator.credentials import read_secret
from replicator.endpoints import split_endpoint
from replicator.errors import FormatError, HomeError, KeyWrongError, UsageError
from replicator.fs import Fs
from replicator.ids import address_form

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
LUKS_BYTES = 64
"""As many random bytes as a LUKS2 master key has at most; written as text, so that they can also be typed."""


@click.group()
@common_options
def host() -> None:
    """Machines that are to be set up: their keys, and their place in the roster."""


@host.command("new")
@click.argument("name")
@click.option("--out", default=".", show_default=True, metavar="DIR", help="Where the key files are written.")
@click.option("--address", help="Its address inside the mesh: 10.7.0.9 or fd12::9.")
@click.option("--endpoint", metavar="HOST:PORT", help="Where its WireGuard is reached from outside; none behind a NAT.")
@click.option("--capacity", metavar="SIZE", help="What it offers to others: 500G; none if it is no provider.")
@click.option("--owner", help="Whose it is.")
@click.option("--site", help="The house or room.")
@click.option("--region", help="A part of the country that a disaster would hit as a whole.")
@click.option("--country", help="Two-letter code.")
@command(keys="none; makes the host's keys")
def new(
    session: Session,
    name: str,
    out: str,
    address: str | None,
    endpoint: str | None,
    capacity: str | None,
    owner: str | None,
    site: str | None,
    region: str | None,
    country: str | None,
) -> None:
    """Write the keys of a new host, each a file that only you can read, and print its stanza for the roster.

    NAME.identity is who it is as a provider, NAME.wireguard its key in the mesh, NAME.luks opens its disks. Bring them
    to the host by your own secrets' way (sops, agenix, nixos-anywhere --extra-files), and never into a repository as
    they are. The stanza has public halves only.
    """
    from replicator.crypto.sign import SigningKey  # noqa: PLC0415 - commands import what they use
    from replicator.crypto.wireguard import new_private, public_of  # noqa: PLC0415
    from scheduler import RosterError, country_code  # noqa: PLC0415

    if not _NAME.fullmatch(name):
        raise UsageError(f"'{name}' cannot be a host's name", hint="small letters, digits and - inside, as in DNS")
    said = {"address": address, "endpoint": endpoint, "capacity": capacity}
    fields = {key: value for key, value in said.items() if value is not None}
    try:
        if address is not None:
            _check_address(address)
        if endpoint is not None:
            split_endpoint(endpoint)
        if capacity is not None and not parse_size(capacity):
            raise UsageError(f"a capacity of '{capacity}' is nothing", hint="write it like 500G, or leave it out")
        for key, value in (("owner", owner), ("site", site), ("region", region)):
            if value is not None:
                fields[key] = parse_name(value, f"its {key}")
        if country is not None:
            fields["country"] = country_code(country)
    except (ValueError, RosterError) as error:
        raise UsageError(str(error), hint="`replicator host new --help` says what is meant") from error
    if capacity is not None:
        missing = [key for key in ("owner", "site", "region", "country") if key not in fields]
        if missing:
            raise UsageError(
                f"a provider says where it is, and {', '.join(missing)} is missing",
                hint="give " + ", ".join(f"--{key}" for key in missing),
            )
    folder = os.path.abspath(out)
    identity = SigningKey(session.rng.bytes(32))
    tunnel = new_private(session.rng)
    files = {
        "identity": identity.seed().hex(),
        "wireguard": base64.b64encode(tunnel).decode(),
        "luks": base64.b64encode(session.rng.bytes(LUKS_BYTES)).decode(),
    }
    written = _write_keys(session.fs, folder, name, files)
    public = {
        "identity": address_form(identity.identity),
        "wireguard": base64.b64encode(public_of(tunnel)).decode(),
    }
    stanza = "\n".join([f"[host.{name}]", *(f"{key} = {_toml(value)}" for key, value in (public | fields).items())])
    session.out.result(
        {"id": identity.identity.hex(), "name": name, **public, **fields, "files": written, "stanza": stanza + "\n"},
        stanza,
    )
    session.out.notice(f"its keys: {' '.join(shlex.quote(path) for path in written)}")


@host.command("identity")
@click.argument("file")
@command(keys="none; reads the one file")
def identity_(session: Session, file: str) -> None:
    """Print the identity of the private key in FILE (NAME.identity): what the roster and other hosts know of it.

    FILE "-" reads standard input, so that a key which a secrets' tool decrypts need not lie on a disk.
    """
    from replicator.crypto.sign import SigningKey  # noqa: PLC0415 - commands import what they use

    text = read_stdin().strip() if file == "-" else read_secret(os.path.abspath(file), "the key of this host")
    try:
        key = SigningKey(bytes.fromhex(text))
    except (ValueError, FormatError) as error:
        raise KeyWrongError(
            f"{file}: not the key of a host", hint="it is one line of 64 digits, as `replicator host new` wrote it"
        ) from error
    session.out.result({"id": key.identity.hex(), "identity": address_form(key.identity)}, address_form(key.identity))


def _check_address(text: str) -> None:
    import ipaddress  # noqa: PLC0415 - used here alone

    ipaddress.ip_address(text)


def _write_keys(fs: Fs, folder: str, name: str, files: dict[str, str]) -> list[str]:
    """Write all of them or, if one is there already, none.

    Raises:
        HomeError: one is there already, or the folder takes none.
    """
    paths = {os.path.join(folder, f"{name}.{kind}"): text for kind, text in files.items()}
    for path in paths:
        if os.path.lexists(path):
            raise HomeError(
                f"{path}: is there already", hint="a key is never overwritten: move it, or use another --out"
            )
    try:
        fs.makedirs(folder)
        for path, text in paths.items():
            handle = fs.create(path)
            try:
                handle.write(text.encode() + b"\n")
                handle.fsync()
            finally:
                handle.close()
        fs.fsync_dir(folder)
    except OSError as error:
        raise HomeError(
            f"{folder}: the keys cannot be written ({error.strerror})", hint="choose another --out"
        ) from error
    return list(paths)


def _toml(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
