"""The command as a user types it, on real engines: whole runs, what runs again and what does not, and every way to end.

Each test works in its own copy of an analysis that was committed and locked once per session.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from conftest import ENGINES, PATH, ROOT
from sessions import LONG, Analysis, Napping, command_lines, commit, napping

NAP = (
    """\
format: 1
title: One long step, and two that fail
authors: [{name: The preserve developers}]
license: CC0-1.0
images:
  tiny: {build: image/}
parameters: {seconds: 0}
steps:
"""
    + LONG
    + """\
  - name: forgetful
    stage: processing
    image: tiny
    outputs: [nothing/there.txt]
    run: echo all is well
  - name: failing
    stage: processing
    image: tiny
    outputs: [never/made.txt]
    run: |
      echo the detector was off >&2
      exit 3
"""
)

Make = Callable[..., Analysis]


@dataclass(frozen=True, kw_only=True)
class Locked:
    """Makes analyses: committed and locked once per name, run once per name and engine, copied for each test."""

    place: Path
    docker_host: str
    made: dict[str, Path] = field(default_factory=dict)

    def copy(self, name: str, engine: str, target: Path, *, done: bool = False) -> Analysis:
        template = self._done(name, engine) if done else self._locked(name)
        shutil.copytree(template, target, symlinks=True)
        return self._analysis(target, engine)

    def _analysis(self, root: Path, engine: str) -> Analysis:
        environment = {"PATH": PATH, "HOME": str(self.place), "DOCKER_HOST": self.docker_host}
        return Analysis(root=root, engine=engine, environment=environment)

    def _done(self, name: str, engine: str) -> Path:
        key = f"{name}.{engine}"
        if key not in self.made:
            analysis = self.copy(name, engine, self.place / key)
            analysis.run()
            self.made[key] = analysis.root
        return self.made[key]

    def _locked(self, name: str) -> Path:
        if name not in self.made:
            root = self.place / name
            self._write(name, root)
            analysis = self._analysis(root, "none")
            # the way to a package mirror is the caller's
            done = replace(analysis, environment={**os.environ, **analysis.environment})("lock")
            assert done.returncode == 0, done.stderr
            self.made[name] = root
        return self.made[name]

    def _write(self, name: str, root: Path) -> None:
        shutil.copytree(ROOT / "workflows" / ("five-stages" if name == "nap" else name), root)
        if name == "nap":
            (root / "preserve.yaml").write_text(NAP)
        commit(root)
        if name != "five-stages":  # all have the same image: it is built once
            shutil.copytree(self._locked("five-stages") / ".preserve" / "cache", root / ".preserve" / "cache")
            (root / ".preserve" / ".gitignore").write_text("*\n")


@pytest.fixture(scope="session")
def locked(tmp_path_factory: pytest.TempPathFactory, docker_host: str) -> Locked:
    return Locked(place=tmp_path_factory.mktemp("analyses"), docker_host=docker_host)


@pytest.fixture
def five(locked: Locked, engine: str, tmp_path: Path) -> Analysis:
    """The five stages, locked."""
    return locked.copy("five-stages", engine, tmp_path / "five")


@pytest.fixture
def done(locked: Locked, engine: str, tmp_path: Path) -> Analysis:
    """The five stages, locked and run."""
    return locked.copy("five-stages", engine, tmp_path / "done", done=True)


@pytest.fixture
def nap(locked: Locked, engine: str, tmp_path: Path) -> Analysis:
    """One long step, and two that fail."""
    return locked.copy("nap", engine, tmp_path / "nap")


class TestWholeRuns:
    @pytest.mark.docker
    @pytest.mark.apptainer
    @pytest.mark.parametrize(("name", "steps"), [("five-stages", 5), ("fan-out-merge", 9)])
    def test_both_engines_make_the_same_bytes(
        self, locked: Locked, apptainer: str, tmp_path: Path, name: str, steps: int
    ) -> None:
        products = []
        for engine in ("docker", "apptainer"):
            analysis = locked.copy(name, engine, tmp_path / engine)
            found = analysis.run("-j", "2")
            assert len(found["reasons"]) == steps
            assert analysis.products(*found["products"]) == found["products"]
            products.append(found["products"])
            analysis.assert_nothing_to_do()
        assert products[0] == products[1]
        assert len(products[0]) >= steps


class TestWhatRunsAgain:
    def test_a_comment_and_new_times_run_nothing(self, done: Analysis) -> None:
        done.assert_nothing_to_do()
        workflow = done.root / "preserve.yaml"
        workflow.write_text("# a thought\n" + workflow.read_text())
        done.assert_nothing_to_do()
        for path in done.root.rglob("*"):
            if path.is_file() and not {".git", ".preserve"} & set(path.relative_to(done.root).parts):
                os.utime(path)
        done.assert_nothing_to_do()

    def test_a_parameter_runs_what_depends_on_it_and_going_back_needs_no_engine(
        self, done: Analysis, tmp_path: Path
    ) -> None:
        before = done.run()["products"]
        expected = {"process": "its command changed", "fit": "after process", "assemble": "after fit"}
        assert done.run("-n", "-p", "bin_width=4.0")["reasons"] == expected
        assert done.products(*before) == before

        found = done.run("-p", "bin_width=4.0")
        assert set(found["reasons"]) == set(expected)
        assert found["products"]["results/peak.json"] != before["results/peak.json"]
        assert done.products(*before) == found["products"]

        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "git").symlink_to(str(shutil.which("git")))
        nowhere = {"PATH": str(tmp_path / "bin"), "DOCKER_HOST": f"unix://{tmp_path}/no.sock"}
        back = replace(done, environment={**done.environment, **nowhere})
        assert "products would be exchanged for those of" in back("run", "-n").stderr
        assert done.products(*before) == found["products"]
        again = back("run")
        assert (again.returncode, "no step has to run: all 5 steps are done" in again.stderr) == (0, True), again.stderr
        assert done.products(*before) == before
        back.assert_nothing_to_do()

    def test_an_edited_step_runs_with_what_follows(self, done: Analysis) -> None:
        code = done.root / "code" / "moments.awk"
        text = code.read_text()
        code.write_text(text + "# another thought\n")
        reasons = done.run("-n")["reasons"]
        assert reasons["fit"] == "code/moments.awk changed"
        assert set(reasons) == {"fit", "assemble"}
        code.write_text(text)
        done.assert_nothing_to_do()

    def test_records_of_an_earlier_preserve_are_no_obstacle(self, done: Analysis) -> None:
        """Their form may have grown since: the steps run again, and what they make is as it was."""
        before = done.run()["products"]
        for path in (done.root / ".preserve").glob("**/records/**/*.json"):
            record = json.loads(path.read_bytes())
            del record["machine"]
            path.chmod(0o644)
            path.write_text(json.dumps(record))
        found = done.run()
        assert found["reasons"]["environment"] == "its last record cannot be read"
        assert found["products"] == before
        done.assert_nothing_to_do()


class TestProductsInTheFolder:
    @pytest.mark.parametrize("way", ["replaced", "in place"])
    def test_an_edited_product_is_restored_and_the_edit_kept(self, five: Analysis, way: str) -> None:
        before = five.run()["products"]
        product = five.root / "results" / "peak.json"
        edited = product.read_bytes().replace(b"1", b"2")
        if way == "replaced":
            product.unlink()
        product.write_bytes(edited)
        after = five("run")
        assert after.returncode == 0, after.stderr
        assert "results/peak.json was changed after it was made" in after.stderr
        assert five.products(*before) == before
        # in place, the bytes of fit/peak.json changed too: one file in the store has both names
        kept = list((five.root / ".preserve" / "displaced").glob("*/results/peak.json"))
        assert [path.read_bytes() for path in kept] == [edited]

    def test_a_foreign_file_is_refused_and_kept(self, five: Analysis) -> None:
        mine = five.root / "results" / "peak.json"
        mine.parent.mkdir()
        mine.write_text("my own notes\n")
        refused = five("run")
        assert refused.returncode == 2, refused.stderr
        assert "results/peak.json stands where" in refused.stderr
        assert mine.read_text() == "my own notes\n"


class TestFailures:
    def test_a_step_without_its_product(self, nap: Analysis) -> None:
        failed = nap("run", "--step", "forgetful")
        assert failed.returncode == 4, failed.stderr
        assert "step forgetful failed" in failed.stderr
        assert "nothing/there.txt" in failed.stderr

    def test_a_failing_step_shows_the_end_of_its_log(self, nap: Analysis) -> None:
        failed = nap("run", "--step", "failing")
        assert failed.returncode == 4, failed.stderr
        assert "step failing failed: exit code 3" in failed.stderr
        assert "the detector was off" in failed.stderr
        assert nap("log", "failing").stderr == "the detector was off\n"


@pytest.fixture
def asleep(nap: Analysis) -> Iterator[Napping]:
    """A run in the middle of its long step."""
    with napping(nap) as found:
        yield found


class TestInterruption:
    def test_killed_it_leaves_no_container_and_goes_on_where_it_was(self, asleep: Napping) -> None:
        asleep.process.kill()
        assert asleep.end()[0] == -signal.SIGKILL
        asleep.assert_clean()
        found = asleep.analysis.run("--step", "nap", "-p", "seconds=0")
        assert set(found["reasons"]) == {"nap"}
        assert (asleep.analysis.root / "nap" / "nap.txt").read_text() == "first\n"

    def test_ctrl_c_ends_the_containers(self, asleep: Napping) -> None:
        asleep.process.send_signal(signal.SIGINT)
        code, stderr = asleep.end()
        assert code == 130, stderr
        assert "interrupted" in stderr
        assert asleep.traces() == []

    @pytest.mark.parametrize("engine", ENGINES[1:], indirect=True)
    def test_the_engine_killed_is_a_failed_step(self, asleep: Napping) -> None:
        children = f"/proc/{asleep.process.pid}/task"
        pids = {int(pid) for path in Path(children).glob("*/children") for pid in path.read_text().split()}
        clients = [pid for pid, line in command_lines() if pid in pids and "pptainer" in line[0]]
        assert clients
        for pid in clients:
            os.kill(pid, signal.SIGKILL)
        code, stderr = asleep.end()
        assert code == 4, stderr
        assert "step nap failed" in stderr
        asleep.assert_clean()


def test_help_waits_for_no_library() -> None:
    program = """
