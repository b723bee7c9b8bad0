"""The pages of a newcomer, own-analysis.md and archives.md: each file and each command on them, in their order."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import PATH, ROOT

GUIDES = ROOT / "docs" / "guide"
GOLDEN = ROOT / "tests" / "data" / "faulty"
# A block with what stands before it: a file's block has its path, in bold, above it.
BLOCK = re.compile(
    r"(?:^\*\*`(?P<file>[^`]+)`\*\*\n\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of a page: a file to write (``file``), commands (``sh``), or what they print (``text``)."""

    file: str | None
    kind: str
    text: str


def blocks(page: str, section: str = "") -> list[Block]:
    """The blocks of a page, or of one section of it."""
    text = (GUIDES / page).read_text(encoding="utf-8")
    if section:
        text = text.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return [Block(file=m["file"], kind=m["kind"], text=m["text"]) for m in BLOCK.finditer(text)]


@dataclass(kw_only=True)
class Reader:
    """Somebody who does what a page says, in ``folder``; ``printed`` is what the last block of commands printed."""

    folder: Path
    environment: dict[str, str]
    printed: str = ""

    def follow(self, page: str, section: str = "") -> None:
        for block in blocks(page, section):
            if block.file is not None:
                (self.folder / block.file).write_text(block.text)
            elif block.kind == "sh":
                self.printed = "".join(self.enter(line) for line in block.text.splitlines())
            elif block.kind == "text":
                self.compare(block.text)

    def enter(self, line: str) -> str:
        """Run one line in a shell; ``cd`` lasts, as it does in a terminal."""
        command, _, note = line.partition("  # exit code ")
        if command.startswith("cd "):
            self.folder = (self.folder / command.removeprefix("cd ")).resolve(strict=True)
            return ""
        done = subprocess.run(
            ("/bin/sh", "-c", command),
            check=False,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == int(note or 0), f"{command}\n{done.stdout}"
        return done.stdout

    def compare(self, expected: str) -> None:
        """Each line of the page must be in what was printed, up to its ``…``."""
        lines = [line.split("…")[0].strip() for line in expected.splitlines()]
        assert all(lines), "a line of the page of which nothing is compared"
        assert [line for line in lines if line not in self.printed] == []


def reader(folder: Path, docker_host: str) -> Reader:
    """A user with git's identity and a program ``preserve``; without ``docker_host`` only Apptainer answers."""
    home = folder.with_name(folder.name + ".home")
    for made in (folder, home):
        made.mkdir()
    program = home / "preserve"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m preserve "$@"\n')
    program.chmod(0o755)
    (home / ".gitconfig").write_text("[user]\n  name = A. Physicist\n  email = me@example.org\n")
    docker = docker_host or f"unix://{home}/no.sock"
    environment = {"PATH": f"{home}:{PATH}", "HOME": str(home), "DOCKER_HOST": docker, "LANG": "C.UTF-8"}
    return Reader(folder=folder, environment=environment)


@pytest.fixture(scope="module")
def written(docker_host: str, apptainer: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Somebody who has followed own-analysis.md: steps on Docker, and once on Apptainer as the page has it."""
    del apptainer  # must be there
    user = reader(tmp_path_factory.mktemp("own") / "work", docker_host)
    user.follow("own-analysis.md")
    yield user


@pytest.mark.docker
@pytest.mark.apptainer
def test_an_analysis_from_nothing(written: Reader) -> None:
    """What the page leaves: two archives, and a folder in which nothing is uncommitted."""
    assert {path.name for path in written.folder.glob("*.zip")} == {"masses.crate.zip", "second.crate.zip"}
    assert written.enter("git status --short") == ""
    assert "low: 88.0" in written.enter("git show HEAD:preserve.yaml")


@pytest.mark.docker
@pytest.mark.apptainer
def test_what_to_do_with_an_archive(written: Reader, tmp_path: Path) -> None:
    """On Apptainer, with the file alone, and with no way to a mirror."""
    user = reader(tmp_path / "got", "")
    user.environment |= {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    shutil.copy(written.folder / "masses.crate.zip", user.folder)
    user.follow("archives.md")
    assert user.enter("git -C my-analysis status --short") == ""
    assert user.enter("git -C my-analysis log --format=%s").splitlines()[-1] == "Start"


@pytest.mark.docker
@pytest.mark.apptainer
def test_code_that_was_not_committed_comes_back_too(written: Reader, tmp_path: Path) -> None:
    """The same way back, of an archive with a patch: a file that steps read, and one that only git knows."""
    user = reader(tmp_path / "got", "")
    user.environment |= {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    author = shutil.copytree(written.folder, user.folder / "author", symlinks=True)
    for name, old, new in (("code/mean.awk", " GeV,", " GeV from"), (".gitignore", "/results/", "/results/\n/notes/")):
        (author / name).write_text((author / name).read_text().replace(old, new))
    user.enter("preserve run -q -C author")
    user.enter("preserve archive -q -C author --allow-dirty -o masses.crate.zip")
    user.follow("archives.md", "I lost my folder")
    user.enter("cd my-analysis")
    assert "GeV from 3 entries" in user.enter("cat results/masses.txt")
    assert "/notes/" in user.enter("cat .gitignore").splitlines()


def test_the_complaints_on_the_page_are_those_that_are_made() -> None:
    """Each message of the table is one of tests/data/faulty, where the reader is held to it."""
    said = "".join(path.read_text(encoding="utf-8") for path in GOLDEN.glob("*.txt"))
    table = (GUIDES / "own-analysis.md").read_text(encoding="utf-8").split("| it says |")[1]
    messages = re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)
    assert len(messages) >= 9
    assert [message for message in messages if message not in said] == []
