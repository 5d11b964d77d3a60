"""The tools, each with the settings that are fairest: encryption on, zstd level 3, repository on the same disk."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from bench.peers import measure


class Tool(Protocol):
    """One backup tool with a repository of its own below ``work``."""

    name: str

    def version(self) -> str:
        """Return what the program says of itself."""
        ...

    def prepare(self, work: Path, source: Path) -> None:
        """Make an empty repository."""
        ...

    def backup(self) -> measure.Run:
        """Back the source up once more."""
        ...

    def restore(self, target: Path) -> measure.Run:
        """Restore the newest snapshot into an empty folder."""
        ...

    def restore_one(self, target: Path, path: Path) -> measure.Run:
        """Restore one file of it, given as it was backed up."""
        ...

    def list(self, path: Path) -> measure.Run:
        """List one folder of it."""
        ...

    def check(self) -> measure.Run:
        """Read all that is stored, decrypt it and hold it against its ids."""
        ...

    def prune(self) -> measure.Run:
        """Forget the first snapshot and what only that needs."""
        ...

    def size(self) -> tuple[int, int]:
        """Return (bytes, files) in the repository."""
        ...

    def close(self) -> None:
        """Stop what was started."""
        ...


def checked(result: measure.Run, name: str) -> measure.Run:
    """Return a run that went well."""
    if result.code != 0:
        raise SystemExit(f"{name} failed with {result.code}:\n{result.output}")
    return result


class Borg:
    """BorgBackup: repokey-blake2 is its fastest authenticated encryption; zstd,3; its default chunker."""

    name = "borg"

    def version(self) -> str:
        """Return the version."""
        return subprocess.run(["borg", "--version"], capture_output=True, text=True, check=True).stdout.strip()

    def prepare(self, work: Path, source: Path) -> None:
        """Make an empty repository with a cache of its own."""
        self._source, self._repo, self._number = source, work / "borg-repo", 0
        for folder in (self._repo, work / "borg-base"):
            shutil.rmtree(folder, ignore_errors=True)
        self._environment = {
            **os.environ,
            "BORG_PASSPHRASE": "correct horse battery",
            "BORG_BASE_DIR": str(work / "borg-base"),
            "LC_ALL": "C.UTF-8",
        }
        init = ["borg", "init", "--encryption", "repokey-blake2", str(self._repo)]
        checked(measure.run(init, self._environment), self.name)

    def backup(self) -> measure.Run:
        """Make one archive; the file cache sees ctime, size and inode, as ours does."""
        self._number += 1
        command = ["borg", "create", "--compression", "zstd,3", f"{self._repo}::a{self._number}", str(self._source)]
        return checked(measure.run(command, self._environment), self.name)

    def restore(self, target: Path) -> measure.Run:
        """Extract the newest archive; borg writes to the working folder."""
        return self._extract(target)

    def restore_one(self, target: Path, path: Path) -> measure.Run:
        """Extract one file of it."""
        return self._extract(target, str(path).lstrip("/"))

    def _extract(self, target: Path, *paths: str) -> measure.Run:
        command = ["borg", "extract", "--numeric-ids", f"{self._repo}::a{self._number}", *paths]
        return checked(measure.run(command, self._environment, target), self.name)

    def list(self, path: Path) -> measure.Run:
        """List by a pattern that names what lies directly in the folder."""
        pattern = f"re:^{re.escape(str(path).lstrip('/'))}/[^/]*$"
        command = ["borg", "list", "--pattern", f"+ {pattern}", "--pattern", "! re:.", f"{self._repo}::a{self._number}"]
        return checked(measure.run(command, self._environment), self.name)

    def check(self) -> measure.Run:
        """Check everything; without --verify-data chunks would not be decrypted."""
        return checked(measure.run(["borg", "check", "--verify-data", str(self._repo)], self._environment), self.name)

    def prune(self) -> measure.Run:
        """Delete the first archive and give its room back, which are two commands."""
        command = ["sh", "-c", 'borg delete "$0::a1" && borg compact "$0"', str(self._repo)]
        return checked(measure.run(command, self._environment), self.name)

    def size(self) -> tuple[int, int]:
        """Return bytes and files of the repository."""
        return measure.stored(str(self._repo))

    def close(self) -> None:
        """Nothing runs."""


class Restic:
    """restic: its defaults compress with zstd at about level 3 ("auto") and pack to 16 MiB; it uses both cores."""

    name = "restic"

    def version(self) -> str:
        """Return the version."""
        return subprocess.run(["restic", "version"], capture_output=True, text=True, check=True).stdout.strip()

    def prepare(self, work: Path, source: Path) -> None:
        """Make an empty repository with a cache of its own."""
        self._source, self._repo = source, work / "restic-repo"
        for folder in (self._repo, work / "restic-cache"):
            shutil.rmtree(folder, ignore_errors=True)
        self._environment = {
            **os.environ,
            "RESTIC_PASSWORD": "correct horse battery",
            "RESTIC_REPOSITORY": str(self._repo),
            "RESTIC_CACHE_DIR": str(work / "restic-cache"),
        }
        checked(measure.run(["restic", "init"], self._environment), self.name)

    def backup(self) -> measure.Run:
        """Make one snapshot."""
        command = ["restic", "backup", "--quiet", "--pack-size", "16", str(self._source)]
        return checked(measure.run(command, self._environment), self.name)

    def restore(self, target: Path) -> measure.Run:
        """Restore the newest snapshot; it has a cache of directories from the backup."""
        return self._restored(target)

    def restore_one(self, target: Path, path: Path) -> measure.Run:
        """Restore one file of it."""
        return self._restored(target, "--include", str(path))

    def _restored(self, target: Path, *options: str) -> measure.Run:
        command = ["restic", "restore", "latest", "--quiet", "--target", str(target), *options]
        return checked(measure.run(command, self._environment), self.name)

    def list(self, path: Path) -> measure.Run:
        """List a folder."""
        return checked(measure.run(["restic", "ls", "latest", str(path)], self._environment), self.name)

    def check(self) -> measure.Run:
        """Check everything, with its data."""
        return checked(measure.run(["restic", "check", "--read-data"], self._environment), self.name)

    def prune(self) -> measure.Run:
        """Forget all but the last two of three snapshots, and what only the first needs."""
        command = ["restic", "forget", "--keep-last", "2", "--prune", "--quiet"]
        return checked(measure.run(command, self._environment), self.name)

    def size(self) -> tuple[int, int]:
        """Return bytes and files of the repository."""
        return measure.stored(str(self._repo))

    def close(self) -> None:
        """Nothing runs."""


class Replicator:
    """This project: a node and one provider daemon over TLS on loopback, one copy, its store on the same disk.

    CPU and memory of the provider's process are added to the node's: together they do what the others do alone.
    """

    name = "replicator"

    def __init__(self) -> None:
        self._daemon: subprocess.Popen[str] | None = None

    def version(self) -> str:
        """Return the version."""
        return self._call("--version").strip()

    def _call(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "replicator", *arguments]
        result = subprocess.run(
            command, env=getattr(self, "_environment", None), capture_output=True, text=True, check=False
        )
        if result.returncode != 0:
            raise SystemExit(f"{' '.join(arguments)} failed with {result.returncode}:\n{result.stderr}")
        return result.stdout

    def prepare(self, work: Path, source: Path) -> None:
        """Make a tenant, a provider and a dataset."""
        self.close()
        self._work = work / "replicator"
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir(parents=True)
        passphrase = self._work / "passphrase"
        passphrase.write_text("correct horse battery\n")
        passphrase.chmod(0o600)
        self._environment = {**os.environ, "REPLICATOR_PASSPHRASE_FILE": str(passphrase)}
        home, provider = str(self._work / "home"), str(self._work / "provider")
        self._call("init", "--home", home, "--name", "bench", "--recovery-sheet", str(self._work / "sheet"))
        self._call(
            *("provider", "init", "--home", provider, "--data", str(self._work / "data"), "--capacity", "1T"),
            *("--country", "SE", "--region", "umea", "--site", "cellar", "--owner", "alice"),
            *("--listen", "127.0.0.1:0"),
        )
        self._daemon = subprocess.Popen(
            [sys.executable, "-m", "replicator", "provider", "serve", "--home", provider, "--json"],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._daemon.stdout is not None, "a pipe was asked for"
        while "}" not in self._daemon.stdout.readline():
            time.sleep(0.01)
        code = json.loads(self._call("provider", "invite", "--home", provider, "--quota", "900G", "--json"))["code"]
        self._call("peer", "add", code, "--home", home)
        self._call("dataset", "add", "bench", str(source), "--copies", "1", "--minimum", "1", "--home", home)
        self._home = home

    def backup(self) -> measure.Run:
        """Run one backup; the memory of the provider is added."""
        assert self._daemon is not None, "prepare was called"
        result = self._measured("backup")
        return replace(result, peak=result.peak + measure.resident(self._daemon.pid))

    def restore(self, target: Path) -> measure.Run:
        """Restore the newest snapshot; a restore's memory is that of the tenant's machine, without the provider's."""
        return self._measured("restore", "latest", "--target", str(target))

    def restore_over(self, target: Path) -> measure.Run:
        """Restore it over what is there."""
        return self._measured("restore", "latest", "--target", str(target), "--overwrite", "if-changed")

    def restore_one(self, target: Path, path: Path) -> measure.Run:
        """Restore one file of it."""
        return self._measured("restore", "latest", str(path), "--target", str(target))

    def list(self, path: Path) -> measure.Run:
        """List a folder."""
        return self._measured("ls", "latest", str(path))

    def check(self) -> measure.Run:
        """Fetch, open and hash everything, through the provider."""
        return self._measured("verify", "--all")

    def prune(self) -> measure.Run:
        """Forget all but the last two, and mark what only the first needs: providers delete it after lock and grace."""
        return self._measured("forget", "--keep-last", "2", "--prune")

    def _measured(self, *arguments: str) -> measure.Run:
        """Run a command; the CPU of the provider is added."""
        assert self._daemon is not None, "prepare was called"
        before = measure.cpu_of(self._daemon.pid)
        command = [sys.executable, "-m", "replicator", *arguments, "--home", self._home]
        result = checked(measure.run(command, self._environment), self.name)
        return replace(result, cpu_s=result.cpu_s + measure.cpu_of(self._daemon.pid) - before)

    def size(self) -> tuple[int, int]:
        """Return bytes and files of the provider's store."""
        return measure.stored(str(self._work / "data"))

    def close(self) -> None:
        """Stop the provider."""
        if self._daemon is not None:
            self._daemon.send_signal(signal.SIGTERM)
            self._daemon.wait()
            self._daemon = None


def available() -> list[Tool]:
    """Return the tools that are on PATH, this one always."""
    found: list[Tool] = [Replicator()]
    if shutil.which("borg"):
        found.append(Borg())
    if shutil.which("restic"):
        found.append(Restic())
    return found
