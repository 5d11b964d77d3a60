"""docs/operate/first-hour.md, typed by three friends from the first line to the last, in one process."""

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from replicator.cli import base
from replicator.cli.base import Session
from replicator.cli.main import cli
from replicator.clock import SystemClock
from replicator.fs import PosixFs
from replicator.provider.home import Provider, open_provider
from replicator.rng import SystemRng
from replicator.transport.memory import MemoryNetwork
from tests.scenarios.friends import salt_alike
from tests.scenarios.world import PASSPHRASE, read, write
from tests.test_docs import lines_of

PAGE = Path(__file__).parents[2] / "docs" / "operate" / "first-hour.md"
FRIENDS = ("alice", "bob", "carol")


def steps() -> list[tuple[tuple[str, ...], str]]:
    """Return who types what, in the page's order: the numbered sections' blocks."""
    found: list[tuple[tuple[str, ...], str]] = []
    for section in re.split(r"\n## ", PAGE.read_text())[1:]:
        title, _, text = section.partition("\n")
        if re.match(r"\d+\. ", title):
            name = re.sub(r"\d+\. ", "", title).partition(":")[0].lower()
            who = FRIENDS if name == "each of the three" else (name,)
            found += [(who, line) for line, complete in lines_of(text) if complete]
    return found


class Table:
    """Three friends with a machine each, who type; what waits on a network or a person is played."""

    def __init__(self, root: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self.network = MemoryNetwork()
        self.opened: list[Provider] = []
        self.codes: dict[str, str] = {}
        self.asked: list[str] = []
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        passphrase = os.path.join(root, "passphrase")
        write(passphrase, PASSPHRASE.encode())
        os.chmod(passphrase, 0o600)
        monkeypatch.setenv("REPLICATOR_PASSPHRASE_FILE", passphrase)
        salt_alike(monkeypatch)
        monkeypatch.setattr(base, "_LateNetwork", lambda: self.network)
        monkeypatch.setattr(base, "load_network", lambda: None)
        monkeypatch.setattr(click, "confirm", self._confirm)
        self._typing = ""
        monkeypatch.setattr("sys.stdin.isatty", lambda: self._typing == "group", raising=False)  # else words are asked

    def _confirm(self, text: str, **_: Any) -> bool:
        self.asked.append(text)
        return True

    def types(self, name: str, line: str) -> str:
        """Let one of them type a line; return what was printed."""
        home = os.path.join(self.root, name)
        line = line.replace("~", home).replace("NAME", name).replace("TOWN", f"{name}s-town")
        words = [self.codes[name] if word == "CODE" else word for word in shlex.split(line)]
        self._monkeypatch.setenv("REPLICATOR_HOME", os.path.join(home, "state"))
        self._monkeypatch.chdir(home)
        if words == ["provider", "serve"]:
            return self._serves(os.path.join(home, "state"))
        self._typing = words[0]
        session = Session()
        with pytest.raises(SystemExit) as ended:
            cli.main(words, prog_name="replicator", standalone_mode=False, obj=session)
        said = self._capsys.readouterr()
        assert ended.value.code == 0, f"{name}: {words}\n{said.err}\n{said.out}"
        for friend in FRIENDS:
            if words[:2] == ["group", "invite"] and friend in words:
                self.codes[friend] = said.out.strip()
        return said.out

    def _serves(self, home: str) -> str:
        provider = open_provider(home, fs=PosixFs(), clock=SystemClock(), rng=SystemRng())
        self.network.add(provider.start(self.network, lambda work: work()))
        self.opened.append(provider)
        return ""


@pytest.fixture
def table(fresh: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Table]:
    for name in FRIENDS:
        write(os.path.join(fresh, name, "letters", "one"), f"dear friends of {name}\n".encode() * 99)
    made = Table(fresh, monkeypatch, capsys)
    yield made
    for provider in made.opened:
        provider.close()


def test_three_friends_type_the_page_and_each_can_lose_a_house(table: Table) -> None:
    for who, line in steps():
        for name in who:
            table.types(name, line)
    assert table.asked == ["Take them as they say they are?"] * 4
    for name in FRIENDS:
        others = [other for other in FRIENDS if other != name]
        shown = table.types(name, "group show --offline")
        assert "3 in it" in shown
        assert all(f"keeps 100 GB (peer '{other}')" in shown for other in others)
        target = os.path.join(table.root, name, "back")
        table.types(name, f"restore latest --target {target}")
        assert read(os.path.join(target, "letters", "one")) == f"dear friends of {name}\n".encode() * 99
