"""Comparing two files of 5 million entries of 4 doubles: time against h5diff (Debian's hdf5-tools), and peak memory.

The same numbers are in two HDF5 files and in two ROOT trees; between the two either one entry differs or every one
does, in its last digits. Every figure comes from a process of its own; ours and h5diff's take turns, so that the ratios
hold on a machine whose speed drifts. Figures: the least of the rounds.

Usage: python benchmarks/compare.py [ENTRIES [ROUNDS]]     (default: 5000000 3)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

BRANCHES = ("px", "py", "pz", "e")
PART = 500_000  # entries written at a time


class Measured(NamedTuple):
    """Wall-clock seconds and peak memory (MB) of one process."""

    seconds: float
    memory: float


# What is large is imported where it is used: a process hands its peak memory down to those that it starts.


def write(folder: Path, entries: int, change: str) -> None:
    """Write the numbers as HDF5 and ROOT, uncompressed and with zlib; ``change``: none, one (entry of each) or all."""
    import h5py  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415
    import uproot  # noqa: PLC0415

    rng = np.random.default_rng(91)
    made = {name: rng.normal(50.0, 20.0, entries) for name in BRANCHES}
    for name in BRANCHES:
        if change == "one":
            made[name][entries // 2] += 1e-9
        elif change == "all":
            made[name] *= 1 + 1e-14
    with h5py.File(folder / f"{change}.h5", "w") as file:
        for name, values in made.items():
            file[name] = values
    for kind, compression in (("plain", None), ("zlib", uproot.ZLIB(1))):
        with uproot.recreate(folder / f"{change}.{kind}.root", compression=compression) as file:
            tree = file.mktree("tree", dict.fromkeys(BRANCHES, "f8"))
            for start in range(0, entries, PART):
                tree.extend({name: values[start : start + PART] for name, values in made.items()})


def compare(recorded: Path, found: Path) -> None:
    """Judge two files, as replay and diff do."""
    from preserve.comparators.comparing import compare_files, sides_of  # noqa: PLC0415
    from preserve.comparators.judging import Compared, judge  # noqa: PLC0415
    from preserve.comparators.leaves import Limits  # noqa: PLC0415
    from preserve.documents.policy import Policy  # noqa: PLC0415

    facts = compare_files(sides_of(found.name, recorded, found), Limits())
    [result] = judge([Compared(path=found.name, declared=found.name, facts=facts, policy=Policy())])
    assert result.verdict == "different"


def measured(*command: str | Path) -> Measured:
    """Run a command that ends with 0 or, having found a difference, with 1."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):
        raise SystemExit(f"{command} failed ({process.returncode})")
    return Measured(seconds=seconds, memory=usage.ru_maxrss / 1e3)


def best(rounds: list[Measured]) -> Measured:
    """Give the least time and the most memory."""
    return Measured(seconds=min(one.seconds for one in rounds), memory=max(one.memory for one in rounds))


def table(folder: Path, change: str, rounds: int) -> None:
    """Print the figures for one kind of difference."""
    ours = {
        ending: [sys.executable, __file__, "--do", folder / f"none.{ending}", folder / f"{change}.{ending}"]
        for ending in ("h5", "plain.root", "zlib.root")
    }
    theirs = ["h5diff", folder / "none.h5", folder / f"{change}.h5"]
    found: dict[str, list[Measured]] = {name: [] for name in ("h5diff", *ours)}
    for _ in range(rounds):
        found["h5diff"].append(measured(*theirs))
        for name, command in ours.items():
            found[name].append(measured(*command))
    floor = best(found["h5diff"])
    for name, measurements in found.items():
        one = best(measurements)
        ratio = one.seconds / floor.seconds
        print(f"  {change:4} {name:12} {one.seconds:6.2f} s {ratio:5.2f} x h5diff {one.memory:5.0f} MB", flush=True)


def main() -> None:
    """Write files, do one comparison, or print all figures."""
    if sys.argv[1:2] == ["--do"]:
        compare(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    if shutil.which("h5diff") is None:
        raise SystemExit("h5diff is not installed: apt-get install hdf5-tools")
    if sys.argv[1:2] == ["--write"]:
        write(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
        return
    given = [int(word) for word in sys.argv[1:]]
    entries, rounds = (*given, *(5_000_000, 3)[len(given) :])
    folder = Path(tempfile.mkdtemp(prefix="preserve-bench-", dir=Path.cwd()))
    try:
        for change in ("none", "one", "all"):
            measured(sys.executable, __file__, "--write", folder, str(entries), change)
        print(f"{entries} entries of {len(BRANCHES)} doubles, {rounds} rounds")
        for change in ("one", "all"):
            table(folder, change, rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
