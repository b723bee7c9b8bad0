"""What a comparison may cost: memory of large trees and of files with many numbers, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ENTRIES = 5_000_000
BRANCHES = ("px", "py", "pz", "e")
BASKET = 500_000  # entries
MB = 1 << 20

WRITE = """
import sys
import numpy as np, uproot
folder, entries, basket, *names = sys.argv[1:]
rng = np.random.default_rng(91)
made = {name: rng.integers(0, 1 << 12, int(entries)) / 64 for name in names}  # what zlib is quick with
def write(file, change):
    with uproot.recreate(f"{folder}/{file}.root", compression=uproot.ZLIB(1)) as opened:
        tree = opened.mktree("tree", dict.fromkeys(names, "f8"))
        for start in range(0, int(entries), int(basket)):
            tree.extend({name: change(name, values[start : start + int(basket)]) for name, values in made.items()})
write("recorded", lambda name, values: values)
write("all", lambda name, values: values + 1)
made["pz"][int(entries) // 2] += 1e-9
write("one", lambda name, values: values)
"""
# The peak is asked of the kernel: that of resource.getrusage is handed down by the process that starts this one.
COMPARE = """
import atexit, json, resource, sys
from pathlib import Path
said = {}
def say():  # last of all: the process that reads files first has ended then
    said["other"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
    print(json.dumps(said))
atexit.register(say)
from preserve.comparators.comparing import compare_files, sides_of
from preserve.comparators.judging import Compared, judge
from preserve.comparators.leaves import Limits
from preserve.documents.policy import read_policy
recorded, found, rules = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
facts = compare_files(sides_of(found.name, recorded, found), Limits())
[judged] = judge([Compared(path="r", declared="r", facts=facts, policy=read_policy(rules))])
for row in judged.facts["differences"]:
    del row["numbers"]["worst"][1:]
said["verdict"], said["leaves"], said["rows"] = judged.verdict, judged.facts["leaves"], judged.facts["differences"][:4]
[peak] = [line for line in open("/proc/self/status") if line.startswith("VmHWM:")]
said["peak"] = int(peak.split()[1]) << 10
"""
EXACTLY = '{"require": "identical"}'
LOOSELY = '{"require": "tolerated", "rules": [{"match": "**", "rtol": 1e-6, "because": "a test"}]}'


def run(program: str, *arguments: object) -> str:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def compared(recorded: Path, found: Path, rules: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(run(COMPARE, recorded, found, rules))
    return answer


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three trees of 160 MB of doubles: one number of the second is another, all of the third are."""
    folder = tmp_path_factory.mktemp("trees")
    run(WRITE, folder, ENTRIES, BASKET, *BRANCHES)
    return folder


class TestTrees:
    """5 million entries of 4 doubles in less than 512 MB, with the process that reads files first."""

    def test_one_number_differs(self, trees: Path) -> None:
        found = compared(trees / "recorded.root", trees / "one.root", EXACTLY)
        assert (found["verdict"], found["leaves"]["different"]) == ("different", 1)
        [row] = found["rows"]
        numbers = row["numbers"]
        assert (row["path"], numbers["n"], numbers["n_diff"]) == ("tree/pz", ENTRIES, 1)
        assert numbers["worst"][0]["at"] == [ENTRIES // 2]
        assert 0 < found["other"] < found["peak"] + found["other"] < 512 * MB

    def test_all_numbers_differ(self, trees: Path) -> None:
        found = compared(trees / "recorded.root", trees / "all.root", LOOSELY)
        assert (found["verdict"], found["leaves"]["different"]) == ("different", len(BRANCHES))
        for row in found["rows"]:
            assert (row["numbers"]["n_diff"], row["beyond"], row["numbers"]["max_abs"]) == (ENTRIES, ENTRIES, 1.0)
        assert 0 < found["other"] < found["peak"] + found["other"] < 512 * MB


def test_many_single_numbers(tmp_path: Path) -> None:
    """200 000 leaves that differ, each a number, in less than 300 MB."""
    made = {f"k{number}": {"v": 1 / (number + 1)} for number in range(200_000)}
    (tmp_path / "recorded.json").write_text(json.dumps(made))
    moved = {key: {"v": value["v"] * (1 + 1e-9)} for key, value in made.items()}
    (tmp_path / "found.json").write_text(json.dumps(moved))
    found = compared(tmp_path / "recorded.json", tmp_path / "found.json", LOOSELY)
    assert (found["verdict"], found["leaves"]["tolerated"]) == ("tolerated", len(made))
    assert found["peak"] < 300 * MB
