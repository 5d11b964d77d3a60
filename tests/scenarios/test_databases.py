"""The recipes of docs/operate/consistent.md on real databases that are written to while they are backed up."""

import dataclasses
import glob
import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from replicator.engine.commands import PipedCommand
from replicator.format.consistency import Consistency
from tests.scenarios.world import World

pytestmark = pytest.mark.process

ACCOUNTS = 2000
SQLITE_WRITER = """
import sqlite3, sys
base = sqlite3.connect(sys.argv[1], timeout=60)
number = 0
while True:
    with base:
        base.execute("UPDATE account SET money = money - 1 WHERE id = ?", (number % 2000,))
        base.execute("UPDATE account SET money = money + 1, note = hex(randomblob(500)) WHERE id = ?",
                     ((number * 7 + 1) % 2000,))
    number += 1
    if number == 20:
        print("writing", flush=True)
"""
SQLITE_DUMPS = {
    "python": f'{sys.executable} -c "import sqlite3, sys; a, b = map(sqlite3.connect, sys.argv[1:]); a.backup(b)" '
    '"$BASE" "$DUMP.new" && mv "$DUMP.new" "$DUMP"',
    "sqlite3": """sqlite3 "$BASE" "VACUUM INTO '$DUMP.new'" && mv "$DUMP.new" "$DUMP\"""",
}


@pytest.mark.parametrize("way", SQLITE_DUMPS)
async def test_sqlite_under_write_comes_back_whole(way: str, world: World, tmp_path: Path) -> None:
    if way == "sqlite3" and shutil.which("sqlite3") is None:
        pytest.skip("sqlite3 is not installed")
    (tmp_path / "dumps").mkdir()
    base, dump = tmp_path / "app.db", tmp_path / "dumps" / "app.db"
    with closing(sqlite3.connect(base)) as made, made:
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, money INTEGER, note TEXT)")
        made.executemany("INSERT INTO account VALUES (?, 100, ?)", [(i, "x" * 1000) for i in range(ACCOUNTS)])
    world.add_dataset("app", str(tmp_path / "dumps"))
    hook = f"BASE={base} DUMP={dump}; {SQLITE_DUMPS[way]}"
    set_hooks(world, "app", Consistency(before=hook, after=f"rm -f {dump}"))
    with writing(sys.executable, "-c", SQLITE_WRITER, str(base)):
        [done] = (await world.backup(readers=1, overlap=True)).datasets
        assert (done.error, done.published, done.troubles.problems) == (None, True, [])
    assert os.listdir(tmp_path / "dumps") == []
    await world.restore(str(tmp_path / "out"))
    with closing(sqlite3.connect(tmp_path / "out" / "dumps" / "app.db")) as back:
        assert back.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert back.execute("SELECT count(*), sum(money) FROM account").fetchone() == (ACCOUNTS, 100 * ACCOUNTS)
        assert back.execute("SELECT count(*) FROM account WHERE money <> 100").fetchone() > (0,), "it was written to"


