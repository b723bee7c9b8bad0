"""Making, showing and verifying archives: of which runs, what is refused, the same bytes whoever makes them."""

from __future__ import annotations

import getpass
import json
import os
import platform
import shlex
import shutil
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from archived import STEPS, Done, Files, Recorded, Session, commit, here, problems, session, verified, write_analysis
from conftest import AsUser, TinyImage

from preserve.digest import Digest
from preserve.documents.archive import BUNDLE, LOCK, PATCH
from preserve.oci import Layout
from preserve.stores.zip_form import End, central_header, end_records, laid_out, local_header, order

pytestmark = pytest.mark.apptainer
CANARY = "canary-4f1d0c9a"


@pytest.fixture
def analysis(recorded: Recorded, apptainer: str, tmp_path: Path) -> Session:
    """The analysis, run with Apptainer."""
    return recorded.copy(tmp_path / "sums", "apptainer")


@pytest.fixture
def archive(recorded: Recorded, apptainer: str) -> Path:
    """Its archive; not to be changed."""
    return recorded.archive("apptainer")


def archived(analysis: Session, *options: str) -> Done:
    """Archive it, in this process."""
    return here("archive", "-C", str(analysis.root), "-o", str(analysis.root.parent / "made.crate.zip"), *options)


def made(analysis: Session) -> Path:
    return analysis.root.parent / "made.crate.zip"


def assert_refused(done: Done, analysis: Session, said: str, *, code: int = 2) -> None:
    """It says why, and leaves nothing."""
    assert done.code == code, done.err
    assert said in done.err
    assert [path.name for path in analysis.root.parent.glob("*made.crate.zip*")] == []
    assert list((analysis.root / ".preserve").glob("archive-*")) == []


class TestTheSameBytes:
    def test_under_another_clock_zone_umask_locale_and_user(
        self, recorded: Recorded, archive: Path, as_user: AsUser, tmp_path: Path
    ) -> None:
        home = as_user.home / f"bytes-{os.getpid()}"
        home.mkdir()
        try:
            theirs = recorded.copy(home / "sums", "apptainer")
            for path in theirs.root.rglob("*"):
                if not path.is_symlink():
                    os.utime(path, (1, 1))
            as_user.give(home)
            home.chmod(0o755)
            command = (sys.executable, "-m", "preserve", "archive", "-o", "theirs.crate.zip")
            done = as_user(
                ("sh", "-c", 'umask 077; exec "$@"', "sh", *command),
                cwd=theirs.root,
                capture_output=True,
                text=True,
                env={"TZ": "Pacific/Kiritimati", "LC_ALL": "tr_TR.UTF-8", "LANG": "de_DE.UTF-8", "HOME": str(home)},
            )
            assert done.returncode == 0, done.stderr
            assert (theirs.root / "theirs.crate.zip").read_bytes() == archive.read_bytes()
        finally:
            shutil.rmtree(home)

    def test_again_and_after_a_run_with_nothing_to_do(self, analysis: Session, archive: Path) -> None:
        analysis("run")
        done = archived(analysis)
        assert done.code == 0, done.err
        assert made(analysis).read_bytes() == archive.read_bytes()
        assert done.out.strip() == verified(archive).document["archive_id"]


