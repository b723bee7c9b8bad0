"""Results that only the analysis' own software can read: its dumper (``command:``) prints JSON, which is compared."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from preserve.documents.plan import Plan, PlannedStep
from preserve.errors import PreserveError
from preserve.interfaces import Engine, Progress
from preserve.operations.folder import Folder
from preserve.operations.judged import Pair, Version
from preserve.operations.places import Settings, bring, choose_engine
from preserve.operations.run_step import lay_out, request_of

NOT_RUN = "it is read by a command in its step's image, and preserve diff runs nothing"
SHOWN = 200  # bytes of a failed dumper's stderr


class _Failed(Exception):
    """The dumper failed; the message says how."""


@dataclass(slots=True)
class Dumper:
    """Runs dumpers in a replayed analysis' images; the engine is looked for when the first one is needed."""

    folder: Folder
    plan: Plan
    settings: Settings
    progress: Progress
    say: Callable[[str], None]
    _scratch: Path | None = None
    _engine: Engine | None = None
    _loaded: set[str] = field(default_factory=set)
    _count: int = 0

    def __enter__(self) -> Dumper:
        self._scratch = Path(tempfile.mkdtemp(dir=self.folder.state, prefix="dumps-"))
        return self

    def __exit__(self, *failure: object) -> None:
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def read(self, pair: Pair) -> Pair:
        """Give the pair with what its dumper printed in place of the files; as it is, where none is declared or needed.

        Where it is what the dumper printed that cannot be had, the pair says why.
        """
        recorded, found = pair.recorded, pair.found
        if not pair.policy.command or recorded is None or found is None:
            return pair
        same = recorded.pin.sha256 == found.pin.sha256
        if same and not pair.policy.rules:
            return pair
        try:
            after = self._dumped(pair, found)
            before = after if same else self._dumped(pair, recorded)
        except (_Failed, PreserveError) as error:
            return replace(pair, obstacle=str(error))
        return replace(
            pair,
            read_as="dump.json",
            recorded=replace(recorded, file=before),
            found=replace(found, file=after),
        )

    def _dumped(self, pair: Pair, version: Version) -> Path:
        assert self._scratch is not None  # noqa: S101  (a dumper is used inside its with)
        if version.file is None:
            raise _Failed("a file is known by its digest only: its bytes are not at hand")
        step = next(step for step in self.plan.steps if _makes(step, pair.path))
        self._count += 1
        place = self._scratch / str(self._count)
        place.mkdir()
        mounts = lay_out(replace(step, outputs=()), {pair.path: version.file}, place / "work")
        planned = request_of(self.plan, step, mounts, label=f"dump/{self._count}")
        request = replace(planned, command=pair.policy.command, network=False)
        with (place / "dump.json").open("wb") as stdout, (place / "stderr").open("wb") as stderr:
            ended = self._engine_with(step).run(request, stdout=stdout, stderr=stderr)
        if ended.exit_code != 0:
            said = (place / "stderr").read_bytes()[-SHOWN:].decode("utf-8", "replace").strip()
            raise _Failed(f"its command {' '.join(pair.policy.command)} failed (exit code {ended.exit_code}): {said}")
        return place / "dump.json"

    def _engine_with(self, step: PlannedStep) -> Engine:
        """Give the engine, the step's image loaded."""
        if self._engine is None:
            self._engine, why = choose_engine(self.folder, self.settings)
            self.say(f"{why}, to read results")
        if step.image not in self._loaded:
            image = self.plan.images[step.image]
            bring(image, self.folder, self.settings, self.progress)
            self._engine.load(image, self.folder.layout)
            self._loaded.add(step.image)
        return self._engine


def without_dumpers(pair: Pair) -> Pair:
    """Give the pair as it can be judged where nothing may be run."""
    return replace(pair, obstacle=NOT_RUN) if pair.policy.command else pair


def _makes(step: PlannedStep, path: str) -> bool:
    return any(path == output or (output.endswith("/") and path.startswith(output)) for output in step.outputs)
