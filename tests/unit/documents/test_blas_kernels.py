"""The kernel that OpenBLAS takes: against the real one of numpy's wheel, and what others were measured to take."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from preserve.documents.blas_kernels import CORETYPE, kernel
from preserve.documents.record import Library, Machine
from preserve.operations.surroundings import read_machine
from preserve.stores.libraries import openblas_in

OF_WHEEL = ("HASWELL", "NEHALEM", "PRESCOTT", "SANDYBRIDGE", "SKYLAKEX")
OF_DEBIAN = (
    *(
        "ATHLON",
        "ATOM",
        "BANIAS",
        "BARCELONA",
        "BOBCAT",
        "BULLDOZER",
        "COOPERLAKE",
        "COPPERMINE",
        "CORE2",
        "DUNNINGTON",
    ),
    *("EXCAVATOR", "HASWELL", "KATMAI", "NANO", "NEHALEM", "NORTHWOOD", "OPTERON", "OPTERON_SSE3", "PENRYN"),
    *("PILEDRIVER", "PRESCOTT", "SANDYBRIDGE", "SKYLAKEX", "STEAMROLLER", "ZEN"),
)
WHEEL = Library(name="OpenBLAS", version="0.3.31.188.0", file="numpy.libs/libscipy_openblas64_.so", kernels=OF_WHEEL)
DEBIAN = Library(name="OpenBLAS", version="0.3.21", file="usr/lib/libopenblasp-r0.3.21.so", kernels=OF_DEBIAN)
ASK = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
names = [p + "openblas_get_corename" + s for p in ("scipy_", "") for s in ("64_", "")]
ask = next(getattr(library, name) for name in names if hasattr(library, name))
ask.restype = ctypes.c_char_p
print(ask().decode())
"""


def machine(cpu_id: str, *flags: str, architecture: str = "x86_64") -> Machine:
    return Machine(
        architecture=architecture, cpu_model="a CPU", cpu_id=cpu_id, cpu_flags=flags, cpus=2, kernel="Linux 6"
    )


AVX512 = ("avx", "avx2", "avx512f", "avx512vl", "pni")
EPYC_9004 = machine("AuthenticAMD-25-11-1", *AVX512, "avx512_bf16")


@pytest.fixture(scope="module")
def library() -> tuple[Path, Library]:
    """The OpenBLAS that numpy's wheel brings."""
    folder = Path(np.__file__).parents[1] / "numpy.libs"
    (file,) = folder.glob("lib*openblas*.so*")
    return file, openblas_in(file)


class TestAgainstTheRealOne:
    """Of this machine's processor, in a process of its own: the choice is made when the library is loaded."""

    @pytest.mark.parametrize(
        "coretype",
        [None, "", "Haswell", "hasWELL", "Zen", "SkylakeX", "Cooperlake", "Sandybridge", "Nehalem", "Prescott", "x"],
    )
    def test_the_rule_gives_what_it_takes(self, library: tuple[Path, Library], coretype: str | None) -> None:
        file, found = library
        variables = {} if coretype is None else {CORETYPE: coretype}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
        asked = [sys.executable, "-c", ASK, str(file)]
        answer = subprocess.run(asked, env=environment | variables, capture_output=True, text=True, check=True)
        # where kernels stand for several processors it says the first one's name, and Prescott's stand for Katmai
        said = answer.stdout.strip().replace("Katmai", "Prescott")
        assert kernel(found, read_machine(), variables) == said

    def test_kernels_and_version_are_read_from_the_file(self, library: tuple[Path, Library]) -> None:
        _, found = library
        assert {"HASWELL", "PRESCOTT", "SKYLAKEX"} <= set(found.kernels)
        assert tuple(map(int, found.version.split(".")[:3])) >= (0, 3, 21)


MEASURED = [  # by qemu-user 7.2 with -cpu, of which the CPUID leaves are given here: numpy 2.4's wheel, Debian's 0.3.21
    ("Conroe", machine("GenuineIntel-6-F-3", "pni"), "Prescott", "Core2"),
    ("Penryn", machine("GenuineIntel-6-17-3", "pni"), "Prescott", "Penryn"),
    ("Nehalem", machine("GenuineIntel-6-1A-3", "pni"), "Nehalem", "Nehalem"),
    ("Westmere", machine("GenuineIntel-6-2C-1", "pni"), "Nehalem", "Nehalem"),
    ("SandyBridge", machine("GenuineIntel-6-2A-1", "pni", "avx"), "Sandybridge", "Sandybridge"),
    ("IvyBridge", machine("GenuineIntel-6-3A-9", "pni", "avx"), "Sandybridge", "Sandybridge"),
    ("Haswell", machine("GenuineIntel-6-3C-4", "pni", "avx", "avx2"), "Haswell", "Haswell"),
    ("Broadwell", machine("GenuineIntel-6-3D-2", "pni", "avx", "avx2"), "Haswell", "Haswell"),
    ("Skylake-Client", machine("GenuineIntel-6-5E-3", "pni", "avx", "avx2"), "Haswell", "Haswell"),
    ("Skylake-Server", machine("GenuineIntel-6-55-4", "pni", "avx", "avx2"), "Haswell", "Haswell"),  # no AVX-512
    ("Denverton", machine("GenuineIntel-6-5F-1", "pni"), "Nehalem", "Nehalem"),
    ("Snowridge", machine("GenuineIntel-6-86-1", "pni"), "Prescott", "Prescott"),
    ("kvm64", machine("GenuineIntel-15-6-1", "pni"), "Prescott", "Prescott"),
    ("Opteron_G2", machine("AuthenticAMD-15-6-1", "pni"), "Prescott", "Opteron"),
    ("Opteron_G3", machine("AuthenticAMD-16-2-3", "pni"), "Prescott", "Prescott"),
    ("Opteron_G4", machine("AuthenticAMD-21-1-2", "pni", "avx"), "Sandybridge", "Bulldozer"),
    ("Opteron_G5", machine("AuthenticAMD-21-2-0", "pni", "avx"), "Sandybridge", "Piledriver"),
    ("max", machine("AuthenticAMD-15-6B-1", "pni", "avx", "avx2"), "Prescott", "Opteron"),
    ("EPYC", machine("AuthenticAMD-23-1-2", "pni", "avx", "avx2"), "Haswell", "Zen"),
    ("EPYC-Rome", machine("AuthenticAMD-23-31-0", "pni", "avx", "avx2"), "Haswell", "Zen"),
    ("EPYC-Milan", machine("AuthenticAMD-25-1-1", "pni", "avx", "avx2"), "Haswell", "Zen"),
    ("Dhyana", machine("HygonGenuine-24-0-1", "pni", "avx", "avx2"), "Haswell", "Zen"),
    ("an EPYC 9004 itself", EPYC_9004, "SkylakeX", "Cooperlake"),
]


