"""Secrets that are handed to a process: systemd's credentials, and files that nobody else can read."""

import os
import stat

from replicator.errors import CredentialError
from replicator.fs import exposure, way_out


def credential(name: str) -> str | None:
    """Return the path of a systemd credential of this unit, None if there is none."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    path = os.path.join(folder, name) if folder else ""
    return path if path and os.path.exists(path) else None


def read_secret(path: str, what: str) -> str:
    """Return the text of a file that nobody else can read, without the end of its line.

    Raises:
        CredentialError: it cannot be read, or is not private.
    """
    try:
        with open(path, encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            text = file.read()
    except OSError as error:
        raise CredentialError(
            f"{path}: {what} cannot be read ({error.strerror})",
            hint="name a file that holds it, and nothing else",
        ) from error
    except UnicodeDecodeError as error:
        raise CredentialError(f"{path}: not {what} but binary data", hint="name a text file") from error
    user = os.geteuid()
    # systemd gives a unit's user its credentials by an access list, which shows as a mode that lets the group read.
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    granted = folder is not None and os.path.dirname(os.path.abspath(path)) == os.path.abspath(folder)
    mode = status.st_mode & ~0o070 if granted else status.st_mode
    problem = exposure(mode, status.st_uid, user) if stat.S_ISREG(status.st_mode) else ""
    if problem:
        raise CredentialError(f"{path}: {problem}", hint=f"run: {way_out(status.st_uid, user)} {path}")
    return text.rstrip("\r\n")
