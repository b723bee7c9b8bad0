"""Replays: on the other engine, offline, with nothing left of the analysis; parts of it; and recasts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from archived import (
    STEPS,
    Done,
    Files,
    Recorded,
    Session,
    commit,
    here,
    problems,
    remove_image,
    session,
    unseen_image,
    verified,
    write_analysis,
)
from conftest import AsUser, Registry, TinyImage

RESULTS = {"results/note.txt", "results/sum.txt"}


@pytest.fixture
def archive(recorded: Recorded, apptainer: str, tmp_path: Path) -> Path:
    """An archive recorded with Apptainer."""
    return Path(shutil.copy(recorded.archive("apptainer"), tmp_path / "sums.crate.zip"))


@pytest.fixture
def user(apptainer: str, tmp_path: Path) -> Session:
    """A session in an empty folder with Apptainer, cut off from the network."""
    (tmp_path / "empty").mkdir()
    return replace(session(tmp_path / "empty", "apptainer"), prefix=("unshare", "-n"))


def ran(done: Done) -> set[str]:
    """Steps that ran, as the user was told."""
    return {line.split(":")[0].strip() for line in done.err.splitlines() if ": done, " in line}


def verdicts(done: Done) -> dict[str, str]:
    return {row["path"]: row["verdict"] for row in done.document["results"]}


class TestTheOtherEngine:
    @pytest.mark.docker
    @pytest.mark.apptainer
    @pytest.mark.parametrize(("first", "second"), [("docker", "apptainer"), ("apptainer", "docker")])
    def test_offline_and_with_everything_else_gone(
        self,
        tiny_image: TinyImage,
        docker_host: str,
        apptainer: str,
        tmp_path: Path,
        first: str,
        second: str,
    ) -> None:
        pin = unseen_image(tiny_image, tmp_path / "layout")
        analysis = session(tmp_path / "analysis", first, docker_host)
        write_analysis(analysis.root, tmp_path / "layout")
        commit(analysis.root)
        for command in (("lock",), ("run",), ("archive", "-o", str(tmp_path / "kept.crate.zip"))):
            analysis(*command)
        shutil.rmtree(analysis.root)
        shutil.rmtree(tmp_path / "layout")
        remove_image(docker_host, pin)
        (tmp_path / "later").mkdir()
        later = replace(session(tmp_path / "later", second, docker_host), prefix=("unshare", "-n"))
        done = later("replay", "--json", "-j", "2", str(tmp_path / "kept.crate.zip"))
        assert verdicts(done) == dict.fromkeys(RESULTS, "identical")
        assert (done.document["passed"], done.document["verdict"]) == (True, "identical")
        assert ran(done) == {"tools", "sorted", "scaled", "sum"}
        assert "intact, unsigned" in done.err
        assert list((tmp_path / "later").iterdir()) == []
        remove_image(docker_host, pin)

    @pytest.mark.apptainer
    def test_an_unpacked_archive(self, archive: Path, user: Session, tmp_path: Path) -> None:
        subprocess.run(["unzip", "-q", archive, "-d", tmp_path / "unpacked"], check=True)
        done = user("replay", str(tmp_path / "unpacked"))
        assert done.out.splitlines()[-1] == "verdict: identical: reproduced"

    @pytest.mark.apptainer
    def test_an_ordinary_user_with_nothing_left_behind(self, archive: Path, as_user: AsUser) -> None:
        with tempfile.TemporaryDirectory(dir=as_user.home) as name:
            folder = Path(name)
            theirs = Path(shutil.copy(archive, folder))
            (folder / "temporary").mkdir()
            as_user.give(folder)
            folder.chmod(0o755)
            command = (sys.executable, "-m", "preserve", "replay", "--engine", "apptainer", str(theirs))
            environment = {"TMPDIR": str(folder / "temporary"), "HOME": name}
            done = as_user(command, cwd=folder, capture_output=True, text=True, env=environment)
            assert done.returncode == 0, done.stderr
            assert done.stdout.splitlines()[-1] == "verdict: identical: reproduced"
            assert "you are root" not in done.stderr
            assert list((folder / "temporary").iterdir()) == []


@pytest.mark.apptainer
class TestParts:
    def test_only(self, archive: Path, user: Session) -> None:
        done = user("replay", "--json", "--only", "scaled", str(archive))
        assert ran(done) == {"scaled"}
        assert verdicts(done) == {"scaled/numbers.txt": "identical"}

    def test_from(self, archive: Path, user: Session) -> None:
        done = user("replay", "--json", "--from", "scaled", str(archive))
        assert ran(done) == {"scaled", "sum"}
        assert verdicts(done) == dict.fromkeys(RESULTS, "identical")

    @pytest.mark.parametrize("option", ["--only", "--from"])
    def test_a_step_that_there_is_none(self, archive: Path, user: Session, option: str, tmp_path: Path) -> None:
        kept = tmp_path / "kept"
        done = user("replay", option, "nothing", "--keep", str(kept), str(archive), expect=2)
        assert "has no step 'nothing'" in done.err
        assert not kept.exists()

    def test_left_out_intermediates_are_made_again(self, recorded: Recorded, user: Session, tmp_path: Path) -> None:
        archive = leave_out(recorded, tmp_path, "intermediates")
        done = user("replay", "--json", "--from", "sum", str(archive))
        assert ran(done) == {"tools", "sorted", "scaled", "sum"}
        assert verdicts(done) == dict.fromkeys(RESULTS, "identical")


def leave_out(recorded: Recorded, tmp_path: Path, *kinds: str) -> Path:
    """An archive without something."""
    options = [word for kind in kinds for word in ("--without", kind)]
    target = tmp_path / "-".join(("without", *kinds, ".crate.zip"))
    done = here("archive", "-C", str(recorded.done("apptainer")), "-o", str(target), *options)
    assert done.code == 0, done.err
    return target


@pytest.mark.apptainer
class TestLeftOut:
    def test_inputs_are_asked_for_by_digest(self, recorded: Recorded, user: Session, tmp_path: Path) -> None:
        archive = leave_out(recorded, tmp_path, "inputs")
        kept = tmp_path / "kept"
        done = user("replay", "--keep", str(kept), str(archive), expect=2)
        pin = recorded.done("apptainer").joinpath("preserve.lock").read_text()
        assert "data/numbers.txt" in done.err
        assert json.loads(pin)["inputs"]["data/numbers.txt"]["sha256"] in done.err
        assert "--input data/numbers.txt=FILE" in done.err
        assert not kept.exists()

    def test_the_right_file_makes_no_recast(self, recorded: Recorded, user: Session, tmp_path: Path) -> None:
        archive = leave_out(recorded, tmp_path, "inputs")
        (tmp_path / "found.txt").write_text("3\n1\n2\n")
        done = user("replay", "--json", "--input", f"data/numbers.txt={tmp_path / 'found.txt'}", str(archive))
        assert done.document["verdict"] == "identical"
        assert ran(done) == {"tools", "sorted", "scaled", "sum"}

    def test_another_file_is_a_recast(self, recorded: Recorded, user: Session, tmp_path: Path) -> None:
        archive = leave_out(recorded, tmp_path, "inputs")
        (tmp_path / "other.txt").write_text("4\n")
        done = user("replay", "--json", "--input", f"data/numbers.txt={tmp_path / 'other.txt'}", str(archive))
        assert done.document["verdict"] == "recast"

    def test_an_image_that_lay_beside_the_analysis(self, recorded: Recorded, user: Session, tmp_path: Path) -> None:
        archive = leave_out(recorded, tmp_path, "images")
        digest = Files.of(archive).data["data/workflow/preserve.lock"].decode()
        done = user("replay", str(archive), expect=3)
        assert "the archive was made without images, and tiny" in done.err
        assert "oci:image" in done.err
        assert json.loads(digest)["images"]["tiny"]["manifest_digest"] in done.err

    def test_an_image_from_a_registry(
        self, tiny_image: TinyImage, registry: Registry, user: Session, tmp_path: Path
    ) -> None:
        name = registry.push(tiny_image.layout, tiny_image.pin.manifest_digest, "hep/tiny:1")
        root = tmp_path / "sums"
        write_analysis(root, tiny_image.layout, steps=STEPS.replace("oci:image", f"docker://{name}"))
        commit(root)
        analysis = session(root, "apptainer")
        for command in (("lock",), ("run",), ("archive", "--without", "images", "-o", "../a.crate.zip")):
            analysis(*command)
        done = replace(user, prefix=())("replay", "--json", str(tmp_path / "a.crate.zip"))
        assert done.document["verdict"] == "identical"
        blob = registry.data / "docker/registry/v2/repositories/hep/tiny/_manifests/revisions"
        shutil.rmtree(blob)
        replace(user, prefix=())("replay", "--json", str(tmp_path / "a.crate.zip"), expect=3)


@pytest.mark.apptainer
class TestRecast:
    def test_a_parameter(self, archive: Path, user: Session) -> None:
        done = user("replay", "-p", "scale=3", str(archive))
        assert ran(done) == {"scaled", "sum"}
        assert "verdict: recast" in done.out
        assert "reproduced" not in done.out + done.err
        rows = {words[0]: words[1] for words in map(str.split, done.out.splitlines()) if words[0] in RESULTS}
        assert rows == {"results/note.txt": "identical", "results/sum.txt": "different"}

    def test_an_input_and_code(self, archive: Path, user: Session, tmp_path: Path) -> None:
        (tmp_path / "scale.awk").write_text("{print $1 + by}\n")
        done = user("replay", "--json", "--input", f"code/scale.awk={tmp_path / 'scale.awk'}", str(archive))
        assert (ran(done), done.document["verdict"]) == ({"scaled", "sum"}, "recast")
        (tmp_path / "numbers.txt").write_text("1\n2\n3\n")  # sorted, it is what it was: nothing after runs
        done = user("replay", "--json", "--input", f"data/numbers.txt={tmp_path / 'numbers.txt'}", str(archive))
        assert (ran(done), done.document["verdict"]) == ({"sorted"}, "recast")
        assert verdicts(done) == dict.fromkeys(RESULTS, "identical")

    def test_the_archived_values_are_none(self, archive: Path, user: Session, tmp_path: Path) -> None:
        (tmp_path / "numbers.txt").write_text("3\n1\n2\n")
        given = ("-p", "scale=2", "-p", "note=none", "--input", f"data/numbers.txt={tmp_path / 'numbers.txt'}")
        done = user("replay", *given, str(archive))
        assert done.out.splitlines()[-1] == "verdict: identical: reproduced"
        assert ran(done) == {"tools", "sorted", "scaled", "sum"}

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (("-p", "scael=3"), 'did you mean "scale"'),
            (("-p", "scale=much"), "declared as a whole number"),
            (("--input", "data/other.txt=/etc/hostname"), "reads no file data/other.txt"),
            (("--input", "../x=/etc/hostname"), "reads no file ../x"),
            (("--input", "data/numbers.txt=/no/such/file"), "No such file"),
            (("--input", "data/numbers.txt"), "not of the form PATH=FILE"),
        ],
    )
    def test_what_there_is_not(self, archive: Path, user: Session, given: tuple[str, ...], said: str) -> None:
        assert said in user("replay", *given, str(archive), expect=2).err

    def test_a_kept_recast_is_an_analysis_with_a_parent(self, archive: Path, user: Session, tmp_path: Path) -> None:
        parent = verified(archive).document["archive_id"]
        (tmp_path / "numbers.txt").write_text("10\n")
        kept, child = tmp_path / "kept", tmp_path / "child.crate.zip"
        given = ("-p", "scale=5", "--input", f"data/numbers.txt={tmp_path / 'numbers.txt'}")
        user("replay", *given, "--keep", str(kept), str(archive))
        assert (kept / "results" / "sum.txt").read_text() == "50\n"
        user("archive", "-C", str(kept), "-o", str(child))
        assert problems(child, "--deep") == {}
        assert here("show", "--json", str(child)).document["parent"] == parent
        assert f"Preserve-Parent: {parent}\n" in Files.of(child).data["bag-info.txt"].decode()
        assert f"made from     {parent}" in here("show", str(child)).out
        shutil.rmtree(kept)
        again = user("replay", "--json", str(child))
        assert again.document["verdict"] == "identical"
        grandchild = user("replay", "--json", "-p", "scale=6", str(child))
        assert (grandchild.document["verdict"], ran(grandchild)) == ("recast", {"scaled", "sum"})

    def test_a_folder_that_is_not_empty_is_kept(self, archive: Path, user: Session, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "notes.txt").write_text("mine\n")
        done = user("replay", "--keep", str(tmp_path / "mine"), str(archive), expect=2)
        assert "not an empty folder" in done.err
        assert "rm -r" not in done.err
        assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]

    def test_a_folder_that_a_replay_left_may_go(self, archive: Path, user: Session, tmp_path: Path) -> None:
        kept = tmp_path / "my kept"
        user("replay", "--keep", str(kept), str(archive))
        done = user("replay", "--keep", str(kept), str(archive), expect=2)
        assert f"a replay left it: rm -r '{kept}', or name a new one" in done.err
        assert (kept / "results" / "sum.txt").is_file()


@pytest.fixture(scope="module")
def networked(tiny_image: TinyImage, apptainer: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives, full and bare (without intermediates), of an analysis whose second step uses the network."""
    place = tmp_path_factory.mktemp("net")
    write_analysis(
        place / "sums", tiny_image.layout, steps=STEPS.replace("- name: sorted", "- name: sorted\n    network: true")
    )
    commit(place / "sums")
    analysis = session(place / "sums", "apptainer")
    full = ("archive", "-o", "../full.crate.zip")
    bare = ("archive", "-o", "../bare.crate.zip", "--without", "intermediates")
    for command in (("lock",), ("run",), full, bare):
        analysis(*command)
    shutil.rmtree(place / "sums")
    return place


