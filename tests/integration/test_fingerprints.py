"""Results whose bytes are gone, or were never put into an archive: their fingerprints stand in, on both engines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from archived import Done, Files, Session, commit, here, session, verified, write_analysis
from conftest import TinyImage

from preserve.documents.archive import FINGERPRINTS

NUMBERS = 20_000  # more than a fingerprint keeps whole
STEPS = f"""\
format: 1
title: Results of every kind
images:
  tiny: oci:image
parameters: {{shift: 0.0, space: "", word: kept}}
steps:
  - name: numbers
    stage: processing
    image: tiny
    outputs: [numbers/all.txt]
    run: seq 1 {NUMBERS} > ${{{{ outputs[0] }}}}
  - name: results
    stage: assembly
    image: tiny
    inputs: [numbers/all.txt]
    outputs: [results/fit.json, results/all.json, results/note.txt, results/same.txt]
    run: |
      awk -v by=${{{{ parameters.shift }}}} 'BEGIN {{printf "{{\\"mass\\": %.12f}}\\n", 91.2 + by}}' > results/fit.json
      awk -v by=${{{{ parameters.shift }}}} -v gap=${{{{ parameters.space }}}} '
        BEGIN {{printf "{{\\"all\\": ["}} {{printf "%s%s%.9f", (NR > 1 ? "," : ""), gap, $1 + by}} END {{print "]}}"}}
      ' ${{{{ inputs[0] }}}} > ${{{{ outputs[1] }}}}
      echo ${{{{ parameters.word }}}} > ${{{{ outputs[2] }}}}
      echo always > ${{{{ outputs[3] }}}}
results:
  results/fit.json: {{require: tolerated, rules: [{{match: /mass, rtol: 1.0e-6, because: where it stops}}]}}
  results/all.json: {{require: tolerated, rules: [{{match: /all, rtol: 1.0e-6, because: "as above"}}]}}
  results/note.txt: {{}}
  results/same.txt: {{}}
"""
SHIFTED = ("-p", "shift=0.000000001", "-p", "word=other")
EXPECTED = {
    "results/fit.json": "tolerated",
    "results/all.json": "uncomparable",
    "results/note.txt": "different",
    "results/same.txt": "identical",
}
BOTH = pytest.mark.parametrize(
    "engine", [pytest.param("docker", marks=pytest.mark.docker), pytest.param("apptainer", marks=pytest.mark.apptainer)]
)


def analysis(place: Path, tiny: TinyImage, engine: str, docker_host: str) -> Session:
    """The analysis, run once."""
    root = place / "results-of-every-kind"
    write_analysis(root, tiny.layout, steps=STEPS)
    commit(root)
    author = session(root, engine, docker_host)
    author("lock")
    author("run")
    return author


@pytest.fixture
def author(tiny_image: TinyImage, apptainer: str, docker_host: str, tmp_path: Path, engine: str) -> Session:
    return analysis(tmp_path, tiny_image, engine, docker_host)


@pytest.fixture
def light(author: Session, tmp_path: Path) -> Path:
    """An archive without the results' bytes."""
    archive = tmp_path / "light.crate.zip"
    author("archive", "-o", str(archive), "--leave-out", "results/**")
    return archive


def verdicts(done: Done) -> dict[str, str]:
    return {row["path"]: row["verdict"] for row in done.document["results"]}


def lose_products(root: Path) -> None:
    """What remains of the runs are their records and fingerprints."""
    shutil.rmtree(root / ".preserve" / "objects")
    shutil.rmtree(root / "results")


