"""A stranger's git bundle: real ones made to be more, less or other than the history of the declared commit.

Nothing of it may run or leave the scratch folder; what is wrong is named, what is only ugly does no harm.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PATH

from preserve.documents.archive import BUNDLE
from preserve.documents.lockfile import SourcePin
from preserve.documents.verification import Finding
from preserve.errors import MachineError
from preserve.sources import bundle, check_bundle
from preserve.sources.scratch import GIB, Limits

EVIL_URL = b'[submodule "x"]\n\tpath = x\n\turl = --upload-pack=touch /tmp/x\n'
PLAIN = b'[submodule "x"]\n\tpath = x\n\turl = https://example.org/x.git\n'


class Attacker:
    """Makes repositories that git's own commands would not, object by object."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.git("init", "-q")

    def git(self, *command: str, data: bytes = b"") -> str:
        """Run git without any of the user's settings."""
        identity = ("-c", "user.name=Mallory", "-c", "user.email=mallory@example.org", "-c", "core.protectNTFS=false")
        time = {"GIT_COMMITTER_DATE": "@1234567890 +0000", "GIT_AUTHOR_DATE": "@0 +0000"}
        done = subprocess.run(
            ["git", *identity, *command],
            check=True,
            cwd=self.folder,
            input=data,
            env={"PATH": PATH, "HOME": str(self.folder), **time},
            capture_output=True,
        )
        return done.stdout.decode().strip()

    def store(self, kind: str, data: bytes) -> str:
        """Store an object whatever it says."""
        return self.git("hash-object", "-t", kind, "-w", "--stdin", "--literally", data=data)

    def tree(self, *entries: tuple[str, bytes, str]) -> str:
        """Store a tree of (mode, name, id), in this order."""
        return self.store("tree", b"".join(f"{m} ".encode() + n + b"\0" + bytes.fromhex(i) for m, n, i in entries))

    def commit(self, tree: str, *parents: str) -> SourcePin:
        """Store a commit."""
        lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents)]
        people = [f"{who} Mallory <mallory@example.org> 1234567890 +0000" for who in ("author", "committer")]
        made = self.store("commit", "\n".join([*lines, *people, "", "Trust me", ""]).encode())
        return SourcePin(commit=made, tree=tree, clean=True)

    def one_file(self, content: bytes = b"print()\n") -> SourcePin:
        """Store a commit of one harmless file."""
        return self.commit(self.tree(("100644", b"a.py", self.store("blob", content))))

    def pack(self, *wanted: str) -> bytes:
        """Pack what ``wanted`` reach (as git rev-list takes it)."""
        process = ["git", "pack-objects", "--revs", "--stdout", "-q", "--delta-base-offset"]
        text = "".join(f"{line}\n" for line in wanted).encode()
        return subprocess.run(process, check=True, cwd=self.folder, input=text, capture_output=True).stdout

    def made(self, pin: SourcePin) -> bytes:
        """Give the bundle as ``preserve archive`` makes it."""
        target = self.folder.parent / "made.bundle"
        bundle(self.folder, pin.commit, target)
        return target.read_bytes()


@pytest.fixture
def attacker(tmp_path: Path) -> Attacker:
    return Attacker(tmp_path / "attacker")


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Path]:
    """The folder in which the check may work; it must leave nothing there."""
    folder = tmp_path / "inside"
    folder.mkdir()
    yield folder
    assert list(folder.iterdir()) == []


def head(commit: str, *lines: str, kind: str = "# v2 git bundle") -> bytes:
    """A bundle's header with ``lines`` for the refs."""
    refs = lines or (f"{commit} refs/heads/preserved", f"{commit} HEAD")
    return "\n".join([kind, *refs, "", ""]).encode()


def check(data: bytes, pin: SourcePin, inside: Path) -> tuple[Finding, ...]:
    return check_bundle(io.BytesIO(data), pin, inside=inside)


def only(findings: tuple[Finding, ...]) -> Finding:
    (finding,) = findings
    assert finding.path == BUNDLE
    assert str(finding).isprintable()
    return finding