class writing:  # noqa: N801 - reads as what goes on
    """A process that writes until the block ends."""

    def __init__(self, *words: str) -> None:
        self._words = words

    def __enter__(self) -> None:
        self._process = subprocess.Popen(
            self._words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line != b"writing\n":
            self._end()
            pytest.fail(f"the writer said {line!r}")

    def __exit__(self, *_: object) -> None:
        assert self._end(), "it went on to the end"

    def _end(self) -> bool:
        running = self._process.poll() is None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        return running


def set_hooks(world: World, dataset: str, consistency: Consistency) -> None:
    node = world.node()
    try:
        one = node.catalog.datasets.get(dataset)
        node.catalog.datasets.update(dataclasses.replace(one, consistency=consistency))
    finally:
        node.close()


@dataclasses.dataclass(frozen=True, slots=True)
class Postgres:
    """A server of its own, reached through a socket in a folder."""

    bin: str
    folder: str

    def words(self, program: str, *words: str) -> tuple[str, ...]:
        return (os.path.join(self.bin, program), "-h", self.folder, "-U", "owner", *words)

    def sql(self, base: str, *words: str) -> str:
        call = self.words("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", base, *words)
        return subprocess.run(call, check=True, capture_output=True, text=True).stdout.strip()


def _unprivileged() -> str | None:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    return None


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server in a temporary folder; it refuses to run as root."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL's server is not installed (Debian: postgresql)")
    user = _unprivileged() if os.geteuid() == 0 else None
    if os.geteuid() == 0 and user is None:
        pytest.skip("there is no unprivileged user to run PostgreSQL as")
    folder = tempfile.mkdtemp(prefix="replicator-pg-")
    server = Postgres(os.path.dirname(found[-1]), folder)
    if user is not None:
        shutil.chown(folder, user)

    def call(*words: str) -> None:
        subprocess.run(words, check=True, capture_output=True, user=user, cwd=folder, extra_groups=[] if user else None)

    data = os.path.join(folder, "data")
    try:
        call(found[-1], "-D", data, "-U", "owner", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
        control = os.path.join(server.bin, "pg_ctl")
        call(control, "-D", data, "-l", os.path.join(folder, "log"), "-w", "-o", options, "start")
        try:
            yield server
        finally:
            call(control, "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def shop(postgres: Postgres) -> Iterator[Postgres]:
    """A database that has something in it."""
    postgres.sql("postgres", "-c", "CREATE DATABASE shop")
    postgres.sql("shop", "-c", "CREATE TABLE sold (id serial, note text); CREATE TABLE paid (id int, note text)")
    postgres.sql(
        "shop", "-c", "INSERT INTO sold (note) SELECT repeat(md5(i::text), 10) FROM generate_series(1, 5000) i"
    )
    postgres.sql("shop", "-c", "INSERT INTO paid SELECT id, note FROM sold")
    yield postgres
    for base in ("shop", "back"):
        postgres.sql("postgres", "-c", f"DROP DATABASE IF EXISTS {base} WITH (FORCE)")


POSTGRES_WRITER = r"""
for i in $(seq 100000); do
  echo "BEGIN; INSERT INTO sold (note) VALUES ('new'); INSERT INTO paid SELECT max(id), 'new' FROM sold; COMMIT;"
  test "$i" = 20 && printf '%s\n' '\echo writing'
done | "$@"
"""


def check(server: Postgres, text: Path) -> None:
    server.sql("postgres", "-c", "CREATE DATABASE back")
    server.sql("back", "-f", str(text))
    sold = int(server.sql("back", "-c", "SELECT count(*) FROM sold"))
    paid = int(server.sql("back", "-c", "SELECT count(*) FROM paid"))
    both = int(server.sql("back", "-c", "SELECT count(*) FROM sold JOIN paid USING (id, note)"))
    assert sold == paid == both > 5000


async def test_postgresql_under_write_comes_back_whole_from_a_stream(
    world: World, shop: Postgres, tmp_path: Path
) -> None:
    world.add_dataset("shop")
    command = PipedCommand(name=b"shop.sql", argv=shop.words("pg_dump", "shop"), folder="/", limit_s=300)
    psql = shop.words("psql", "-X", "-q", "-d", "shop")
    with writing("/bin/sh", "-c", POSTGRES_WRITER, "sh", *psql):
        [done] = (await world.backup("shop", command=command, overlap=True)).datasets
        assert (done.error, done.published) == (None, True)
    await world.restore(str(tmp_path / "out"))
    check(shop, tmp_path / "out" / "shop.sql")


async def test_postgresql_comes_back_whole_from_a_dump_that_the_hook_before_made(
    world: World, shop: Postgres, tmp_path: Path
) -> None:
    (tmp_path / "dumps").mkdir()
    dump = tmp_path / "dumps" / "shop.sql"
    world.add_dataset("shop", str(tmp_path / "dumps"))
    call = " ".join(shop.words("pg_dump", "shop"))
    set_hooks(world, "shop", Consistency(before=f"{call} > {dump}.new && mv {dump}.new {dump}", after=f"rm {dump}"))
    psql = shop.words("psql", "-X", "-q", "-d", "shop")
    with writing("/bin/sh", "-c", POSTGRES_WRITER, "sh", *psql):
        [done] = (await world.backup(overlap=True)).datasets
        assert (done.error, done.published, done.troubles.problems) == (None, True, [])
    assert os.listdir(tmp_path / "dumps") == []
    await world.restore(str(tmp_path / "out"))
    check(shop, tmp_path / "out" / "dumps" / "shop.sql")


async def test_a_postgresql_that_is_not_there_fails_the_backup_with_its_words(world: World, postgres: Postgres) -> None:
    world.add_dataset("shop")
    command = PipedCommand(name=b"shop.sql", argv=postgres.words("pg_dump", "nowhere"), folder="/", limit_s=300)
    [done] = (await world.backup("shop", command=command)).datasets
    assert done.error is not None
    assert 'database "nowhere" does not exist' in done.error.message
    assert done.snapshot is None
