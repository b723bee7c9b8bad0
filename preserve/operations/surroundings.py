"""What may move a result besides command and inputs: this machine, and the numeric libraries of an image."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from preserve.documents import jsonform
from preserve.documents.lockfile import ImagePin
from preserve.documents.record import ImageUsed, Library, Machine, library_of
from preserve.documents.typed import typed
from preserve.errors import UserError
from preserve.oci import Layout
from preserve.operations.folder import Folder, write_file
from preserve.stores.libraries import numeric_libraries

STEERING = ("BLIS_", "GLIBC_TUNABLES", "GOTO_", "KMP_", "MKL_", "NPY_", "OMP_", "OPENBLAS_", "VECLIB_")
_SCHEMA = "preserve/libraries/1"  # another one when the search finds other things
_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What the search found in one image; ``None``: its layers could not be read."""

    libraries: tuple[Library, ...] | None


def read_machine() -> Machine:
    """Look at this machine's CPU and kernel."""
    processor = _processor()
    signature = [processor.get(name, "") for name in ("vendor_id", "cpu family", "model", "stepping")]
    numbers = [int(text) for text in signature[1:] if text.isdecimal()]
    return Machine(
        architecture=platform.machine(),
        cpu_model=processor.get("model name") or platform.processor() or _UNKNOWN,
        cpu_id="{}-{}-{:X}-{:X}".format(signature[0], *numbers) if len(numbers) == 3 else _UNKNOWN,
        cpu_flags=tuple(sorted((processor.get("flags") or processor.get("Features") or "").split())),
        cpus=len(os.sched_getaffinity(0)),
        kernel=f"{platform.system()} {platform.release()}",
    )


def _processor() -> Mapping[str, str]:
    """Read what Linux says of the first processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def image_used(folder: Folder, name: str, pin: ImagePin) -> ImageUsed:
    """Describe the image ``name``, which lies in the analysis' layout, as records do.

    Its layers are searched once; what is in them is remembered by the config's digest.

    Raises:
        DigestMismatch: a blob of it is not what its digest says.
    """
    image = Layout(folder.layout).image(pin.manifest_digest)
    variables = dict(entry.split("=", 1) for entry in image.settings.get("Env") or () if "=" in entry)
    return ImageUsed(
        name=name,
        manifest_digest=pin.manifest_digest,
        config_digest=pin.config_digest,
        libraries=_libraries(folder, pin),
        variables={name: value for name, value in sorted(variables.items()) if name.startswith(STEERING)},
    )


def _libraries(folder: Folder, pin: ImagePin) -> tuple[Library, ...] | None:
    file = folder.layout.parent / "libraries" / f"{pin.config_digest.hex}.json"
    known = _remembered(file)
    if known is None:
        layout = Layout(folder.layout)
        layers = layout.image(pin.manifest_digest).layers
        known = _Found(libraries=numeric_libraries(layout.stream(layer) for layer in layers))
        file.parent.mkdir(exist_ok=True)
        write_file(file, jsonform.dump({"schema": _SCHEMA, "libraries": known.libraries}))
    return known.libraries


def _remembered(file: Path) -> _Found | None:
    """Give what an earlier run found; ``None`` where there was none, or one that searched in another way."""
    try:
        listed = jsonform.load(file.read_bytes(), file.name, schema=_SCHEMA)["libraries"]
        return typed(_Found(libraries=None if listed is None else tuple(library_of(one) for one in listed)))
    except (OSError, UserError, KeyError, TypeError, ValueError, AttributeError):
        return None  # it is a memory: what cannot be read is found again
