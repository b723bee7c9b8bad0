"""Archives as others see them: programs that know nothing of preserve read and check what it wrote.

Each archive is made by the installed command and given to every judge. The judges live in an environment of their own
(.ci/make-judges) and are started without any way to the network: the RO-Crate context lies in their cache.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import PATH, ROOT, Judges, Registry, TinyImage

from preserve.documents import archive
from preserve.signatures import NAMESPACE

PROFILE = "provenance-run-crate-0.5"

# What the profiles recommend and our crates do not follow. A check that nothing breaks any longer leaves the list.
UNKNOWN = {
    "process-run-crate-0.5_3.2": "a program has a url: preserve has no home page yet",
    "process-run-crate-0.5_5.1": "a program has an http @id: the shape asks the class itself, not its members",
    "process-run-crate-0.5_8.6": "an action has an agent: records name no user, and authors need not have run it",
    "ro-crate-1.1_22.3": "a crate has a publisher: an archive is made before it is published",
    "ro-crate-1.1_30.2": "an author has an affiliation: preserve.yaml has no place for it",
    "ro-crate-1.1_30.3": "the same, as an entity",
}
FROM_NO_REGISTRY = {"process-run-crate-0.5_13.2": "an image has a registry: one that was built here has none"}

AWKWARD = """\
format: 1
title: '<script>"Z" & W | `x` [y](z)</script>'
authors: [{name: "Ångström *Ω* <b>", orcid: 0000-0002-1825-0097}, {name: B. Other}]
license: CC-BY-4.0
images:
  tiny: docker://HOST/judged/tiny:1
parameters: {low: 1.5, label: "a b|c", kinds: [odd ones, even], loud: true, count: 3}
inputs:
  data/Messung für Z.txt: {}
  data/CASE.txt: {}
  data/case.txt: {}
steps:
  - name: split
    stage: processing
    image: tiny
    for_each: {kind: "${{ parameters.kinds }}"}
    inputs: [data/Messung für Z.txt, data/CASE.txt, data/case.txt]
    outputs: ["split/${{ kind }}.txt"]
    run: cat ${{ inputs[0] }} > ${{ outputs[0] }}
  - name: draw
    stage: assembly
    image: tiny
    inputs: ["split/*.txt"]
    outputs: [results/plots/, "results/mean, final.txt"]
    run: |
      cat ${{ inputs[0] }} > 'results/mean, final.txt'
      for i in 1 2 3; do echo $i > "results/plots/plot #$i.txt"; done
      mkdir results/plots/deep && cp 'results/mean, final.txt' results/plots/deep/
results:
  results/plots/: {require: advisory}
  "results/mean, final.txt": {require: identical}
"""


@dataclass(frozen=True, kw_only=True)
class Archived:
    """An archive as a file and unpacked; ``unwanted`` are the recommendations that it may break."""

    file: Path
    folder: Path
    unwanted: frozenset[str]
    without: tuple[str, ...]

    @property
    def crate(self) -> dict[str, dict[str, Any]]:
        """The crate's entities by ``@id``."""
        graph = json.loads((self.folder / archive.CRATE).read_bytes())["@graph"]
        return {entity["@id"]: entity for entity in graph}


def _git(root: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=Tester", "-c", "user.email=tester@example.org")
    subprocess.run(["git", *identity, *arguments], check=True, cwd=root, env={"PATH": PATH}, capture_output=True)


@dataclass(frozen=True, kw_only=True)
class Author:
    """Somebody who runs and archives analyses."""

    place: Path
    docker_host: str

    def preserve(self, root: Path, *arguments: str) -> None:
        """Run one command of preserve in an analysis; it must succeed."""
        environment = {"PATH": PATH, "HOME": str(self.place), "DOCKER_HOST": self.docker_host}
        if arguments[0] == "lock":  # the way to a package mirror is the caller's
            environment = {**os.environ, **environment}
        command = (sys.executable, "-m", "preserve", *arguments)
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, cwd=root, env=environment, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stderr

    def run(self, root: Path, engine: str) -> Path:
        """Commit, lock and run an analysis."""
        _git(root, "init", "-q")
        _git(root, "add", ".")
        _git(root, "commit", "-q", "-m", "Start")
        self.preserve(root, "lock")
        self.preserve(root, "run", "--engine", engine)
        return root

    def archive(self, root: Path, *, name: str, without: tuple[str, ...] = (), leave_out: tuple[str, ...] = ()) -> Path:
        """Archive the last run as ``name``."""
        file = self.place / f"{name}.crate.zip"
        options = (*(f"--without={kind}" for kind in without), *(f"--leave-out={glob}" for glob in leave_out))
        self.preserve(root, "archive", "-o", str(file), *options)
        return file


@pytest.fixture(scope="module")
def author(tmp_path_factory: pytest.TempPathFactory, docker_host: str) -> Author:
    return Author(place=tmp_path_factory.mktemp("judged"), docker_host=docker_host)


@pytest.fixture(scope="module")
def five_stages(author: Author) -> Path:
    """A plain analysis, its image built from a recipe, run on Docker."""
    root = author.place / "five-stages"
    shutil.copytree(ROOT / "workflows" / "five-stages", root)
    return author.run(root, "docker")


@pytest.fixture(scope="module")
def awkward(author: Author, apptainer: str, registry: Registry, tiny_image: TinyImage) -> Path:
    """An analysis with awkward names, its image from a registry, run on Apptainer."""
    root = author.place / "awkward"
    (root / "data").mkdir(parents=True)
    registry.push(tiny_image.layout, tiny_image.pin.manifest_digest, "judged/tiny:1")
    (root / "preserve.yaml").write_text(AWKWARD.replace("HOST", registry.host), encoding="utf-8")
    for name in ("Messung für Z.txt", "CASE.txt", "case.txt"):
        (root / "data" / name).write_text(f"91.2 {name}\n", encoding="utf-8")
    return author.run(root, "apptainer")


CASES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "five-stages": ("five_stages", (), ()),
    "five-stages-no-images": ("five_stages", ("images",), ()),
    "awkward": ("awkward", (), ()),
    "awkward-bare": ("awkward", ("images", "inputs", "intermediates"), ()),
    "awkward-light": ("awkward", (), ("results/**", "split/even.txt")),
}


