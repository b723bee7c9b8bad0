"""The scripts that set up a machine (.ci): each does its work once, nothing the second time, and leaves nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / ".ci"
EXAMPLE = SCRIPTS.parent / "examples" / "zpeak"


def script(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(SCRIPTS / name), *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)


@pytest.fixture
def loadable(tmp_path: Path) -> Path:
    """A copy of a program that the loader of this machine accepts."""
    return Path(shutil.copy("/usr/bin/true", tmp_path / "program"))


def loader_complains(program: Path) -> str:
    """What the dynamic loader misses when it resolves all of a program's symbols."""
    done = subprocess.run(["ldd", "-r", str(program)], check=False, capture_output=True, text=True)
    return "".join(
        line for line in (done.stdout + done.stderr).splitlines(True) if "undefined" in line or "not found" in line
    )


class TestLowerGlibc:
    def test_a_c23_name_becomes_the_older_one(self, loadable: Path) -> None:
        """/usr/bin/true needs one function of a later version: it is made into a C23 name of 2.38, of equal length."""
        data = loadable.read_bytes()
        assert data.count(b"GLIBC_2.34\0") == data.count(b"\0__libc_start_main\0") == 1
        newer = data.replace(b"GLIBC_2.34\0", b"GLIBC_2.38\0").replace(
            b"\0__libc_start_main\0", b"\0__isoc23_strftime\0"
        )
        loadable.write_bytes(newer)
        assert loader_complains(loadable)

        assert script("lower-glibc", "--glibc", "2.36", loadable).returncode == 0

        assert loader_complains(loadable) == ""
        assert os.access(loadable, os.X_OK)
        assert len(loadable.read_bytes()) == len(data)

    def test_another_name_of_a_newer_glibc_is_refused_and_no_file_changed(self, loadable: Path, tmp_path: Path) -> None:
        fine = Path(shutil.copy("/usr/bin/env", tmp_path / "fine"))
        newer = loadable.read_bytes().replace(b"GLIBC_2.34\0", b"GLIBC_2.38\0")
        loadable.write_bytes(newer)
        done = script("lower-glibc", "--glibc", "2.36", fine, loadable)
        assert done.returncode == 1
        assert "needs __libc_start_main of GLIBC_2.38" in done.stderr
        assert loadable.read_bytes() == newer
        assert fine.read_bytes() == Path("/usr/bin/env").read_bytes()

    def test_what_needs_nothing_newer_than_this_machine_has_stays_as_it_is(self, loadable: Path) -> None:
        assert script("lower-glibc", loadable).returncode == 0
        assert loadable.read_bytes() == Path("/usr/bin/true").read_bytes()

    def test_another_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "text").write_text("no program")
        done = script("lower-glibc", "--glibc", "2.36", tmp_path / "text")
        assert (done.returncode, "not a 64-bit" in done.stderr) == (1, True)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for a server, short enough for a socket's name; what a failing test left there is ended."""
    path = Path("/tmp") / f"preserve-set-up-{os.getpid()}"
    yield path
    for down in ("docker-down", "registry-down"):
        if path.exists():
            script(down, path)


def processes_of(folder: Path) -> list[str]:
    """Command lines of running processes that name the folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it ended meanwhile
            continue
        if str(folder) in line:
            found.append(line)
    return found


def refused_to_an_ordinary_user(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether the tests run without root, to whom alone an engine can be started; that must be said."""
    if os.geteuid() == 0:
        return False
    assert (done.returncode, "needs root" in done.stderr) == (1, True)
    return True


@pytest.mark.docker
def test_a_private_docker_engine_comes_up_once_and_leaves_nothing(folder: Path) -> None:
    first, second = script("docker-up", folder), script("docker-up", folder)
    if refused_to_an_ordinary_user(first):
        return
    assert first.stdout.strip() == f"unix://{folder}/docker.sock", first.stderr
    assert second.stdout == first.stdout
    assert sum("dockerd" in line for line in processes_of(folder)) == 1
    assert script("docker-down", folder).returncode == 0
    assert not folder.exists()
    assert processes_of(folder) == []
    assert str(folder) not in Path("/proc/mounts").read_text()


@pytest.mark.docker
def test_an_engine_that_was_killed_is_cleared_away_with_its_containerd(folder: Path) -> None:
    if refused_to_an_ordinary_user(script("docker-up", folder)):
        return
    os.kill(int((folder / "docker.pid").read_text()), 9)
    assert script("docker-down", folder).returncode == 0
    assert (folder.exists(), processes_of(folder)) == (False, [])


