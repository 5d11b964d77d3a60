"""The ways to somebody: a command, sendmail, ntfy, and a ping that rings when it does not come.

Nothing here waits longer than :data:`LIMIT_S`, and what is raised names no address: those are secrets as a rule.
"""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from replicator.clock import Clock
from replicator.credentials import credential, read_secret
from replicator.errors import CredentialError, ReplicatorError, UsageError
from replicator.fs import Fs
from replicator.notify.telling import Message
from replicator.process import Command, Programs
from replicator.settings import CommandChannel, Handed, NotifySettings, NtfyChannel, SendmailChannel, parse_url

LIMIT_S: Final = 30.0
_TAIL: Final = 200
_GOOD: Final = range(200, 300)
_ONE_LINE: Final = 1 << 16
_PRIORITY: Final = {"red": "5", "warning": "3", "good": "2"}
_TAGS: Final = {"red": "rotating_light", "warning": "warning", "good": "white_check_mark"}
_PASSED_ON: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "CREDENTIALS_DIRECTORY")
"""All that a command sees of this program's environment."""


class ChannelError(ReplicatorError):
    """A channel did not take a message."""


class Web(Protocol):
    """Asks for web addresses."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Return the status of the answer.

        Raises:
            ChannelError: there is none.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What telling needs of the world."""

    fs: Fs
    clock: Clock
    web: Web
    programs: Programs
    environment: Mapping[str, str]


def channels(settings: NotifySettings) -> list[str]:
    """Return the names of the channels that take messages; a ping is none."""
    named = (("command", settings.command), ("sendmail", settings.sendmail), ("ntfy", settings.ntfy))
    return [name for name, channel in named if channel is not None]


def credential_names(settings: NotifySettings) -> list[str]:
    """Return the names of the systemd credentials that the channels take."""
    handed = [one.url for one in (settings.ntfy, settings.ping) if one is not None]
    if settings.ntfy is not None and settings.ntfy.token is not None:
        handed.append(settings.ntfy.token)
    return sorted({one.where for one in handed if one.where and not os.path.isabs(one.where)})


async def send(settings: NotifySettings, channel: str, message: Message, world: World) -> None:
    """Hand a message to a channel.

    Raises:
        ReplicatorError: it did not take it.
    """
    match channel:
        case "command" if settings.command is not None:
            await asyncio.to_thread(_run, settings.command, message, world)
        case "sendmail" if settings.sendmail is not None:
            await asyncio.to_thread(_mail, settings.sendmail, message, world)
        case "ntfy" if settings.ntfy is not None:
            await _ntfy(settings.ntfy, message, world)
        case _:
            raise ChannelError(f"no channel '{channel}' in [notify]")


async def ping(settings: NotifySettings, world: World, *, exit_code: int, text: str) -> None:
    """Say that a run has ended, as healthchecks.io has it: at the address if that is no alarm, else at address/fail.

    0 is done and 3 is done with named gaps, which ring by themselves once they stay.

    Raises:
        ReplicatorError: nobody took it.
    """
    if settings.ping is not None:
        url = parse_url(resolve(settings.ping.url, "the address of the ping")).rstrip("/")
        await _post(world, url if exit_code in (0, 3) else f"{url}/fail", text.encode(), {})


def resolve(value: Handed, what: str) -> str:
    """Return a value that was handed over in the file, in another file or as a systemd credential.

    Raises:
        CredentialError: it is not there, or others can read it.
    """
    if not value.where:
        return value.text
    path = value.where if os.path.isabs(value.where) else credential(value.where)
    if path is None:
        raise CredentialError(f"no systemd credential '{value.where}', which is to hold {what}", hint="LoadCredential=")
    return read_secret(path, what).strip()


def _run(channel: CommandChannel, message: Message, world: World) -> None:
    own = {name: world.environment[name] for name in _PASSED_ON if name in world.environment}
    said = {
        "REPLICATOR_SUBJECT": message.subject,
        "REPLICATOR_LEVEL": message.level,
        "REPLICATOR_CODES": " ".join(message.codes),
    }
    command = Command(argv=("/bin/sh", "-c", channel.run), environment=own | said, given=f"{message.text}\n".encode())
    _to_its_end(world, command)


def _mail(channel: SendmailChannel, message: Message, world: World) -> None:
    from email.message import EmailMessage  # noqa: PLC0415 - who only asks how things stand does not wait for it
    from email.policy import SMTP  # noqa: PLC0415 - likewise

    mail = EmailMessage(policy=SMTP)
    mail["To"] = ", ".join(channel.to)
    if channel.sender:
        mail["From"] = channel.sender
    mail["Subject"] = _one_line(message.subject)
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no answer from a holiday
    mail["X-Replicator-Codes"] = " ".join(message.codes)
    mail.set_content(message.text + "\n")
    own = {name: world.environment[name] for name in ("PATH", "HOME") if name in world.environment}
    argv = (channel.program, "-i", "-t", *(("-f", channel.sender) if channel.sender else ()))
    given = mail.as_bytes().replace(b"\r\n", b"\n")  # programs on this machine end lines as it does
    _to_its_end(world, Command(argv=argv, environment=own, given=given))


def _to_its_end(world: World, command: Command) -> None:
    ended = world.programs.run(command, limit_s=LIMIT_S, stop=lambda: False)
    if ended.by == "limit":
        raise ChannelError(f"it did not end within {LIMIT_S:.0f} s")
    if not ended.good:
        said = " ".join(ended.tail[-_TAIL:].decode("utf-8", "replace").split())
        how = f"by signal {-ended.code}" if ended.code < 0 else f"with {ended.code}"
        raise ChannelError(f"it ended {how}{f' ({said})' if said else ''}")


async def _ntfy(channel: NtfyChannel, message: Message, world: World) -> None:
    url = parse_url(resolve(channel.url, "the address of the topic"))
    headers = {
        "Title": _header(message.subject),
        "Priority": _PRIORITY[message.level],
        "Tags": ",".join((_TAGS[message.level], *message.codes)),
    }
    if channel.token is not None:
        if url.startswith("http://"):
            raise UsageError("the address begins with http://, and there is a token", hint="use https://")
        headers["Authorization"] = f"Bearer {_header(resolve(channel.token, 'the token of ntfy'))}"
    await _post(world, url, message.text.encode(), headers)


def _header(text: str) -> str:
    """Return text as one line of a header, as an encoded word (RFC 2047) if it must be."""
    from email.header import Header  # noqa: PLC0415 - as in `_mail`

    line = _one_line(text)
    return line if line.isascii() else Header(line, "utf-8", maxlinelen=_ONE_LINE).encode()


def _one_line(text: str) -> str:
    return " ".join(text.split())


async def _post(world: World, url: str, body: bytes, headers: Mapping[str, str]) -> None:
    status = await world.web.post(url, body, headers)
    if status not in _GOOD:
        raise ChannelError(f"it answered {status}")