@pytest.fixture(scope="module", params=CASES)
def archived(request: pytest.FixtureRequest, author: Author, tmp_path_factory: pytest.TempPathFactory) -> Archived:
    analysis, without, leave_out = CASES[request.param]
    root = request.getfixturevalue(analysis)
    file = author.archive(root, name=request.param, without=without, leave_out=leave_out)
    folder = tmp_path_factory.mktemp(request.param)
    subprocess.run(["unzip", "-q", str(file), "-d", str(folder)], check=True, env={"PATH": PATH})
    built = analysis == "five_stages"
    return Archived(
        file=file,
        folder=folder,
        unwanted=frozenset(UNKNOWN | (FROM_NO_REGISTRY if built else {})),
        without=without,
    )


def test_the_validator_finds_nothing_in_the_folder_but_what_is_listed(
    archived: Archived, judges: Judges, tmp_path: Path
) -> None:
    options = ("--requirement-severity", "recommended", "--output-format", "json", "--output-file")
    judges.validator(archived.folder, *options, str(tmp_path / "report.json"))
    report = json.loads((tmp_path / "report.json").read_bytes())
    found = {(issue["severity"], issue["check"]["identifier"]): issue["message"] for issue in report["issues"]}
    assert not {key: message for key, message in found.items() if key[0] != "RECOMMENDED"}
    broken = {identifier for _, identifier in found}
    assert broken == archived.unwanted, {key: found[key] for key in found if key[1] not in archived.unwanted}


def test_the_validator_accepts_the_file_as_it_is(archived: Archived, judges: Judges) -> None:
    options = ("--requirement-severity", "recommended", "--skip-checks", ",".join(sorted(archived.unwanted)))
    done = judges.validator(archived.file, *options)
    assert done.returncode == 0, done.stdout
    assert f"valid {PROFILE}" in done.stdout


def test_the_validator_still_finds_fault(author: Author, five_stages: Path, judges: Judges, tmp_path: Path) -> None:
    """A judge that accepts everything, for want of a context or a profile, would prove nothing."""
    file = author.archive(five_stages, name="faulty", without=("images",))
    _tool(tmp_path, "unzip", "-q", str(file), "-d", "crate")
    crate = tmp_path / "crate" / archive.CRATE
    document = json.loads(crate.read_bytes())
    for entity in document["@graph"]:
        if entity["@type"] == "ControlAction":
            del entity["instrument"]
    crate.write_text(json.dumps(document))
    done = judges.validator(tmp_path / "crate", "--requirement-severity", "required")
    assert done.returncode == 1, done.stdout
    assert "ControlAction" in done.stdout


def test_the_bag_is_valid(archived: Archived, judges: Judges) -> None:
    assert judges("bagit.py", "--validate", str(archived.folder)).returncode == 0
    assert judges("bdbag", "--validate", "full", str(archived.folder)).returncode == 0
    (archived.folder / archive.WORKFLOW).rename(archived.folder / "away")
    try:
        assert judges("bagit.py", "--validate", str(archived.folder)).returncode == 1
    finally:
        (archived.folder / "away").rename(archived.folder / archive.WORKFLOW)


def test_the_citation_is_valid(archived: Archived, judges: Judges) -> None:
    done = judges("cffconvert", "--validate", "--infile", str(archived.folder / archive.CITATION))
    assert done.returncode == 0, done.stderr
    done = judges("cffconvert", "--format", "bibtex", "--infile", str(archived.folder / archive.CITATION))
    assert "author = {" in done.stdout, done.stderr


