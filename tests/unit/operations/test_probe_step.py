"""The probe of one step, with steps that are functions of what a container would give them: no engine, no waiting."""

from __future__ import annotations

import itertools
import json
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import pytest
from conftest import ROOT

from preserve.digest import Digest
from preserve.documents.lockfile import ImagePin
from preserve.documents.plan import Plan, PlannedInput, PlannedStep
from preserve.documents.probe import Finding, ProbedStep
from preserve.documents.workflow import Resources
from preserve.errors import MachineError
from preserve.interfaces import Execution, RunRequest, Silent
from preserve.operations import trials as trials_module
from preserve.operations.probe_step import probe_step
from preserve.operations.trials import Bench, Trials, scratch_folder
from preserve.operations.variations import (
    PADDING,
    PLAIN,
    Surroundings,
    catalogue,
    combined,
    read_look,
    varied,
)

Answer = Mapping[str, object]
DIGEST = Digest.of(b"")
AROUND = Surroundings(
    architecture="x86_64",
    engine="docker",
    cpus=(0, 1),
    has_shell=True,
    features=("X86_V3",),
)
STEP = PlannedStep(
    id="fit",
    name="fit",
    stage="processing",
    image="image",
    command=("fit",),
    environment={"TZ": "UTC", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
    inputs=tuple(PlannedInput(path=f"in/{name}") for name in "abc"),
    outputs=("out/fit.json",),
    network=False,
    resources=Resources(),
    values={},
)
PLAN = Plan(
    title="t",
    authors=(),
    license=None,
    parameters={},
    images={
        "image": ImagePin(
            reference="oci:x", platform="linux/amd64", manifest_digest=DIGEST, config_digest=DIGEST, diff_ids=()
        )
    },
    inputs={},
    sources={},
    steps=(STEP,),
    results={},
    source=None,
)


@dataclass(kw_only=True)
class Played:
    """An engine that plays a step: what ``play`` answers becomes its product; a text is why it fails."""

    play: Callable[[RunRequest], Answer | str]
    name: str = "docker"
    attempts: int | None = 0
    requests: list[RunRequest] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)  # products of trials on disk, before each run

    def run(self, request: RunRequest, *, stdout: BinaryIO, stderr: BinaryIO) -> Execution:
        answer = self.play(request)
        self.requests.append(request)
        place = request.mounts[0].source.parents[2]
        self.kept.append(len(list(place.glob("*/step/out/out/fit.json"))))
        if isinstance(answer, str):
            stderr.write(f"first line\n{answer}\n".encode())
            return Execution(exit_code=3, network_attempts=self.attempts)
        out = next(mount.source for mount in request.mounts if mount.target.endswith("/out"))
        (out / "fit.json").write_text(json.dumps(answer))
        return Execution(exit_code=0, network_attempts=self.attempts)

    def stop(self) -> None:
        """Nothing runs on."""


Probing = Callable[..., ProbedStep]


@pytest.fixture
def probing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Probing]:
    monkeypatch.setattr(trials_module, "APART", 0.0)
    shared = Path(tempfile.mkdtemp(dir="/dev/shm"))
    monkeypatch.setattr(trials_module, "SHARED_MEMORY", shared)
    for name in "abc":
        (tmp_path / name).write_text(name)
    recorded = tmp_path / "recorded.json"

    def probe(
        play: Callable[[RunRequest], Answer | str],
        *,
        first: Answer | None = None,
        other: Played | None = None,
        attempts: int | None = 0,
        mode: int = 0o644,
    ) -> ProbedStep:
        (tmp_path / "a").chmod(mode)
        recorded.write_text(json.dumps({"mass": 91.0} if first is None else first))
        scratch = scratch_folder(tmp_path, "mark/probe")
        engine = Played(play=play, attempts=attempts)
        bench = Bench(plan=PLAN, engine=engine, scratch=scratch, label="mark/probe", progress=Silent())
        sources = {f"in/{name}": tmp_path / name for name in "abc"}
        with Trials(bench=bench, step=STEP, sources=sources) as trials:
            found = probe_step(trials, {"out/fit.json": recorded}, AROUND, (other, "apptainer 1.4.5"))
        assert found.runs == len(engine.requests) + (len(other.requests) if other else 0)
        assert list(scratch.iterdir()) == []
        assert max(engine.kept, default=0) <= 3  # the first run's, and a pair's: they may be large
        return found

    yield probe
    shared.rmdir()  # it is empty again