class TestWhatIsArchived:
    def test_no_run(self, recorded: Recorded, apptainer: str, tmp_path: Path) -> None:
        analysis = recorded.copy(tmp_path / "sums", "apptainer", run=False)
        assert_refused(archived(analysis), analysis, "nothing has run here yet")

    def test_a_run_that_failed(self, analysis: Session) -> None:
        workflow = analysis.root / "preserve.yaml"
        workflow.write_text(workflow.read_text().replace("awk '{s +=", "exit 7; awk '{s +="))
        analysis("run", expect=4)
        assert_refused(archived(analysis), analysis, "did not finish: sum is not done")

    def test_a_part_of_a_run(self, recorded: Recorded, apptainer: str, tmp_path: Path) -> None:
        analysis = recorded.copy(tmp_path / "sums", "apptainer", run=False)
        analysis("run", "--step", "sorted")
        assert_refused(archived(analysis), analysis, "did not finish")

    @pytest.mark.parametrize("edit", [Path.unlink, lambda path: path.write_text("5\n")], ids=["gone", "other"])
    def test_an_input_that_changed(self, analysis: Session, edit: Callable[[Path], object]) -> None:
        edit(analysis.root / "data" / "numbers.txt")
        assert_refused(archived(analysis), analysis, "data/numbers.txt")

    def test_code_that_changed_since(self, analysis: Session) -> None:
        (analysis.root / "code" / "scale.awk").write_text("{print 1}\n")
        assert_refused(archived(analysis), analysis, "code/scale.awk changed since the run")

    def test_a_product_gone_from_the_store(self, analysis: Session) -> None:
        shutil.rmtree(analysis.root / ".preserve" / "objects")
        assert_refused(archived(analysis), analysis, "no longer in the store")

    def test_a_product_spoilt_in_the_store(self, analysis: Session) -> None:
        assert archived(analysis).code == 0  # what the products are is remembered from now on
        made(analysis).unlink()
        objects = (analysis.root / ".preserve" / "objects").rglob("*")
        (product,) = (path for path in objects if path.is_file() and path.read_bytes() == b"12\n")
        about = product.stat()
        product.chmod(0o644)
        with product.open("r+b") as stream:
            stream.write(b"7")
        os.utime(product, ns=(about.st_atime_ns, about.st_mtime_ns))  # only reading it shows the change
        assert_refused(archived(analysis), analysis, "results/sum.txt", code=5)

    def test_an_image_spoilt_in_the_layout(self, analysis: Session) -> None:
        blobs = (analysis.root / ".preserve/images/oci/blobs/sha256").iterdir()
        blob = max(blobs, key=lambda path: path.stat().st_size)
        with blob.open("r+b") as stream:
            stream.seek(5000)
            stream.write(b"x")
        done = archived(analysis)  # it is fetched again from where it came from
        assert done.code == 0, done.err
        assert problems(made(analysis)) == {}

    def test_a_target_that_is_there(self, analysis: Session) -> None:
        made(analysis).write_text("mine\n")
        done = archived(analysis)
        assert (done.code, "exists already" in done.err) == (2, True)
        assert made(analysis).read_text() == "mine\n"

    def test_a_full_disk(self, analysis: Session, tmp_path: Path) -> None:
        small = tmp_path / "small"
        small.mkdir()
        script = 'mount -t tmpfs -o size=1m none "$1" && shift && "$@"; code=$?; ls -A "$0"; exit $code'
        prefix = ("unshare", "-m", "sh", "-c", script, str(small), str(small))
        done = replace(analysis, prefix=prefix)("archive", "-o", str(small / "made.crate.zip"), expect=3)
        assert "no room for made.crate.zip" in done.err
        assert done.out == ""

    def test_one_of_two_runs_by_name(self, analysis: Session, archive: Path) -> None:
        (first,) = (analysis.root / ".preserve" / "runs").iterdir()
        analysis("run", "-p", "scale=7")
        done = archived(analysis, first.name)
        assert done.code == 0, done.err
        assert made(analysis).read_bytes() == archive.read_bytes()
        made(analysis).unlink()
        assert archived(analysis).code == 0
        assert Files.of(made(analysis)).data["data/results/results/sum.txt"] == b"42\n"
        made(analysis).unlink()
        assert_refused(archived(analysis, "20200101T000000"), analysis, first.name)

    def test_a_step_under_a_new_name_and_one_under_its_old(self, analysis: Session) -> None:
        """The record and the logs of the old one go by the new name; those of the new one by its own."""
        workflow = analysis.root / "preserve.yaml"
        text = workflow.read_text().replace("- name: tools", "- name: noted")
        extra = "  - {name: tools, stage: assembly, image: tiny, outputs: [extra.txt], run: echo new | tee extra.txt}\n"
        workflow.write_text(text.replace("results:\n", extra + "results:\n"))
        commit(analysis.root, "Rename", what="preserve.yaml")
        analysis("lock")
        assert "done: 1 of 5" in analysis("run").err
        assert archived(analysis).code == 0
        files = Files.of(made(analysis)).data
        assert files["data/logs/noted/stderr"] == b"noted\n"
        assert files["data/logs/tools/stdout"] == b"new\n"
        assert problems(made(analysis), "--deep") == {}

    @pytest.mark.parametrize("kinds", [(), ("--without", "inputs")])
    def test_an_input_that_is_a_program(
        self, recorded: Recorded, apptainer: str, tmp_path: Path, kinds: tuple[str, ...]
    ) -> None:
        analysis = recorded.copy(tmp_path / "sums", "apptainer", run=False)
        workflow, tool = analysis.root / "preserve.yaml", analysis.root / "data" / "tool"
        text = workflow.read_text().replace("  data/numbers.txt: {}\n", "  data/numbers.txt: {}\n  data/tool: {}\n")
        text = text.replace("[data/numbers.txt]", "[data/numbers.txt, data/tool]").replace("sort -n", "./data/tool")
        workflow.write_text(text)
        tool.write_text('#!/bin/sh\nsort -n "$1"\n')
        tool.chmod(0o755)
        commit(analysis.root, "A tool")
        analysis("lock")
        analysis("run")
        assert archived(analysis, *kinds).code == 0
        assert problems(made(analysis), "--deep") == {}
        given = [f"--input=data/{name}={analysis.root}/data/{name}" for name in ("numbers.txt", "tool") if kinds]
        again = session(tmp_path, "apptainer")("replay", *given, str(made(analysis)))
        assert "identical: reproduced" in again.out
        recast = session(tmp_path, "apptainer")("replay", *given, "-p", "note=other", str(made(analysis)))
        assert "sorted: done" not in recast.err

    def test_an_image_that_is_served_under_another_manifest(self, analysis: Session) -> None:
        """Config and layers are the same, so nothing runs again; the records must go with the new lock all the same."""
        layout = Layout(analysis.root / "image")
        (entry,) = json.loads((layout.path / "index.json").read_bytes())["manifests"]
        manifest = {**json.loads(layout.read(Digest(entry["digest"]))), "annotations": {"pushed": "again"}}
        layout.blob(Digest(entry["digest"])).unlink()
        added = layout.add_bytes(json.dumps(manifest).encode())
        listed = {**entry, "digest": added.digest, "size": added.size}
        (layout.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [listed]}))
        analysis("lock", "--update")
        assert "nothing to do" in analysis("run").err
        assert archived(analysis).code == 0
        assert json.loads(Files.of(made(analysis)).data[LOCK])["images"]["tiny"]["manifest_digest"] == added.digest
        assert problems(made(analysis), "--deep") == {}


