"""What differs between two executions of an analysis, by their records: where a different result may come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from preserve.documents.blas_kernels import kernel
from preserve.documents.comparison import Change
from preserve.documents.plan import Plan, shown_value
from preserve.documents.record import Artifact, Library, Record

NONE = "none"
NOT_KNOWN = "not known"
BLAS_KERNEL = "BLAS kernel, by OpenBLAS's own rule"
THREAD_VARIABLES = (  # by what libraries choose how many threads they take, unless they take as many as there are CPUs
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def changes(recorded: Mapping[str, Record], found: Mapping[str, Record]) -> tuple[Change, ...]:
    """Compare engines, images, machines, commands, environments step by step; a change of many steps comes once."""
    steps: dict[tuple[str, str, str], list[str]] = {}
    for step in (*recorded, *(step for step in found if step not in recorded)):
        for change in _of_step(recorded.get(step), found.get(step)):
            steps.setdefault(change, []).append(step)
    return tuple(
        Change(steps=tuple(names), what=what, recorded=before, found=after)
        for (what, before, after), names in steps.items()
    )


def changed_plan(recorded: Plan, found: Plan) -> tuple[Change, ...]:
    """Compare what two plans start from: parameters, input data and files of the repository."""
    before, after = _start(recorded), _start(found)
    return tuple(
        Change(steps=(), what=what, recorded=before.get(what, NONE), found=after.get(what, NONE))
        for what in dict.fromkeys((*before, *after))
        if before.get(what) != after.get(what)
    )


def _start(plan: Plan) -> dict[str, str]:
    return {
        **{f"parameter {name}": shown_value(value) for name, value in plan.parameters.items()},
        **{f"input {path}": pin.sha256 for path, pin in plan.inputs.items()},
        **{f"input {path}": pin.sha256 for path, pin in plan.sources.items()},
    }


def beginnings(recorded: Mapping[str, Record], found: Mapping[str, Record]) -> tuple[str, ...]:
    """Give the steps that read the same files and made others: where differences begin, in the order of execution."""
    both = [(step, recorded[step], found[step]) for step in recorded if step in found]
    begun = [
        (before.started, step)
        for step, before, after in both
        if _contents(before.materials) == _contents(after.materials)
        and _contents(before.products) != _contents(after.products)
    ]
    return tuple(step for _, step in sorted(begun))


def _of_step(recorded: Record | None, found: Record | None) -> Iterator[tuple[str, str, str]]:
    if recorded is None or found is None:
        yield "step", "ran" if recorded else NONE, "ran" if found else NONE
        return
    before, after = _facts(recorded), _facts(found)
    for what in (*before, *(what for what in after if what not in before)):
        if before.get(what) != after.get(what):
            yield what, before.get(what, NONE), after.get(what, NONE)
    yield from _flags(recorded.machine.cpu_flags, found.machine.cpu_flags)


def _facts(record: Record) -> dict[str, str]:
    machine = record.machine
    return {
        "engine": f"{record.engine.name} {record.engine.version}",
        "image": record.image.config_digest,
        "architecture": machine.architecture,
        "CPU": machine.cpu_model,
        "CPU's family, model and stepping": machine.cpu_id,
        "CPUs that may be used": str(machine.cpus),
        "kernel": machine.kernel,
        "network": "allowed" if record.network else NONE,
        "command": " ".join(map(repr, record.command)),
        **{
            f"variable {name}": value
            for name, value in sorted(record.environment.items())
            if name not in THREAD_VARIABLES
        },
        **_numerics(record),
    }


def _numerics(record: Record) -> dict[str, str]:
    """Give what moves the last digits of numbers: libraries, the kernel that OpenBLAS takes, numbers of threads."""
    variables = {**record.image.variables, **record.environment}
    declared = [f"{name}={variables[name]}" for name in THREAD_VARIABLES if name in variables]
    threads = {"threads": ", ".join(declared) or f"unset: {record.machine.cpus} CPUs"}
    libraries = record.image.libraries
    if libraries is None:
        return {**threads, "libraries": NOT_KNOWN}
    kernels = {one.version: kernel(one, record.machine, variables) for one in libraries if one.kernels}
    return {**threads, **_versions(libraries), **_kernels(kernels)}


def _versions(libraries: Sequence[Library]) -> dict[str, str]:
    found: dict[str, dict[str, None]] = {}
    for one in libraries:
        found.setdefault(one.name, {})[one.version or one.file] = None
    return {f"library {name}": ", ".join(versions) for name, versions in found.items()}


def _kernels(kernels: Mapping[str, str | None]) -> dict[str, str]:
    """Name the kernels, by the versions of OpenBLAS that take them if these are not of one mind."""
    names = {name or NOT_KNOWN for name in kernels.values()}
    if len(names) > 1:
        return {BLAS_KERNEL: ", ".join(f"{name or NOT_KNOWN} (of {version})" for version, name in kernels.items())}
    return {BLAS_KERNEL: names.pop()} if names else {}


def _flags(recorded: Sequence[str], found: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Say which instructions only one of the processors has."""
    gone, new = sorted(set(recorded) - set(found)), sorted(set(found) - set(recorded))
    if gone or new:
        yield "CPU flags", f"only there: {' '.join(gone) or NONE}", f"only here: {' '.join(new) or NONE}"


def _contents(files: Sequence[Artifact]) -> set[tuple[str, str]]:
    return {(file.path, file.sha256) for file in files}