def _tool(folder: Path, *command: str) -> str:
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=folder, env={"PATH": PATH, "HOME": str(folder)}
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


def test_sha256sum_and_unzip_agree(archived: Archived) -> None:
    _tool(archived.folder, "sha256sum", "--quiet", "--strict", "-c", archive.TAG_MANIFEST, archive.MANIFEST)
    _tool(archived.folder, "unzip", "-tqq", str(archived.file))


@pytest.mark.parametrize("archived", [case for case in CASES if "images" in CASES[case][1]], indirect=True)
def test_images_that_were_left_out_leave_no_layout(archived: Archived) -> None:
    assert not (archived.folder / archive.OCI).exists()


@pytest.mark.parametrize("archived", [case for case in CASES if "images" not in CASES[case][1]], indirect=True)
def test_skopeo_copies_every_image(archived: Archived, tmp_path: Path) -> None:
    layout = archived.folder / archive.OCI
    digests = [entry["digest"] for entry in json.loads((layout / "index.json").read_bytes())["manifests"]]
    pins = json.loads((archived.folder / archive.PLAN).read_bytes())["images"].values()
    assert sorted(digests) == sorted({pin["manifest_digest"] for pin in pins})
    for digest in digests:
        source = f"oci:{layout}:{digest.removeprefix('sha256:')}"
        assert json.loads(_tool(tmp_path, "skopeo", "inspect", source))["Digest"] == digest
        target = tmp_path / digest
        _tool(tmp_path, "skopeo", "--insecure-policy", "copy", "-q", "--preserve-digests", source, f"dir:{target}")
        assert (target / "manifest.json").read_bytes() == (
            layout / "blobs" / "sha256" / digest.removeprefix("sha256:")
        ).read_bytes()


def test_git_verifies_the_bundle(archived: Archived, tmp_path: Path) -> None:
    commit = json.loads((archived.folder / archive.LOCK).read_bytes())["source"]["commit"]
    _tool(tmp_path, "git", "init", "-q")
    _tool(tmp_path, "git", "bundle", "verify", str(archived.folder / archive.BUNDLE))
    assert commit in _tool(tmp_path, "git", "bundle", "list-heads", str(archived.folder / archive.BUNDLE))


def test_rocrate_reads_it(archived: Archived, judges: Judges) -> None:
    script = (
        "import sys; from rocrate.rocrate import ROCrate\n"
        "crate = ROCrate(sys.argv[1])\n"
        "assert crate.mainEntity.id == 'data/workflow/preserve.yaml'\n"
        "print(crate.name, *sorted(entity.id for entity in crate.data_entities), sep='\\n')\n"
    )
    for form in (archived.folder, archived.file):
        done = judges("python", "-c", script, str(form))
        assert done.returncode == 0, done.stderr
        name, *files = done.stdout.splitlines()
        assert name == archived.crate["./"]["name"]
        assert {part["@id"] for part in archived.crate["./"]["hasPart"]} <= set(files)


def test_runcrate_reports_every_action(archived: Archived, judges: Judges) -> None:
    done = judges("runcrate", "report", str(archived.folder))
    assert done.returncode == 0, done.stderr
    actions = {name for name, entity in archived.crate.items() if entity["@type"] == "CreateAction"}
    reported = {line.removeprefix("action: ") for line in done.stdout.splitlines() if line.startswith("action: ")}
    assert reported == actions
    records = {path.stem for path in (archived.folder / "data" / "records").iterdir()}
    assert len(actions) == len(records) + 1


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A signing key and, beside it, who is allowed to sign."""
    folder = tmp_path_factory.mktemp("key")
    _tool(folder, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a@example.org", "-f", "key")
    (folder / "allowed").write_text(f"a@example.org {(folder / 'key.pub').read_text()}")
    yield folder / "key"


def test_ssh_keygen_verifies_a_signature(
    author: Author, five_stages: Path, key: Path, judges: Judges, tmp_path: Path
) -> None:
    file = author.archive(five_stages, name="signed")
    author.preserve(tmp_path, "sign", str(file), "--key", str(key))
    _tool(tmp_path, "unzip", "-q", str(file), "-d", "unpacked")
    signatures = list((tmp_path / "unpacked" / archive.SIGNATURES).iterdir())
    assert len(signatures) == 1
    verify = ("ssh-keygen", "-Y", "verify", "-f", str(key.with_name("allowed")), "-I", "a@example.org")
    done = subprocess.run(
        [*verify, "-n", NAMESPACE, "-s", str(signatures[0])],
        input=(tmp_path / "unpacked" / archive.TAG_MANIFEST).read_bytes(),
        check=False,
        capture_output=True,
        env={"PATH": PATH},
    )
    assert done.returncode == 0, done.stderr
    for judge in (("bagit.py", "--validate"), ("bdbag", "--validate", "full")):  # a signed bag is a bag
        assert judges(*judge, str(tmp_path / "unpacked")).returncode == 0
