"""Signatures against those who change an archive and then make all its tables fit again."""

from __future__ import annotations

import base64
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import PATH

from preserve.digest import Digest, FilePin
from preserve.documents import archive as names
from preserve.documents.archive import Contents, contents_of
from preserve.documents.lockfile import ImagePin, Lock
from preserve.documents.planning import make_plan
from preserve.documents.reading import read_workflow
from preserve.documents.record import Artifact, EngineUsed, ImageUsed, Machine, Record, step_key
from preserve.documents.verification import Verification
from preserve.errors import DigestMismatch
from preserve.interfaces import Silent
from preserve.operations.derived import is_executable, payload_files, pin_of_bytes, tag_files, tag_manifest
from preserve.operations.places import Settings
from preserve.operations.sign import add_signature as sign_archive
from preserve.operations.verify import Choices, verify
from preserve.signatures import check, read_signature, sign
from preserve.stores.crate_writer import Item, write_crate
from preserve.stores.crate_zip import CrateZip

IMAGE = ImagePin(
    reference="docker://registry.example.org/hep/tiny:1",
    platform="linux/amd64",
    manifest_digest=Digest.of(b"manifest"),
    config_digest=Digest.of(b"config"),
    diff_ids=(Digest.of(b"layer"),),
)
WORKFLOW = b"""format: 1
title: Mass
images: {tiny: "docker://registry.example.org/hep/tiny:1"}
steps:
  - {name: fit, stage: postprocessing, image: tiny, command: [fit], outputs: [results/mass.json]}
results:
  results/mass.json: {require: identical}
"""
LOCKED = Lock(images={"tiny": IMAGE}, inputs={}, source=None, epoch=0)
PLAN = make_plan(read_workflow(WORKFLOW, "preserve.yaml"), LOCKED, tracked=frozenset(), parameters={}).pinned({})
STEP = PLAN.steps[0]


def archived(path: Path, mass: bytes) -> Path:
    """Write a whole archive (without its image) of one step that found ``mass``: every table and crate fits."""
    product = Artifact(path="results/mass.json", sha256=Digest.of(mass), size=len(mass))
    contents = contents_of(
        PLAN,
        LOCKED,
        {"fit": _record(product)},
        agent="preserve 0.1.0",
        without=frozenset({"images"}),
    )
    files = {
        names.WORKFLOW: WORKFLOW,
        names.LOCK: contents.lock.to_bytes(),
        names.PLAN: PLAN.to_bytes(),
        names.record_name("fit"): contents.records["fit"].to_bytes(),
        "data/logs/fit/stdout": b"",
        "data/logs/fit/stderr": b"",
        contents.names["results/mass.json"]: mass,
    }
    files |= payload_files(_filled(contents, files), ())
    tags = dict(tag_files(_filled(contents, files)))
    return written(path, {**dict(sorted(files.items())), **tags, names.TAG_MANIFEST: tag_manifest(tags)})


def _record(product: Artifact) -> Record:
    empty = Digest.of(b"")
    return Record(
        step="fit",
        key=step_key(STEP, IMAGE.config_digest, ()),
        command=STEP.command,
        environment=STEP.environment,
        image=ImageUsed(name="tiny", manifest_digest=IMAGE.manifest_digest, config_digest=IMAGE.config_digest),
        engine=EngineUsed(name="docker", version="20.10.24"),
        machine=Machine(
            architecture="x86_64", cpu_model="CPU", cpu_id="AuthenticAMD-25-11-1", cpu_flags=(), cpus=2, kernel="6.1"
        ),
        materials=(),
        products=(product,),
        network=False,
        network_attempts=0,
        started="2026-11-23T09:00:00.000000Z",
        ended="2026-11-23T09:00:01.000000Z",
        exit_code=0,
        wall_seconds=1.0,
        cpu_seconds=None,
        peak_memory=None,
        logs={name: Artifact(path=f"logs/fit/{name}", sha256=empty, size=0) for name in ("stdout", "stderr")},
    )


def _filled(contents: Contents, files: dict[str, bytes]) -> Contents:
    return replace(contents, payload={name: _pin(name, data) for name, data in sorted(files.items())})


def _pin(name: str, data: bytes) -> FilePin:
    return pin_of_bytes(data, executable=is_executable(name))


def written(path: Path, files: dict[str, bytes]) -> Path:
    write_crate(path, [Item(name=name, pin=_pin(name, data), source=data) for name, data in files.items()])
    return path


def contents_by_name(path: Path) -> dict[str, bytes]:
    with CrateZip(path) as opened:
        return {name: b"".join(opened.chunks(name)) for name in opened.files()}


def judged(path: Path, allowed: Path | None = None, *, require: bool = False) -> Verification:
    choices = Choices(allowed_signers=allowed, require_signature=require, search_path=PATH)
    return verify(path, choices, progress=Silent())


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """The author's key; ``key.allowed`` names it."""
    made = tmp_path / "key"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(made)]
    subprocess.run(command, check=True, env={"PATH": PATH}, capture_output=True)
    (tmp_path / "key.allowed").write_text(f"author@example.org {Path(f'{made}.pub').read_text()}")
    return made


@pytest.fixture
def allowed(key: Path) -> Path:
    return key.with_suffix(".allowed")


@pytest.fixture
def signed(tmp_path: Path, key: Path) -> Path:
    path = archived(tmp_path / "signed.crate.zip", b'{"mass": 91.2}\n')
    sign_archive(path, key, Settings())
    return path


@pytest.fixture
def forged(tmp_path: Path) -> Path:
    """Another result, and everything made to fit: digests, records, crate, manifests."""
    return archived(tmp_path / "forged.crate.zip", b'{"mass": 90.0}\n')


