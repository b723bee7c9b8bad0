"""What a probe varies: one thing each that a step's result should not hang on, by plain options of the engines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from preserve.documents.changes import THREAD_VARIABLES
from preserve.documents.plan import PlannedStep
from preserve.documents.probe import Untried
from preserve.interfaces import RunRequest
from preserve.operations.run_step import WORK

ELSEWHERE = "/tmp/elsewhere"  # noqa: S108 - a path in the container; /tmp is writable in all of them
SOMEBODY = (54321, 54321)
PADDING = 5000  # bytes: more than a page, so that the stack begins on another one
# features that libm and the string functions of the C library choose their code by; old and new names, unknown ones
# are passed over
_HWCAPS = ("AVX2", "AVX2_Usable", "FMA", "FMA_Usable", "FMA4", "AVX512F", "AVX512F_Usable", "AVX512VL", "ERMS")
# OpenBLAS has this kernel in every build that chooses at run time; MKL and BLIS have their own words
_KERNELS = {
    "x86_64": {"OPENBLAS_CORETYPE": "Nehalem", "MKL_CBWR": "COMPATIBLE", "BLIS_ARCH_TYPE": "generic"},
    "aarch64": {"OPENBLAS_CORETYPE": "ARMV8", "BLIS_ARCH_TYPE": "generic"},
}
# libraries name themselves: OpenBLAS by a function that carries other prefixes and suffixes in wheels
_LOOK = """\
import ctypes, json, platform
seen = {"glibc": " ".join(platform.libc_ver()).strip(), "features": []}
try:
    import numpy
    try:
        from numpy._core import _multiarray_umath as inside
    except ImportError:
        from numpy.core import _multiarray_umath as inside
    seen["numpy"] = numpy.__version__
    seen["features"] = [name for name in inside.__cpu_dispatch__ if inside.__cpu_features__.get(name)]
    import numpy.linalg
    for path in {line.split()[-1] for line in open("/proc/self/maps") if "blas" in line}:
        library = ctypes.CDLL(path)
        for name in (a + "openblas_get_" + "%s" + b for a in ("", "scipy_") for b in ("", "64_", "_64", "64__")):
            if hasattr(library, name % "config"):
                for key, word in (("blas", "config"), ("blas_kernel", "corename")):
                    function = getattr(library, name % word)
                    function.restype = ctypes.c_char_p
                    seen[key] = function().decode()
except Exception as error:
    seen["problem"] = type(error).__name__ + ": " + str(error)
print(json.dumps(seen))
"""
# what is known of the image's own programs, asked of them in one container
LOOK = ("sh", "-c", 'python3 -c "$1" || python -c "$1" || true', "sh", _LOOK)
UNABLE: Mapping[str, Mapping[str, str]] = {"apptainer": {"user": "Apptainer runs containers as the caller"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """One change, or several at once.

    ``setting`` says it for people. ``environment`` is added to the step's; ``folder`` is the working folder in
    place of /work; ``reverse``: folders of inputs list their files in another order; ``umask`` is octal.
    ``held``: preserve gives each run the same, so that this only moves what is run otherwise. ``apart``: another one
    would be undone by it, so that it is tried by itself.
    """

    name: str
    setting: str
    environment: Mapping[str, str] = field(default_factory=dict)
    host_name: str | None = None
    user: tuple[int, int] | None = None
    umask: str | None = None
    cpus: tuple[int, ...] = ()
    folder: str = WORK
    reverse: bool = False
    held: bool = False
    apart: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the choice of settings hangs on.

    ``cpus``: numbers of those that this process may use; ``has_shell``: the image has one; ``features``: what numpy in
    the image chooses its code by on this CPU (none: no numpy there); ``image_environment``: variables that the image
    sets, which hold in every run; ``software``: versions of what computes there, by name.
    """

    architecture: str
    engine: str
    cpus: tuple[int, ...]
    has_shell: bool
    features: tuple[str, ...] = ()
    image_environment: frozenset[str] = frozenset()
    software: Mapping[str, str] = field(default_factory=dict)


PLAIN = Variation(name="unchanged", setting="nothing varied")
# the GNU C library fills with the complement: bytes of 0x7F, which read as huge numbers (1.4e306 as a double)
FILLED = Variation(
    name="memory", setting="fresh memory filled (MALLOC_PERTURB_=128)", environment={"MALLOC_PERTURB_": "128"}
)


def catalogue(step: PlannedStep, around: Surroundings) -> tuple[tuple[Variation, ...], tuple[Untried, ...]]:
    """Give what can be varied for a step here, and what cannot, with the reason."""
    problems = _problems(step, around)
    wanted = (*_of_the_session(), *_of_the_machine(step, around))
    return (
        tuple(_marked(one, around) for one in wanted if one.name not in problems),
        tuple(Untried(variation=one.name, reason=problems[one.name]) for one in wanted if one.name in problems),
    )


def one_thread(around: Surroundings) -> Variation:
    """Give the variation under which no two threads run at once."""
    return Variation(
        name="threads",
        setting="one CPU, one thread",
        cpus=around.cpus[:1],
        environment=dict.fromkeys(THREAD_VARIABLES, "1"),
    )


def combined(variations: Iterable[Variation]) -> Variation:
    """Give all variations at once."""
    made = Variation(name="together", setting="all at once")
    for one in variations:
        made = replace(
            made,
            environment={**made.environment, **one.environment},
            host_name=one.host_name or made.host_name,
            user=one.user or made.user,
            umask=one.umask or made.umask,
            cpus=one.cpus or made.cpus,
            folder=one.folder if one.folder != WORK else made.folder,
            reverse=one.reverse or made.reverse,
        )
    return made


