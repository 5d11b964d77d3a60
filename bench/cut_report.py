"""``python -m bench.cut_report``: all figures of cutting in one run, as ratios, to bench/results/cut.{json,md}.

Every round runs each subject once, in turn, so that a slow minute of the machine meets them all; the first round
warms up and is not counted. Times are CPU time of the one thread, figures medians over the rounds, and the noise
is half the distance between the quartiles. A ratio is the median of the rounds' own ratios.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from bench.cut_subjects import SEED, SIZES, Subject, subjects

RESULTS: Final = Path(__file__).parent / "results"
_LARGE: Final = "256K/1M/4M"
_PACKAGES: Final = ("blake3", "fastcdc", "pyfastcdc")

Speeds = dict[str, list[float]]  # bytes per second in each round


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--size", type=int, default=512, help="MiB in the buffer that must not fit the caches")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        speeds = measure(list(subjects(Path(folder), arguments.size << 20)), arguments.rounds)
    conditions = {
        "machine": machine(),
        "python": platform.python_version(),
        "compiler": subprocess.run(["cc", "--version"], check=True, capture_output=True, text=True).stdout.split("\n")[
            0
        ],
        "packages": {name: found for name in _PACKAGES if (found := installed(name))},
        "seed": SEED,
        "rounds": arguments.rounds,
        "ram buffer MiB": arguments.size,
        "load before and after": [round(load, 2), round(os.getloadavg()[0], 2)],
    }
    write(conditions, speeds)


def measure(measured: list[Subject], rounds: int) -> Speeds:
    speeds: Speeds = {subject.name: [] for subject in measured}
    for number in range(rounds + 1):
        for subject in measured:
            before = time.thread_time()
            subject.run()
            spent = time.thread_time() - before
            if number > 0:
                speeds[subject.name].append(subject.size / spent)
        print(f"round {number} of {rounds}", file=sys.stderr)
    return speeds


def targets(speeds: Speeds) -> list[tuple[str, float, list[float]]]:
    """What is demanded of the kernels that this machine has: name, least ratio, the rounds' ratios."""
    packages = [name for name in (f"fastcdc {_LARGE}, ram", f"pyfastcdc {_LARGE}, ram") if name in speeds]
    best = next(name.split()[0] for name in speeds if name.endswith(f" {_LARGE}, ram"))
    rows = [
        (f"{kernel} {_LARGE} / memory read, ram", least, f"{kernel} {_LARGE}, ram", ["memory read, ram"])
        for kernel, least in (("avx2", 0.65), ("sse2", 0.3))
    ]
    rows.append((f"{best} {_LARGE} / keyed BLAKE3, hot", 3.0, f"{best} {_LARGE}, hot", ["BLAKE3, hot"]))
    if packages:
        rows.append((f"{best} {_LARGE} / the faster package, ram", 4.0, f"{best} {_LARGE}, ram", packages))
    rows += [
        (
            f"pread + cut + BLAKE3 / BLAKE3 of the same chunks in memory, {sizes}",
            0.75,
            f"pread + cut + BLAKE3 {sizes}, file",
            [f"BLAKE3 of chunks {sizes}, ram"],
        )
        for sizes in SIZES
    ]
    return [
        (name, least, [mine / max(theirs) for mine, *theirs in zip(*map(speeds.get, (subject, *others)), strict=True)])
        for name, least, subject, others in rows
        if subject in speeds
    ]


def spread(values: list[float]) -> float:
    lower, _, upper = statistics.quantiles(values, n=4)
    return (upper - lower) / 2


def write(conditions: dict[str, object], speeds: Speeds) -> None:
    """Both files say the same; the JSON has every round."""
    RESULTS.mkdir(exist_ok=True)
    demanded = targets(speeds)
    document = {
        "conditions": conditions,
        "bytes per second": {name: [round(value) for value in values] for name, values in speeds.items()},
        "targets": [
            {"name": name, "least": least, "ratios": [round(value, 4) for value in values]}
            for name, least, values in demanded
        ],
    }
    (RESULTS / "cut.json").write_text(json.dumps(document, indent=1) + "\n")
    lines = ["# Cutting", ""]
    lines += [f"{name}: {value}  " for name, value in conditions.items()]
    lines += ["", "| ratio | median | noise | at least | reached |", "|---|---|---|---|---|"]
    for name, least, values in demanded:
        median = statistics.median(values)
        lines.append(
            f"| {name} | {median:.2f} | {spread(values):.2f} | {least} | {'yes' if median >= least else 'no'} |"
        )
    reference = statistics.median(speeds["memory read, ram"])
    lines += ["", "| what, where | GB/s | noise | × memory read, ram |", "|---|---|---|---|"]
    for name, values in speeds.items():
        median = statistics.median(values)
        lines.append(f"| {name} | {median / 1e9:.2f} | {spread(values) / 1e9:.2f} | {median / reference:.2f} |")
    (RESULTS / "cut.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def machine() -> str:
    """The processor as the kernel names it, and how many there are."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    names = [facts.get("model name", platform.machine())]
    names += [f"{key} {facts[key]}" for key in ("cpu family", "model") if key in facts]
    return f"{', '.join(names)}; {os.cpu_count()} processors"


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