@pytest.mark.apptainer
class TestNetwork:
    def test_it_is_the_users_to_give(self, networked: Path, user: Session) -> None:
        done = replace(user, prefix=())("replay", "--json", "--allow-network", str(networked / "full.crate.zip"))
        assert done.document["verdict"] == "identical"

    @pytest.mark.parametrize(
        ("archive", "options"),
        [
            ("full", ()),
            ("full", ("--only", "sorted")),
            ("full", ("--from", "sorted")),
            ("full", ("-p", "scale=3")),  # what a replaced parameter leads to is not known before
            ("full", ("-p", "scale=3", "--only", "sum")),
            ("bare", ("--only", "sum")),  # its product is not at hand
            ("bare", ("--from", "scaled")),
        ],
    )
    def test_a_step_that_might_run_needs_it(
        self, networked: Path, user: Session, tmp_path: Path, archive: str, options: tuple[str, ...]
    ) -> None:
        kept, file = tmp_path / "kept", networked / f"{archive}.crate.zip"
        refused = user("replay", "--keep", str(kept), *options, str(file), expect=2)
        assert "step sorted declares that it uses the network" in refused.err
        assert "--allow-network" in refused.err
        assert not kept.exists()

    @pytest.mark.parametrize(
        ("archive", "options", "steps"),
        [
            ("full", ("--only", "sum"), {"sum"}),
            ("full", ("--only", "tools"), {"tools"}),
            ("full", ("--from", "scaled"), {"scaled", "sum"}),
            ("bare", ("--only", "tools"), {"tools"}),
            ("full", ("-p", "scale=3", "--only", "tools"), {"tools"}),
        ],
    )
    def test_a_step_that_does_not_run_does_not(
        self, networked: Path, user: Session, archive: str, options: tuple[str, ...], steps: set[str]
    ) -> None:
        assert ran(user("replay", *options, str(networked / f"{archive}.crate.zip"))) == steps


class TestDifferent:
    @pytest.mark.apptainer
    def test_a_result_that_is_never_the_same(self, tiny_image: TinyImage, user: Session, tmp_path: Path) -> None:
        root = tmp_path / "sums"
        write_analysis(
            root,
            tiny_image.layout,
            steps=STEPS.replace("echo ${{ parameters.note }}", "cat /proc/sys/kernel/random/uuid"),
        )
        commit(root)
        analysis = session(root, "apptainer")
        for command in (("lock",), ("run",), ("archive", "-o", "../a.crate.zip")):
            analysis(*command)
        done = user("replay", "--json", str(tmp_path / "a.crate.zip"), expect=1)
        assert verdicts(done) == {"results/note.txt": "different", "results/sum.txt": "identical"}
        assert done.document["passed"] is False
