"""The ways to somebody, each on the real thing it speaks to: a shell, a program that takes mail, a server."""

import datetime
import email
import os
import ssl
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from email import policy
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from replicator.errors import CredentialError, UsageError
from replicator.fs import PosixFs
from replicator.notify.alarms import Alarm
from replicator.notify.channels import ChannelError, World, channels, ping, resolve, send
from replicator.notify.memory import FILE, Memory, load
from replicator.notify.teller import Teller
from replicator.notify.telling import Message
from replicator.notify.web import HttpWeb
from replicator.process import SystemPrograms
from replicator.settings import (
    CommandChannel,
    Handed,
    NotifySettings,
    NtfyChannel,
    PingChannel,
    SendmailChannel,
)
from tests.fakes import FakeClock

MESSAGE = Message(
    subject="attic: björkby\nis stale", text="What happened.\nå", level="red", codes=("data.stale", "x.y")
)
STALE = Alarm(code="data.stale", about="dataset photos", what="photos: old", todo="look")


@dataclass
class FakeWeb:
    """Answers what it is told to, and keeps what it was asked."""

    status: int = 200
    error: ChannelError | None = None
    asked: list[tuple[str, bytes, dict[str, str]]] = field(default_factory=list)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        self.asked.append((url, body, dict(headers)))
        if self.error is not None:
            raise self.error
        return self.status


def world(fake: FakeWeb | None = None, **environment: str) -> World:
    return World(
        fs=PosixFs(),
        clock=FakeClock(),
        web=fake or FakeWeb(),
        programs=SystemPrograms(),
        environment={"PATH": os.environ["PATH"], "SECRET": "of this program", **environment},
    )


async def test_a_command_gets_the_text_on_standard_input_and_no_secrets_of_ours(tmp_path: Path) -> None:
    run = f"cat > {tmp_path}/text; env > {tmp_path}/env"
    await send(NotifySettings(command=CommandChannel(run=run)), "command", MESSAGE, world())
    assert (tmp_path / "text").read_text() == MESSAGE.text + "\n"
    said = (tmp_path / "env").read_text()
    assert "REPLICATOR_LEVEL=red" in said
    assert "REPLICATOR_CODES=data.stale x.y" in said
    assert "of this program" not in said


async def test_a_command_that_fails_is_said_with_its_last_words() -> None:
    settings = NotifySettings(command=CommandChannel(run="echo no such modem >&2; exit 3"))
    with pytest.raises(ChannelError, match=r"it ended with 3 \(no such modem\)"):
        await send(settings, "command", MESSAGE, world())


async def test_a_command_that_reads_nothing_of_a_long_text_does_not_hang() -> None:
    long = Message(subject="s", text="x" * (1 << 21), level="red")
    await send(NotifySettings(command=CommandChannel(run="true")), "command", long, world())


async def test_sendmail_gets_a_message_that_mail_programs_read(tmp_path: Path) -> None:
    program = tmp_path / "sendmail"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/args\ncat > {tmp_path}/mail\n')
    program.chmod(0o755)
    channel = SendmailChannel(to=("a@example.org", "b@example.org"), sender="c@example.org", program=str(program))
    await send(NotifySettings(sendmail=channel), "sendmail", MESSAGE, world())
    assert (tmp_path / "args").read_text() == "-i -t -f c@example.org\n"
    data = (tmp_path / "mail").read_bytes()
    assert b"\r" not in data
    mail = email.message_from_bytes(data, policy=policy.default)
    assert mail["To"] == "a@example.org, b@example.org"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Subject"] == "attic: björkby is stale"
    assert mail.get_content().strip() == MESSAGE.text


async def test_no_sendmail_here_is_said_and_not_raised_as_anything_else() -> None:
    channel = SendmailChannel(to=("a@example.org",), program="/nonexistent/sendmail")
    [told] = await Teller(
        settings=NotifySettings(sendmail=channel), folder="/nonexistent", who="attic", world=world()
    ).test()
    assert "cannot be started" in told.problem


