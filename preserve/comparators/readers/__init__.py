"""Readers: one format each, a file to leaves. The built-in ones by name, imported when a file is first looked at.

A reader's module imports nothing heavy at its top: what its format needs is imported in ``leaves``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache

from preserve.comparators.leaves import Reader

# name: module below this package, colon, class. The order decides where two readers are equally sure.
BUILT_INS: Mapping[str, str] = {
    "root": "root:Root",
    "hepmc": "hepmc:HepMC",
    "lhe": "hepmc:Lhe",
    "pdf": "pdf:Pdf",
    "svg": "svg:Svg",
    "postscript": "postscript:PostScript",
    "yoda": "yoda:Yoda",
    "pyhf": "pyhf:Pyhf",
    "hdf5": "hdf5:Hdf5",
    "arrow": "arrow:Arrow",
    "image": "image:Image",
    "npy": "npy:Npy",
    "npz": "npy:Npz",
    "json": "json:Json",
    "yaml": "yaml:Yaml",
    "csv": "csv:Table",
    "zip": "containers:Zip",
    "tar": "containers:Tar",
    "compressed": "containers:Compressed",
    "text": "text:Text",
    "bytes": "bytes:Bytes",
}


def reader(name: str) -> Reader:
    """Give a built-in reader by its name."""
    return _made(BUILT_INS[name])


@cache
def _made(place: str) -> Reader:
    module, _, kind = place.partition(":")
    made: Reader = getattr(importlib.import_module(f"{__name__}.{module}"), kind)()
    return made
