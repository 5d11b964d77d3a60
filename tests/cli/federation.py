"""Five providers as processes on loopback, a keeper's home, a node's home, and the program as people call it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from tests.cli.forks import FORKS, Forked

PASSPHRASE = "correct-horse-9871-battery"
PLACES = {
    "alice": ("cellar", "umea", "SE"),
    "bob": ("loft", "skane", "SE"),
    "carol": ("shed", "oslo", "NO"),
    "dave": ("office", "helsinki", "FI"),
    "erin": ("barn", "jutland", "DK"),
}
PROGRAM = (sys.executable, "-m", "replicator")
PATIENCE_S = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one call came to."""

    args: tuple[str, ...]
    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.out.decode()

    @property
    def said(self) -> list[str]:
        """The lines on standard error."""
        return self.err.splitlines()

    def json(self) -> Any:
        """Return the one JSON document on standard output."""
        return json.loads(self.out)


@dataclass(slots=True)
class Place:
    """A folder in which people call the program; ``secrets`` must never be seen in what it says."""

    path: Path
    secrets: list[str] = field(default_factory=list)

    @property
    def passphrase_file(self) -> Path:
        """A file with the keeper's passphrase."""
        path = self.path / "passphrase"
        if not path.exists():
            path.write_text(PASSPHRASE + "\n")
            path.chmod(0o600)
        return path

    def environment(self, extra: dict[str, str | None] | None = None) -> dict[str, str]:
        """Return a bare environment in which the passphrase is at hand; None in ``extra`` takes a variable out."""
        bare: dict[str, str | None] = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.path),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PYTHONWARNINGS": "always",
            "REPLICATOR_PASSPHRASE_FILE": str(self.passphrase_file),
        }
        return {key: value for key, value in (bare | (extra or {})).items() if value is not None}

    def run(
        self,
        *args: str | Path,
        home: str | Path | None = None,
        stdin: str = "",
        env: dict[str, str | None] | None = None,
    ) -> Result:
        """Call the program to its end and check what holds for every call."""
        words = (*(() if home is None else ("--home", str(self.path / home))), *map(str, args))
        if env is None:
            result = self._forked(words, stdin)
        else:
            done = subprocess.run(
                [*PROGRAM, *words],
                input=stdin.encode(),
                capture_output=True,
                timeout=PATIENCE_S,
                check=False,
                env=self.environment(env),
                cwd=self.path,
            )
            result = Result(args=words, code=done.returncode, out=done.stdout, err=done.stderr.decode())
        self.check(result)
        return result

    def _forked(self, words: tuple[str, ...], stdin: str) -> Result:
        with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as err:
            given.write(stdin.encode())
            given.seek(0)
            descriptors = given.fileno(), out.fileno(), err.fileno()
            call = Forked(FORKS.start(words, self.environment(), self.path, *descriptors), None)
            try:
                code = call.wait(timeout=PATIENCE_S)
            except subprocess.TimeoutExpired:
                call.kill()
                raise
            said = [os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0) for file in (out, err)]
        return Result(args=words, code=code, out=said[0], err=said[1].decode())

    def check(self, result: Result) -> None:
        """Hold a call to what no call may do: crash, warn, show a bar, tell a secret, say more than one document."""
        shown = f"{result.args} -> {result.code}\n{result.err}\n{result.out[:2000]!r}"
        assert result.code in range(7), shown
        for word in ("Traceback", "Warning", "\x1b", "\r"):
            assert word not in result.err, shown
        for secret in (PASSPHRASE, *self.secrets):
            assert secret not in result.err, shown
            assert secret.encode() not in result.out, shown
        if result.code in (1, 2, 6) and result.args:
            # Beside the error each provider may have its own line of what it did not do.
            assert 1 <= len([line for line in result.said if line.partition(": ")[0] not in PLACES]) <= 4, shown
        if "--json" in result.args and "--help" not in result.args:
            _walk(result.json(), shown)

    def ok(self, *args: str | Path, home: str | Path | None = None, stdin: str = "") -> Result:
        """Call the program; it must end well."""
        result = self.run(*args, home=home, stdin=stdin)
        assert result.code == 0, f"{result.args} -> {result.code}\n{result.err}\n{result.out[:2000]!r}"
        return result

    def json(self, *args: str | Path, home: str | Path | None = None, code: int = 0, stdin: str = "") -> Any:
        """Call the program with --json; return its document. It must end with ``code``."""
        result = self.run(*args, "--json", home=home, stdin=stdin)
        assert result.code == code, f"{result.args} -> {result.code}\n{result.err}\n{result.out[:2000]!r}"
        return result.json()

    def fails(self, code: int, *args: str | Path, home: str | Path | None = None, stdin: str = "") -> str:
        """Call the program; it must end with ``code``. Returns what it said on standard error."""
        result = self.run(*args, home=home, stdin=stdin)
        assert result.code == code, f"{result.args} -> {result.code}\n{result.err}\n{result.out[:2000]!r}"
        return result.err


def _walk(document: Any, shown: str) -> None:
    """Lists of objects: each of these has an id."""
    if isinstance(document, dict):
        for value in document.values():
            _walk(value, shown)
    elif isinstance(document, list):
        for value in document:
            if isinstance(value, dict):
                assert isinstance(value.get("id"), str), shown
                assert value["id"], shown
            _walk(value, shown)


