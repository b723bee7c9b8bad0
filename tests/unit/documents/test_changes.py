"""What two records say about where a different result may come from: libraries, kernels, threads, processors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from small_archive import PRODUCTS, STEPS, record

from preserve.documents.changes import BLAS_KERNEL, changes
from preserve.documents.record import Library, Machine, Record

WHEEL = ("HASWELL", "NEHALEM", "PRESCOTT", "SANDYBRIDGE", "SKYLAKEX")
OPENBLAS = Library(name="OpenBLAS", version="0.3.31", file="numpy.libs/libscipy_openblas64_.so", kernels=WHEEL)
GLIBC = Library(name="glibc", version="2.36-9+deb12u14", file="usr/lib/x86_64-linux-gnu/libc.so.6")
SKYLAKE = Machine(
    architecture="x86_64",
    cpu_model="Xeon Gold",
    cpu_id="GenuineIntel-6-55-4",
    cpu_flags=("avx", "avx2", "avx512f", "avx512vl"),
    cpus=16,
    kernel="Linux 6.1",
)
ROME = replace(
    SKYLAKE,
    cpu_model="EPYC 7742",
    cpu_id="AuthenticAMD-23-31-0",
    cpu_flags=("avx", "avx2"),
    cpus=16,
    kernel="Linux 6.1",
)


def made(machine: Machine = SKYLAKE, *, variables: dict[str, str] | None = None, **image: Any) -> Record:
    before = record(STEPS[0], 0, PRODUCTS[STEPS[0].id])
    environment = {**before.environment, **(variables or {})}
    image = {"libraries": (OPENBLAS, GLIBC), **image}
    return replace(before, machine=machine, environment=environment, image=replace(before.image, **image))


def told(recorded: Record, found: Record) -> dict[str, tuple[str, str]]:
    return {one.what: (one.recorded, one.found) for one in changes({"select": recorded}, {"select": found})}


class TestBlasKernel:
    def test_another_processor(self) -> None:
        found = told(made(SKYLAKE), made(ROME))
        assert found[BLAS_KERNEL] == ("SkylakeX", "Haswell")
        assert found["CPU's family, model and stepping"] == ("GenuineIntel-6-55-4", "AuthenticAMD-23-31-0")
        assert "threads" not in found
        assert "library glibc" not in found

    def test_two_processors_and_one_kernel(self) -> None:
        haswell = replace(SKYLAKE, cpu_id="GenuineIntel-6-3F-2", cpu_flags=("avx", "avx2"))
        assert BLAS_KERNEL not in told(made(haswell), made(ROME))

    def test_named_by_the_environment(self) -> None:
        found = told(made(), made(variables={"OPENBLAS_CORETYPE": "Haswell"}))
        assert found == {BLAS_KERNEL: ("SkylakeX", "Haswell"), "variable OPENBLAS_CORETYPE": ("none", "Haswell")}

    def test_named_by_the_image_unless_the_step_does(self) -> None:
        of_image = {"OPENBLAS_CORETYPE": "Nehalem"}
        found = told(made(), with_image_variables(made(), of_image))
        assert found == {BLAS_KERNEL: ("SkylakeX", "Nehalem")}
        both = with_image_variables(made(variables={"OPENBLAS_CORETYPE": "SkylakeX"}), of_image)
        assert BLAS_KERNEL not in told(made(), both)

    def test_two_openblas_that_take_different_ones(self) -> None:
        debian = Library(name="OpenBLAS", version="0.3.21", file="usr/lib/x.so", kernels=(*WHEEL, "ZEN"))
        found = told(made(libraries=(OPENBLAS,)), made(ROME, libraries=(OPENBLAS, debian)))
        assert found[BLAS_KERNEL] == ("SkylakeX", "Haswell (of 0.3.31), Zen (of 0.3.21)")
        assert found["library OpenBLAS"] == ("0.3.31", "0.3.31, 0.3.21")

    def test_a_processor_of_which_it_cannot_be_said(self) -> None:
        unknown = replace(SKYLAKE, cpu_id="CentaurHauls-7-B-0")
        assert told(made(), made(unknown))[BLAS_KERNEL] == ("SkylakeX", "not known")


def with_image_variables(before: Record, variables: dict[str, str]) -> Record:
    return replace(before, image=replace(before.image, variables=variables))


class TestLibraries:
    def test_versions(self) -> None:
        newer = replace(GLIBC, version="2.41-12")
        assert told(made(), made(libraries=(OPENBLAS, newer))) == {"library glibc": ("2.36-9+deb12u14", "2.41-12")}

    def test_another_library_by_the_same_name(self) -> None:
        places = [Library(name="libblas.so.3", version="", file=f"usr/lib/{one}") for one in ("blas/a", "openblas/b")]
        found = told(made(libraries=(places[0],)), made(libraries=(places[1],)))
        assert found == {"library libblas.so.3": ("usr/lib/blas/a", "usr/lib/openblas/b")}

    def test_a_library_with_the_name_of_something_else_hides_nothing(self) -> None:
        liar = Library(name="command", version="the same", file="x")
        before, after = made(libraries=(liar,)), replace(made(libraries=(liar,)), command=("rm", "-rf"))
        assert "command" in told(before, after)

    def test_layers_that_could_not_be_read(self) -> None:
        found = told(made(libraries=None), made(libraries=(GLIBC,)))
        assert found == {"libraries": ("not known", "none"), "library glibc": ("none", "2.36-9+deb12u14")}


class TestThreads:
    def test_as_many_as_there_are_cpus(self) -> None:
        found = told(made(), made(replace(SKYLAKE, cpus=2)))
        assert found == {"CPUs that may be used": ("16", "2"), "threads": ("unset: 16 CPUs", "unset: 2 CPUs")}

    def test_declared(self) -> None:
        one = {"OMP_NUM_THREADS": "1"}
        assert told(made(), made(variables=one)) == {"threads": ("unset: 16 CPUs", "OMP_NUM_THREADS=1")}
        fewer = replace(SKYLAKE, cpus=2)
        assert told(made(variables=one), made(fewer, variables=one)) == {"CPUs that may be used": ("16", "2")}
        assert told(made(variables=one), with_image_variables(made(), one)) == {}