def varied(request: RunRequest, variation: Variation) -> RunRequest:
    """Give the request of a step under a variation."""
    folder = variation.folder
    mounts = tuple(replace(mount, target=folder + mount.target.removeprefix(WORK)) for mount in request.mounts)
    return replace(
        request,
        command=_command(request.command, variation),
        environment={**request.environment, **variation.environment},
        mounts=mounts,
        working_folder=folder,
        host_name=variation.host_name or request.host_name,
        cpus_allowed=variation.cpus,
        user=variation.user,
    )


def read_look(text: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """Read what ``LOOK`` printed: what numpy chooses its code by, and versions of software by name."""
    try:
        value = json.loads(text)
    except ValueError:
        return (), {}
    if not isinstance(value, dict):
        return (), {}
    features = value.get("features")
    software = {name: said for name, said in value.items() if isinstance(said, str) and said}
    return tuple(str(name) for name in features) if isinstance(features, list) else (), software


def _command(command: tuple[str, ...], variation: Variation) -> tuple[str, ...]:
    """Put a shell before the command where no engine has an option: umask, and files for the caller to read."""
    if variation.umask is None and variation.user is None:
        return command
    script = f"umask {variation.umask}\n" if variation.umask else ""
    if variation.user is None:
        script += 'exec "$@"'
    else:  # what somebody else made, the caller has to read and to remove; inputs stay as they are, read-only
        script += '"$@"\ncode=$?\nchmod -R a+rwX . 2> /dev/null\nexit $code'
    return ("sh", "-c", script, "sh", *command)


def _marked(variation: Variation, around: Surroundings) -> Variation:
    """Mark as held what the image's own environment fixes."""
    fixed = variation.environment and variation.environment.keys() <= around.image_environment
    return replace(variation, held=True) if fixed else variation


def _problems(step: PlannedStep, around: Surroundings) -> dict[str, str]:
    found = dict(UNABLE.get(around.engine, {}))
    if not around.has_shell:
        found |= dict.fromkeys(("umask", "user"), "the image has no shell to set it")
    if len(around.cpus) < 2:
        found["cpu-count"] = "there is only one CPU here"
    if not around.features:
        found["numpy-dispatch"] = "no numpy in the image, or none that chooses by CPU"
    if around.architecture not in _KERNELS:
        found["blas-kernel"] = f"no other kernel is known for {around.architecture}"
    if around.architecture != "x86_64":
        found["glibc"] = f"its names of CPU features are not known for {around.architecture}"
    if any(WORK in text for text in (*step.command, *step.environment.values())):
        found["working-folder"] = f"the step's command names {WORK}"
    return found


def _of_the_session() -> tuple[Variation, ...]:
    return (
        _environment("hash-seed", {"PYTHONHASHSEED": "1", "PERL_HASH_SEED": "1"}, held=True),
        _environment("time-zone", {"TZ": "PRB-13:45"}, held=True),
        _environment("locale", {"LANG": "de_DE.UTF-8", "LC_ALL": "de_DE.UTF-8"}, held=True),
        _environment("home", {"HOME": "/var/tmp"}, held=True),  # noqa: S108 - a path in the container
        _environment("source-date", {"SOURCE_DATE_EPOCH": "1000000000"}, held=True),
        Variation(
            name="environment-size",
            setting=f"{PADDING} bytes more",
            environment={"PRESERVE_PADDING": "x" * PADDING},
            held=True,
        ),
        Variation(name="host-name", setting="host name elsewhere", host_name="elsewhere", held=True),
        Variation(name="working-folder", setting=f"in {ELSEWHERE}", folder=ELSEWHERE, held=True),
        Variation(name="user", setting=f"uid {SOMEBODY[0]}", user=SOMEBODY),
        Variation(name="umask", setting="umask 0077", umask="0077"),
        Variation(name="input-order", setting="folders listed in another order", reverse=True),
    )


def _of_the_machine(step: PlannedStep, around: Surroundings) -> tuple[Variation, ...]:
    declared = step.environment.get("OMP_NUM_THREADS")
    threads = "2" if declared == "1" else "1"
    hwcaps = ",".join(f"-{name}" for name in _HWCAPS)
    return (
        # two threads are one again where there is but one CPU
        Variation(
            name="cpu-count", setting=f"1 CPU of {len(around.cpus)}", cpus=around.cpus[-1:], apart=threads == "2"
        ),
        Variation(
            name="threads",
            setting=f"OMP_NUM_THREADS={threads} and its like",
            environment=dict.fromkeys(THREAD_VARIABLES, threads),
            held=declared is not None,
        ),
        _environment("blas-kernel", _KERNELS.get(around.architecture, {})),
        _environment("numpy-dispatch", {"NPY_DISABLE_CPU_FEATURES": " ".join(around.features)}),
        Variation(
            name="glibc",
            setting="GLIBC_TUNABLES: without AVX2, FMA, AVX512",
            environment={"GLIBC_TUNABLES": f"glibc.cpu.hwcaps={hwcaps}"},
        ),
        FILLED,
    )


def _environment(name: str, variables: Mapping[str, str], *, held: bool = False) -> Variation:
    first = next((f"{variable}={value}" for variable, value in variables.items()), "")
    return Variation(name=name, setting=first, environment=variables, held=held)
