"""preserve diff: everything that can be compared with everything, what it says, and how it ends."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from archived import Recorded, Session, here, session

from preserve.documents.comparison import Judged
from preserve.documents.probe import Finding, Movement, Probe, ProbedStep
from preserve.documents.record import EngineUsed, Machine
from preserve.operations.causes import causes

SUM = "results/sum.txt"
ENGINE = "apptainer"


@pytest.fixture
def author(recorded: Recorded, apptainer: str, tmp_path: Path) -> Session:
    """An analysis that has run once."""
    return recorded.copy(tmp_path / "sums", ENGINE)


def last_run(root: Path) -> Path:
    return sorted((root / ".preserve" / "runs").glob("[0-9]*"))[-1]


def write(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.apptainer
class TestRunsAndArchives:
    def test_a_run_by_folder_by_name_and_by_analysis(self, author: Session, recorded: Recorded) -> None:
        first = last_run(author.root)
        author("run", "-p", "scale=3")
        for one, other in (
            (str(first), str(author.root)),
            (first.name, last_run(author.root).name),
            (str(recorded.archive(ENGINE)), str(author.root)),
            (str(first), str(last_run(author.root))),
        ):
            document = author("diff", "--json", one, other, expect=1).document
            by_path = {result["path"]: result for result in document["results"]}
            assert {path: result["verdict"] for path, result in by_path.items()} == {
                SUM: "different",
                "results/note.txt": "identical",
            }
            [row] = by_path[SUM]["facts"]["differences"]
            assert row["numbers"]["worst"] == [{"at": [0], "recorded": 12.0, "found": 18.0}]
            told = [(change["what"], change["steps"]) for change in document["changes"]]
            assert told == [("parameter scale", []), ("command", ["scaled"])]
            assert document["begins_in"] == ["scaled"]

    def test_another_processor_with_another_blas_kernel(self, author: Session) -> None:
        """As if the second run had been on an older machine with one CPU, and the image had numpy."""
        first = last_run(author.root)
        author("run", "-p", "scale=3")
        openblas = {"name": "OpenBLAS", "version": "0.3.30", "file": "x.so", "kernels": ["HASWELL", "SKYLAKEX"]}
        for run, cpu_id, flags in (
            (first, "GenuineIntel-6-55-4", ["avx", "avx2", "avx512vl"]),
            (last_run(author.root), "GenuineIntel-6-3F-2", ["avx", "avx2"]),
        ):
            for file in (run / "records").glob("*.json"):
                record = json.loads(file.read_text())
                record["machine"] |= {
                    "architecture": "x86_64",
                    "cpu_id": cpu_id,
                    "cpu_flags": flags,
                    "cpus": len(flags),
                }
                record["image"]["libraries"] = [openblas]
                file.write_text(json.dumps(record))
        out = author("diff", first.name, last_run(author.root).name, expect=1).out
        assert "BLAS kernel, by OpenBLAS's own rule: SkylakeX → Haswell" in out
        assert "CPUs that may be used: 3 → 2" in out
        assert "CPU flags: only there: avx512vl → only here: none" in out

    def test_a_product_that_the_store_has_lost(self, author: Session, recorded: Recorded) -> None:
        author("run", "-p", "scale=3")
        shutil.rmtree(author.root / ".preserve" / "objects")
        for verdict in ("different", "uncomparable"):  # by its fingerprint, and without
            document = author("diff", "--json", str(recorded.archive(ENGINE)), ".", expect=1).document
            verdicts = {result["path"]: result["verdict"] for result in document["results"]}
            assert verdicts == {SUM: verdict, "results/note.txt": "identical"}
            shutil.rmtree(author.root / ".preserve" / "fingerprints", ignore_errors=True)

    @pytest.mark.docker
    def test_two_engines(self, recorded: Recorded, apptainer: str, docker_host: str) -> None:
        archives = [str(recorded.archive("apptainer")), str(recorded.archive("docker", docker_host))]
        done = here("diff", "--json", *archives)
        assert (done.code, done.document["verdict"]) == (0, "identical")
        [engine] = [change for change in done.document["changes"] if change["what"] == "engine"]
        assert engine["recorded"].startswith("apptainer")
        assert engine["found"].startswith("docker")
        assert len(engine["steps"]) == 4
        assert "what differs" not in here("diff", *archives).out  # nothing has to be explained

    def test_an_archive_and_the_folder_it_was_unpacked_to(
        self, recorded: Recorded, apptainer: str, tmp_path: Path
    ) -> None:
        archive = recorded.archive(ENGINE)
        subprocess.run(["unzip", "-q", str(archive), "-d", str(tmp_path / "unpacked")], check=True)
        assert here("diff", str(archive), str(tmp_path / "unpacked")).code == 0

    def test_a_damaged_archive_is_refused(self, recorded: Recorded, apptainer: str, tmp_path: Path) -> None:
        data = recorded.archive(ENGINE).read_bytes()
        (tmp_path / "a.crate.zip").write_bytes(data.replace(b"12\n", b"13\n", 1))
        assert here("diff", str(recorded.archive(ENGINE)), str(tmp_path / "a.crate.zip")).code == 5

    def test_an_archive_and_what_somebody_made_of_it_elsewhere(
        self, recorded: Recorded, apptainer: str, tmp_path: Path
    ) -> None:
        mine = write(tmp_path / "mine", {SUM: "12\n", "results/note.txt": "other\n", "draft.txt": "not a result\n"})
        done = here("diff", "--json", str(recorded.archive(ENGINE)), str(mine))
        assert {r["path"]: r["verdict"] for r in done.document["results"]} == {
            SUM: "identical",
            "results/note.txt": "different",
        }


class TestFilesAndFolders:
    def test_two_folders(self, tmp_path: Path) -> None:
        write(tmp_path / "a", {"x.json": '{"m": 1, "n": [1, 2]}', "same.txt": "x\n", "deep/gone.txt": "1\n"})
        write(
            tmp_path / "b", {"x.json": '{"n": [1, 2], "m": 1.5}', "same.txt": "x\n", "new.txt": "2\n", ".git/HEAD": "x"}
        )
        done = here("diff", str(tmp_path / "a"), str(tmp_path / "b"))
        assert done.code == 1
        first = [line.split()[:2] for line in done.out.splitlines() if line.startswith("  ") and line[2] != " "]
        assert first == [
            ["deep/gone.txt", "missing"],
            ["new.txt", "extra"],
            ["x.json", "different"],
            ["same.txt", "identical"],
        ]
        assert "/m  different    1 of 1, off by at most 0.5, relatively 0.5" in done.out
        assert done.out.endswith("verdict: missing: NOT as required\n")

    def test_two_files_by_another_name(self, tmp_path: Path) -> None:
        write(tmp_path, {"mine.json": '{"a": 1}', "theirs.json": '{"a":1.0}'})
        done = here("diff", "-q", str(tmp_path / "mine.json"), str(tmp_path / "theirs.json"))
        assert (done.code, done.out) == (0, "verdict: equivalent: as required\n")

    def test_files_that_zipfile_stumbles_over(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "good.bin", "w") as made:
            made.writestr("\u00e9", b"1")
        for name, text in (("a.bin", b"\xff\xfe"), ("b.bin", b"\xff\xff")):
            (tmp_path / name).write_bytes((tmp_path / "good.bin").read_bytes().replace(b"\xc3\xa9", text))
        done = here("diff", "--json", str(tmp_path / "a.bin"), str(tmp_path / "b.bin"))
        assert (done.code, done.document["passed"]) == (1, False)

    def test_judged_again(self, tmp_path: Path) -> None:
        write(tmp_path, {"a.json": '{"mass": 91.2}', "b.json": '{"mass": 91.3}'})
        pair = (str(tmp_path / "a.json"), str(tmp_path / "b.json"))
        facts = []
        for rtol, code in (("1e-4", 1), ("1e-2", 0)):
            rule = f'{{match: /mass, rtol: {rtol}, because: "I say so"}}'
            write(tmp_path, {"p.yaml": f"results: {{a.json: {{require: tolerated, rules: [{rule}]}}}}"})
            done = here("diff", "--json", *pair, "--policy", str(tmp_path / "p.yaml"))
            assert done.code == code
            facts.append(done.document["results"][0]["facts"]["differences"][0])
        assert facts[0]["numbers"] == facts[1]["numbers"]
        assert [row["verdict"] for row in facts] == ["different", "tolerated"]
        assert facts[1]["because"] == "I say so"

    def test_what_a_stranger_writes_does_not_move_the_terminal(self, tmp_path: Path) -> None:
        write(tmp_path, {"a.json": '{"\\u001b[2J\\nverdict: identical": 1}', "b.json": "{}"})
        out = here("diff", str(tmp_path / "a.json"), str(tmp_path / "b.json")).out
        assert "\x1b" not in out
        assert not any(line.startswith("verdict: identical") for line in out.splitlines())

    @pytest.mark.parametrize(
        ("names", "complaint"),
        [
            (("nothing", "a.json"), "there is no nothing"),
            (("a.json", "pipe"), "neither a file nor a folder"),
            (("a.json", "a.json", "--policy", "none.yaml"), "none.yaml cannot be read"),
            (("a.json", "a.json", "--policy", "a.json"), "a.json:1:"),
        ],
    )
    def test_what_cannot_be_compared(self, names: tuple[str, ...], complaint: str, tmp_path: Path) -> None:
        write(tmp_path, {"a.json": "[1]"})
        subprocess.run(["mkfifo", str(tmp_path / "pipe")], check=True)
        assert complaint in session(tmp_path, "none")("diff", *names, expect=2).err


def test_a_probe_names_what_moves_a_result_alike() -> None:
    def finding(variation: str, size: float, *, held: bool = False) -> Finding:
        moved = Movement(product="fit.json", leaf="/mass", kind="numbers", max_abs=size, max_rel=size)
        return Finding(variation=variation, setting=f"by {variation}", held=held, confirmed=True, movements=(moved,))

    findings = (finding("blas-kernel", 3e-8), finding("hash-seed", 4e-8, held=True), finding("clock", 1e-12))
    step = ProbedStep(step="fit", runs=9, network_attempts=0, tried=(), findings=findings, untried=())
    machine = Machine(
        architecture="x86_64", cpu_model="x", cpu_id="AuthenticAMD-25-11-1", cpu_flags=(), cpus=2, kernel="6"
    )
    engine = EngineUsed(name="docker", version="1")
    probe = Probe(run="r", engine=engine, machine=machine, started="s", ended="e", steps=(step,))
    numbers = {"broken": 0, "max_abs": 4e-8, "max_rel": "inf"}
    row = {"path": "/mass", "state": "changed", "numbers": numbers}
    result = Judged(
        path="fit.json",
        verdict="different",
        required="equivalent",
        passed=False,
        reader="json",
        facts={"differences": [row]},
    )
    assert [(cause.variation, cause.path) for cause in causes([result], probe)] == [("blas-kernel", "fit.json")]
    assert causes([result], None) == ()