class TestCode:
    def test_an_uncommitted_change(self, analysis: Session) -> None:
        (analysis.root / "code" / "scale.awk").write_text("# new\n{print $1 * by}\n")
        analysis("run")
        assert_refused(archived(analysis), analysis, "code/scale.awk is not what commit")
        done = archived(analysis, "--allow-dirty")
        assert done.code == 0, done.err
        assert "uncommitted changes are stored as a patch: code/scale.awk" in done.err
        assert b"+# new\n" in Files.of(made(analysis)).data[PATCH]
        assert problems(made(analysis), "--deep") == {}

    def test_after_a_commit_and_with_a_new_file_that_nothing_reads(self, analysis: Session, archive: Path) -> None:
        (analysis.root / "notes.md").write_text("# notes\n")
        commit(analysis.root, "Notes", what="notes.md")
        (analysis.root / "more.md").write_text("# not committed\n")
        done = archived(analysis)
        assert done.code == 0, done.err
        assert made(analysis).read_bytes() == archive.read_bytes()

    def test_with_the_lock_committed_after_the_run(self, analysis: Session, archive: Path) -> None:
        commit(analysis.root, "The lock and all products")
        done = archived(analysis)
        assert done.code == 0, done.err
        assert made(analysis).read_bytes() == archive.read_bytes()

    def test_without_git(self, tiny_image: TinyImage, apptainer: str, tmp_path: Path) -> None:
        root = tmp_path / "sums"
        steps = STEPS.replace(", code/scale.awk", "").replace("-f code/scale.awk", "'{print $1 * by}'")
        write_analysis(root, tiny_image.layout, steps=steps)
        analysis = session(root, "apptainer")
        analysis("lock")
        analysis("run")
        done = archived(analysis)
        assert done.code == 0, done.err
        assert "not under git" in done.err
        assert BUNDLE not in Files.of(made(analysis)).data
        assert problems(made(analysis), "--deep") == {}
        analysis("replay", str(made(analysis)))


