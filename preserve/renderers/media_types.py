"""Media types of the files that analyses have, by suffix: a table of our own, the same on every machine."""

from __future__ import annotations

_TYPES = {
    "awk": "text/x-awk",
    "bundle": "application/x-git-bundle",
    "c": "text/x-c",
    "cc": "text/x-c++",
    "cpp": "text/x-c++",
    "cxx": "text/x-c++",
    "csv": "text/csv",
    "gz": "application/gzip",
    "h": "text/x-c",
    "h5": "application/x-hdf5",
    "hdf5": "application/x-hdf5",
    "html": "text/html",
    "ipynb": "application/x-ipynb+json",
    "jpg": "image/jpeg",
    "json": "application/json",
    "lock": "application/json",
    "log": "text/plain",
    "md": "text/markdown",
    "parquet": "application/vnd.apache.parquet",
    "patch": "text/x-diff",
    "pdf": "application/pdf",
    "png": "image/png",
    "ps": "application/postscript",
    "py": "text/x-python",
    "root": "application/x-root",
    "sh": "application/x-sh",
    "svg": "image/svg+xml",
    "tar": "application/x-tar",
    "tex": "application/x-tex",
    "txt": "text/plain",
    "xml": "application/xml",
    "yaml": "application/yaml",
    "yml": "application/yaml",
    "zip": "application/zip",
}


def media_type(name: str) -> str:
    """Media type of a file by its name; ``application/octet-stream`` where the suffix says nothing."""
    return _TYPES.get(name.rpartition("/")[2].rpartition(".")[2].lower(), "application/octet-stream")