def by_name(found: ProbedStep) -> dict[str, Finding]:
    return {one.variation: one for one in found.findings}


def test_a_sound_step_takes_three_runs_and_one_where_a_variation_undoes_another(probing: Probing) -> None:
    found = probing(lambda request: {"mass": 91.0})
    assert (found.runs, found.findings) == (4, ())
    assert found.tried[0] == "unchanged"
    assert {"hash-seed", "blas-kernel", "input-order", "memory", "umask", "user", "cpu-count"} < set(found.tried)
    assert {one.variation: one.reason for one in found.untried} == {"engine": "apptainer 1.4.5"}


CULPRITS = {
    "hash-seed": lambda request: request.environment["PYTHONHASHSEED"] != "0",
    "time-zone": lambda request: request.environment["TZ"] != "UTC",
    "locale": lambda request: "LC_ALL" in request.environment,
    "home": lambda request: request.environment.get("HOME") == "/var/tmp",
    "source-date": lambda request: "SOURCE_DATE_EPOCH" in request.environment,
    "environment-size": lambda request: sum(map(len, request.environment.values())) > PADDING,
    "host-name": lambda request: request.host_name != "preserve",
    "working-folder": lambda request: request.working_folder != "/work",
    "user": lambda request: request.user is not None,
    "umask": lambda request: any("umask" in word for word in request.command),
    "cpu-count": lambda request: request.cpus_allowed != (),
    "threads": lambda request: request.environment["OMP_NUM_THREADS"] == "2" and not request.cpus_allowed,
    "blas-kernel": lambda request: "OPENBLAS_CORETYPE" in request.environment,
    "numpy-dispatch": lambda request: request.environment.get("NPY_DISABLE_CPU_FEATURES") == "X86_V3",
    "glibc": lambda request: "GLIBC_TUNABLES" in request.environment,
    "memory": lambda request: "MALLOC_PERTURB_" in request.environment,
}


@pytest.mark.parametrize("culprit", CULPRITS)
def test_each_variation_is_found_alone_with_how_far_it_moves(probing: Probing, culprit: str) -> None:
    found = probing(lambda request: {"mass": 91.0 + 4e-6 * CULPRITS[culprit](request)})
    assert list(by_name(found)) == [culprit]
    only = found.findings[0]
    assert (only.confirmed, only.failure) == (True, None)
    moved = only.movements[0]
    assert (moved.product, moved.leaf, moved.kind) == ("out/fit.json", "/mass", "numbers")
    assert moved.max_abs == pytest.approx(4e-6, rel=1e-3)
    assert moved.max_rel == pytest.approx(4e-6 / 91, rel=1e-3)


def test_the_order_of_files_in_a_folder(probing: Probing) -> None:
    def first_file(request: RunRequest) -> Answer:
        inside = next(mount.source for mount in request.mounts if mount.target == request.working_folder)
        return {"first": next((inside / "in").iterdir()).name}

    found = probing(first_file)
    assert [name for name in by_name(found) if name != "since-run"] == ["input-order"]


