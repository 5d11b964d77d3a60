"""Run a command as a whole process: wall, CPU of it and all it waited for, peak memory over the process tree."""

import os
import resource
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_S = 0.1
SELDOM_S = 0.5
"""Between samples from the twenty-first on.

To add up who has which page takes milliseconds and stops the process meanwhile: ten samples a second of a restore by
five processes took a tenth of a processor, of the two that it needs.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One finished command.

    ``peak`` is bytes of resident memory, summed over its process tree at the worst sample; ``whole`` with the daemon
    that it talked to, whose CPU is in ``cpu_s`` too.
    """

    wall_s: float
    cpu_s: float
    peak: int
    whole: int
    code: int
    output: str


def run(
    command: Sequence[str], environment: Mapping[str, str], folder: Path | None = None, daemon: int | None = None
) -> Run:
    """Run a command to its end, in a folder; output is kept for error messages only. ``daemon`` is a process's id.

    Whatever the environment says of it, Python keeps what it has compiled, as it does where people run it.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    daemon_before = cpu_of(daemon) if daemon is not None else 0.0
    started = time.perf_counter()
    process = subprocess.Popen(
        list(command),
        env={name: value for name, value in environment.items() if name != "PYTHONDONTWRITEBYTECODE"},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    watch = _Watch(process.pid, daemon)
    watch.start()
    output, _ = process.communicate()
    wall = time.perf_counter() - started
    watch.stop()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
    if daemon is not None:
        cpu += cpu_of(daemon) - daemon_before
    return Run(wall_s=wall, cpu_s=cpu, peak=watch.peak, whole=watch.whole, code=process.returncode, output=output)


class _Watch(threading.Thread):
    def __init__(self, root: int, beside: int | None) -> None:
        super().__init__(daemon=True)
        self._roots = [root] if beside is None else [root, beside]
        self._ended = threading.Event()
        self.peak = 0
        self.whole = 0

    def run(self) -> None:
        started = time.perf_counter()
        while not self._ended.wait(SAMPLE_S if time.perf_counter() - started < 20 * SAMPLE_S else SELDOM_S):
            own, *others = (sum(resident(pid) for pid in one) for one in trees(self._roots))
            self.peak = max(self.peak, own)
            self.whole = max(self.whole, own + sum(others))

    def stop(self) -> None:
        self._ended.set()
        self.join()


def trees(roots: Sequence[int]) -> list[list[int]]:
    """Return each of these processes with its descendants."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            parents.setdefault(parent, []).append(int(name))
    found = [[root] for root in roots]
    for one in found:
        for pid in one:
            one += parents.get(pid, [])
    return found


def resident(pid: int) -> int:
    """Return a process's private resident bytes: shared pages of forked workers count once, in their parent."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 0


def cpu_of(pid: int) -> float:
    """Return the CPU seconds that a running process, and what it has waited for, have used so far."""
    ticks = os.sysconf("SC_CLK_TCK")
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return sum(int(field) for field in fields[11:15]) / ticks


def stored(folder: str) -> tuple[int, int]:
    """Return (bytes, files) below a folder."""
    size = count = 0
    for path, _, names in os.walk(folder):
        for name in names:
            size += os.lstat(os.path.join(path, name)).st_size
            count += 1
    return size, count