async def test_ntfy_gets_title_priority_tags_and_a_token_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("tk_secret\n")
    secret.chmod(0o600)
    fake = FakeWeb()
    channel = NtfyChannel(url=Handed(text="https://ntfy.example/topic"), token=Handed(where=str(secret)))
    await send(NotifySettings(ntfy=channel), "ntfy", MESSAGE, world(fake))
    [(url, body, headers)] = fake.asked
    assert (url, body.decode()) == ("https://ntfy.example/topic", MESSAGE.text)
    assert headers["Authorization"] == "Bearer tk_secret"
    assert headers["Priority"] == "5"
    assert headers["Tags"] == "rotating_light,data.stale,x.y"
    assert headers["Title"].isascii()
    assert "\n" not in headers["Title"]


@pytest.mark.parametrize(("status", "good"), [(200, True), (204, True), (302, False), (404, False), (500, False)])
async def test_only_a_good_answer_is_one(status: int, good: bool) -> None:
    settings = NotifySettings(ntfy=NtfyChannel(url=Handed(text="https://ntfy.example/topic")))
    if good:
        await send(settings, "ntfy", MESSAGE, world(FakeWeb(status)))
    else:
        with pytest.raises(ChannelError, match=f"it answered {status}"):
            await send(settings, "ntfy", MESSAGE, world(FakeWeb(status)))


@pytest.mark.parametrize(("code", "path"), [(0, ""), (3, ""), (1, "/fail"), (4, "/fail"), (5, "/fail"), (6, "/fail")])
async def test_a_ping_says_whether_the_run_was_good(code: int, path: str) -> None:
    fake = FakeWeb()
    await ping(
        NotifySettings(ping=PingChannel(url=Handed(text="https://hc.example/uuid/"))),
        world(fake),
        exit_code=code,
        text="t",
    )
    assert fake.asked == [(f"https://hc.example/uuid{path}", b"t", {})]


def test_what_others_can_read_is_no_place_for_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "url"
    secret.write_text("https://hc.example/uuid\n")
    secret.chmod(0o644)
    with pytest.raises(CredentialError, match="others can read it"):
        resolve(Handed(where=str(secret)), "the address")
    secret.chmod(0o600)
    assert resolve(Handed(where=str(secret)), "the address") == "https://hc.example/uuid"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert resolve(Handed(where="url"), "the address") == "https://hc.example/uuid"
    with pytest.raises(CredentialError, match="no systemd credential 'other'"):
        resolve(Handed(where="other"), "the address")


async def test_a_token_never_goes_in_the_clear(tmp_path: Path) -> None:
    address = tmp_path / "url"
    address.write_text("http://ntfy.example/topic")
    address.chmod(0o600)
    channel = NtfyChannel(url=Handed(where=str(address)), token=Handed(text="tk"))
    fake = FakeWeb()
    with pytest.raises(UsageError, match="http://"):
        await send(NotifySettings(ntfy=channel), "ntfy", MESSAGE, world(fake))
    assert fake.asked == []


def test_channels_are_those_that_are_configured() -> None:
    assert channels(NotifySettings()) == []
    assert channels(NotifySettings(command=CommandChannel(run="x"), ping=PingChannel(url=Handed(text="x")))) == [
        "command"
    ]


async def test_over_the_web_nothing_is_followed_and_no_address_is_in_an_error() -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(f"{request.path} {(await request.read()).decode()}")
        raise web.HTTPFound("/elsewhere")

    application = web.Application()
    application.router.add_post("/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    assert await HttpWeb().post(f"http://127.0.0.1:{port}/secret", b"body", {"Title": "t"}) == 302
    assert asked == ["/secret body"]
    await runner.cleanup()
    with pytest.raises(ChannelError) as caught:
        await HttpWeb().post(f"http://127.0.0.1:{port}/secret", b"body", {})
    assert "secret" not in str(caught.value)
    assert str(port) not in str(caught.value)


class Ticking(FakeClock):
    """A clock that never says the same twice, as real ones."""

    def now_ns(self) -> int:
        self.advance(1e-6)
        return super().now_ns()


def teller(tmp_path: Path, fake: FakeWeb, *, run: str = "", clock: FakeClock | None = None) -> Teller:
    settings = NotifySettings(
        command=CommandChannel(run=run) if run else None,
        ntfy=NtfyChannel(url=Handed(text="https://ntfy.example/secret-topic")),
    )
    base = world(fake)
    told = World(fs=base.fs, clock=clock or Ticking(), web=fake, programs=base.programs, environment=base.environment)
    return Teller(settings=settings, folder=str(tmp_path), who="attic", world=told)


async def test_a_teller_tells_once_and_remembers_it_on_disk(tmp_path: Path) -> None:
    fake = FakeWeb()
    for _ in range(3):
        await teller(tmp_path, fake).tell([STALE], "Safe.")
    assert len(fake.asked) == 1
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) & 0o077 == 0
    await teller(tmp_path, fake).tell([], "Safe.")
    assert len(fake.asked) == 2
    assert fake.asked[1][2]["Priority"] == "2"


