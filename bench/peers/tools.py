"""The tools, each with the settings that are fairest: encryption on, zstd level 3, repository on the same disk.

What is left as a tool has it, because its users will: chunk and pack sizes, number of threads, caches.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from bench.peers import measure


class Tool(Protocol):
    """One backup tool with a repository of its own below ``work``."""

    name: str

    @property
    def settings(self) -> Sequence[tuple[str, str]]:
        """Return what is set, or left as it is, and why."""
        ...

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

    def prune(self) -> measure.Run:
        """Forget the first of three snapshots and what only that needs."""
        ...

    def check(self) -> measure.Run:
        """Read all that is stored, decrypt it and hold it against its ids."""
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
    """BorgBackup."""

    name = "borg"
    settings = (
        ("--encryption repokey-blake2", "the fastest of its authenticated encryptions on 64-bit machines"),
        ("--compression zstd,3", "as all; its default is lz4"),
        ("check --verify-data", "without it chunks are not decrypted"),
        ("delete, then compact", "a delete alone gives no room back"),
    )

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
        """Make one archive; its file cache sees ctime, size and inode, as ours does."""
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
        """Check everything, with its data."""
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
    """restic."""

    name = "restic"
    settings = (
        ("--compression auto (default)", "zstd at its default level, which is 3"),
        ("check --read-data", "without it packs are not read"),
        ("forget --keep-last 2 --prune", "which is one command"),
    )

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
        command = ["restic", "backup", "--quiet", str(self._source)]
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


class Rustic:
    """rustic: another program for restic's format."""

    name = "rustic"
    settings = (
        ("built by cargo with thin linking", "its releases link as a whole, which takes twice as long to build"),
        ("init --set-compression 3", "as all; it is its default"),
        ("check --read-data", "without it packs are not read"),
        ("forget --keep-last 2 --prune --instant-delete", "else it only marks packs, and deletes them a day later"),
    )

    def version(self) -> str:
        """Return the version."""
        return subprocess.run(["rustic", "--version"], capture_output=True, text=True, check=True).stdout.strip()

    def prepare(self, work: Path, source: Path) -> None:
        """Make an empty repository with a cache of its own."""
        self._source, self._repo = source, work / "rustic-repo"
        for folder in (self._repo, work / "rustic-home"):
            shutil.rmtree(folder, ignore_errors=True)
        self._environment = {
            **os.environ,
            "HOME": str(work / "rustic-home"),  # so that no profile of this user is read
            "RUSTIC_PASSWORD": "correct horse battery",
            "RUSTIC_REPOSITORY": str(self._repo),
            "RUSTIC_CACHE_DIR": str(work / "rustic-home" / "cache"),
            "RUSTIC_NO_PROGRESS": "true",
        }
        self._run("init", "--set-compression", "3")

    def backup(self) -> measure.Run:
        """Make one snapshot."""
        return self._run("backup", str(self._source))

    def restore(self, target: Path) -> measure.Run:
        """Restore the newest snapshot."""
        return self._run("restore", "latest", str(target))

    def restore_one(self, target: Path, path: Path) -> measure.Run:
        """Restore one file of it."""
        return self._run("restore", f"latest:{path}", str(target / path.name))

    def list(self, path: Path) -> measure.Run:
        """List a folder."""
        return self._run("ls", f"latest:{path}")

    def prune(self) -> measure.Run:
        """Forget all but the last two of three snapshots, and what only the first needs."""
        return self._run("forget", "--keep-last", "2", "--prune", "--instant-delete")

    def check(self) -> measure.Run:
        """Check everything, with its data."""
        return self._run("check", "--read-data")

    def _run(self, *arguments: str) -> measure.Run:
        return checked(measure.run(["rustic", *arguments], self._environment), self.name)

    def size(self) -> tuple[int, int]:
        """Return bytes and files of the repository."""
        return measure.stored(str(self._repo))

    def close(self) -> None:
        """Nothing runs."""