@BOTH
class TestRuns:
    def test_a_run_whose_products_are_gone_is_judged_by_fingerprints(self, author: Session) -> None:
        first = sorted((author.root / ".preserve" / "runs").glob("[0-9]*"))[-1].name
        lose_products(author.root)
        author("run", *SHIFTED)
        done = author("diff", "--json", first, ".", expect=1)
        assert verdicts(done) == EXPECTED
        facts = {row["path"]: row["facts"] for row in done.document["results"]}
        assert facts["results/fit.json"]["differences"][0]["numbers"]["max_abs"] == pytest.approx(1e-9, rel=1e-4)
        [row] = facts["results/all.json"]["differences"]
        assert row["statistics"]["recorded"][0]["sum"] == str(NUMBERS * (NUMBERS + 1) / 2)
        assert row["statistics"]["found"][0]["sum"] != row["statistics"]["recorded"][0]["sum"]
        lose_products(author.root)
        assert verdicts(author("diff", "--json", first, ".", expect=1)) == EXPECTED  # of both sides now

    def test_white_space_in_a_large_result_is_no_difference(self, author: Session) -> None:
        first = sorted((author.root / ".preserve" / "runs").glob("[0-9]*"))[-1].name
        lose_products(author.root)
        author("run", "-p", "space= ")
        done = author("diff", "--json", first, ".")
        assert verdicts(done)["results/all.json"] == "equivalent"

    def test_it_is_taken_once_and_again_when_it_was_lost(self, author: Session) -> None:
        kept = author.root / ".preserve" / "fingerprints"
        before = {path: path.stat().st_mtime_ns for path in kept.rglob("*.json")}
        assert len(before) == 4
        author("run")
        author("run", "--no-cache")
        assert {path: path.stat().st_mtime_ns for path in kept.rglob("*.json")} == before
        shutil.rmtree(kept)
        author("run")
        assert set(kept.rglob("*.json")) == before.keys()


@BOTH
class TestArchives:
    def test_results_left_out_are_recorded_and_nothing_is_wrong(self, light: Path) -> None:
        files = Files.of(light).data
        assert not any(name.startswith("data/results/") for name in files)
        assert {name for name in files if name.startswith(FINGERPRINTS)} == {
            f"{FINGERPRINTS}{path}.json" for path in EXPECTED
        }
        done = verified(light)
        assert (done.document["findings"], done.document["left_out"]) == ([], sorted(EXPECTED))
        left_out = f"left out, results known by their fingerprints: {', '.join(sorted(EXPECTED))}\n"
        assert left_out in here("verify", str(light)).out
        shown = here("show", "--json", str(light)).document
        assert (shown["left_out"], shown["results"]) == (sorted(EXPECTED), sorted(EXPECTED))
        assert "(not inside)" in here("show", str(light)).out
        crate = json.loads(files["ro-crate-metadata.json"])["@graph"]
        by_id = {entity["@id"]: entity for entity in crate}
        of_fit = by_id[f"{FINGERPRINTS}results/fit.json.json"]
        assert by_id[of_fit["about"]["@id"]]["description"] == "Not in this archive: known by its sha256."

    def test_a_replay_makes_them_again(self, light: Path, author: Session) -> None:
        done = author("replay", "--json", str(light))
        assert verdicts(done) == dict.fromkeys(EXPECTED, "identical")

    def test_what_a_recast_makes_is_compared_with_fingerprints(self, light: Path, author: Session) -> None:
        assert verdicts(author("replay", "--json", *SHIFTED, str(light))) == EXPECTED

    def test_two_archives_and_a_run(self, light: Path, author: Session, tmp_path: Path) -> None:
        author("run", *SHIFTED)
        other = tmp_path / "other.crate.zip"
        author("archive", "-o", str(other), "--leave-out", "results/**")
        assert verdicts(here("diff", "--json", str(light), str(author.root))) == EXPECTED
        assert verdicts(here("diff", "--json", str(light), str(other))) == EXPECTED
        assert "judged by its fingerprint" in here("diff", str(light), str(other)).out

    def test_a_step_that_needs_what_was_left_out_is_not_run_alone(self, author: Session, tmp_path: Path) -> None:
        archive = tmp_path / "light.crate.zip"
        author("archive", "-o", str(archive), "--leave-out", "numbers/")
        done = author("replay", "--only", "results", str(archive), expect=2)
        assert "--only needs what step numbers made, and of that numbers/all.txt was left out" in done.err
        done = author("replay", "--from", "results", str(archive), expect=2)
        assert "--from numbers" in done.err
        done = author("replay", "--json", "--only", "results", "--only", "numbers", str(archive))
        assert set(verdicts(done).values()) == {"identical"}

    def test_lost_products_can_be_left_out_and_others_cannot(self, author: Session, tmp_path: Path) -> None:
        shutil.rmtree(author.root / ".preserve" / "objects")
        archive = str(tmp_path / "light.crate.zip")
        done = author("archive", "-o", archive, "--leave-out", "results/*", expect=2)
        assert "is no longer in the store" in done.err
        done = author("archive", "-o", archive, "--leave-out", "nothing/*", expect=2)
        assert "--leave-out nothing/*: no product is called so" in done.err
        assert not Path(archive).exists()
