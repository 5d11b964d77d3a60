"""What is backed up: real trees, large files, incompressible data. Each corpus is a folder made once, from a seed."""

import filecmp
import os
import random
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

SEED = 20261123
BLOCK = 1 << 20


def made(work: Path, corpus: str, files: int, size: int, names: int = 0) -> Path:
    """Return a corpus below ``work``, making it if it is not there: small, large, random or names."""
    sources = [sys.prefix, "/usr/lib", "/usr/share", "/usr/bin"]
    source = work / f"corpus-{corpus}"
    if not source.exists():
        making = work / "making"
        remove(making)
        if corpus == "small":
            real_tree(making, files, size, sources)
        elif corpus == "large":
            large_files(making, size, sources)
        elif corpus == "names":
            many_names(making, names)
        else:
            incompressible(making, size)
        making.rename(source)
    return source


def real_tree(target: Path, files: int, size: int, sources: list[str]) -> None:
    """Copy regular files from ``sources`` in name order, several times over if needed, up to both limits.

    Repeated copies get a changed first line, so that they are new content of the same kind.
    """
    count = total = 0
    for round_number in range(100):
        for path, relative in _regular(sources):
            if count >= files and total >= size:
                return
            out = target / f"round-{round_number}" / relative
            out.parent.mkdir(parents=True, exist_ok=True)
            data = path.read_bytes()
            if round_number and data:
                data = f"# round {round_number}\n".encode() + data
            out.write_bytes(data)
            count += 1
            total += len(data)


def _regular(sources: list[str]) -> Iterator[tuple[Path, str]]:
    for number, source in enumerate(sources):
        for folder, names, found in os.walk(source):
            names.sort()
            for name in sorted(found):
                path = Path(folder, name)
                if path.is_symlink() or not path.is_file() or not os.access(path, os.R_OK):
                    continue
                if path.stat().st_size <= 8 * BLOCK:
                    yield path, f"{number}/{path.relative_to(source)}"


def large_files(target: Path, size: int, sources: list[str]) -> None:
    """Write a few large files: concatenated executables and libraries, an SQLite database, a half-empty image."""
    target.mkdir(parents=True, exist_ok=True)
    rng = random.Random(SEED)
    share = size // 4
    binaries = [path for path, _ in _regular(sources) if path.suffix in {".so", ".a", ""} or ".so." in path.name]
    for number in range(2):
        rng.shuffle(binaries)
        written = 0
        with (target / f"binaries-{number}.img").open("wb") as out:
            for path in binaries * 50:
                if written >= share:
                    break
                data = path.read_bytes()
                # A few bytes of each piece differ between the images, as in two builds of one thing.
                data = data[: len(data) // 2] + rng.randbytes(16) + data[len(data) // 2 :]
                out.write(data)
                written += len(data)
    _database(target / "rows.sqlite", share, rng)
    with (target / "disk.img").open("wb") as out:
        for block in range(share // BLOCK):
            out.write(bytes(BLOCK) if block % 2 else rng.randbytes(BLOCK // 2) + bytes(BLOCK // 2))


def _database(path: Path, size: int, rng: random.Random) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, name TEXT, amount REAL, body BLOB)")
    number = 0
    while not path.exists() or path.stat().st_size < size:
        rows = [
            (number + i, f"customer {rng.randrange(10**6)}", rng.random(), rng.randbytes(200) + b"x" * 200)
            for i in range(20_000)
        ]
        connection.executemany("INSERT INTO rows VALUES (?, ?, ?, ?)", rows)
        connection.commit()
        number += len(rows)
    connection.close()


def incompressible(target: Path, size: int) -> None:
    """Write random files of 256 MiB, as media and archives are to a compressor."""
    target.mkdir(parents=True, exist_ok=True)
    rng = random.Random(SEED + 1)
    each = 256 * BLOCK
    for number in range(max(1, size // each)):
        with (target / f"media-{number:03}.bin").open("wb") as out:
            for _ in range(min(each, size) // BLOCK):
                out.write(rng.randbytes(BLOCK))


def many_names(target: Path, files: int) -> None:
    """Write tiny files, a thousand in each folder."""
    for number in range(files):
        folder = target / f"{number // 1000:04}"
        if number % 1000 == 0:
            folder.mkdir(parents=True)
        (folder / f"file-{number:07}.txt").write_bytes(b"%d\n" % number)


def touch_some(folder: Path, share: float, seed: int) -> int:
    """Change a share of the files: append a line to small ones, overwrite 4 KiB inside large ones."""
    rng = random.Random(seed)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    chosen = rng.sample(files, max(1, round(len(files) * share)))
    for path in chosen:
        size = path.stat().st_size
        with path.open("r+b") as file:
            if size < BLOCK:
                file.seek(0, os.SEEK_END)
                file.write(f"changed {seed}\n".encode())
            else:
                file.seek(rng.randrange(size - 4096))
                file.write(rng.randbytes(4096))
    return len(chosen)


def restored(target: Path, source: Path) -> Path:
    """Return where a tool has put the source: under its name, or under its whole path."""
    whole = target / str(source).lstrip("/")
    return whole if whole.exists() else target / source.name


def compare(source: Path, found: Path) -> None:
    """Check that what was restored has the same names and bytes."""
    ours = sorted(path.relative_to(source) for path in source.rglob("*"))
    if ours != sorted(path.relative_to(found) for path in found.rglob("*")):
        raise SystemExit(f"{found} has other names than {source}")
    for path in ours:
        one, other = source / path, found / path
        if one.is_file() and not one.is_symlink() and not filecmp.cmp(one, other, shallow=False):
            raise SystemExit(f"{other} differs from {one}")


def remove(folder: Path) -> None:
    """Remove a folder if it is there."""
    shutil.rmtree(folder, ignore_errors=True)