def test_what_preserve_makes_is_accepted(attacker: Attacker, inside: Path) -> None:
    pin = attacker.one_file()
    data = attacker.made(pin)
    assert data.startswith(head(pin.commit))
    assert check(data, pin, inside) == ()


class TestHeader:
    """No ref of a stranger reaches git: anything but the one header is refused before git is started."""

    @pytest.mark.parametrize(
        "lines",
        [
            ("{} --upload-pack=touch /tmp/x",),
            ("{} refs/heads/preserved", "{} HEAD", "{} refs/heads/--upload-pack=x"),
            ("{} refs/heads/preserved", "{} refs/heads/Preserved", "{} HEAD"),
            ("{} refs/heads/../../config", "{} HEAD"),
            ("{} refs/heads/preserved", "{} HEAD", "{} refs/replace/{}"),
            ("-{} a commit that is not inside", "{} refs/heads/preserved", "{} HEAD"),
            ("{} HEAD",),
            ("{} refs/heads/main", "{} HEAD"),
        ],
    )
    def test_other_refs(self, attacker: Attacker, inside: Path, lines: tuple[str, ...]) -> None:
        pin = attacker.one_file()
        data = head(pin.commit, *(line.format(pin.commit, pin.commit) for line in lines)) + attacker.pack(pin.commit)
        found = check_bundle(io.BytesIO(data), pin, inside=inside, search_path="/nonexistent")
        assert only(found).problem == "not a bundle of the declared commit alone"

    @pytest.mark.parametrize(
        "kind", ["# v3 git bundle\n@object-format=sha1", "# v3 git bundle\n@filter=blob:none", "# v1 git bundle", ""]
    )
    def test_other_versions_and_capabilities(self, attacker: Attacker, inside: Path, kind: str) -> None:
        pin = attacker.one_file()
        data = head(pin.commit, kind=kind) + attacker.pack(pin.commit)
        assert only(check(data, pin, inside)).problem == "not a bundle of the declared commit alone"

    def test_made_by_git_with_a_prerequisite(self, attacker: Attacker, inside: Path, tmp_path: Path) -> None:
        first = attacker.one_file()
        second = attacker.commit(first.tree, first.commit)
        attacker.git("update-ref", "refs/heads/preserved", second.commit)
        attacker.git("bundle", "create", str(tmp_path / "b"), f"{first.commit}..preserved")
        found = only(check((tmp_path / "b").read_bytes(), second, inside))
        assert found.problem == "not a bundle of the declared commit alone"

    @pytest.mark.parametrize("commit", ["--upload-pack=x", "HEAD", "1" * 39, "A" * 40, "1" * 40 + "\n", ""])
    def test_a_lock_whose_commit_is_no_id(self, attacker: Attacker, inside: Path, commit: str) -> None:
        pin = attacker.one_file()
        data = head(commit) + attacker.pack(pin.commit)
        found = check(data, SourcePin(commit=commit, tree=pin.tree, clean=True), inside)
        assert only(found).problem == "the lock's commit and tree are not git's ids"

    def test_control_characters_are_shown_escaped(self, attacker: Attacker, inside: Path) -> None:
        pin = attacker.one_file()
        found = only(check(b"\x1b]0;title\x07\r::add-mask::" + b"x" * 200, pin, inside))
        assert found.found.startswith("\\x1b]0;title\\x07\\r::add-mask::")


