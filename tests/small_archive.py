"""The contents of a small archive, made by hand: every way in which a file, a step or a title can be awkward."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from preserve.digest import Digest, FilePin
from preserve.documents import archive
from preserve.documents.archive import Contents, contents_of, expected_files
from preserve.documents.lockfile import ImagePin, InputPin, Lock, SourcePin
from preserve.documents.plan import Plan, PlannedInput, PlannedStep
from preserve.documents.record import Artifact, EngineUsed, ImageUsed, Machine, Record
from preserve.documents.workflow import Author, Resources

AWKWARD = "data/Messung für <b>Z</b> #1?.txt"
TITLE = 'Z & W <script>alert("1")</script> | `mass` [x](y)'
IMAGE = ImagePin(
    reference="docker://registry.example.org:5000/hep/tiny:2026.1",
    platform="linux/amd64",
    manifest_digest=Digest.of(b"manifest"),
    config_digest=Digest.of(b"config"),
    diff_ids=(Digest.of(b"layer"),),
)
INPUTS = {
    AWKWARD: InputPin(sha256=Digest.of(b"awkward"), size=7),
    "data/remote.root": InputPin(sha256=Digest.of(b"remote"), size=6, url="https://data.example.org/remote.root"),
}
SOURCES = {"code/fit.py": FilePin(sha256=Digest.of(b"code"), size=4, executable=True)}
BODIES = {b"awkward", b"remote", b"code"}


def artifact(path: str, body: bytes) -> Artifact:
    """A file of a record with this content."""
    return Artifact(path=path, sha256=Digest.of(body), size=len(body))


def planned(
    name: str, stage: str, inputs: dict[str, str | None], outputs: tuple[str, ...], **values: Any
) -> PlannedStep:
    """A job; ``inputs`` maps each path to the step that makes it."""
    suffix = "".join(f"@{key}={value}" for key, value in values.items())
    return PlannedStep(
        id=name + suffix,
        name=name,
        stage=stage,
        image="tiny",
        command=("sh", "-eu", "-c", f"echo '<{name}>' | tee it"),
        environment={"LANG": "C.UTF-8"},
        inputs=tuple(PlannedInput(path=path, producer=producer) for path, producer in inputs.items()),
        outputs=outputs,
        network=False,
        resources=Resources(cpus=2, memory=2_000_000_000, time=600),
        values=values,
    )


STEPS = (
    planned("select", "preparation", {AWKWARD: None, "data/remote.root": None}, ("selected/events.txt",)),
    planned("count", "processing", {"selected/events.txt": "select"}, ("counts/barrel.txt",), category="barrel"),
    planned("count", "processing", {"selected/events.txt": "select"}, ("counts/end cap.txt",), category="end cap"),
    planned(
        "fit",
        "postprocessing",
        {"code/fit.py": None, "counts/barrel.txt": "count@category=barrel"},
        ("results/mass.json", "results/plots/"),
    ),
)
PRODUCTS = {
    "select": ("selected/events.txt",),
    "count@category=barrel": ("counts/barrel.txt",),
    "count@category=end cap": ("counts/end cap.txt",),
    "fit": ("results/mass.json", "results/plots/a.png", "results/plots/b.png"),
}
SOURCE = SourcePin(commit="a" * 40, tree="b" * 40, clean=True)


def plan(**changes: Any) -> Plan:
    """The plan, members replaced as asked."""
    return replace(
        Plan(
            title=TITLE,
            authors=(Author(name="A. Physicist", orcid="0000-0002-1825-0097"), Author(name="B. <i>Other</i>")),
            license="CC0-1.0",
            parameters={"low": 60.0, "categories": ("barrel", "end cap"), "blind": True, "bins": 4, "label": "a|b"},
            images={"tiny": IMAGE},
            inputs=INPUTS,
            sources=SOURCES,
            steps=STEPS,
            results={"results/mass.json": '{"require":"identical"}', "results/plots/": '{"require":"advisory"}'},
            source=SOURCE,
        ),
        **changes,
    )


def record(step: PlannedStep, number: int, products: tuple[str, ...]) -> Record:
    """The record of a job that ended well; ``number`` is the minute."""
    return Record(
        step=step.id,
        key=Digest.of(step.id.encode()),
        command=step.command,
        environment=step.environment,
        image=ImageUsed(name="tiny", manifest_digest=IMAGE.manifest_digest, config_digest=IMAGE.config_digest),
        engine=EngineUsed(name="docker", version="20.10.24"),
        machine=Machine(
            architecture="x86_64",
            cpu_model="Some CPU",
            cpu_id="AuthenticAMD-25-11-1",
            cpu_flags=("avx",),
            cpus=2,
            kernel="6.1",
        ),
        materials=tuple(_material(i.path) for i in step.inputs),
        products=tuple(artifact(path, path.encode()) for path in products),
        network=False,
        network_attempts=0,
        started=f"2026-11-23T09:{number:02d}:00.123456Z",
        ended=f"2026-11-23T09:{number:02d}:01.500000Z",
        exit_code=0,
        wall_seconds=1.376544,
        cpu_seconds=None if number == 0 else 0.25,
        peak_memory=12_000_000,
        logs={name: artifact(f"logs/{step.id}/{name}", name.encode()) for name in ("stdout", "stderr")},
    )


def _material(path: str) -> Artifact:
    pin = INPUTS.get(path) or SOURCES.get(path)
    if pin is None:
        return artifact(path, path.encode())
    return Artifact(path=path, sha256=pin.sha256, size=pin.size)


def contents(
    *,
    changes: dict[str, Any] | None = None,
    parent: Digest | None = None,
    without: str = "",
    without_products: tuple[str, ...] | None = None,
) -> Contents:
    """The contents with a payload that fits; ``without`` names what is left out, separated by commas.

    ``without_products`` (a tuple, perhaps empty) puts fingerprints in, and leaves these products out.
    """
    the_plan = plan(**(changes or {}))
    records = {step.id: record(step, n, PRODUCTS[step.id]) for n, step in enumerate(the_plan.steps)}
    lock = Lock(images=the_plan.images, inputs=the_plan.inputs, source=the_plan.source, epoch=1_700_000_000)
    left_out = frozenset(without.split(",")) - {""}
    bare = contents_of(
        the_plan,
        lock,
        records,
        agent="preserve 0.1.0",
        without=left_out,
        left_out=frozenset(without_products or ()),
        parent=parent,
    )
    made = {
        archive.WORKFLOW: b"format: 1\n",
        archive.LOCK: b"lock",  # not in their own form, which has no place for every hostile text
        archive.PLAN: b"plan",
        archive.REPLAY: b"#!/bin/sh\n",
        archive.BUNDLE: b"# v2 git bundle\n",
        **{archive.record_name(step): step.encode() for step in records},
    }
    if "images" not in left_out:
        made |= {archive.OCI + "oci-layout": b"{}", archive.BLOBS + Digest.of(b"layer").hex: b"layer"}
    if without_products is not None:
        made |= {name: path.encode() for path, name in bare.fingerprints.items()}
    payload = {name: FilePin(sha256=Digest.of(data), size=len(data)) for name, data in made.items()}
    return replace(bare, payload=payload | expected_files(bare))


def bodies(of: Contents) -> dict[str, bytes]:
    """Bytes of the files that the hand-made digests stand for, by archive name (documents are not among them)."""
    known = {Digest.of(body): body for body in (*BODIES, b"stdout", b"stderr", b"layer", b"{}")}
    known |= {Digest.of(path.encode()): path.encode() for paths in PRODUCTS.values() for path in paths}
    return {name: known[pin.sha256] for name, pin in of.payload.items() if pin.sha256 in known}