import contextlib, io, sys
from preserve.cli import main
with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
    main(["run", "--help"])
assert "--dry-run" in text.getvalue()
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT)
    modules = set(done.stdout.split())
    assert "preserve" in modules
    assert not modules & {"snakemake", "docker", "git", "yaml", "rich", "spython", "requests", "jinja2"}


@pytest.mark.parametrize("engine", ENGINES[1:], indirect=True)
def test_another_suite_has_other_packages(five: Analysis) -> None:
    """What the lock pins was the old one's: kept, it would make the recipe a lie."""
    recipe = five.root / "image" / "image.yaml"
    text = recipe.read_text()
    recipe.write_text(text.replace("bookworm", "trixie"))
    with_mirrors = replace(five, environment={**os.environ, **five.environment})
    before = json.loads((five.root / "preserve.lock").read_bytes())
    assert with_mirrors("lock").returncode == 0
    after = json.loads((five.root / "preserve.lock").read_bytes())
    assert (before["suites"], after["suites"]) == ({"tiny": "bookworm"}, {"tiny": "trixie"})
    assert before["images"]["tiny"]["packages"] != after["images"]["tiny"]["packages"]
    recipe.write_text(text)
    assert with_mirrors("lock").returncode == 0
    assert json.loads((five.root / "preserve.lock").read_bytes()) == before
