"""The reviewer's walk of docs/guide/review.md: each command on the page, in its order, on both engines."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from archived import Done, Session, commit, session
from conftest import ENGINES, ROOT, TinyImage

PAGE = (ROOT / "docs" / "guide" / "review.md").read_text(encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command line of the page, and the exit code that it announces."""

    words: tuple[str, ...]
    code: int


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def commands() -> list[Command]:
    found = []
    for line in (line for block in blocks("sh") for line in block.splitlines()):
        text, _, note = line.partition("  # exit code ")
        program, *words = text.split()
        assert program == "preserve", line
        found.append(Command(words=tuple(words), code=int(note or 0)))
    return found


def write_pages_analysis(root: Path, layout: Path) -> None:
    """The page's files; the image is one that is there already."""
    analysis, policy = blocks("yaml")
    (root / "data").mkdir(parents=True)
    (root / "preserve.yaml").write_text(analysis.replace("{build: image/}", "oci:image"))
    (root / "reviewer.yaml").write_text(policy)
    times = "".join(f"{0.1 + (n * 37 % 100) / 25:.2f}\n" for n in range(100))
    (root / "data" / "times.txt").write_text("# decay times (microseconds)\n" + times)
    (root / ".gitignore").write_text("/image/\n*.crate.zip\n/replayed/\n")
    shutil.copytree(layout, root / "image")
    commit(root)


def walk(user: Session) -> dict[str, Done]:
    """Do what the page says; what the commands gave, by their words."""
    done = {}
    for command in commands():
        name, *arguments = command.words
        done[" ".join(command.words)] = user(name, *arguments, expect=command.code)
    return done


@pytest.mark.parametrize("engine", ENGINES)
def test_the_walk(engine: str, tiny_image: TinyImage, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    docker_host = request.getfixturevalue("docker_host" if engine == "docker" else "apptainer")
    user = session(tmp_path / "decay", engine, docker_host if engine == "docker" else "")
    write_pages_analysis(user.root, tiny_image.layout)
    done = walk(user)

    replayed = done["replay decay.crate.zip --keep replayed"].out
    expected = [line.split("…")[0] for line in blocks("text")[0].splitlines()]
    assert [line for line in expected if line not in replayed] == []
    assert "/0/time" not in replayed

    again = done["diff decay.crate.zip replayed -v"].out
    assert [line for line in expected[:-1] if line not in again] == []
    assert again.endswith("verdict: different: NOT as required\n")

    judged = done["diff decay.crate.zip replayed --policy reviewer.yaml"].out
    assert "five standard deviations of the difference" in judged
    assert "verdict: tolerated: as required" in judged
    assert "verdict: identical" in done["diff decay.crate.zip decay.crate.zip"].out

    document = user("diff", "decay.crate.zip", "replayed", "--json", expect=1).document
    [result] = document["results"]
    assert (document["begins_in"], result["verdict"], result["required"]) == (["toys"], "different", "tolerated")
    assert {row["path"] for row in result["facts"]["differences"]} == {"/1/acceptance", "/1/energy"}
    assert result["facts"]["leaves"] == {"all": 5, "equal": 3, "different": 2}


def test_a_policy_that_names_nothing_is_refused(tmp_path: Path) -> None:
    """The page's word on misspelt paths, for results and for leaves."""
    user = session(tmp_path, "none")
    for name, mass in (("a", 91.2), ("b", 91.3)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"mass": mass}))
    for policy, complaint in (
        ("a.json: {rules: [{match: /mas, rtol: 1, because: x}]}", "'/mas' matches nothing"),
        ("other.json: {require: advisory}", "which is not compared"),
        ("a.json: {rules: [{match: /mass, rtol: 1}]}", "without because"),
    ):
        (tmp_path / "policy.yaml").write_text(policy)
        assert complaint in user("diff", "a.json", "b.json", "--policy", "policy.yaml", expect=2).err


@pytest.mark.apptainer
def test_a_rule_for_nothing_does_not_get_into_an_archive(tiny_image: TinyImage, apptainer: str, tmp_path: Path) -> None:
    """It would be found out only when somebody replays it."""
    user = session(tmp_path / "decay", "apptainer")
    write_pages_analysis(user.root, tiny_image.layout)
    document = user.root / "preserve.yaml"
    document.write_text(document.read_text().replace('match: "/1/*"', 'match: "/2/*"'))
    commit(user.root, "A mistake")
    user("lock")
    user("run")
    assert "'/2/*' matches nothing" in user("archive", "-o", "decay.crate.zip", expect=2).err
    assert not (user.root / "decay.crate.zip").exists()
