"""Real Borg repositories for tests. Where there is no borg, what needs one is skipped, and says so."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
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


class Repo:
    """A repository in a folder of its own, and borg as its user calls it."""

    def __init__(self, top: Path, *, encryption: str = "repokey", program: str = "borg") -> None:
        self.path = top / "repo"
        self.program = program
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

    def maker(self, home: str, *, reads: bool = True, programs: Programs | None = None) -> Callable[[Stop], Borg]:
        """Return what makes our face of it."""

        def make(stop: Stop) -> Borg:
            environment = self.environment
            if self.program != "borg":
                environment = {**environment, "PATH": f"{os.path.dirname(self.program)}:{environment['PATH']}"}
            return Borg(
                str(self.path),
                programs=programs or SystemPrograms(),
                environment=environment,
                home=home,
                stop=stop,
                reads=reads,
                wait_s=0,
            )

        return make