@dataclass(slots=True)
class Federation(Place):
    """Homes "keeper", "node" and one for each provider below ``path``, and the providers' processes."""

    endpoints: dict[str, str] = field(default_factory=dict)
    processes: dict[str, Forked] = field(default_factory=dict)

    @property
    def sheet(self) -> Path:
        """The recovery sheet."""
        return self.path / "sheet"

    @property
    def words(self) -> list[str]:
        """The words on the sheet in their order."""
        return words_on(self.sheet)

    def start(self, *names: str) -> None:
        """Start providers (all by default) at the addresses they had, and wait until they answer."""
        chosen = names or tuple(PLACES)
        for name in chosen:
            with (self.path / f"{name}.log").open("ab") as log:
                listen = self.endpoints.get(name, "127.0.0.1:0")
                args = "provider", "serve", "--home", str(self.path / name), "--listen", listen, "--json"
                said, told = os.pipe()
                with open(os.devnull, "rb") as nothing:
                    channel = FORKS.start(args, self.environment(), self.path, nothing.fileno(), told, log.fileno())
                os.close(told)
                self.processes[name] = Forked(channel, said)
        for name in chosen:
            out = self.processes[name].stdout
            assert out is not None
            self.endpoints[name] = json.loads(_document(out))["listening"]

    def stop(self, *names: str, kill: bool = False) -> None:
        """Stop providers, all by default."""
        chosen = names or tuple(self.processes)
        for name in chosen:
            if kill:
                self.processes[name].kill()
            else:
                self.processes[name].terminate()
        for name in chosen:
            process = self.processes.pop(name)
            code = process.wait(timeout=PATIENCE_S)
            if process.stdout is not None:
                process.stdout.close()
            assert kill or code == 0, f"{name}: {code}\n{(self.path / f'{name}.log').read_text()}"

    def objects(self, name: str) -> list[Path]:
        """Return the objects that a provider holds."""
        return sorted((self.path / name / "data").glob("*/objects/*"))

    def make_provider(self, name: str) -> None:
        """Make one provider's home."""
        site, region, country = PLACES[name]
        self.ok(
            *("provider", "init", "--data", self.path / name / "data", "--capacity", "10G", "--owner", name),
            *("--site", site, "--region", region, "--country", country, "--listen", "127.0.0.1:0"),
            home=name,
        )

    def add_node(self, home: str, name: str) -> None:
        """Make a node's home of the keeper's tenant."""
        request = self.json("node", "request", "--name", name, home=home)["code"]
        grant = self.json("node", "add", "-", home="keeper", stdin=request)["code"]
        self.ok("node", "add", "-", home=home, stdin=grant)

    def keep(self) -> None:
        """Remember every home as it is now, for :meth:`put_back`."""
        self.stop()
        for name in (*PLACES, "keeper", "node"):
            shutil.copytree(self.path / name, self.path / "kept" / name)
        self.start()

    def put_back(self) -> None:
        """Make every home what it was when it was kept, and let all providers answer."""
        self.stop(kill=True)
        for name in (*PLACES, "keeper", "node"):
            shutil.rmtree(self.path / name, ignore_errors=True)
            shutil.copytree(self.path / "kept" / name, self.path / name)
        self.start()

    def invite(self, name: str, *options: str) -> str:
        """Return a new invite of a provider."""
        code = self.json("provider", "invite", "--quota", "1G", *options, home=name)["code"]
        assert isinstance(code, str)
        return code

    def join(self, keeper: str, names: Sequence[str]) -> None:
        """Let a keeper's home use an invite of each provider."""
        for name in names:
            self.ok("peer", "add", "-", home=keeper, stdin=self.invite(name))


def _document(out: Any) -> bytes:
    """Read lines up to the end of one JSON object."""
    lines = b""
    for line in out:
        lines += line
        if line.rstrip() == b"}":
            break
    return lines


def words_on(sheet: Path) -> list[str]:
    """Return the words on a recovery sheet in their order."""
    numbered = {}
    for line in sheet.read_text().splitlines():
        cells = line.split() if not line.startswith("#") else []
        numbered.update({int(cells[i].rstrip(".")): cells[i + 1] for i in range(0, len(cells), 2)})
    return [numbered[i] for i in sorted(numbered)]


def make_files(folder: Path) -> None:
    """Make a small tree with what a restore must bring back."""
    (folder / "letters" / "empty").mkdir(parents=True)
    (folder / "letters" / "one.txt").write_text("dear friend\n")
    (folder / "letters" / "två.txt").write_text("kära vän\n" * 400)
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("letters/one.txt")
    (folder / "noise.bin").write_bytes(b"".join(bytes([(i * i + i // 7) % 251]) for i in range(300_000)))
    (folder / "void").write_bytes(b"")


@contextmanager
def built(path: Path) -> Iterator[Federation]:
    """Build the whole: five providers that answer, a keeper, a node, a dataset "docs" with one snapshot."""
    federation = Federation(path=path)
    assert federation.passphrase_file.exists()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(federation.make_provider, PLACES))
    federation.start()
    try:
        federation.ok("init", "--name", "björkby", "--keeper-only", "--recovery-sheet", federation.sheet, home="keeper")
        words = federation.words
        federation.secrets += [" ".join(words[i : i + 3]) for i in range(len(words) - 2)]
        federation.join("keeper", tuple(PLACES))
        federation.add_node("node", "attic")
        make_files(path / "docs")
        options = ("--copies", "3", "--spread", "owner,region")
        federation.ok("dataset", "add", "docs", path / "docs", *options, home="node")
        federation.ok("backup", home="node")
        federation.keep()
        yield federation
    finally:
        federation.stop(kill=True)
