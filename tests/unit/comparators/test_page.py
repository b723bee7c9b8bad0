"""docs/reference/comparison.md: its rules can be read, its leaf paths are those of the readers."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from pairs import leaves

from preserve.comparators.numbers import NumberFacts
from preserve.documents import rules
from preserve.documents.comparison import VERDICTS
from preserve.documents.policy import read_policies

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "comparison.md").read_text(encoding="utf-8")


def test_the_rules_of_the_page_are_rules() -> None:
    example = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert example
    policies = read_policies(example[1].encode(), "the page")
    assert [policy.require for policy in policies.values()] == ["tolerated", "compatible", "advisory"]
    assert policies["fit/mass.json"].rules[0].atol == 1e-7
    assert policies["results/mass.png"].pixels is not None


def test_every_verdict_rule_test_and_fact_is_described() -> None:
    facts = [field.name for field in dataclasses.fields(NumberFacts)]
    assert [verdict for verdict in VERDICTS if f"*{verdict}*" not in PAGE] == []
    assert [word for word in (*rules.LOOSER, *rules.TESTS, *facts) if word not in PAGE] == []


def test_leaf_paths_are_those_of_the_page() -> None:
    for name, content, paths in (
        ("a.json", '{"fit": {"mass": 1}, "bins": [{"low": 1}]}', ("/fit/mass", "/bins/0/low")),
        ("a.json", '{"bins": [1, 2]}', ("/bins",)),
        ("a.json", "1", ("/",)),
        ("a.yaml", "a: 1\n---\nb: 1\n", ("/0/a", "/1/b")),
        ("a.csv", "# made\nx,y\n1,2\n\n3,4\n", ("x", "y", "columns", "comment 1", "blank lines")),
        ("a.txt", "one\ntwo\n", ("line 1", "line 2", "line 3")),
        ("a.npy", lambda path: np.save(path, np.zeros(2)), ("array",)),
        ("a.npz", lambda path: np.savez(path, pulls=np.zeros(2)), ("pulls",)),
    ):
        found = leaves(name, content)
        assert set(paths) <= set(found)


def test_numpy_is_imported_only_when_something_is_compared() -> None:
    """docs/decisions/0005: --help, run and verify do without it."""
    code = (
        "import sys, preserve.cli.commands, preserve.operations.run, preserve.operations.verify; "
        "sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