def test_the_end_of_an_engine_removes_only_what_the_start_made(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for down in ("docker-down", "registry-down"):
        assert script(down, tmp_path).returncode == 2
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_registry_comes_up_once_and_leaves_nothing(folder: Path) -> None:
    first, second = script("registry-up", folder), script("registry-up", folder)
    assert first.stdout.startswith("127.0.0.1:"), first.stderr
    assert second.stdout == first.stdout
    assert len(processes_of(folder)) == 1
    assert script("registry-down", folder).returncode == 0
    assert (folder.exists(), processes_of(folder)) == (False, [])


def test_a_machine_that_has_everything_is_left_alone_at_once() -> None:
    """No package manager, no network: a second `make demo` must not wait for its set-up (0.3 s, and generously)."""
    start = time.monotonic()
    done = (script("install-packages", "test"), script("install-apptainer"))
    assert [(p.returncode, p.stdout, p.stderr) for p in done] == [(0, "", "")] * 2
    assert time.monotonic() - start < 3


ENTER_BY_CHROOT = """
for each in /*; do
    if [ -h "$each" ]; then cp -d "$each" "$1/"
    elif [ -d "$each" ]; then mkdir "$1$each" && mount --rbind "$each" "$1$each"; fi
done
exec chroot "$@"
"""


def test_a_root_entered_by_chroot_is_named_where_engines_would_fail_without_a_reason(tmp_path: Path) -> None:
    become_root = () if os.geteuid() == 0 else ("--map-root-user",)
    command = ["unshare", *become_root, "--mount", "sh", "-euc", ENTER_BY_CHROOT, "sh"]
    command += [str(tmp_path), str(SCRIPTS / "install-apptainer")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert "warning: / was entered by chroot" in done.stderr
    assert "pivot_root" in done.stderr
    assert done.returncode == 0


class TestCompareRuns:
    """What the demonstration prints of its runs, and its exit code."""

    MASS = """{"candidates": 500, "unit": "GeV",
        "mass": 90.7235, "mass_error": 0.1351, "mass_error_scale": 0.1814, "mass_from_world_average": -2.053,
        "width": 2.6838, "width_error_plus": 0.4355, "width_error_minus": -0.4220, "width_from_world_average": 0.442}"""

    def compare(self, folder: Path, **products: dict[str, str]) -> subprocess.CompletedProcess[str]:
        for engine, of_engine in products.items():
            (folder / engine / "results").mkdir(parents=True)
            shutil.copy(EXAMPLE / "preserve.yaml", folder / engine)
            (folder / engine / "results" / "mass.json").write_text(self.MASS)
            (folder / f"{engine}.json").write_text(json.dumps({"products": of_engine}))
        command = [sys.executable, SCRIPTS / "compare-runs", folder, *products]
        return subprocess.run(command, check=False, capture_output=True, text=True, encoding="utf-8")

    def test_equal_products_pass_and_the_mass_has_errors_and_a_unit(self, tmp_path: Path) -> None:
        products = {"a": "sha256:" + "1" * 64, "b": "sha256:" + "2" * 64}
        done = self.compare(tmp_path, docker=products, apptainer=products)
        assert (done.returncode, done.stderr) == (0, "")
        assert "all 2 products are the same, byte for byte, on Docker and Apptainer" in done.stdout
        assert "90.72 ± 0.14 (stat) ± 0.18 (scale) GeV" in done.stdout
        assert "91.1880 ± 0.0020 GeV     −2.1 σ" in done.stdout
        assert "2.68 +0.44 −0.42 (stat) GeV" in done.stdout

    @pytest.mark.parametrize("other", [{"a": "sha256:" + "1" * 63 + "3"}, {}])
    def test_a_product_that_differs_or_is_missing_fails(self, tmp_path: Path, other: dict[str, str]) -> None:
        done = self.compare(tmp_path, docker={"a": "sha256:" + "1" * 64}, apptainer=other)
        assert done.returncode == 1
        assert "1 of 1 products DIFFER between Docker and Apptainer" in done.stdout

    def test_one_engine_alone_is_not_called_equal(self, tmp_path: Path) -> None:
        done = self.compare(tmp_path, apptainer={"a": "sha256:" + "1" * 64})
        assert (done.returncode, "same" in done.stdout) == (0, False)
        assert "1 products, on Apptainer only: nothing to compare with" in done.stdout