@pytest.mark.parametrize(("processor", "wheel", "debian"), [row[1:] for row in MEASURED], ids=[r[0] for r in MEASURED])
def test_as_measured(processor: Machine, wheel: str, debian: str) -> None:
    assert (kernel(WHEEL, processor, {}), kernel(DEBIAN, processor, {})) == (wheel, debian)


@pytest.mark.parametrize(
    ("version", "chosen", "unknown_name"),  # measured on an EPYC 9004 with the wheels of numpy 1.21 to 1.26
    [
        ("0.3.17", "Zen", "Prescott"),
        ("0.3.18", "Zen", "Prescott"),
        ("0.3.20", "Zen", "Cooperlake"),
        ("0.3.23.dev", "Cooperlake", "Cooperlake"),
    ],
)
def test_the_rule_changed_with_the_versions(version: str, chosen: str, unknown_name: str) -> None:
    library = Library(name="OpenBLAS", version=version, file="x", kernels=OF_DEBIAN)
    assert kernel(library, EPYC_9004, {}) == chosen
    assert kernel(library, EPYC_9004, {CORETYPE: "nonsense"}) == unknown_name


class TestOtherProcessors:
    def test_new_ones_of_intel(self) -> None:
        rapids = machine("GenuineIntel-6-8F-6", *AVX512, "avx512_bf16", "amx_bf16", "amx_tile")
        full = Library(name="OpenBLAS", version="0.3.29", file="x", kernels=(*OF_DEBIAN, "SAPPHIRERAPIDS"))
        assert kernel(full, rapids, {}) == "SapphireRapids"
        assert kernel(DEBIAN, rapids, {}) == "Cooperlake"
        assert kernel(WHEEL, rapids, {}) == "SkylakeX"
        assert kernel(full, machine("GenuineIntel-6-55-B", *AVX512, "avx512_bf16"), {}) == "Cooperlake"
        assert kernel(full, machine("GenuineIntel-6-55-4", *AVX512), {}) == "SkylakeX"

    def test_one_that_only_some_versions_know_is_not_guessed(self) -> None:
        emerald = machine("GenuineIntel-6-CF-2", *AVX512, "avx512_bf16", "amx_bf16", "amx_tile")
        full = Library(name="OpenBLAS", version="0.3.26", file="x", kernels=(*OF_DEBIAN, "SAPPHIRERAPIDS"))
        assert kernel(full, emerald, {}) is None
        assert kernel(WHEEL, emerald, {}) == "SkylakeX"  # has nothing else for it

    @pytest.mark.parametrize(
        "other", [machine("unknown"), machine("CentaurHauls-7-B-0"), machine("unknown", architecture="aarch64")]
    )
    def test_what_is_not_known_is_not_said(self, other: Machine) -> None:
        assert kernel(WHEEL, other, {}) is None

    @pytest.mark.parametrize("text", ["9" * 5000, "٣.٣.٣", "", "..", "0.3." + "1" * 5000])
    def test_what_a_stranger_writes_is_no_number(self, text: str) -> None:
        assert kernel(Library(name="OpenBLAS", version=text, file="x", kernels=OF_WHEEL), EPYC_9004, {}) in (
            None,
            "SkylakeX",
        )
        assert kernel(WHEEL, machine(f"GenuineIntel-{text}-55-4"), {}) is None
        assert kernel(WHEEL, machine(f"GenuineIntel-6-{text}-4"), {}) is None

    def test_other_libraries_have_no_such_kernel(self) -> None:
        assert kernel(Library(name="glibc", version="2.36", file="libc.so.6"), EPYC_9004, {}) is None
        old = Library(name="OpenBLAS", version="0.3.10", file="x", kernels=OF_DEBIAN)
        assert kernel(old, EPYC_9004, {}) is None