ODD_NAMES = ("a b/ü/x y", "X", "x", "[a", "~x", "a\\b", "l\nf", "'", "$(x)", "-x", "=41")
ODD = """\
format: 1
title: "Ünusual <script>alert(1)</script>"
authors: [{name: "A & <b>B</b>"}]
images: {tiny: oci:image}
steps:
  - name: odd
    stage: preparation
    image: tiny
    inputs: [code/]
    outputs: [odd/]
    run: sh code/make.sh
  - name: list
    stage: assembly
    image: tiny
    inputs: [odd/]
    outputs: [results/]
    run: find odd -type f | LC_ALL=C sort > "results/as found"
results: {results/: {require: identical}}
"""


class TestNames:
    def test_whatever_a_step_calls_its_products(self, tiny_image: TinyImage, apptainer: str, tmp_path: Path) -> None:
        root = tmp_path / "sums"
        write_analysis(root, tiny_image.layout, steps=ODD)
        words = " ".join(shlex.quote(f"odd/{name}") for name in ODD_NAMES)
        (root / "code" / "make.sh").write_text(f'mkdir -p "odd/a b/ü"\nfor f in {words}; do echo "$f" > "$f"; done\n')
        (root / "code" / "ünread [x.txt").write_text("x\n")
        (root / "code" / "unread.txt").chmod(0o755)
        commit(root)
        analysis = session(root, "apptainer")
        analysis("lock")
        analysis("run")
        assert archived(analysis).code == 0
        assert problems(made(analysis), "--deep") == {}
        subprocess.run(["unzip", "-q", made(analysis), "-d", tmp_path / "unpacked"], check=True)
        assert problems(tmp_path / "unpacked") == {}
        kept = tmp_path / "kept"
        analysis("replay", "--keep", str(kept), str(made(analysis)))
        found = {path.relative_to(kept / "odd").as_posix() for path in (kept / "odd").rglob("*") if path.is_file()}
        assert found == set(ODD_NAMES)


class TestLeftOut:
    @pytest.mark.parametrize(
        ("kinds", "completeness"),
        [
            (("images",), "no-images"),
            (("inputs",), "no-inputs"),
            (("intermediates",), "full"),
            (("images", "inputs", "intermediates"), "no-images,no-inputs"),
        ],
    )
    def test_it_is_said_and_verifies(self, analysis: Session, kinds: tuple[str, ...], completeness: str) -> None:
        done = archived(analysis, *(word for kind in kinds for word in ("--without", kind)))
        assert done.code == 0, done.err
        found = verified(made(analysis), "--deep").document
        assert (found["findings"], found["completeness"]) == ([], completeness)
        shown = here("show", "--json", str(made(analysis))).document
        assert (shown["completeness"], shown["without"]) == (completeness, sorted(kinds))
        names = " ".join(Files.of(made(analysis)).data)
        folders = {"images": "data/oci/", "inputs": "data/inputs/data/", "intermediates": "data/products/"}
        for kind, folder in folders.items():
            assert (folder in names) == (kind not in kinds)
        assert "data/results/results/sum.txt" in names