class TestAnotherHistory:
    def test_another_commit_in_the_pack(self, attacker: Attacker, inside: Path) -> None:
        pin, other = attacker.one_file(), attacker.one_file(b"import os\n")
        found = only(check(head(pin.commit) + attacker.pack(other.commit), pin, inside))
        assert (found.problem, found.found) == (f"does not hold commit {pin.commit}", "")

    def test_another_tree_than_declared(self, attacker: Attacker, inside: Path) -> None:
        pin, other = attacker.one_file(), attacker.one_file(b"import os\n")
        lying = SourcePin(commit=pin.commit, tree=other.tree, clean=True)
        found = only(check(attacker.made(pin), lying, inside))
        assert (found.expected, found.found) == (other.tree, pin.tree)

    @pytest.mark.parametrize("kind", ["tree", "tag"])
    def test_something_else_than_a_commit(self, attacker: Attacker, inside: Path, kind: str) -> None:
        pin = attacker.one_file()
        tag = f"object {pin.commit}\ntype commit\ntag x\ntagger M <m@example.org> 1 +0000\n\nx\n".encode()
        name = pin.tree if kind == "tree" else attacker.store("tag", tag)
        pack = attacker.pack(pin.commit) if kind == "tree" else attacker.pack(name)
        lying = SourcePin(commit=name, tree=pin.tree, clean=True)
        assert only(check(head(name) + pack, lying, inside)).found == kind

    @pytest.mark.parametrize("left_out", ["parent", "tree", "file"])
    def test_a_part_is_missing(self, attacker: Attacker, inside: Path, left_out: str) -> None:
        first = attacker.one_file()
        pin = attacker.commit(attacker.tree(("40000", b"code", first.tree)), first.commit)
        blob = attacker.git("rev-parse", f"{first.tree}:a.py")
        gone = {"parent": first.commit, "tree": first.tree, "file": blob}[left_out]
        kept = {pin.commit, pin.tree, first.commit, first.tree, blob} - {gone}
        names = "".join(f"{name}\n" for name in sorted(kept)).encode()
        command = ["git", "pack-objects", "--stdout", "-q"]
        pack = subprocess.run(command, check=True, cwd=attacker.folder, input=names, capture_output=True).stdout
        assert only(check(head(pin.commit) + pack, pin, inside)).problem in (
            "git refuses its pack",
            "lacks a part of the history",
        )

    def test_deltas_against_what_is_not_inside(self, attacker: Attacker, inside: Path) -> None:
        first = attacker.one_file(b"".join(b"line %d\n" % i for i in range(2000)))
        text = b"".join(b"line %d\n" % i for i in range(2001))
        pin = attacker.commit(attacker.tree(("100644", b"a.py", attacker.store("blob", text))), first.commit)
        command = ["git", "pack-objects", "--revs", "--thin", "--stdout", "-q"]
        wanted = f"{pin.commit}\n^{first.commit}\n".encode()
        thin = subprocess.run(command, check=True, cwd=attacker.folder, input=wanted, capture_output=True).stdout
        assert len(thin) < 1000
        assert only(check(head(pin.commit) + thin, pin, inside)).problem == "git refuses its pack"

    def test_something_hidden_beside_it(self, attacker: Attacker, inside: Path) -> None:
        pin, hidden = attacker.one_file(), attacker.one_file(b"hidden\n")
        found = only(check(head(pin.commit) + attacker.pack(pin.commit, hidden.commit), pin, inside))
        assert found == Finding(
            path=BUNDLE, problem="holds objects that are no part of the history", expected="3", found="6"
        )

    def test_bytes_after_the_end(self, attacker: Attacker, inside: Path) -> None:
        pin = attacker.one_file()
        assert only(check(attacker.made(pin) + b"\0", pin, inside)).problem == "has bytes after its end"

    def test_every_length_but_the_whole(self, attacker: Attacker, inside: Path) -> None:
        pin = attacker.one_file()
        data = attacker.made(pin)
        for length in range(0, len(data), 7):
            assert check(data[:length], pin, inside), length

    def test_a_flipped_bit_in_every_byte(self, attacker: Attacker, inside: Path) -> None:
        pin = attacker.one_file()
        data = attacker.made(pin)
        for place in range(len(data)):
            flipped = bytearray(data)
            flipped[place] ^= 1 << (place % 8)
            assert check(bytes(flipped), pin, inside), place