def test_several_culprits_and_their_own_leaves(probing: Probing) -> None:
    def play(request: RunRequest) -> Answer:
        seed, zone = CULPRITS["hash-seed"](request), CULPRITS["time-zone"](request)
        return {"mass": 91.0, "cuts": ["b", "a"] if seed else ["a", "b"], "hour": 13 if zone else 0}

    found = by_name(probing(play, first={"mass": 91.0, "cuts": ["a", "b"], "hour": 0}))
    assert {name: {one.leaf for one in finding.movements} for name, finding in found.items()} == {
        "hash-seed": {"/cuts/0", "/cuts/1"},
        "time-zone": {"/hour"},
    }
    assert found["hash-seed"].held


def test_a_failure_under_a_variation(probing: Probing) -> None:
    found = probing(lambda request: "no such user" if request.user else {"mass": 91.0})
    assert by_name(found)["user"].failure == "exit code 3: no such user"


def test_what_only_moves_once_is_not_confirmed(probing: Probing) -> None:
    seen = itertools.count()

    def play(request: RunRequest) -> Answer:
        zone = CULPRITS["time-zone"](request)
        return {"mass": 91.0 + (zone and next(seen) < 2)}  # with everything, and the first time alone

    assert not by_name(probing(play))["time-zone"].confirmed


@pytest.mark.parametrize("mode", [0o644, 0o600])  # with the latter, another user is not tried
def test_two_variations_that_act_only_together(probing: Probing, mode: int) -> None:
    found = probing(lambda r: {"mass": 91.0 + (CULPRITS["time-zone"](r) and CULPRITS["locale"](r))}, mode=mode)
    assert list(by_name(found)) == ["together"]