class TestVerify:
    def test_unpacked_by_unzip(self, archive: Path, tmp_path: Path) -> None:
        subprocess.run(["unzip", "-q", archive, "-d", tmp_path / "unpacked"], check=True)
        assert verified(tmp_path / "unpacked", "--deep").document == verified(archive, "--deep").document
        (tmp_path / "unpacked" / "README.md").write_text("another\n")
        assert "README.md" in problems(tmp_path / "unpacked")

    def test_with_no_engine_no_network_and_no_git(self, archive: Path, tmp_path: Path) -> None:
        (tmp_path / "bin").mkdir()
        nowhere = session(tmp_path, "none").with_environment(PATH=str(tmp_path / "bin"))
        prefix = (str(shutil.which("unshare")), "-n")
        done = replace(nowhere, prefix=prefix)("verify", str(archive))
        assert "intact, unsigned; full" in done.out

    @pytest.mark.parametrize("command", ["verify", "show", "replay"])
    def test_what_is_not_there_and_what_is_no_archive(self, command: str, tmp_path: Path) -> None:
        missing = here(command, str(tmp_path / "none.crate.zip"))
        assert (missing.code, "there is no archive" in missing.err) == (2, True)
        (tmp_path / "text.crate.zip").write_text("not a zip\n" * 100)
        assert here(command, str(tmp_path / "text.crate.zip")).code == (1 if command == "verify" else 5)


class TestShow:
    def test_it_tells_what_is_inside(self, archive: Path) -> None:
        text = here("show", str(archive)).out
        for word in ("Sum of scaled numbers", "A. Physicist", "full", "nothing", "none", "results/sum.txt", "scaled"):
            assert word in text
        shown = here("show", "--json", str(archive)).document
        assert [step["step"] for step in shown["steps"]] == ["tools", "sorted", "scaled", "sum"]
        assert shown["archive_id"] == verified(archive).document["archive_id"]
        assert shown["size"] == archive.stat().st_size

    def test_it_reads_no_payload(self, archive: Path, tmp_path: Path) -> None:
        """An archive with a sparse input of 20 GB: nobody hashes that in a few seconds."""
        large = tmp_path / "large.crate.zip"
        write_with_hole(Files.of(archive), large, "data/inputs/data/numbers.txt", 20 << 30)
        assert large.stat().st_size > 20 << 30
        started = time.process_time()
        done = here("show", "--json", str(large))
        assert (done.code, done.document["size"]) == (0, large.stat().st_size), done.err
        assert time.process_time() - started < 5  # hashing it takes ten seconds on the quickest machine


def write_with_hole(files: Files, target: Path, name: str, size: int) -> None:
    """Write an archive of which one file is a hole of ``size`` bytes; its form is right, its digests are not."""
    names = sorted(files.data, key=order)
    sizes = {**{n: len(data) for n, data in files.data.items()}, name: size}
    entries = laid_out((n, sizes[n], n in files.executable) for n in names)
    entries = tuple(replace(entry, crc=zlib.crc32(files.data[entry.name])) for entry in entries)
    headers = b"".join(map(central_header, entries))
    with target.open("wb") as stream:
        for entry in entries:
            stream.seek(entry.offset)
            stream.write(local_header(entry))
            stream.write(files.data[entry.name])
        stream.seek(entries[-1].end)
        end = End(count=len(entries), directory_size=len(headers), directory_offset=entries[-1].end)
        stream.write(headers + end_records(end))


class TestSecrets:
    def test_nothing_of_the_author_is_inside(self, recorded: Recorded, apptainer: str, tmp_path: Path) -> None:
        user = f"user-{CANARY}"
        hosts = {name for name in (socket.gethostname(), platform.node()) if len(name) > 4}  # "vm" is also a CPU flag
        analysis = recorded.copy(tmp_path / f"folder-{CANARY}", "apptainer", run=False)
        secret = {"USER": user, "LOGNAME": user, "TOKEN": CANARY, "APPTAINERENV_TOKEN": CANARY}
        analysis = analysis.with_environment(**secret, HOME=str(tmp_path / f"home-{CANARY}"))
        analysis("run")
        analysis("archive", "-o", str(made(analysis)))
        words = {CANARY, str(tmp_path), str(Path.home()), f"/{getpass.getuser()}/", *hosts}
        files = Files.of(made(analysis)).data
        own = {name: data for name, data in files.items() if not name.startswith("data/oci/blobs/")}
        assert [(name, word) for name, data in own.items() for word in words if word.encode() in data] == []
        assert CANARY.encode() not in made(analysis).read_bytes()