class TestTrees:
    """Names that would do harm when checked out: nothing is checked out, and what git fsck names is refused."""

    @pytest.mark.parametrize(
        ("mode", "name"),
        [
            ("100644", b".git"),
            ("120000", b".git"),
            ("40000", b".git"),
            ("100644", b".GIT"),
            ("40000", b"git~1"),
            ("40000", b".g\xe2\x80\x8cit"),
            ("40000", b".."),
            ("40000", b"."),
            ("100644", b"a/b"),
            ("120000", b".gitmodules"),
        ],
    )
    def test_names_of_gits_own(self, attacker: Attacker, inside: Path, mode: str, name: bytes) -> None:
        blob = attacker.store("blob", b"/etc")
        entry = attacker.tree(("100644", b"hooks", blob)) if mode == "40000" else blob
        pin = attacker.commit(attacker.tree((mode, name, entry)))
        data = head(pin.commit) + attacker.pack(pin.commit)
        assert only(check(data, pin, inside)).problem == "git refuses its pack"

    def test_a_name_twice(self, attacker: Attacker, inside: Path) -> None:
        one, two = attacker.store("blob", b"1"), attacker.store("blob", b"2")
        pin = attacker.commit(attacker.tree(("100644", b"a", one), ("100644", b"a", two)))
        found = only(check(head(pin.commit) + attacker.pack(pin.commit), pin, inside))
        assert "duplicate" in found.found.lower()

    @pytest.mark.parametrize("text", [EVIL_URL, EVIL_URL.replace(b"--upload-pack=touch /tmp/x", b"-u./x")])
    def test_a_submodule_whose_address_is_an_option(self, attacker: Attacker, inside: Path, text: bytes) -> None:
        pin = attacker.commit(attacker.tree(("100644", b".gitmodules", attacker.store("blob", text))))
        found = only(check(head(pin.commit) + attacker.pack(pin.commit), pin, inside))
        assert "gitmodules" in found.found

    def test_an_ordinary_submodule_is_not_fetched(self, attacker: Attacker, inside: Path) -> None:
        modules = ("100644", b".gitmodules", attacker.store("blob", PLAIN))
        pin = attacker.commit(attacker.tree(modules, ("160000", b"x", "1" * 40)))
        assert check(head(pin.commit) + attacker.pack(pin.commit), pin, inside) == ()

    def test_names_that_differ_only_by_case_and_links_that_lead_out(self, attacker: Attacker, inside: Path) -> None:
        blob, link = attacker.store("blob", b"1"), attacker.store("blob", b"../../../etc/passwd")
        entries = (
            ("100644", b"A", blob),
            ("120000", b"a", link),
            ("40000", b"b", attacker.tree(("100644", b"x", blob))),
        )
        pin = attacker.commit(attacker.tree(*entries))
        assert check(attacker.made(pin), pin, inside) == ()

    def test_slips_of_old_programs_are_forgiven(self, attacker: Attacker, inside: Path) -> None:
        folder = attacker.tree(("100644", b"a", attacker.store("blob", b"1")))
        tree = attacker.tree(("040000", b"code", folder))  # "zeroPaddedFilemode"
        text = f"tree {tree}\nauthor Old<old@example.org> 1 +0000\ncommitter Old <old@example.org> 1 +051800\n\nx\n"
        pin = SourcePin(commit=attacker.store("commit", text.encode()), tree=tree, clean=True)
        assert check(attacker.made(pin), pin, inside) == ()


