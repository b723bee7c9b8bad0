"""Which of its kernels an OpenBLAS takes on a given processor, by OpenBLAS's own rule.

OpenBLAS chooses when it is loaded, by the processor's vendor, family, model and instructions, and rounds otherwise
with each choice. The rule is that of ``driver/others/dynamic.c``, 64 bit, from 0.3.17 on; measured where it changed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from preserve.documents.record import Library, Machine

CORETYPE = "OPENBLAS_CORETYPE"  # names a kernel; an unknown name is as an unknown processor
FIRST = (0, 3, 17)  # earlier ones are not measured
BY_INSTRUCTIONS = (0, 3, 20)  # unknown processors get a kernel by their instructions; before, the oldest one
AVX512_OF_AMD = (0, 3, 21)  # AMD's processors with AVX-512 get kernels that use it; before, Zen's

_NAMES = {
    kernel.upper(): kernel
    for kernel in (
        *("Prescott", "Core2", "Atom", "Nano", "Penryn", "Dunnington", "Nehalem", "Sandybridge", "Haswell"),
        *("SkylakeX", "Cooperlake", "SapphireRapids", "Opteron", "Opteron_SSE3", "Barcelona", "Bobcat"),
        *("Bulldozer", "Piledriver", "Steamroller", "Excavator", "Zen"),
    )
} | dict.fromkeys(("KATMAI", "COPPERMINE", "NORTHWOOD", "BANIAS", "ATHLON"), "Prescott")  # those know 32 bit only
# What takes the place of a kernel that a library was built without, best first; at the end there is Prescott's.
_INSTEAD = {
    "SapphireRapids": ("Cooperlake", "SkylakeX", "Haswell", "Sandybridge", "Nehalem"),
    "Cooperlake": ("SkylakeX", "Haswell", "Sandybridge", "Nehalem"),
    "SkylakeX": ("Haswell", "Sandybridge", "Nehalem"),
    "Zen": ("Haswell", "Sandybridge", "Nehalem"),
    **dict.fromkeys(("Excavator", "Steamroller", "Piledriver", "Bulldozer"), ("Sandybridge", "Nehalem")),
    "Haswell": ("Sandybridge", "Nehalem"),
    **dict.fromkeys(("Sandybridge", "Barcelona", "Atom"), ("Nehalem",)),
    "Bobcat": ("Core2", "Nehalem"),
    **dict.fromkeys(("Penryn", "Dunnington", "Opteron", "Opteron_SSE3"), ("Core2",)),
}
# Intel's models of family 6, by the instructions that the rule asks for: it takes the first that the processor has.
_BY_AVX = ("Sandybridge", "Nehalem")
_BY_AVX2 = ("Haswell", *_BY_AVX)
_BY_AVX512 = ("SkylakeX", *_BY_AVX2)
_BY_BF16 = ("Cooperlake", *_BY_AVX512)
_INTEL: Mapping[int, tuple[str, ...]] = {
    **dict.fromkeys((0x0F, 0x16), ("Core2",)),
    0x17: ("Penryn",),
    0x1D: ("Dunnington",),
    **dict.fromkeys((0x1C, 0x37), ("Atom",)),
    **dict.fromkeys((0x1A, 0x1B, 0x1E, 0x1F, 0x25, 0x2C, 0x2E, 0x2F, 0x4C, 0x4D, 0x5C, 0x5F, 0x7A), ("Nehalem",)),
    **dict.fromkeys((0x2A, 0x2D, 0x3A, 0x3E), _BY_AVX),
    **dict.fromkeys((0x3C, 0x3D, 0x3F, 0x45, 0x46, 0x47, 0x4E, 0x4F, 0x56, 0x57, 0x5E, 0x66, 0x8E, 0x9E), _BY_AVX2),
    **dict.fromkeys((0xA5, 0xA6), _BY_AVX2),
    **dict.fromkeys((0x7D, 0x7E, 0x8C, 0x8D, 0xA7), _BY_AVX512),
    **dict.fromkeys((0x55, 0x6A, 0x6C, 0x97, 0x9A), _BY_BF16),
    0x8F: ("SapphireRapids", *_BY_BF16),
}
_LATER_WITH_AMX = (0xAD, 0xAE, 0xCF)  # known to some versions only: which, is not measured
# AMD's family 21: by the lower digit of the model, else by the upper one.
_BULLDOZERS = {0x1: "Bulldozer", 0x2: "Piledriver", 0x3: "Piledriver", 0x5: "Excavator"}
_LATER_BULLDOZERS = {0x1: "Piledriver", 0x3: "Steamroller", 0x6: "Excavator"}
_NEEDED = {
    "SapphireRapids": ("avx512vl", "amx_tile", "amx_bf16"),
    "Cooperlake": ("avx512vl", "avx512_bf16"),
    "SkylakeX": ("avx512vl",),
    "Haswell": ("avx2",),
    "Sandybridge": ("avx",),
    "Zen": ("avx",),
    **dict.fromkeys(("Bulldozer", "Piledriver", "Steamroller", "Excavator"), ("avx",)),
}
_ID = re.compile(r"(\w+)-(\d{1,4})-([0-9A-F]{1,4})-[0-9A-F]{1,4}", re.ASCII)


def kernel(library: Library, machine: Machine, variables: Mapping[str, str]) -> str | None:
    """Give the kernel that an OpenBLAS takes, as ``openblas_get_corename`` calls it (its older names: Prescott).

    ``variables`` is the environment. ``None``: it cannot be said, since the library is no OpenBLAS or has one kernel
    only, the version or the processor is none that the rule was measured for.
    """
    built = {_NAMES[name] for name in library.kernels if name in _NAMES}
    version = _version(library.version)
    if not built or version < FIRST or machine.architecture != "x86_64":
        return None
    forced = variables.get(CORETYPE)
    if forced is None:
        wanted = _of_processor(machine, version, built)
    else:
        wanted = _NAMES.get(forced.upper()) or _by_instructions(version, machine.cpu_flags)
    if wanted is None:
        return None
    return next((one for one in (wanted, *_INSTEAD.get(wanted, ())) if one in built), "Prescott")


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d{1,9}", text[:100], re.ASCII)[:3])


def _of_processor(machine: Machine, version: tuple[int, ...], built: Collection[str]) -> str | None:
    found = _ID.fullmatch(machine.cpu_id)
    if found is None:
        return None
    vendor, family, model = found[1], int(found[2]), int(found[3], 16)
    flags = frozenset(machine.cpu_flags)
    if vendor == "GenuineIntel":
        if "SapphireRapids" in built and model in _LATER_WITH_AMX:
            return None
        wanted = _of_intel(family, model, flags)
    elif vendor in ("AuthenticAMD", "HygonGenuine"):
        wanted = _of_amd(family, model, flags, version)
    else:
        return None
    return wanted or _by_instructions(version, flags)


def _of_intel(family: int, model: int, flags: Collection[str]) -> str | None:
    """Give the kernel for a known processor of Intel; ``None``: it is not known."""
    if family == 15 or (family == 6 and model <= 0xE):
        return "Prescott"
    return _best(_INTEL.get(model, ()), flags) if family == 6 else None


def _of_amd(family: int, model: int, flags: Collection[str], version: tuple[int, ...]) -> str | None:
    """Give the kernel for a known processor of AMD (of Hygon: made after it); ``None``: it is not known."""
    if family in (15, 17):
        return "Opteron" if "pni" in flags else "Opteron_SSE3"  # OpenBLAS calls these two by each other's name
    if family in (20, 22):
        return "Bobcat"
    if family == 21:
        upper, lower = divmod(model, 16)
        named = _LATER_BULLDOZERS.get(upper) if lower in (0, 8) else _BULLDOZERS.get(lower)
        return _best((named, "Barcelona"), flags) if named else None
    if family in (23, 24):
        return _best(("Zen", "Barcelona"), flags)
    if family == 25:
        new = ("Cooperlake", "SkylakeX") if version >= AVX512_OF_AMD else ()
        return _best((*new, "Zen", "Barcelona"), flags)
    return None


def _by_instructions(version: tuple[int, ...], flags: Collection[str]) -> str:
    """Give the kernel for a processor that is not known, or where the environment names one that is not."""
    if version < BY_INSTRUCTIONS:
        return "Prescott"
    return _best(("Cooperlake", "SkylakeX", "Haswell", "Sandybridge", "Prescott"), flags) or "Prescott"


def _best(kernels: tuple[str, ...], flags: Collection[str]) -> str | None:
    return next((one for one in kernels if all(flag in flags for flag in _NEEDED.get(one, ()))), None)