class TestEverythingMadeToFitAgain:
    def test_the_real_one_is_signed_by_its_author(self, signed: Path, allowed: Path) -> None:
        found = judged(signed, allowed, require=True)
        assert (found.findings, found.signed_by) == ((), ("author@example.org",))
        assert found.trust == "intact, signed by author@example.org"

    def test_without_its_signature_it_is_intact_and_no_more(self, signed: Path, forged: Path, allowed: Path) -> None:
        found = judged(forged, allowed)
        assert (found.findings, found.signed_by, found.trust) == ((), (), "intact, unsigned")
        assert found.archive_id != judged(signed).archive_id

    def test_where_a_signature_is_required_it_is_refused(self, forged: Path, allowed: Path) -> None:
        found = judged(forged, allowed, require=True)
        assert [finding.path for finding in found.findings] == ["signatures/"]

    def test_with_the_real_ones_signature(self, signed: Path, forged: Path, allowed: Path, tmp_path: Path) -> None:
        stolen = {name: data for name, data in contents_by_name(signed).items() if name.startswith("signatures/")}
        path = written(tmp_path / "stolen.crate.zip", {**contents_by_name(forged), **stolen})
        for allowed_or_not in (None, allowed):
            found = judged(path, allowed_or_not)
            assert [finding.path for finding in found.findings] == list(stolen)
            assert "is not one of these bytes" in found.findings[0].problem
            assert found.signed_by == ()

    def test_with_a_signature_of_the_forger(self, forged: Path, allowed: Path, tmp_path: Path) -> None:
        own = tmp_path / "own"
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "author@example.org", "-f", str(own)]
        subprocess.run(command, check=True, env={"PATH": PATH}, capture_output=True)
        sign_archive(forged, own, Settings())
        assert judged(forged, allowed).signed_by == ()
        assert not judged(forged, allowed, require=True).intact

    def test_signatures_nobody_checked_are_not_praised(self, signed: Path) -> None:
        found = judged(signed)
        assert found.intact
        assert found.signed_by == ()
        assert "not checked" in found.trust


class TestOtherPurposes:
    def test_a_signature_made_for_git(self, signed: Path, key: Path, allowed: Path, tmp_path: Path) -> None:
        data = contents_by_name(signed)[names.TAG_MANIFEST]
        command = ["ssh-keygen", "-Y", "sign", "-n", "git", "-f", str(key)]
        done = subprocess.run(command, check=True, input=data, env={"PATH": PATH}, capture_output=True)
        with pytest.raises(DigestMismatch, match="made for another purpose: namespace 'git'"):
            check(data, done.stdout, allowed)
        forged = {**contents_by_name(signed), read_signature(done.stdout).name: done.stdout}
        found = judged(written(tmp_path / "other.crate.zip", forged), allowed)
        assert [finding.path for finding in found.findings] == [read_signature(done.stdout).name]

    def test_one_made_for_git_that_says_otherwise(self, key: Path) -> None:
        command = ["ssh-keygen", "-Y", "sign", "-n", "preserve-archivX", "-f", str(key)]
        done = subprocess.run(command, check=True, input=b"data", env={"PATH": PATH}, capture_output=True)
        raw = base64.b64decode(b"".join(done.stdout.split(b"\n")[1:-2])).replace(b"archivX", b"archive")
        text = base64.b64encode(raw)
        lines = [text[start : start + 70] for start in range(0, len(text), 70)]
        lying = b"\n".join((b"-----BEGIN SSH SIGNATURE-----", *lines, b"-----END SSH SIGNATURE-----", b""))
        assert read_signature(lying).namespace == "preserve-archive"
        with pytest.raises(DigestMismatch, match="is not one of these bytes"):
            check(b"data", lying)


class TestFiles:
    def test_a_flipped_bit_in_every_byte(self, key: Path, allowed: Path) -> None:
        good = sign(b"data", key)
        assert check(b"data", good, allowed) == "author@example.org"
        for place in range(len(good)):
            flipped = bytearray(good)
            flipped[place] ^= 1 << (place % 7)
            with pytest.raises(DigestMismatch):
                check(b"data", bytes(flipped), allowed)

    @pytest.mark.parametrize(
        "change",
        [
            lambda good: good.replace(b"\n", b"\r\n"),
            lambda good: good + b"\n",
            lambda good: b"hidden\n" + good,
            lambda good: good + good,
            lambda good: good[:-1],
            lambda good: good.replace(b"-----END", b"\n-----END"),
            lambda good: good[:60] + b"\n" + good[60:],
            lambda good: b"",
            lambda good: b"A" * (1 << 20),
            lambda good: good.replace(b"SSH SIGNATURE", b"PGP SIGNATURE"),
        ],
    )
    def test_other_forms_of_the_same(self, key: Path, change: object) -> None:
        good = sign(b"data", key)
        other = change(good)  # type: ignore[operator]
        if other == good:
            pytest.fail("this changes nothing")
        with pytest.raises(DigestMismatch, match="not a readable SSH signature"):
            check(b"data", other)

    @pytest.mark.parametrize("options", ["-oProxyCommand=touch /tmp/x", "--", "-"])
    def test_names_that_look_like_options(self, tmp_path: Path, key: Path, allowed: Path, options: str) -> None:
        odd = tmp_path / options.replace("/", "_")
        odd.write_bytes(key.read_bytes())
        odd.chmod(0o600)
        file = tmp_path / f"-f {odd.name}"
        file.write_bytes(allowed.read_bytes())
        assert check(b"data", sign(b"data", odd), file) == "author@example.org"