class Kopia:
    """Kopia."""

    name = "kopia"
    settings = (
        ("policy set --global --compression zstd", "as all (its zstd is of level 3); its default is none"),
        ("snapshot verify --verify-files-percent 100", "without it no file is read"),
        ("cache clear before that, not measured", "else it reads what a restore has left in its cache, not the store"),
        ("maintenance run --full --safety none", "else what is not needed goes a day later and in several runs"),
    )

    def version(self) -> str:
        """Return the version."""
        said = subprocess.run(["kopia", "--version"], capture_output=True, text=True, check=True).stdout
        return f"kopia {said.split()[0]}"

    def prepare(self, work: Path, source: Path) -> None:
        """Make an empty repository with a cache of its own."""
        self._source, self._repo, home = source, work / "kopia-repo", work / "kopia-home"
        for folder in (self._repo, home):
            shutil.rmtree(folder, ignore_errors=True)
        self._environment = {
            **os.environ,
            "HOME": str(home),
            "KOPIA_PASSWORD": "correct horse battery",
            "KOPIA_CONFIG_PATH": str(home / "repository.config"),
            "KOPIA_CACHE_DIRECTORY": str(home / "cache"),
            "KOPIA_LOG_DIR": str(home / "log"),
            "KOPIA_CHECK_FOR_UPDATES": "false",
        }
        self._repo.mkdir(parents=True)
        self._run("repository", "create", "filesystem", "--path", str(self._repo))
        self._run("policy", "set", "--global", "--compression", "zstd")

    def backup(self) -> measure.Run:
        """Make one snapshot."""
        return self._run("snapshot", "create", "--no-progress", str(self._source))

    def restore(self, target: Path) -> measure.Run:
        """Restore the newest snapshot."""
        tree = self._snapshots()[-1]["rootEntry"]["obj"]
        return self._run("snapshot", "restore", "--no-progress", tree, str(target / self._source.name))

    def restore_one(self, target: Path, path: Path) -> measure.Run:
        """Restore one file of it."""
        return self._run("snapshot", "restore", "--no-progress", self._in(path), str(target / path.name))

    def list(self, path: Path) -> measure.Run:
        """List a folder."""
        return self._run("ls", self._in(path))

    def prune(self) -> measure.Run:
        """Delete the first of three snapshots and give its room back, which are two commands."""
        command = 'kopia snapshot delete --delete "$0" && kopia maintenance run --full --safety none'
        return checked(measure.run(["sh", "-c", command, self._snapshots()[0]["id"]], self._environment), self.name)

    def check(self) -> measure.Run:
        """Read every file of every snapshot, from the repository."""
        self._run("cache", "clear")
        return self._run("snapshot", "verify", "--verify-files-percent", "100")

    def _in(self, path: Path) -> str:
        return f"{self._snapshots()[-1]['rootEntry']['obj']}/{path.relative_to(self._source)}"

    def _snapshots(self) -> Any:
        """Return the snapshots as kopia lists them, oldest first."""
        listed = self._run("snapshot", "list", "--json").output
        return json.loads(listed[listed.index("[") :])

    def _run(self, *arguments: str) -> measure.Run:
        return checked(measure.run(["kopia", *arguments], self._environment), self.name)

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
    settings = (
        ("a provider over TLS on loopback", "there is no backup without one; the others write to a folder"),
        ("--copies 1 --minimum 1", "as many as the others store"),
        ("verify --all", "fetches, opens and hashes everything, through the provider"),
        ("forget --keep-last 2 --prune", "which marks; providers delete after lock and grace, weeks later"),
    )

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
        """Run one backup."""
        return self._measured("backup")

    def restore(self, target: Path) -> measure.Run:
        """Restore the newest snapshot."""
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
        assert self._daemon is not None, "prepare was called"
        command = [sys.executable, "-m", "replicator", *arguments, "--home", self._home]
        return checked(measure.run(command, self._environment, daemon=self._daemon.pid), self.name)

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
    found += [tool for tool in (Borg(), Restic(), Rustic(), Kopia()) if shutil.which(tool.name)]
    return found
