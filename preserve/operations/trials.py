"""Trial runs of one step from its recorded materials, under a variation; the analysis folder does not see them."""

from __future__ import annotations

import math
import os
import stat
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from preserve.documents.plan import Plan, PlannedStep
from preserve.interfaces import Engine, Execution, Mount, Progress
from preserve.operations.run_step import lay_out, product_files, remove_work, request_of
from preserve.operations.variations import PLAIN, Variation, varied

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a tmpfs: it lists files by when they came
MOST_MOUNTS = 500  # inputs that are mounted one by one to stand in another order
APART = 1.1  # seconds between two runs, so that a clock of whole seconds shows


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What all trials of a probe share.

    ``scratch`` is a folder on the file system of the inputs; ``label`` marks containers, what stands in it before the
    first slash also folders elsewhere.
    """

    plan: Plan
    engine: Engine
    scratch: Path
    label: str
    progress: Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one run made: files by path, or why it failed.

    ``began`` is of the monotonic clock, in seconds; ``folders`` are what ``Trials.forget`` removes.
    """

    products: Mapping[str, Path]
    failure: str | None
    network_attempts: int | None
    began: float
    folders: tuple[Path, ...]


@dataclass(slots=True)
class Trials:
    """All trials of one step; their files are there until ``close``, or the end of the ``with`` block.

    ``sources`` are its materials' files by path, sorted; ``runs`` counts trials; ``network_attempts`` is the largest
    count seen.
    """

    bench: Bench
    step: PlannedStep
    sources: Mapping[str, Path]
    runs: int = 0
    network_attempts: int | None = None
    _last: float = -math.inf
    _folders: list[Path] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove what the trials made."""
        for folder in self._folders:
            remove_work(folder)
        self._folders.clear()

    def run_later(self, variation: Variation = PLAIN) -> Trial:
        """Run the step in another second than the last time.

        Raises:
            MachineError: the engine could not start the container.
        """
        time.sleep(max(0.0, self._last + APART - time.monotonic()))
        return self.run(variation)

    def run(self, variation: Variation = PLAIN, *, engine: Engine | None = None) -> Trial:
        """Run the step.

        Raises:
            MachineError: the engine could not start the container.
        """
        return self._counted(self._attempt(variation, engine or self.bench.engine))

    def run_together(self) -> tuple[Trial, Trial]:
        """Run the step twice at the same time, begun right after the turn of a second.

        Raises:
            MachineError: the engine could not start a container.
        """
        time.sleep(1.05 - time.time() % 1)
        with ThreadPoolExecutor(2) as pool:
            pair = [pool.submit(self._attempt, PLAIN, self.bench.engine, twin) for twin in (" (1)", " (2)")]
            try:
                first, second = (one.result() for one in pair)
            except BaseException:
                self.bench.engine.stop()  # the block waits for both
                raise
        return self._counted(first), self._counted(second)

    def forget(self, trial: Trial) -> None:
        """Remove a trial's files, which may be large."""
        for folder in trial.folders:
            remove_work(folder)
            self._folders.remove(folder)

    def problem_of_order(self) -> str | None:
        """Say why the inputs cannot be listed in another order; ``None``: they can."""
        if len(self.sources) > MOST_MOUNTS:
            return f"more than {MOST_MOUNTS} inputs"
        if not os.access(SHARED_MEMORY, os.W_OK):
            return f"{SHARED_MEMORY} cannot be written"
        plain = self._folder(self.bench.scratch)
        lay_out(self.step, self.sources, plain / "step")
        before = _listing(plain / "step" / "in")
        if not any(len(names) > 1 for names in before):
            return "no folder of its inputs holds two"
        place, _ = self._reversed(before, self._folder(SHARED_MEMORY))
        return None if _listing(place / "in") != before else "this file system lists files in one order"

    def problem_of_user(self) -> str | None:
        """Say why somebody else cannot run the step; ``None``: they can."""
        closed = [path for path, file in self.sources.items() if not file.stat().st_mode & stat.S_IROTH]
        return f"others may not read {closed[0]}" if closed else None

    def _attempt(self, variation: Variation, engine: Engine, twin: str = "") -> Trial:
        work = self._folder(self.bench.scratch)
        name = f"{self.step.id}, {variation.name}{twin}"
        self.bench.progress.step_started(name)
        place = work / "step"
        mounts = lay_out(self.step, self.sources, place)
        folders: tuple[Path, ...] = (work,)
        if variation.reverse:
            folders = (work, self._folder(SHARED_MEMORY))
            place, mounts = self._reversed(_listing(place / "in"), folders[1])
        if variation.user is not None:
            _open_to_all(place)
        request = varied(request_of(self.bench.plan, self.step, mounts, label=self.bench.label), variation)
        began = time.monotonic()
        with (work / "stdout").open("w+b") as stdout, (work / "stderr").open("w+b") as stderr:
            execution = engine.run(request, stdout=stdout, stderr=stderr)
            failure = _failure(self.step, execution, stderr)
        products, problem = _products(self.step, place / "out") if failure is None else ({}, failure)
        outcome = "done" if problem is None else "failed"
        self.bench.progress.step_finished(name, outcome=outcome, seconds=time.monotonic() - began)
        return Trial(
            products=products,
            failure=problem,
            network_attempts=execution.network_attempts,
            began=began,
            folders=folders,
        )

    def _counted(self, trial: Trial) -> Trial:
        self.runs += 1
        self._last = max(self._last, trial.began)
        if trial.network_attempts is not None:
            self.network_attempts = max(trial.network_attempts, self.network_attempts or 0)
        return trial

    def _folder(self, place: Path) -> Path:
        folder = Path(tempfile.mkdtemp(dir=place, prefix=_prefix(self.bench.label)))
        self._folders.append(folder)
        return folder

    def _reversed(self, before: list[list[str]], folder: Path) -> tuple[Path, tuple[Mount, ...]]:
        """Lay out on a tmpfs, first file first and last file first; give what is listed the less as usual."""
        backwards = dict(reversed(tuple(self.sources.items())))
        made = []
        for name, sources in (("backwards", backwards), ("forwards", self.sources)):
            mounts = lay_out(self.step, sources, folder / name)
            made.append((_places_kept(before, _listing(folder / name / "in")), name, mounts))
        _, name, mounts = min(made)
        return folder / name, mounts


