"""One step under the probe: unchanged twice, everything varied once; only if it moves, one variation after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from preserve.documents.probe import Finding, Movement, ProbedStep, Untried
from preserve.errors import MachineError
from preserve.interfaces import Engine
from preserve.operations.moving import beyond, largest, movements
from preserve.operations.trials import Trial, Trials
from preserve.operations.variations import FILLED, PLAIN, Surroundings, Variation, catalogue, combined, one_thread

ENGINE = "engine"
PAIRS = 6  # that are given a chance to see the same second
STEADY = 2  # pairs that have to agree before their setting counts as the cause


@dataclass(slots=True)
class _Step:
    """A step while it is probed.

    ``first`` is its first run here; ``unsteady`` are the leaves that move though nothing is varied.
    """

    trials: Trials
    recorded: Mapping[str, Path]
    around: Surroundings
    first: Trial
    unsteady: tuple[Movement, ...] = ()
    tried: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    untried: list[Untried] = field(default_factory=list)


def probe_step(
    trials: Trials, recorded: Mapping[str, Path], around: Surroundings, other: tuple[Engine | None, str]
) -> ProbedStep:
    """Probe one step; ``recorded`` are its products' files by path.

    ``other`` is the second engine and its name, or no engine and why there is none.

    Raises:
        MachineError: the engine cannot run the step at all.
    """
    step = _Step(trials=trials, recorded=recorded, around=around, first=trials.run())
    _unchanged(step)
    if step.first.failure is None:
        _varied(step)
        _on_other_engine(step, *other)
    return ProbedStep(
        step=trials.step.id,
        runs=trials.runs,
        network_attempts=trials.network_attempts,
        tried=tuple(step.tried),
        findings=tuple(step.findings),
        untried=tuple(step.untried),
    )


def finding(
    variation: Variation, moved: tuple[Movement, ...], *, confirmed: bool = True, failure: str | None = None
) -> Finding:
    """Give what a variation does, the largest movements first."""
    listed, more = largest(moved)
    return Finding(
        variation=variation.name,
        setting=variation.setting,
        held=variation.held,
        confirmed=confirmed,
        failure=failure,
        movements=listed,
        more=more,
    )


def _unchanged(step: _Step) -> None:
    """Run it a second time, and find out what moves by itself."""
    step.tried.append(PLAIN.name)
    second = step.trials.run_later()
    if failure := step.first.failure or second.failure:
        step.findings.append(finding(PLAIN, (), failure=failure, confirmed=None not in _failures(step.first, second)))
        return
    between = movements(step.first.products, second.products)
    step.trials.forget(second)
    since = movements(step.recorded, step.first.products)
    if between:
        cause = next((one for one in _causes(step) if one is not None), _RANDOM)
        step.findings.append(finding(cause, between))
    if further := beyond(since, between):
        step.findings.append(finding(_SINCE, further))
    step.unsteady = between


_RANDOM = Variation(name="random", setting="differs each time: no seed, a clock finer than a second, or a race")
_SINCE = Variation(name="since-run", setting="as in the run, but later and perhaps elsewhere")
_CLOCK = Variation(name="clock", setting="a later second; the same within one")
_FILLED = Variation(name=FILLED.name, setting="differs each time; the same with fresh memory filled")
_RACE = Variation(name="threads", setting="differs each time; the same with one CPU and one thread")


def _causes(step: _Step) -> Iterator[Variation | None]:
    """Look for a setting under which a step that moves by itself keeps still."""
    yield _CLOCK if _steady(step.trials, step.trials.run_together, tries=PAIRS) else None
    yield _FILLED if _steady(step.trials, lambda: _twice(step, FILLED), tries=STEADY) else None
    yield _RACE if _steady(step.trials, lambda: _twice(step, one_thread(step.around)), tries=STEADY) else None


def _twice(step: _Step, variation: Variation) -> tuple[Trial, Trial]:
    return step.trials.run_later(variation), step.trials.run_later(variation)


def _steady(trials: Trials, pair: Callable[[], tuple[Trial, Trial]], *, tries: int) -> bool:
    """Whether enough of the pairs agree; those that cannot reach it any more are not run."""
    agreed = 0
    for left in range(tries, 0, -1):
        if agreed + left < STEADY:
            return False
        one, other = pair()
        agreed += None is one.failure is other.failure and not movements(one.products, other.products)
        for trial in (one, other):
            trials.forget(trial)
        if agreed == STEADY:
            return True
    return False


def _varied(step: _Step) -> None:
    """Vary all that can be varied."""
    variations, untried = catalogue(step.trials.step, step.around)
    step.untried += untried
    for name, problem in (
        ("input-order", step.trials.problem_of_order()),
        ("user", step.trials.problem_of_user()),
    ):
        if problem is not None and any(one.name == name for one in variations):
            variations = tuple(one for one in variations if one.name != name)
            step.untried.append(Untried(variation=name, reason=problem))
    apart = tuple(one for one in variations if one.apart)
    variations = tuple(one for one in variations if not one.apart)
    _together(step, variations)
    for one in apart:
        _try(step, one)


def _together(step: _Step, variations: tuple[Variation, ...]) -> None:
    """Vary everything at once; only if something moves, one after another."""
    together = combined(variations)
    try:
        everything = _moved(step, step.trials.run(together))
    except MachineError:  # one of them is beyond this engine: found out below
        everything = ((), "could not be started")
    if everything == ((), None):
        step.tried += [one.name for one in variations]
        return
    before = len(step.findings), len(step.untried)
    for one in variations:
        _try(step, one)
    if (len(step.findings), len(step.untried)) == before:
        again = _moved(step, step.trials.run(together))
        if again != ((), None):
            step.findings.append(finding(together, again[0], failure=again[1]))


def _try(step: _Step, variation: Variation, engine: Engine | None = None) -> None:
    """Try one variation, a second time where something moved."""
    try:
        moved, failure = _moved(step, step.trials.run(variation, engine=engine))
    except MachineError as error:
        step.untried.append(Untried(variation=variation.name, reason=error.message))
        return
    step.tried.append(variation.name)
    if moved or failure:
        again = _moved(step, step.trials.run(variation, engine=engine))
        confirmed = again != ((), None)
        step.findings.append(finding(variation, moved, failure=failure, confirmed=confirmed))


def _on_other_engine(step: _Step, engine: Engine | None, name: str) -> None:
    if engine is None:
        step.untried.append(Untried(variation=ENGINE, reason=name))
    else:
        _try(step, Variation(name=ENGINE, setting=f"on {name}"), engine)


def _moved(step: _Step, trial: Trial) -> tuple[tuple[Movement, ...], str | None]:
    """Give what moved beyond what moves by itself, and why the step failed, if it did; the trial is forgotten."""
    moved = movements(step.first.products, trial.products) if trial.failure is None else ()
    step.trials.forget(trial)
    return beyond(moved, step.unsteady), trial.failure


def _failures(*trials: Trial) -> tuple[str | None, ...]:
    return tuple(trial.failure for trial in trials)