class TestMovesByItself:
    def test_a_clock_of_whole_seconds(self, probing: Probing, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(trials_module, "APART", 1.1)
        found = probing(lambda request: {"mass": 91.0, "made": f"second {int(time.time())}"})
        assert [(one.variation, one.confirmed) for one in found.findings if one.variation != "since-run"] == [
            ("clock", True)
        ]

    def test_no_seed(self, probing: Probing) -> None:
        found = probing(lambda request: {"mass": 91.0, "toys": secrets.randbits(60)}, first={"mass": 91.0, "toys": 1})
        assert list(by_name(found)) == ["random"]
        assert [one.leaf for one in found.findings[0].movements] == ["/toys"]

    def test_memory_that_nobody_wrote_to(self, probing: Probing) -> None:
        def play(request: RunRequest) -> Answer:
            return {"sum": "full" if "MALLOC_PERTURB_" in request.environment else secrets.token_hex(4)}

        assert list(by_name(probing(play, first={"sum": "x"}))) == ["memory"]

    def test_a_race_of_threads(self, probing: Probing) -> None:
        def play(request: RunRequest) -> Answer:
            one = request.environment["OMP_NUM_THREADS"] == "1" and request.cpus_allowed == (0,)
            return {"sum": "steady" if one else secrets.token_hex(4)}

        assert list(by_name(probing(play, first={"sum": "x"}))) == ["threads"]

    def test_other_leaves_are_still_judged(self, probing: Probing) -> None:
        def play(request: RunRequest) -> Answer:
            return {"noise": secrets.token_hex(4), "mass": 91.0 + CULPRITS["blas-kernel"](request)}

        found = by_name(probing(play, first={"noise": "x", "mass": 91.0}))
        assert list(found) == ["random", "blas-kernel"]
        assert [one.leaf for one in found["blas-kernel"].movements] == ["/mass"]

    def test_since_the_run(self, probing: Probing) -> None:
        assert list(by_name(probing(lambda request: {"mass": 92.0}))) == ["since-run"]

    def test_it_fails_at_once(self, probing: Probing) -> None:
        found = probing(lambda request: "no space")
        assert (found.runs, list(by_name(found))) == (2, ["unchanged"])
        assert found.findings[0].failure == "exit code 3: no space"


class TestTheOtherEngine:
    def test_the_same(self, probing: Probing) -> None:
        other = Played(play=lambda request: {"mass": 91.0}, name="apptainer")
        found = probing(lambda request: {"mass": 91.0}, other=other)
        assert (found.findings, "engine" in found.tried) == ((), True)

    def test_another_answer(self, probing: Probing) -> None:
        other = Played(play=lambda request: {"mass": 91.5}, name="apptainer")
        found = probing(lambda request: {"mass": 91.0}, other=other)
        assert by_name(found)["engine"].setting == "on apptainer 1.4.5"
        assert len(other.requests) == 2

    def test_it_cannot_start(self, probing: Probing) -> None:
        def refuse(request: RunRequest) -> Answer:
            raise MachineError("no room")

        found = probing(lambda request: {"mass": 91.0}, other=Played(play=refuse, name="apptainer"))
        assert ("engine", "no room") in {(one.variation, one.reason) for one in found.untried}


def test_an_input_that_only_its_owner_may_read(probing: Probing, tmp_path: Path) -> None:
    found = probing(lambda request: {"mass": 91.0}, mode=0o600)
    assert ("user", "others may not read in/a") in {(one.variation, one.reason) for one in found.untried}


def test_network_attempts_are_the_most_of_one_run(probing: Probing) -> None:
    assert probing(lambda request: {"mass": 91.0}, attempts=3).network_attempts == 3
    assert probing(lambda request: {"mass": 91.0}, attempts=None).network_attempts is None


class TestCatalogue:
    def test_what_cannot_be_varied_has_a_reason(self) -> None:
        around = Surroundings(architecture="riscv64", engine="apptainer", cpus=(3,), has_shell=False)
        possible, untried = catalogue(STEP, around)
        reasons = {one.variation: one.reason for one in untried}
        assert set(reasons) == {"user", "umask", "cpu-count", "numpy-dispatch", "blas-kernel", "glibc"}
        assert all(reasons.values())
        everything, none = catalogue(STEP, AROUND)
        assert none == ()
        assert {one.name for one in possible} | set(reasons) == {one.name for one in everything}

    def test_a_command_that_names_the_working_folder_stays_there(self) -> None:
        _, untried = catalogue(replace(STEP, command=("cat", "/work/in/a")), AROUND)
        assert [one.variation for one in untried] == ["working-folder"]

    def test_what_the_image_sets_is_held(self) -> None:
        around = replace(AROUND, image_environment=frozenset({"MALLOC_PERTURB_"}))
        held = {one.name for one in catalogue(STEP, around)[0] if one.held}
        assert "memory" in held
        assert "blas-kernel" not in held

    def test_all_at_once_is_all_of_them(self) -> None:
        possible, _ = catalogue(STEP, AROUND)
        request = RunRequest(image=PLAN.images["image"], command=("fit",), environment=STEP.environment)
        made = varied(request, combined(one for one in possible if not one.apart))
        for name, is_varied in CULPRITS.items():
            assert is_varied(made) == (name != "cpu-count"), name

    def test_the_guide_lists_them(self) -> None:
        lines = (ROOT / "docs" / "guide" / "probe.md").read_text().split("## What is varied")[1].splitlines()
        rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| `")]
        told = {row[0]: row[2] == "yes" for row in rows if len(row) == 5}
        assert told == {one.name: one.held for one in catalogue(STEP, AROUND)[0]} | {"engine": False}

    def test_nothing_varied_is_the_request_itself(self) -> None:
        request = RunRequest(image=PLAN.images["image"], command=("fit",), environment=STEP.environment)
        assert varied(request, PLAIN) == request

    @pytest.mark.parametrize(
        ("text", "wanted"),
        [
            ('{"features": ["A", "B"], "glibc": "glibc 2.36", "numpy": ""}\n', (("A", "B"), {"glibc": "glibc 2.36"})),
            ('{"features": 3}', ((), {})),
            ("[]", ((), {})),
            ("", ((), {})),
            ("no", ((), {})),
        ],
    )
    def test_what_the_image_says(self, text: str, wanted: tuple[tuple[str, ...], dict[str, str]]) -> None:
        assert read_look(text) == wanted