def scratch_folder(state: Path, label: str) -> Path:
    """Make a folder for trials below ``state``, which the caller holds; what dead probes of it left is removed."""
    for left in (*state.glob("probe-*"), *SHARED_MEMORY.glob(f"{_prefix(label)}*")):
        remove_work(left)
    return Path(tempfile.mkdtemp(dir=state, prefix="probe-"))


def _prefix(label: str) -> str:
    return f"preserve-{label.partition('/')[0]}-"


def available_cpus() -> tuple[int, ...]:
    """Give the numbers of the CPUs that this process may use."""
    return tuple(sorted(os.sched_getaffinity(0)))


def _listing(folder: Path) -> list[list[str]]:
    """Names in each folder, as the file system lists them; the folders themselves in the order of their paths."""
    return [os.listdir(place) for place in sorted(place for place, _, _ in os.walk(folder))]  # noqa: PTH208 - raw order


def _places_kept(before: list[list[str]], after: list[list[str]]) -> int:
    """Count the names that stand where they stood; a folder's first one counts more: programs take it for special."""
    pairs = [zip(one, other, strict=True) for one, other in zip(before, after, strict=True) if len(one) > 1]
    return sum((1 if place else 10) for pair in pairs for place, (one, other) in enumerate(pair) if one == other)


def _open_to_all(place: Path) -> None:
    """Let somebody else read what is laid out, and write where the step may."""
    for parent, _, _ in os.walk(place / "in"):
        Path(parent).chmod(0o755)
    for parent, _, _ in os.walk(place / "out"):
        Path(parent).chmod(0o777)


def _failure(step: PlannedStep, execution: Execution, stderr: BinaryIO) -> str | None:
    if execution.timed_out:
        return f"timed out after {step.resources.time} s"
    if execution.exit_code == 0:
        return None
    stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - 4096))
    said = stderr.read().decode(errors="replace").strip().rpartition("\n")[2]
    return f"exit code {execution.exit_code}" + (f": {said}" if said else "")


def _products(step: PlannedStep, top: Path) -> tuple[dict[str, Path], str | None]:
    found: dict[str, Path] = {}
    for output in step.outputs:
        files, problem = product_files(top, output)
        if problem:
            return {}, problem
        found |= {path: top / path for path in files}
    return found, None