class TestNothingRuns:
    @pytest.fixture
    def trap(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Settings of a user under which nearly every git command leaves a mark."""
        mark, home = tmp_path / "mark", tmp_path / "home"
        program = home / "template" / "hooks" / "post-checkout"
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\necho ran >> {mark}\n")
        for name in ("post-index-change", "reference-transaction", "pre-auto-gc", "post-merge", "fsmonitor"):
            (program.parent / name).write_text(program.read_text())
        for path in program.parent.iterdir():
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        settings = f"[init]\n\ttemplateDir = {home / 'template'}\n[core]\n\thooksPath = {program.parent}\n"
        settings += f"\tfsmonitor = {program}\n\tsshCommand = {program}\n\tpager = {program}\n"
        (home / ".gitconfig").write_text(settings + f"[alias]\n\tindex-pack = !{program}\n")
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setenv("GIT_TEMPLATE_DIR", str(home / "template"))
        monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
        monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.hooksPath")
        monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(program.parent))
        monkeypatch.setenv("GIT_TRACE", str(mark))
        monkeypatch.setenv("GIT_DIR", str(home / "elsewhere"))
        monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(home / "elsewhere"))
        return mark

    def test_no_hook_setting_or_variable_of_the_user_counts(
        self, attacker: Attacker, inside: Path, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        pin = attacker.one_file()
        data = attacker.made(pin)
        mark: Path = request.getfixturevalue("trap")
        assert check(data, pin, inside) == ()
        assert not mark.exists()
        assert not (tmp_path / "home" / "elsewhere").exists()
        subprocess.run(["git", "init", "-q", str(tmp_path / "shown")], check=True, env={**os.environ, "PATH": PATH})
        assert mark.exists()  # the trap works

    def test_without_git(self, attacker: Attacker, inside: Path) -> None:
        pin = attacker.one_file()
        data = io.BytesIO(attacker.made(pin))
        with pytest.raises(MachineError, match="git cannot be started"):
            check_bundle(data, pin, inside=inside, search_path="/nonexistent")


class TestBombs:
    def test_a_small_delta_that_asks_for_much_memory(self, attacker: Attacker, inside: Path) -> None:
        pin = attacker.one_file()
        data = head(pin.commit) + _delta_pack(1 << 35, copies=20_000)
        assert len(data) < 100_000
        begun = time.monotonic()
        found = only(check(data, pin, inside))
        assert found.problem == "git refuses its pack"
        assert "memory" in found.found
        assert time.monotonic() - begun < 60

    def test_many_deltas_that_ask_for_much_time(self, attacker: Attacker, inside: Path) -> None:
        pin = attacker.one_file()
        data = head(pin.commit) + _delta_pack(*(0xFFFF * copies for copies in range(3000, 3100)))
        assert len(data) < 1 << 20
        begun = time.monotonic()
        found = check_bundle(io.BytesIO(data), pin, inside=inside, limits=Limits(memory=4 * GIB, cpu_seconds=1))
        assert only(found).problem == "git refuses its pack"
        assert time.monotonic() - begun < 30

    def test_a_large_file_is_not_held_in_memory(self, attacker: Attacker, inside: Path) -> None:
        pin = attacker.one_file(bytes(192 << 20))
        data = head(pin.commit) + attacker.pack(pin.commit)
        assert len(data) < 1 << 20
        narrow = Limits(memory=128 << 20, cpu_seconds=120)
        assert check_bundle(io.BytesIO(data), pin, inside=inside, limits=narrow) == ()

    def test_folders_nested_so_that_a_checkout_would_have_ten_billion_files(
        self, attacker: Attacker, inside: Path
    ) -> None:
        entry, mode = attacker.store("blob", b"x"), "100644"
        for _ in range(10):
            entry = attacker.tree(*((mode, b"%d" % number, entry) for number in range(10)))
            mode = "40000"
        pin = attacker.commit(entry)
        begun = time.monotonic()
        assert check(attacker.made(pin), pin, inside) == ()
        assert time.monotonic() - begun < 10


def _delta_pack(*sizes: int, copies: int | None = None) -> bytes:
    """A pack of one blob and deltas on it, whose results have these sizes (gitformat-pack(5)).

    Each copies the blob's first 65,535 bytes again and again: four bytes a time, or fewer times than it takes.
    """
    base = bytes(1 << 20)
    name = hashlib.sha1(b"blob %d\0" % len(base) + base, usedforsecurity=False).digest()
    parts = [b"PACK", struct.pack(">II", 2, 1 + len(sizes)), _entry(3, len(base)), zlib.compress(base, 9)]
    for size in sizes:
        delta = _varint(len(base)) + _varint(size) + b"\xb0\xff\xff" * (copies or size // 0xFFFF)
        parts += [_entry(7, len(delta)), name, zlib.compress(delta, 9)]
    body = b"".join(parts)
    return body + hashlib.sha1(body, usedforsecurity=False).digest()


def _entry(kind: int, size: int) -> bytes:
    """An object's head: its kind and size."""
    first, size = (kind << 4) | (size & 15), size >> 4
    return bytes([first | (0x80 if size else 0)]) + (_varint(size) if size else b"")


def _varint(number: int) -> bytes:
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])