async def test_the_other_channels_tell_that_one_does_not_work(tmp_path: Path) -> None:
    broken = FakeWeb(error=ChannelError("no answer"))
    one = teller(tmp_path, broken, run=f"cat >> {tmp_path}/said")
    told = await one.tell([STALE], "Safe.")
    assert [(one.channel, one.problem) for one in told] == [("command", ""), ("ntfy", "no answer")]
    assert "notify.failed" not in (tmp_path / "said").read_text(), "it was told before the other failed"
    await one.tell([STALE], "Safe.")
    said = (tmp_path / "said").read_text()
    assert said.count("Code: data.stale") == 1
    assert "the channel 'ntfy' tells nobody anything: no answer" in said
    assert "secret-topic" not in (tmp_path / FILE).read_text() + said
    broken.error = None
    await one.tell([STALE], "Safe.")
    await one.tell([STALE], "Safe.")
    assert b"Code: data.stale" in broken.asked[-1][1]
    assert "Over: channel ntfy (notify.failed)." in (tmp_path / "said").read_text()


async def test_what_is_shown_first_is_not_sent_and_not_remembered(tmp_path: Path) -> None:
    fake = FakeWeb()
    [shown] = await teller(tmp_path, fake).tell([STALE], "Safe.", dry_run=True)
    assert shown.message is not None
    assert "photos: old" in shown.message.subject
    assert (fake.asked, os.listdir(tmp_path)) == ([], [])


async def test_a_test_says_which_channels_work_and_mends_what_is_remembered_of_them(tmp_path: Path) -> None:
    fake = FakeWeb(status=500)
    one = teller(tmp_path, fake)
    [told] = await one.test()
    assert told.problem == "it answered 500"
    assert set(load(PosixFs(), str(tmp_path)).failed) == {"ntfy"}
    fake.status = 200
    assert [told.problem for told in await one.test()] == [""]
    assert load(PosixFs(), str(tmp_path)) == Memory()


async def test_a_folder_that_cannot_be_written_is_said_and_stops_nothing(tmp_path: Path) -> None:
    fake = FakeWeb()
    [told] = await teller(tmp_path / "gone", fake).tell([STALE], "Safe.")
    assert "No such file" in told.problem
    assert fake.asked == []


@pytest.mark.parametrize("text", ["", "{", '{"format": 9}', '{"format": 1, "told": 3}', "\xff"])
def test_a_memory_that_cannot_be_read_is_begun_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_bytes(text.encode("latin-1"))
    assert load(PosixFs(), str(tmp_path)) == Memory()


async def test_an_address_of_the_web_is_believed_by_the_authorities_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2200, 1, 1, tzinfo=datetime.UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    known = tmp_path / "authorities.pem"
    known.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = tmp_path / "key.pem"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(known, private)

    async def answer(request: web.Request) -> web.Response:
        return web.Response()

    application = web.Application()
    application.router.add_post("/topic", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "localhost", 0, ssl_context=context).start()
    url = f"https://localhost:{runner.addresses[0][1]}/topic"
    with pytest.raises(ChannelError, match="Certificate"):
        await HttpWeb().post(url, b"", {})
    monkeypatch.setenv("SSL_CERT_FILE", str(known))
    assert await HttpWeb().post(url, b"", {}) == 200
    await runner.cleanup()


def test_where_authorities_lie_is_left_as_it_was() -> None:
    code = "import os; import replicator.aio; print(os.environ['SSL_CERT_FILE'], 'SSL_CERT_DIR' in os.environ)"
    environment = {name: value for name, value in os.environ.items() if name != "SSL_CERT_DIR"}
    environment["SSL_CERT_FILE"] = "/somewhere.pem"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "/somewhere.pem False\n"
