"""The whole line on one machine: six providers, a keeper, a node, a disaster, and everything back from paper.

Run it as ``python -m tests.demo`` (``make demo``). It uses the installed program as anybody would, one process a
command, and stops with a message and a non-zero exit code as soon as anything is not as claimed.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tests.compare import compare

MB = 10**6
PASSPHRASE = "correct horse battery staple"
DATASET = "goose-ledger"
ALLOWED_SIZES = frozenset(1 << power for power in range(16, 25))
PLACES = (
    ("alice", "cellar", "umea", "SE"),
    ("bob", "loft", "skane", "SE"),
    ("carol", "shed", "oslo", "NO"),
    ("dave", "office", "helsinki", "FI"),
    ("erin", "barn", "jutland", "DK"),
    ("frank", "garage", "bremen", "DE"),
)
KILLED, EMPTIED, ASKED = "carol", "erin", "dave"
CANARY_NAME = "the-heron-behind-the-mill.txt"
CANARY_TEXT = "Nobody but us shall read that the blue heron nests behind the mill.\n"
USUAL, NO_KEY = 0, 6


class BrokenClaimError(Exception):
    """Something is not as claimed."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is backed up, and how much room that takes."""

    bytes: int
    files: int
    room: int
    changed: int
    added: int
    deleted: int


FULL = Scale(bytes=280 * MB, files=8000, room=2000 * MB, changed=40, added=20, deleted=30)
SMALL = Scale(bytes=4 * MB, files=300, room=100 * MB, changed=10, added=5, deleted=5)


def expect(claim: object, otherwise: str) -> None:
    """Stop the demonstration unless a claim holds."""
    if not claim:
        raise BrokenClaimError(otherwise)


def say(text: str) -> None:
    """Print a line now."""
    print(text, flush=True)


def megabytes(count: float) -> str:
    """Return bytes in words for the table."""
    return f"{count / MB:.1f} MB"


# -- the data ---------------------------------------------------------------------------------------------------------


def python_places() -> list[str]:
    """Return folders and files of the running Python installation, the most useful first, none within another."""
    paths = sysconfig.get_paths()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = str(sysconfig.get_config_var("LIBDIR") or "")
    shared = str(sysconfig.get_config_var("LDLIBRARY") or f"lib{version}.so")
    wanted = [
        paths["platlib"],
        paths["purelib"],
        paths["stdlib"],
        paths["platstdlib"],
        os.path.join(sys.base_prefix, "lib", "python3", "dist-packages"),
        paths["include"],
        os.path.realpath(sys.executable),
        os.path.join(library, shared),
        os.path.join(library, f"lib{version}.a"),
    ]
    places: list[str] = []
    for path in (os.path.realpath(one) for one in wanted):
        if os.path.exists(path) and path not in places and not os.path.samefile(path, os.path.realpath("/usr")):
            places.append(path)
    return places


def gather(target: str, scale: Scale) -> tuple[int, int]:
    """Copy from the Python installation into ``target``, in a fixed order, up to the scale; return files and bytes."""
    files = size = 0
    places = python_places()
    for number, place in enumerate(places):
        top = os.path.join(target, f"{number}-{os.path.basename(place)}")
        others = [other for other in places if other != place]
        for path in walk_files(place, others):
            status = os.lstat(path)
            if size + status.st_size > scale.bytes:
                continue
            if files == scale.files:
                return files, size
            to = top if path == place else os.path.join(top, os.path.relpath(path, place))
            os.makedirs(os.path.dirname(to), exist_ok=True)
            try:
                shutil.copy2(path, to, follow_symlinks=False)
            except PermissionError:
                continue
            files, size = files + 1, size + status.st_size
    return files, size


def walk_files(place: str, others: Sequence[str]) -> Iterator[str]:
    """Yield regular files and links below a place in a fixed order, without what lies in one of the others."""
    if not os.path.isdir(place):
        yield place
        return
    for folder, folders, names in os.walk(place):
        folders[:] = sorted(name for name in folders if os.path.join(folder, name) not in others)
        for name in sorted(names):
            path = os.path.join(folder, name)
            if stat.S_ISREG(os.lstat(path).st_mode) or os.path.islink(path):
                yield path


