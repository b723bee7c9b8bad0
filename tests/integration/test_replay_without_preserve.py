"""data/replay.sh in real archives, on real engines: the same bytes again, with neither preserve nor Python at hand."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
from conftest import MANIFEST, PATH, AsUser, Registry, TinyImage, _add, _json
from sessions import PATIENCE, SECONDS, Analysis, command_lines, wait_until

from preserve.digest import Digest
from preserve.engines.environment import OFFLINE_FILES
from preserve.oci import CONFIG, Layout

NEEDED = "sh unzip sha256sum find sed awk sort comm tar mktemp mkdir ln cp mv rm chmod cat tr grep head tail wc id"
NEEDED += " readlink env timeout ls"
ODD = 'in put/ä ö,"q".txt'
ARGUMENTS = (
    "two words",
    "",
    "'",
    '"',
    "$HOME `id` $(id)",
    "a\\nb",
    "line\nbreak\n",
    "é ÁÂÃÄÅÆÇÈ €𝄞",
    "-n",
    "--",
    "*",
    "~",
)
VARIABLES = ("IMAGE_VARIABLE=$HOME `id` \"q\" 'q' \\ <&>\nÁé€𝄞", "LD_LIBRARY_PATH=/lib/$x", "EMPTY=", "LANG=fr_FR")
LOOK = """\
for word; do printf '<%s>' "$word"; done > out/arguments
env | grep -v ^APPTAINER_ | sort > out/environment
grep -e Cap -e NoNewPrivs /proc/self/status > out/rights
{ ulimit -n; ulimit -Hn; ulimit -c; hostname; } > out/limits
for name in passwd group hostname hosts resolv.conf; do cat /etc/$name; done > out/etc
{ pwd; ls -lR /work | grep -v ^total | cut -c 1-10; ls /work/*; } > out/files
for file in /new /work/new "/work/in put/ä ö,\\"q\\".txt" out/../code/tool.sh; do
    echo changed 2> /dev/null > "$file" || echo "not $file"
done > out/refused
cat "in put/ä ö,\\"q\\".txt" > out/read
echo kept > /tmp/kept; cat /tmp/kept >> out/read; wc -c < /dev/stdin >> out/read; sh code/tool.sh >> out/read
"""
WORKFLOW: dict[str, Any] = {
    "format": 1,
    "title": "Words that a shell 'would' \"like\" to $(touch pwned) `touch pwned`",
    "authors": [{"name": "The preserve developers"}],
    "license": "CC0-1.0",
    "images": {"tiny": {"reference": "oci:layout"}},
    "inputs": {ODD: {}},
    "steps": [
        {
            "name": "look",
            "stage": "environment",
            "image": "tiny",
            "inputs": [ODD, "code/tool.sh"],
            "outputs": [
                f"out/{name}"
                for name in ["arguments", "environment", "rights", "limits", "etc", "files", "refused", "read"]
            ],
            "command": ["sh", "-c", LOOK, "name", *ARGUMENTS],
        },
        {
            "name": "folder",
            "stage": "processing",
            "image": "tiny",
            "inputs": ["out/arguments"],
            "outputs": ["plots/"],
            "run": "mkdir 'plots/a b'; cp out/arguments 'plots/a b/ü'; echo 1 > plots/-1; chmod +x plots/-1",
        },
        {
            "name": "beside",
            "stage": "postprocessing",
            "image": "tiny",
            "inputs": ["plots/", "d/here.txt"],
            "outputs": ["d/made.txt", "top ü.txt"],
            "run": "ls -l d/here.txt plots | cut -c 1-10 > 'top ü.txt'\n"
            "{ echo x > d/here.txt || echo no; echo x > plots/new || echo no; } 2> /dev/null > d/made.txt\n"
            "cat plots/-1 'plots/a b/ü' >> d/made.txt",
        },
    ],
    "results": {"out/arguments": {}, "plots/": {}, "d/made.txt": {}, "top ü.txt": {"require": "advisory"}},
}
UNSTEADY: dict[str, Any] = {
    **WORKFLOW,
    "inputs": {},
    "steps": [
        {
            "name": "steady",
            "stage": "processing",
            "image": "tiny",
            "outputs": ["a/steady.txt"],
            "run": "echo one > a/steady.txt; : sleep NAP",
            "resources": {"time": "1 h"},
        },
        {
            "name": "unsteady",
            "stage": "processing",
            "image": "tiny",
            "network": True,
            "outputs": ["b/unsteady.txt", "c/many/"],
            "run": "head -c 20 /dev/urandom > b/unsteady.txt; n=$(head -c 20 /dev/urandom | md5sum)\n"
            'echo > "c/many/${n%% *}"',
        },
    ],
    "results": {"a/steady.txt": {}, "b/unsteady.txt": {}, "c/many/": {}},
}


@dataclass(frozen=True, kw_only=True)
class Archived:
    """An archive, and the digests of its image: of its config, and of its manifest."""

    file: Path
    config: str
    manifest: str

    def unpacked(self, folder: Path) -> Path:
        """The archive's files in a folder of their own."""
        subprocess.run(["unzip", "-q", str(self.file), "-d", str(folder)], check=True)
        return folder


@dataclass(frozen=True, kw_only=True)
class Analyses:
    """Runs and archives analyses, each once per engine."""

    place: Path
    image: Path
    docker_host: str
    made: dict[str, Archived]

    def archived(self, name: str, engine: str, *options: str) -> Archived:
        key = "-".join((name, engine, *options[1::2]))
        if key not in self.made:
            root = self.place / f"{name}-{engine}"
            if not root.exists():
                self._run(root, WORKFLOW if name == "odd" else UNSTEADY, engine)
            self.made[key] = self._archive(root, self.place / f"{key} [1] *.crate.zip", options)
        return self.made[key]

    def _run(self, root: Path, workflow: Mapping[str, Any], engine: str) -> None:
        files = {
            ODD: "ä\n",
            "code/tool.sh": "echo tool\n",
            "d/here.txt": "here\n",
            "preserve.yaml": json.dumps(workflow, ensure_ascii=False),
        }
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        (root / "code/tool.sh").chmod(0o755)
        shutil.copytree(self.image, root / "layout")
        for command in (("init", "-q"), ("add", "preserve.yaml", "code", "d"), ("commit", "-q", "-m", "Start")):
            identity = ("-c", "user.name=Tester", "-c", "user.email=tester@example.org")
            subprocess.run(["git", *identity, *command], check=True, cwd=root, env={"PATH": PATH})
        self._call(root, engine, "lock")
        self._call(root, engine, "run")

    def _archive(self, root: Path, file: Path, options: tuple[str, ...]) -> Archived:
        self._call(root, "none", "archive", "--allow-dirty", "-o", str(file), *options)
        image = json.loads((root / "preserve.lock").read_bytes())["images"]["tiny"]
        return Archived(file=file, config=image["config_digest"], manifest=image["manifest_digest"])

    def _call(self, root: Path, engine: str, *arguments: str) -> None:
        environment = {"PATH": PATH, "HOME": str(self.place), "DOCKER_HOST": self.docker_host}
        done = Analysis(root=root, engine=engine, environment=environment)(*arguments)
        assert done.returncode == 0, done.stderr


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """How a replay ended."""

    code: int
    out: str
    err: str

    @property
    def verdicts(self) -> dict[str, str]:
        """Verdict by result."""
        lines = [line for line in self.out.splitlines() if "(required: " in line]
        return {line[11:].partition("   (required")[0]: line[:10].strip() for line in lines}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Somebody's machine: only what the script says it needs, and one engine. ``scratch`` is its /tmp."""

    programs: Path
    scratch: Path
    docker_host: str

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": str(self.programs), "TMPDIR": str(self.scratch), "DOCKER_HOST": self.docker_host}

    def pipe(self, archive: Path, *options: str, shell: tuple[str, ...] = ("sh",)) -> Replayed:
        """``unzip -p ARCHIVE data/replay.sh | sh -s -- ARCHIVE``."""
        script = subprocess.run(["unzip", "-p", literally(archive), "data/replay.sh"], check=True, capture_output=True)
        return self._run((*shell, "-s", "--", *options, str(archive)), script.stdout)

    def __call__(self, folder: Path, *options: str) -> Replayed:
        """``sh data/replay.sh`` in the unpacked archive."""
        return self._run(("sh", "data/replay.sh", *options), b"", folder)

    def _run(self, command: tuple[str, ...], script: bytes, folder: Path = Path("/")) -> Replayed:
        shell = [str(self.programs / command[0]), *command[1:]]
        done = subprocess.run(
            shell, check=False, input=script, capture_output=True, cwd=folder, env=self.environment, timeout=300
        )
        assert list(self.scratch.iterdir()) == []
        return Replayed(code=done.returncode, out=done.stdout.decode(), err=done.stderr.decode())


def literally(archive: Path) -> str:
    """A name as unzip takes it, for which * and [ are patterns."""
    return str(archive).replace("[", "[[]")


def machine_with(place: Path, docker_host: str, *engines: str) -> Machine:
    """A machine that has these engines' programs."""
    programs, scratch = place / "programs", place / "scratch"
    programs.mkdir(parents=True)
    scratch.mkdir()
    for name in (*NEEDED.split(), *engines, "busybox"):
        found = shutil.which(name, path=PATH)
        assert found is not None, f"{name} is missing"
        (programs / name).symlink_to(found)
    return Machine(programs=programs, scratch=scratch, docker_host=docker_host)


def seal(folder: Path) -> None:
    """Write the digests anew, as somebody would who changed an archive."""

    def lines(paths: list[Path]) -> str:
        return "".join(f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder)}\n" for p in paths)

    data = sorted(path for path in (folder / "data").rglob("*") if path.is_file())
    (folder / "manifest-sha256.txt").write_text(lines(data))
    tags = sorted(path for path in folder.iterdir() if path.is_file() and path.name != "tagmanifest-sha256.txt")
    (folder / "tagmanifest-sha256.txt").write_text(lines(tags))


def asleep(seconds: int) -> bool:
    """Whether a step takes this nap."""
    return any(line == ["sleep", str(seconds)] for _, line in command_lines())


def edit_script(folder: Path, old: str, new: str) -> None:
    """Change the script of an unpacked archive."""
    place = folder / "data" / "replay.sh"
    text = place.read_text()
    assert old in text
    place.write_text(text.replace(old, new))
    seal(folder)


@pytest.fixture(scope="session")
def odd_image(tiny_image: TinyImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small image with variables that are hard to hand on, in a layout of its own."""
    tiny = Layout(tiny_image.layout)
    described = tiny.image(tiny_image.pin.manifest_digest)
    config = json.loads(tiny.read(described.config.digest))
    config["config"]["Env"] = [f"PATH=/opt/odd:{PATH}", *VARIABLES]
    layout = Layout(tmp_path_factory.mktemp("odd") / "layout").create()
    layers = [_add(layout, layer.media_type, tiny.blob(layer.digest).read_bytes()) for layer in described.layers]
    parts = {"config": _add(layout, CONFIG, _json(config)), "layers": layers}
    manifest = _add(layout, MANIFEST, _json({"schemaVersion": 2, "mediaType": MANIFEST, **parts}))
    layout.list_image(layout.image(Digest(manifest["digest"])))
    return layout.path


@pytest.fixture(scope="session")
def analyses(tmp_path_factory: pytest.TempPathFactory, docker_host: str, odd_image: Path) -> Analyses:
    return Analyses(place=tmp_path_factory.mktemp("archived"), image=odd_image, docker_host=docker_host, made={})


@pytest.fixture
def machine(engine: str, docker_host: str, tmp_path: Path) -> Machine:
    """A machine with one engine, and nothing of preserve."""
    found = machine_with(tmp_path / "machine", docker_host, engine)
    assert not {"python3", "python", "preserve", "git"} & {program.name for program in found.programs.iterdir()}
    return found


@pytest.fixture
def client(docker_host: str) -> Iterator[docker.DockerClient]:
    found = docker.DockerClient(docker_host)
    yield found
    found.close()


def forget_image(client: docker.DockerClient, archived: Archived) -> None:
    """Remove an archive's image from Docker, if it is there (with the containerd store under its manifest's digest)."""
    for image in {archived.config, archived.manifest} & {found.id for found in client.images.list()}:
        client.images.remove(image, force=True)


@pytest.mark.docker
@pytest.mark.apptainer
class TestTheSameBytes:
    @pytest.mark.parametrize("recorded", ["docker", "apptainer"])
    @pytest.mark.parametrize("shell", [("sh",), ("busybox", "sh")], ids=lambda names: names[0])
    def test_on_the_other_engine_and_on_the_same(
        self,
        analyses: Analyses,
        machine: Machine,
        client: docker.DockerClient,
        recorded: str,
        shell: tuple[str, ...],
    ) -> None:
        archived = analyses.archived("odd", recorded)
        forget_image(client, archived)
        done = machine.pipe(archived.file, shell=shell)
        assert (done.code, Path("/pwned").exists()) == (0, False), done.err
        assert set(done.verdicts.values()) == {"identical"}
        assert {"out/arguments", "plots/-1", "plots/a b/ü", "d/made.txt", "top ü.txt"} == done.verdicts.keys()
        assert "7 of 7 identical" in done.out

    def test_from_the_unpacked_archive_which_stays_as_it_is(
        self, analyses: Analyses, machine: Machine, tmp_path: Path
    ) -> None:
        folder = analyses.archived("odd", "docker").unpacked(tmp_path / "odd ,:name")
        before = {p: (p.stat().st_mode, p.stat().st_mtime_ns, p.stat().st_ctime_ns) for p in folder.rglob("*")}
        done = machine(folder, "--keep", str(tmp_path / "kept ,:here"))
        assert done.code == 0, done.err
        assert before == {p: (p.stat().st_mode, p.stat().st_mtime_ns, p.stat().st_ctime_ns) for p in folder.rglob("*")}
        kept = tmp_path / "kept ,:here"
        assert (kept / "analysis/top ü.txt").read_bytes() == (folder / "data/results/top=20=C3=BC.txt").read_bytes()
        assert sorted(found.name for found in kept.iterdir()) == ["analysis", "logs"]

    def test_steps_see_what_they_should_and_no_more(self, analyses: Analyses, machine: Machine, tmp_path: Path) -> None:
        assert machine.pipe(analyses.archived("odd", "docker").file, "--keep", str(tmp_path / "kept")).code == 0
        out = tmp_path / "kept" / "analysis" / "out"
        assert (out / "arguments").read_text() == "".join(f"<{word}>" for word in ARGUMENTS)
        assert (out / "refused").read_text().count("not /") == 3
        assert "CapEff:\t0000000000000000" in (out / "rights").read_text()
        assert "NoNewPrivs:\t1" in (out / "rights").read_text()
        assert (out / "limits").read_text() == "1024\n4096\n0\npreserve\n"
        assert (out / "etc").read_text().startswith("root:x:0")
        assert (out / "etc").read_text().endswith("\npreserve\n" + "".join(OFFLINE_FILES.values()))
        environment = (out / "environment").read_text()
        assert f"{VARIABLES[0]}\n".partition("\n")[0] in environment
        assert "LANG=C.UTF-8\n" in environment
        assert "TMPDIR" not in environment


@pytest.mark.apptainer
def test_an_ordinary_user_with_apptainer_alone(
    analyses: Analyses, apptainer: str, as_user: AsUser, docker_host: str
) -> None:
    archived = analyses.archived("odd", "docker")
    found = machine_with(as_user.home / "machine", docker_host, "apptainer")
    as_user.give(as_user.home / "machine" / "scratch")
    file = as_user.give(Path(shutil.copy(archived.file, as_user.home / "odd.crate.zip")))
    script = subprocess.run(["unzip", "-p", str(file), "data/replay.sh"], check=True, capture_output=True).stdout
    canaries = {"APPTAINER_BIND": "/etc:/mnt", "APPTAINERENV_CANARY": "x", "SINGULARITYENV_CANARY": "x", "CANARY": "x"}
    given = [f"{name}={value}" for name, value in {**found.environment, **canaries}.items()]
    command = ["env", "-i", *given, "sh", "-s", "--", str(file)]
    done = as_user(command, input=script, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert "5 results are identical" in done.stdout.decode()
    assert list((as_user.home / "machine" / "scratch").iterdir()) == []


@pytest.mark.docker
@pytest.mark.apptainer
class TestWhatIsFound:
    def test_a_product_that_differs_and_one_that_is_missing(self, analyses: Analyses, machine: Machine) -> None:
        done = machine.pipe(analyses.archived("unsteady", "docker").file, "--allow-network")
        assert done.code == 1, done.err
        assert done.verdicts["a/steady.txt"] == "identical"
        assert done.verdicts["b/unsteady.txt"] == "different"
        assert sorted(done.verdicts.values()) == ["different", "identical", "missing"]

    def test_a_file_too_many(self, analyses: Analyses, machine: Machine, tmp_path: Path) -> None:
        folder = analyses.archived("odd", "docker").unpacked(tmp_path / "odd")
        edit_script(folder, "echo 1 > plots/-1;", "echo 1 > plots/-1; echo 2 > plots/-2;")
        done = machine(folder)
        assert (done.code, done.verdicts.get("plots/ (3 files instead of 2)")) == (1, "extra"), done.out + done.err

    def test_a_step_that_fails_shows_the_end_of_its_log(
        self, analyses: Analyses, machine: Machine, tmp_path: Path
    ) -> None:
        folder = analyses.archived("odd", "docker").unpacked(tmp_path / "odd")
        edit_script(folder, "echo 1 > plots/-1;", 'printf "detector off \\033[31m" >&2; exit 3;')
        done = machine(folder)
        assert done.code == 4
        assert "    | detector off ?[31m" in done.err
        assert "step folder failed: exit code 3" in done.err

    @pytest.mark.parametrize(
        "made", ["ln -s /etc/passwd d/made.txt", "mkdir d/made.txt", ":"], ids=["link", "folder", "nothing"]
    )
    def test_a_product_that_is_no_file(self, analyses: Analyses, machine: Machine, tmp_path: Path, made: str) -> None:
        folder = analyses.archived("odd", "docker").unpacked(tmp_path / "odd")
        edit_script(
            folder, "runs /bin/sh -eu -c 'ls -l d/here.txt", f'runs /bin/sh -eu -c \'{made}; : > "top ü.txt"; exit;'
        )
        done = machine(folder)
        assert (done.code, "step beside failed: it did not make d/made.txt" in done.err) == (4, True), done.err

    def test_a_folder_that_leads_out_moves_nothing_of_this_machine(
        self, analyses: Analyses, machine: Machine, tmp_path: Path
    ) -> None:
        victim = tmp_path / "victim"
        victim.mkdir()
        (victim / "made.txt").write_text("mine")
        folder = analyses.archived("odd", "docker").unpacked(tmp_path / "odd")
        leading_out = f"mv d/here.txt . ; rm -rf d; ln -s {victim} d"
        edit_script(folder, "    protects d/here.txt", "    :")
        edit_script(folder, "    also_makes d\n", "")
        edit_script(folder, "runs /bin/sh -eu -c 'ls -l d/here.txt", f"runs /bin/sh -c '{leading_out}; exit 0;")
        done = machine(folder)
        assert (done.code, (victim / "made.txt").read_text()) == (4, "mine"), done.err

    def test_a_step_over_its_time(self, analyses: Analyses, machine: Machine, tmp_path: Path) -> None:
        folder = analyses.archived("unsteady", "docker").unpacked(tmp_path / "odd")
        seconds = next(SECONDS)
        edit_script(folder, ": sleep NAP", f"sleep {seconds}")
        edit_script(folder, "limits 1 '' 3600", "limits 1 '' 1")
        done = machine(folder, "--allow-network")
        assert (done.code, "its limit is 1 seconds" in done.err) == (4, True), done.err
        assert wait_until(lambda: not asleep(seconds), 10.0)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_an_interruption_leaves_nothing(
        self, analyses: Analyses, machine: Machine, tmp_path: Path, number: signal.Signals
    ) -> None:
        folder = analyses.archived("unsteady", "docker").unpacked(tmp_path / "odd")
        seconds = next(SECONDS)
        edit_script(folder, ": sleep NAP", f'trap "" INT TERM; sleep {seconds}')
        command = [str(machine.programs / "sh"), "data/replay.sh", "--allow-network"]
        with subprocess.Popen(command, cwd=folder, env=machine.environment, stderr=subprocess.DEVNULL) as running:
            assert wait_until(lambda: asleep(seconds), PATIENCE)
            begun = time.monotonic()
            running.send_signal(number)
            assert running.wait(timeout=20) == 130
        assert time.monotonic() - begun < 10
        assert wait_until(lambda: not asleep(seconds), 10.0)
        assert list(machine.scratch.iterdir()) == []


@pytest.mark.docker
class TestWhatIsRefused:
    """Before an engine sees a byte: the only engine here writes down that it was called."""

    @pytest.fixture
    def watched(self, docker_host: str, tmp_path: Path) -> Iterator[Machine]:
        found = machine_with(tmp_path / "machine", docker_host)
        mark = tmp_path / "called"
        (found.programs / "docker").write_text(f"#!/bin/sh\necho called >> {mark}\nexit 1\n")
        (found.programs / "docker").chmod(0o755)
        yield found
        assert not mark.exists()

    @pytest.mark.parametrize(
        "name",
        ["data/inputs/d/here.txt", "data/replay.sh", "data/workflow/plan.json", "README.md", "manifest-sha256.txt"],
    )
    def test_a_file_that_was_changed(self, analyses: Analyses, watched: Machine, tmp_path: Path, name: str) -> None:
        folder = analyses.archived("odd", "docker").unpacked(tmp_path / "odd")
        with (folder / name).open("ab") as stream:
            stream.write(b"#")
        done = watched(folder)
        assert (done.code, Path(name).name in done.err) == (5, True), done.err

    def test_each_blob_of_the_images_changed_or_longer(
        self, analyses: Analyses, watched: Machine, tmp_path: Path
    ) -> None:
        folder = analyses.archived("odd", "docker").unpacked(tmp_path / "odd")
        blobs = sorted((folder / "data/oci/blobs/sha256").iterdir())
        assert len(blobs) == 3
        for blob in blobs:
            data = blob.read_bytes()
            for spoilt in (data + b"#", bytes([data[0] ^ 1]) + data[1:]):
                blob.write_bytes(spoilt)
                done = watched(folder)
                assert (done.code, blob.name in done.err) == (5, True), done.err
                seal(folder)  # and with the lists of digests recomputed
                done = watched(folder)
                assert (done.code, blob.name in done.err) == (5, True), done.err
            blob.write_bytes(data)
            seal(folder)

    def test_an_input_that_was_changed_with_its_digests(
        self, analyses: Analyses, watched: Machine, tmp_path: Path
    ) -> None:
        folder = analyses.archived("odd", "docker").unpacked(tmp_path / "odd")
        (folder / "data/inputs/d/here.txt").write_text("there\n")
        seal(folder)
        done = watched(folder)
        assert (done.code, "another data/inputs/d/here.txt" in done.err) == (5, True), done.err

    @pytest.mark.parametrize("kind", ["more", "fewer", "link", "tag", "line"])
    def test_files_that_are_not_as_listed(
        self, analyses: Analyses, watched: Machine, tmp_path: Path, kind: str
    ) -> None:
        folder = analyses.archived("odd", "docker").unpacked(tmp_path / "odd")
        here = folder / "data/inputs/d/here.txt"
        if kind == "more":
            (folder / "data/inputs/d/there.txt").write_text("there\n")
        elif kind == "tag":
            (folder / "bag-extra.txt").write_text("there\n")
        elif kind == "line":
            with (folder / "manifest-sha256.txt").open("a") as stream:
                stream.write(f"{'0' * 64} */etc/passwd\n")
        else:
            here.unlink()
        if kind == "link":
            here.symlink_to("/etc/hostname")
        assert watched(folder).code == 5

    def test_an_archive_that_was_cut_short(self, analyses: Analyses, watched: Machine, tmp_path: Path) -> None:
        archived = analyses.archived("odd", "docker")
        script = archived.unpacked(tmp_path / "odd") / "data/replay.sh"
        (tmp_path / "cut.zip").write_bytes(archived.file.read_bytes()[:-1000])
        done = watched._run(("sh", "-s", "--", str(tmp_path / "cut.zip")), script.read_bytes())
        assert done.code == 5, done.err


@pytest.mark.docker
class TestCommandLine:
    @pytest.fixture
    def bare(self, docker_host: str, tmp_path: Path) -> Machine:
        """A machine without any engine."""
        return machine_with(tmp_path / "machine", docker_host)

    @pytest.mark.parametrize(
        ("options", "code", "said"),
        [
            ((), 3, "install one of them"),
            (("--engine", "docker"), 3, "no Docker engine answers"),
            (("--engine", "apptainer"), 3, "no program apptainer or singularity"),
            (("--engine", "podman"), 2, "no engine podman"),
            (("--faster",), 2, "unknown option --faster"),
            (("--keep", "/etc"), 2, "/etc is not empty"),
            (("--input", "x"), 2, "write PATH=FILE"),
        ],
    )
    def test_what_is_wrong_is_said(
        self, analyses: Analyses, bare: Machine, options: tuple[str, ...], code: int, said: str
    ) -> None:
        done = bare.pipe(analyses.archived("odd", "docker").file, *options)
        assert (done.code, said in done.err) == (code, True), done.err

    def test_a_network_that_a_step_declared_needs_consent(self, analyses: Analyses, bare: Machine) -> None:
        done = bare.pipe(analyses.archived("unsteady", "docker").file)
        assert (done.code, "--allow-network: unsteady" in done.err) == (2, True), done.err


@pytest.mark.docker
@pytest.mark.apptainer
class TestLeftOut:
    OUT = ("--without", "images", "--without", "inputs", "--without", "intermediates")

    def test_inputs_are_asked_for_and_checked(self, analyses: Analyses, machine: Machine, tmp_path: Path) -> None:
        archived = analyses.archived("odd", "docker", "--without", "inputs", "--without", "intermediates")
        done = machine.pipe(archived.file)
        assert (done.code, f"missing: {ODD}   3 bytes, sha256:" in done.err) == (2, True), done.err
        (tmp_path / "given").write_text("ö\n")
        assert machine.pipe(archived.file, "--input", f"{ODD}={tmp_path}/given").code == 5
        (tmp_path / "given").write_text("ä\n")
        done = machine.pipe(archived.file, f"--input={ODD}={tmp_path}/given")
        assert (done.code, set(done.verdicts.values())) == (0, {"identical"}), done.err

    def test_an_image_is_named_and_used_where_it_is(
        self, analyses: Analyses, engine: str, machine: Machine, client: docker.DockerClient, tmp_path: Path
    ) -> None:
        whole, archived = analyses.archived("odd", "docker"), analyses.archived("odd", "docker", *self.OUT)
        (tmp_path / "given").write_text("ä\n")
        given = ("--input", f"{ODD}={tmp_path}/given")
        forget_image(client, archived)
        done = machine.pipe(archived.file, *given, "--pull")
        assert (done.code, archived.config in done.err) == (3, True), done.err
        if engine == "docker":
            assert machine.pipe(whole.file).code == 0  # which loads it
            assert machine.pipe(archived.file, *given).code == 0

    def test_an_image_is_fetched_by_digest_if_that_is_asked_for(
        self,
        analyses: Analyses,
        machine: Machine,
        client: docker.DockerClient,
        registry: Registry,
        tmp_path: Path,
    ) -> None:
        archived = analyses.archived("odd", "docker", *self.OUT)
        forget_image(client, archived)
        (tmp_path / "given").write_text("ä\n")
        folder = archived.unpacked(tmp_path / "odd")
        name = registry.push(analyses.image, archived.manifest, "hep/odd:1").rpartition(":")[0]
        edit_script(folder, "'' oci:layout\n", f"{name} docker://{name}:1\n")
        given = ("--input", f"{ODD}={tmp_path}/given")
        done = machine(folder, *given)
        assert (done.code, "add --pull" in done.err) == (3, True), done.err
        done = machine(folder, *given, "--pull")
        assert (done.code, set(done.verdicts.values())) == (0, {"identical"}), done.err
        assert "7 of 7 identical" in done.out
