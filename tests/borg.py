"""Real Borg repositories for tests. Where there is no borg, what needs one is skipped, and says so."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from replicator.engine.borg import Borg
from replicator.process import Programs, Stop, SystemPrograms

PHRASE = "thirteen-grey-geese-3317"
OTHER = os.environ.get("REPLICATOR_TEST_BORG", "")
"""Another borg, of 1.2, that the tests of imports run too."""
needs_borg = pytest.mark.skipif(
    shutil.which("borg") is None, reason="borg is not on PATH (`make sync` builds it where its headers are)"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk, for which one must be root")
needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="there is no ssh (Debian: openssh-client)")


@contextmanager
def listening(folder: Path) -> Iterator[str]:
    """Serve ssh on loopback to who has a key that is made for it; give the command by which borg logs in there.

    Who is let in has commands run as an sshd would: by a shell, here in this process's environment.
    """
    import asyncssh

    async def execute(process: "asyncssh.SSHServerProcess[bytes]") -> None:
        pipe = subprocess.PIPE
        child = await asyncio.create_subprocess_shell(process.command or "", stdin=pipe, stdout=pipe, stderr=pipe)
        await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr)
        process.exit(await child.wait())
        await process.wait_closed()

    async def listen() -> "asyncssh.SSHAcceptor":
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[host],
            authorized_client_keys=asyncssh.import_authorized_keys(user.export_public_key().decode()),
            process_factory=execute,
            encoding=None,
        )

    async def close(listener: "asyncssh.SSHAcceptor") -> None:
        listener.close()
        await listener.wait_closed()

    host, user = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    folder.mkdir(mode=0o700)
    user.write_private_key(folder / "user")
    (folder / "user").chmod(0o600)
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    try:
        listener = asyncio.run_coroutine_threadsafe(listen(), loop).result()
        port = listener.get_port()
        (folder / "known").write_text(f"[127.0.0.1]:{port} {host.export_public_key().decode()}")
        yield (
            f"ssh -p {port} -i {folder / 'user'} -F /dev/null -o BatchMode=yes -o IdentitiesOnly=yes "
            f"-o UserKnownHostsFile={folder / 'known'} -o StrictHostKeyChecking=yes -o LogLevel=ERROR"
        )
        asyncio.run_coroutine_threadsafe(close(listener), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def disk(folder: Path, size: int) -> Iterator[Callable[[int], None]]:
    """Mount a disk of so many bytes; give what makes it as large as one likes. Needs root."""
    folder.mkdir()

    def mount(*options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", folder], check=True)

    mount(f"size={size}")
    try:
        yield lambda size: mount("remount", f"size={size}")
    finally:
        subprocess.run(["umount", folder], check=True)


class Repo:
    """A repository in a folder of its own, and borg as its user calls it."""

    def __init__(self, top: Path, *, encryption: str = "repokey", program: str = "borg") -> None:
        self.path = top / "repo"
        self.program = program
        self.place = str(self.path)
        self.environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(top / "borg"),
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "BORG_PASSPHRASE": PHRASE,
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        }
        (top / "borg").mkdir(parents=True)
        if encryption:
            self("init", "--encryption", encryption, str(self.path))

    def __call__(self, *words: str, folder: str | os.PathLike[str] = "/", code: int = 0) -> bytes:
        """Run borg, which must end with this code; return its output."""
        done = subprocess.run(
            [self.program, *words], env=self.environment, cwd=folder, capture_output=True, check=False
        )
        assert done.returncode == code, done.stderr.decode()
        return done.stdout

    def create(
        self, name: str, *paths: str, folder: str | os.PathLike[str], at: str = "", options: Sequence[str] = ()
    ) -> None:
        """Make an archive."""
        when = ("--timestamp", at) if at else ()
        self("create", *when, *options, f"{self.path}::{name}", *paths, folder=folder)

    def extract(self, name: str, target: Path) -> Path:
        """Extract an archive as borg does it alone."""
        target.mkdir()
        self("extract", "--numeric-ids", "--sparse", f"{self.path}::{name}", folder=target)
        return target

    def names(self) -> list[str]:
        """Return the names of the archives."""
        return [one["name"] for one in self.listing()["archives"]]

    def listing(self) -> Any:
        """Return what ``borg list --json`` says."""
        return json.loads(self("list", "--json", "--format", "{archive}{comment}{start}", str(self.path)))

    def maker(
        self, home: str, *, reads: bool = True, programs: Programs | None = None, wait_s: int = 0
    ) -> Callable[[Stop], Borg]:
        """Return what makes our face of it."""

        def make(stop: Stop) -> Borg:
            environment = self.environment
            if self.program != "borg":
                environment = {**environment, "PATH": f"{os.path.dirname(self.program)}:{environment['PATH']}"}
            return Borg(
                self.place,
                programs=programs or SystemPrograms(),
                environment=environment,
                home=home,
                stop=stop,
                reads=reads,
                wait_s=wait_s,
            )

        return make