def add_peculiar(target: str) -> list[str]:
    """Add what an easy backup would get wrong; return strings that no provider may ever see."""
    folder = os.path.join(target, "letters")
    os.makedirs(folder)
    path = os.path.join(folder, CANARY_NAME)
    with open(path, "w", encoding="utf-8") as file:
        file.write(CANARY_TEXT * 50)
    os.chmod(path, 0o600)
    os.symlink(CANARY_NAME, os.path.join(folder, "link"))
    os.link(path, os.path.join(folder, "second-name"))
    with open(os.path.join(folder, "empty"), "wb"):
        pass
    with open(os.fsencode(folder) + b"/latin-\xe5\xe4\xf6", "wb") as file:
        file.write(b"a name that is no UTF-8\n")
    os.makedirs(os.path.join(folder, "private"))
    os.chmod(os.path.join(folder, "private"), 0o700)
    os.chmod(os.path.join(folder, "empty"), 0o461)
    os.utime(os.path.join(folder, "empty"), ns=(10**18, 10**18 + 123_456_789))
    return [CANARY_NAME, CANARY_TEXT.strip(), DATASET]


def needles_of(target: str, count: int) -> list[bytes]:
    """Return names and pieces of content from all over the tree, to be looked for on providers' disks."""
    chooser = random.Random(2)
    paths = sorted(path for path in walk_files(target, ()) if not os.path.islink(path) and os.path.getsize(path) > 4096)
    chosen = chooser.sample(paths, min(count, len(paths)))
    names = sorted((os.path.basename(path) for path in chosen), key=len, reverse=True)[: count // 3]
    found = [os.fsencode(name) for name in names if len(name) >= 8]
    for path in chosen[: count - len(found)]:
        with open(path, "rb") as file:
            file.seek(os.path.getsize(path) // 2)
            piece = file.read(48)
        if len(set(piece)) > 12:
            found.append(piece)
    return found


@dataclass(kw_only=True)
class Changes:
    """What was done to the tree between two backups."""

    changed: int = 0
    added: int = 0
    deleted: int = 0
    moved: int = 0
    bytes_touched: int = 0
    touched: list[str] = field(default_factory=list)


def folder_of_about(top: str, size: int) -> str:
    """Return the folder in ``top`` whose files come nearest to ``size`` bytes."""
    folders = [entry.path for entry in sorted(os.scandir(top), key=lambda entry: entry.name) if entry.is_dir()]
    return min(folders, key=lambda path: abs(sum(os.lstat(one).st_size for one in walk_files(path, ())) - size))


def change(target: str, scale: Scale) -> Changes:
    """Change, add, delete and move files; the same ones whenever the tree is the same."""
    chooser = random.Random(1)
    done = Changes()
    packages = os.path.join(target, min(os.listdir(target)))
    moved = folder_of_about(packages, scale.bytes // 20)
    paths = [path for path in walk_files(target, (moved, os.path.join(target, "letters"))) if not os.path.islink(path)]
    largest = max(paths, key=os.path.getsize)
    paths.remove(largest)
    chooser.shuffle(paths)
    for path in paths[: scale.changed]:
        os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) | stat.S_IWUSR)
        with open(path, "ab") as file:
            file.write(f"\n# changed {len(done.touched)}\n".encode())
        done.changed += 1
        done.touched.append(path)
    for path in paths[scale.changed : scale.changed + scale.deleted]:
        os.unlink(path)
        done.deleted += 1
    for number in range(scale.added):
        path = os.path.join(target, "letters", f"new-{number:03}.txt")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"Letter {number}. {CANARY_TEXT}" * (number + 1))
        done.added += 1
        done.touched.append(path)
    with open(largest, "r+b") as file:
        content = file.read()
        file.seek(len(content) // 3)
        file.write(b"a few bytes in the middle of the largest file" + content[len(content) // 3 :])
    done.changed += 1
    done.touched.append(largest)
    done.moved = sum(1 for _ in walk_files(moved, ()))
    os.rename(moved, f"{moved}-moved")
    done.bytes_touched = sum(os.path.getsize(path) for path in done.touched)
    return done


def manifest(top: str) -> dict[str, tuple[object, ...]]:
    """Return kind, mode and content of everything below a folder, by relative path."""
    found: dict[str, tuple[object, ...]] = {}
    for folder, folders, names in os.walk(top):
        for name in (*folders, *names):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            content: object = None
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            found[os.path.relpath(path, top)] = (oct(status.st_mode), content)
    return found


# -- the program ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command came to."""

    code: int
    document: Any
    out: str
    err: str
    seconds: float


@dataclass(kw_only=True)
class Searched:
    """What a search came to: bytes read and needles found."""

    size: int = 0
    found: list[bytes] = field(default_factory=list)


@dataclass(kw_only=True)
class Daemon:
    """A provider's process."""

    owner: str
    home: str
    place: str
    address: str = ""
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def data(self) -> str:
        """Where its objects lie."""
        return os.path.join(self.home, "data")

    def objects(self) -> list[str]:
        """Return the paths of the objects that it keeps now."""
        found = []
        for tenant in sorted(os.listdir(self.data)):
            folder = os.path.join(self.data, tenant, "objects")
            if os.path.isdir(folder):
                found += [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
        return found


class Stopping:
    """What SIGINT, SIGTERM and SIGHUP do: they raise KeyboardInterrupt once, and only where nothing can be lost by it.

    Python may raise between any two steps: also between the start of a process, or the making of a folder, and the
    line that remembers it. So a signal that comes while nothing is ``armed``, or in :meth:`held`, waits for its end.
    """

    def __init__(self) -> None:
        self.told = False
        self._armed = False

    def install(self) -> None:
        """Take the signals."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)

    def _note(self, _number: int, _frame: object) -> None:
        self.told = True
        self._raise_if_told()

    def _raise_if_told(self) -> None:
        if self.told and self._armed:
            self._armed = False
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def armed(self) -> Iterator[None]:
        """Let a signal stop what is done in here."""
        try:
            self._armed = True
            self._raise_if_told()
            yield
        finally:
            self._armed = False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Do something to its end, also if a signal comes. Other threads than the first one are never interrupted."""
        if not self._armed or threading.current_thread() is not threading.main_thread():
            yield
            return
        self._armed = False
        try:
            yield
        finally:
            self._armed = True
            self._raise_if_told()


class Demo:
    """The demonstration: its folder, its processes, its measurements."""

    def __init__(self, work: str, scale: Scale, stopping: Stopping) -> None:
        self.work = work
        self.scale = scale
        self.stopping = stopping
        self.running: set[subprocess.Popen[bytes]] = set()
        self.keeper = os.path.join(work, "keeper")
        self.node = os.path.join(work, "node")
        self.sheet = os.path.join(work, "sheet.txt")
        self.secret = os.path.join(work, "passphrase")
        self.data = os.path.join(work, "farm")
        self.target = os.path.join(work, "restored")
        self.daemons = [
            Daemon(owner=owner, home=os.path.join(work, f"provider-{owner}"), place=f"{site}, {region}, {country}")
            for owner, site, region, country in PLACES
        ]
        self.started = time.monotonic()
        self.steps: list[tuple[str, float]] = []
        self.facts: list[tuple[str, str]] = []
        self.places: list[tuple[str, ...]] = []
        self.needles: list[bytes] = []
        self.charters: set[str] = set()
        self.environment = {
            key: value
            for key, value in os.environ.items()
            if key not in {"REPLICATOR_HOME", "REPLICATOR_PASSPHRASE_FILE", "CREDENTIALS_DIRECTORY", "STATE_DIRECTORY"}
        }

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce and time a step."""
        say(f"\n{len(self.steps) + 1:2}. {title}")
        started = time.monotonic()
        yield
        self.steps.append((title, time.monotonic() - started))

    def replicator(
        self,
        *arguments: str,
        home: str,
        code: int | Sequence[int] = USUAL,
        unlocked: bool = False,
        stdin: str = "",
        show: bool = True,
        as_json: bool = True,
    ) -> Answer:
        """Run one command in a process of its own, and hold it to its exit code."""
        command = [sys.executable, "-m", "replicator", *arguments, "--home", home]
        if as_json:
            command.append("--json")
        if unlocked:
            command += ["--passphrase-file", self.secret]
        if show:
            short = [word if len(word) < 64 else f"{word[:20]}…" for word in arguments]
            say(f"    $ replicator {' '.join(short)} --home {os.path.basename(home)}".replace(f"{self.work}/", ""))
        started = time.monotonic()
        process = self.start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = (said.decode() for said in process.communicate(stdin.encode()))
        self.running.discard(process)
        allowed = [code] if isinstance(code, int) else list(code)
        expect(
            process.returncode in allowed,
            f"`{' '.join(command[2:])}` ended with {process.returncode}, not {allowed}\n{out}{err}",
        )
        return Answer(
            code=process.returncode,
            document=json.loads(out) if as_json else None,
            out=out,
            err=err,
            seconds=time.monotonic() - started,
        )

    def start(self, command: list[str], **pipes: Any) -> "subprocess.Popen[bytes]":
        """Start a process that :meth:`stop` knows from its first moment on."""
        with self.stopping.held():
            process = subprocess.Popen(command, cwd=self.work, env=self.environment, **pipes)
            self.running.add(process)
        return process

    # -- steps ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Go through all of it."""
        with self.step("Gather real data: the Python installation that runs this"):
            self.gather()
        with self.step(f"Start {len(self.daemons)} providers, each a process of its own, with TLS on 127.0.0.1"):
            self.start_providers()
        with self.step("Make a tenant: its keeper's home here, its node's home there, invites from every provider"):
            self.make_tenant()
        with self.step("First backup, from the node: three copies in three regions, nobody owns two"):
            first = self.first_backup()
        with self.step("Look at what the providers see: only files of a few sizes, nothing readable"):
            self.look_at_providers()
        with self.step("Change, add, delete and move files; back up again: little is sent"):
            self.second_backup(first)
        with self.step("The node can write and repair, but neither list nor restore, even with the passphrase"):
            self.node_cannot_read()
        with self.step(f"Disaster: {KILLED}'s machine dies, {EMPTIED}'s disk loses its objects; status notices"):
            self.disaster()
        with self.step("Repair: every copy is made again elsewhere, without any content key; status says safe"):
            self.repair()
        with self.step("The house burns: keeper and node are gone. Back from the sheet and one address alone"):
            self.recover()
        with self.step("Compare every byte and mode with the data as it was"):
            self.check_restored()

    def gather(self) -> None:
        """Make the dataset's folder."""
        os.makedirs(self.data)
        files, size = gather(self.data, self.scale)
        secrets = add_peculiar(self.data)
        self.needles = [text.encode() for text in secrets] + needles_of(self.data, 9)
        self.facts.append(("data", f"{files} files, {megabytes(size)}"))
        say(f"    {files} files, {megabytes(size)}, and a few peculiar ones (links, odd names, odd modes)")

    def start_providers(self) -> None:
        """Initialise and start every provider on a free port."""
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            list(pool.map(self.init_provider, self.daemons, PLACES))
        for daemon in self.daemons:
            with open(os.path.join(daemon.home, "log"), "wb") as log:
                daemon.process = self.start(
                    [sys.executable, "-m", "replicator", "provider", "serve", "--home", daemon.home],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
        for daemon in self.daemons:
            daemon.address = self.address_of(daemon)
            say(f"    {daemon.owner:6} {daemon.place:22} serves on {daemon.address}")

    def init_provider(self, daemon: Daemon, place: tuple[str, str, str, str]) -> None:
        """Make one provider's home; it listens on any free port."""
        owner, site, region, country = place
        terms = ["--country", country, "--region", region, "--site", site, "--owner", owner]
        self.replicator(
            "provider", "init", "--data", daemon.data, "--capacity", "10G", *terms, "--listen", "127.0.0.1:0",
            home=daemon.home, show=daemon is self.daemons[0],
        )  # fmt: skip

    def address_of(self, daemon: Daemon) -> str:
        """Wait until a provider says where it listens."""
        path = os.path.join(daemon.home, "log")
        assert daemon.process is not None
        until = time.monotonic() + 30
        while time.monotonic() < until and daemon.process.poll() is None:
            with open(path, encoding="utf-8") as file:
                for line in file:
                    if line.startswith("listening on ") and line.endswith("\n"):
                        return line.removeprefix("listening on ").strip()
            time.sleep(0.05)
        with open(path, encoding="utf-8") as file:
            raise BrokenClaimError(f"{daemon.owner}'s provider does not serve:\n{file.read()}")

    def make_tenant(self) -> None:
        """Make keeper and node, and use every provider's invite."""
        with open(self.secret, "w", encoding="utf-8") as file:
            file.write(PASSPHRASE)
        os.chmod(self.secret, 0o600)
        self.replicator(
            "init", "--name", "farm", "--keeper-only", "--recovery-sheet", self.sheet, home=self.keeper, unlocked=True
        )
        for daemon in self.daemons:
            first = daemon is self.daemons[0]
            invite = self.replicator("provider", "invite", "--quota", "5G", home=daemon.home, show=first)
            self.replicator(
                "peer", "add", "-", home=self.keeper, unlocked=True, stdin=invite.document["code"], show=first
            )
        request = self.replicator("node", "request", "--name", "barn-server", home=self.node)
        grant = self.replicator("node", "add", request.document["code"], home=self.keeper, unlocked=True)
        self.replicator("node", "add", grant.document["code"], home=self.node)
        self.replicator(
            "dataset", "add", DATASET, self.data, "--copies", "3", "--minimum", "2", "--spread", "owner,region",
            home=self.node,
        )  # fmt: skip
        peers = self.replicator("peer", "list", home=self.node, show=False).document
        self.charters = {os.path.basename(path) for daemon in self.daemons for path in daemon.objects()}
        expect(len(peers) == len(self.daemons), f"the node knows {len(peers)} providers of {len(self.daemons)}")

    def first_backup(self) -> dict[str, Any]:
        """Back up everything, and check that copies lie as promised."""
        answer = self.replicator("backup", home=self.node)
        done = self.only(answer)
        expect(done["unchanged"] == 1, f"only the second name of a file need not be read: {done['unchanged']}")
        status = self.replicator("status", home=self.node, show=False).document
        expect(status["safe"] and status["datasets"][0]["copies"] == 3, f"not three copies of everything: {status}")
        again = self.copies_on_disk()
        stored = sum(os.path.getsize(paths[0]) for paths in again.values())
        self.facts += [
            ("in chunks", f"{megabytes(done['new_bytes'])} after deduplication of {megabytes(done['bytes'])}"),
            ("sealed", f"{megabytes(stored)} in {len(again)} objects"),
            (
                "first backup sent",
                f"{megabytes(answer.document['sent_bytes'])} (three copies) in {answer.seconds:.1f} s",
            ),
        ]
        say(
            f"    {done['files']} files, {megabytes(done['bytes'])} -> {megabytes(stored)} sealed; "
            f"sent {megabytes(answer.document['sent_bytes'])} in {answer.seconds:.1f} s"
        )
        why = self.replicator("why", DATASET, home=self.node, show=False).document
        for line in why["reasons"][:2]:
            say(f"    why: {line}")
        document: dict[str, Any] = answer.document
        return document

    def only(self, answer: Answer) -> dict[str, Any]:
        """Return the one dataset of a backup's answer, which has to be published without a gap."""
        done: dict[str, Any] = answer.document["datasets"][0]
        expect(done["published"], f"nothing was published: {done}")
        expect(not (done["gaps"] or done["debts"] or done["owed"]), f"published with gaps: {done}\n{answer.err}")
        return done

    def copies_on_disk(self) -> dict[str, list[str]]:
        """Return the paths of every object's copies on living providers; all of allowed sizes.

        Each provider is in a region of its own, so three copies are copies in three regions. Charters of before the
        first backup may be fewer: a provider keeps those of the time when it was asked.
        """
        found: dict[str, list[str]] = {}
        for daemon in self.daemons:
            if daemon.process is not None and daemon.process.poll() is None:
                for path in daemon.objects():
                    found.setdefault(os.path.basename(path), []).append(path)
        for name, paths in found.items():
            expect(len(paths) >= 3 or name in self.charters, f"object {name} lies on {len(paths)} providers only")
            sizes = {os.path.getsize(path) for path in paths}
            expect(len(sizes) == 1, f"copies of object {name} have different sizes: {sorted(sizes)}")
            expect(sizes <= ALLOWED_SIZES, f"object {name} has a size that tells something: {sorted(sizes)}")
        return found

    def look_at_providers(self) -> None:
        """Search everything on the providers' disks for names and content; see that the search can find them."""
        searched = self.search([daemon.home for daemon in self.daemons])
        sizes: dict[int, int] = {}
        for paths in self.copies_on_disk().values():
            size = os.path.getsize(paths[0])
            sizes[size] = sizes.get(size, 0) + 1
        expect(not searched.found, f"a provider can see {searched.found}")
        control = self.search([self.data])
        missed = set(self.needles) - set(control.found) - {DATASET.encode()}
        expect(not missed, f"the search is no good: it does not find {missed} in the data itself")
        say(f"    {len(self.needles)} names and pieces of content looked for in {megabytes(searched.size)}: none there")
        rows = ", ".join(f"{count} of {size >> 10} KiB" for size, count in sorted(sizes.items()))
        say(f"    sizes: {rows}")

    def search(self, tops: Sequence[str]) -> Searched:
        """Look for the needles in the names and bytes of all files below some folders."""
        result = Searched()
        for top in tops:
            for folder, folders, names in os.walk(os.fsencode(top)):
                listing = b"\n".join((*folders, *names))
                result.found += [needle for needle in self.needles if needle in listing]
                for name in names:
                    path = os.path.join(folder, name)
                    if not stat.S_ISREG(os.lstat(path).st_mode):
                        continue
                    with open(path, "rb") as file:
                        content = file.read()
                    result.size += len(content)
                    result.found += [needle for needle in self.needles if needle in content]
        return result

    def second_backup(self, first: dict[str, Any]) -> None:
        """Back up after changes; only what changed is read, only new content is sent."""
        changes = change(self.data, self.scale)
        answer = self.replicator("backup", home=self.node)
        done = self.only(answer)
        before = first["datasets"][0]
        say(
            f"    {changes.changed} changed, {changes.added} added, {changes.deleted} deleted, {changes.moved} moved; "
            f"read {megabytes(done['bytes_read'])} of {megabytes(done['bytes'])}, "
            f"new {megabytes(done['new_bytes'])}, sent {megabytes(answer.document['sent_bytes'])} "
            f"in {answer.seconds:.1f} s"
        )
        expect(done["files"] == before["files"] + changes.added - changes.deleted, f"miscounted files: {done['files']}")
        read = done["files"] - done["unchanged"]
        most = changes.changed + changes.added + changes.moved
        expect(read <= most, f"{read} files were read again, though {most} changed or moved")
        expect(done["new_bytes"] < before["new_bytes"] // 5, f"{done['new_bytes']} bytes taken for new")
        expect(answer.document["sent_bytes"] < first["sent_bytes"] // 2, f"sent {answer.document['sent_bytes']} bytes")
        sent = f"{megabytes(answer.document['sent_bytes'])} in {answer.seconds:.1f} s"
        self.facts.append(("second backup sent", f"{sent}, {done['unchanged']} files known"))
        self.copies_on_disk()

    def node_cannot_read(self) -> None:
        """See that the node's home has no way to read what it wrote."""
        for arguments in (
            ("ls", "latest"),
            ("cat", "latest", f"letters/{CANARY_NAME}"),
            ("restore", "latest", "--target", self.target),
        ):
            answer = self.replicator(*arguments, home=self.node, code=NO_KEY, unlocked=True, as_json=False)
            expect(CANARY_NAME not in answer.out, f"the node listed {answer.out}")
            say(f"      exit {answer.code}: {answer.err.splitlines()[0].replace(self.work + '/', '')}")
        expect(not os.path.exists(self.target), "the node restored something")
        listing = self.replicator(
            "ls", "latest", f"farm/letters/{CANARY_NAME}", home=self.keeper, unlocked=True
        ).document
        expect(len(listing) == 1 and listing[0]["mode"] == "0600", f"the keeper cannot list: {listing}")
        say("      exit 0: the keeper can")

    def disaster(self) -> None:
        """Kill one provider, delete another's objects, and let status tell."""
        killed, emptied = self.daemon(KILLED), self.daemon(EMPTIED)
        assert killed.process is not None
        killed.process.send_signal(signal.SIGKILL)
        killed.process.wait()
        lost = emptied.objects()
        for path in lost:
            os.unlink(path)
        say(f"    killed {KILLED}'s daemon; deleted {len(lost)} objects of {EMPTIED}")
        answer = self.replicator("status", home=self.node, code=(3, 4, 5), as_json=False)
        self.show(answer.out)
        say(f"      exit {answer.code}")
        status = self.replicator("status", home=self.node, code=answer.code, show=False).document
        peers = {peer["name"]: peer for peer in status["peers"]}
        expect(not status["safe"], "status says safe after a disaster")
        expect(not peers[KILLED]["reachable"], f"status says that {KILLED} answers")
        expect(peers[EMPTIED]["missing"] > 0, f"status misses nothing at {EMPTIED}: {peers[EMPTIED]}")
        others = [peer["name"] for peer in status["peers"] if peer["missing"] or not peer["reachable"]]
        expect(sorted(others) == sorted((KILLED, EMPTIED)), f"status complains about {others}")

    def repair(self) -> None:
        """Make every copy again, from the node, and see that status is content."""
        answer = self.replicator("repair", home=self.node, as_json=False)
        self.show(answer.out)
        status = self.replicator("status", home=self.node, as_json=False)
        self.show(status.out)
        document = self.replicator("status", home=self.node, show=False).document
        expect(document["safe"], f"status does not say safe after a repair: {document}")
        self.copies_on_disk()
        why = self.replicator("why", DATASET, home=self.node, show=False).document
        for row in why["places"]:
            gone = " (dead, does not count)" if row["name"] == KILLED else ""
            place = f"{row['site']}, {row['region']}, {row['country']}"
            self.places.append((row["name"], place, f"{row['objects']} objects", megabytes(row["bytes"]) + gone))
        self.facts.append(("repair", f"{answer.seconds:.1f} s"))

    def recover(self) -> None:
        """Lose both homes; get a keeper and all data back from the sheet and one address."""
        shutil.rmtree(self.keeper)
        shutil.rmtree(self.node)
        address = self.daemon(ASKED).address
        answer = self.replicator(
            "recover", "--sheet", self.sheet, "--peer", address, "--target", self.target,
            home=os.path.join(self.work, "new-home"), unlocked=True,
        )  # fmt: skip
        restored = answer.document["restored"]
        expect(len(restored) == 1 and not (restored[0]["gaps"] or restored[0]["lost"]), f"not restored: {restored}")
        say(
            f"    asked {ASKED} at {address}: {restored[0]['files']} files, {megabytes(restored[0]['bytes'])} "
            f"in {answer.seconds:.1f} s"
        )
        self.facts.append(("restore from paper", f"{megabytes(restored[0]['bytes'])} in {answer.seconds:.1f} s"))

    def check_restored(self) -> None:
        """Compare with an own loop, and with the comparison that the tests use (times, owners, links, attributes)."""
        restored = os.path.join(self.target, os.path.basename(self.data))
        then, now = manifest(self.data), manifest(restored)
        expect(set(then) == set(now), f"names differ: {sorted(set(then) ^ set(now))[:5]}")
        other = [path for path in then if then[path] != now[path]]
        expect(not other, f"{len(other)} differ, such as {other[:5]}: {[(then[p], now[p]) for p in other[:2]]}")
        differences = compare(self.data, restored)
        expect(not differences, f"{len(differences)} differences: {differences[:5]}")
        say(f"    {len(then)} files, folders and links: every byte, mode, owner, time and link is the same")

    # -- around them ----------------------------------------------------------------------------------------------

    def daemon(self, owner: str) -> Daemon:
        """Return one provider."""
        return next(daemon for daemon in self.daemons if daemon.owner == owner)

    def show(self, text: str) -> None:
        """Print a command's own words."""
        for line in text.splitlines():
            if line.strip():
                say(f"      {line}")

    def stop(self) -> None:
        """End every process: asked first, then made to."""
        for process in self.running:
            if process.poll() is None:
                process.terminate()
        for process in self.running:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def table(self) -> None:
        """Print what was measured."""
        total = time.monotonic() - self.started
        say("\nSizes")
        for name, value in self.facts:
            say(f"  {name:20} {value}")
        say("\nWhere the copies lie (newest snapshot, after the repair)")
        for row in self.places:
            say(f"  {row[0]:8} {row[1]:22} {row[2]:>12}  {row[3]}")
        say("\nSeconds")
        for number, (title, seconds) in enumerate(self.steps, 1):
            say(f"  {number:2}. {seconds:5.1f}  {title.split(':')[0]}")
        say(f"      {total:5.1f}  in all, on {len(os.sched_getaffinity(0))} cores")


# -- running it -------------------------------------------------------------------------------------------------------


def roomy_place(room: int) -> str:
    """Return a folder for temporary files on a disk with ``room`` bytes free.

    Raises:
        BrokenClaimError: there is none.
    """
    chosen = os.environ.get("TMPDIR")
    places = [chosen] if chosen else [tempfile.gettempdir(), "/var/tmp", os.getcwd()]  # noqa: S108 - made by mkdtemp
    found = []
    for place in places:
        free = shutil.disk_usage(place).free if os.path.isdir(place) else 0
        if free >= room and os.access(place, os.W_OK):
            return os.path.abspath(place)
        found.append(f"{place}: {megabytes(free)}")
    raise BrokenClaimError(
        f"about {megabytes(room)} of free disk are needed, there are {', '.join(found)}; "
        "set TMPDIR to a folder with more room"
    )


def main() -> int:
    """Run the demonstration; 0 if everything was as claimed."""
    parser = argparse.ArgumentParser(prog="python -m tests.demo", description=__doc__)
    parser.add_argument("--small", action="store_true", help="A few MB instead of a few hundred.")
    parser.add_argument("--keep", action="store_true", help="Leave the folder for you to look at.")
    options = parser.parse_args()
    scale = SMALL if options.small else FULL
    stopping = Stopping()
    stopping.install()
    try:
        place = roomy_place(scale.room)
    except BrokenClaimError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    work = tempfile.mkdtemp(prefix="replicator-demo-", dir=place)
    demo = Demo(work, scale, stopping)
    try:
        with stopping.armed():
            say(f"A federation in {work} (needs about {megabytes(scale.room)} there, and removes it at the end)")
            demo.run()
            demo.table()
    except BrokenClaimError as error:
        print(f"\ndemo: NOT as claimed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: stopped", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"\ndemo: stopped: {error}", file=sys.stderr)
        return 1
    finally:
        demo.stop()
        if options.keep:
            say(f"\nEverything is left in {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)
    say("\nAll as claimed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
