"""HDF5: groups, datasets, attributes and links. No link is followed out of the file."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from preserve.comparators.extras import library
from preserve.comparators.leaves import Leaf, Limits, TooMuch, Unreadable
from preserve.comparators.making import kept, number, opaque, text, unreadable
from preserve.comparators.pieces import SHORT, Piece, leaf_of_pieces, leaves_of_pieces
from preserve.comparators.trial import survive

_SIGNATURE = b"\x89HDF\r\n\x1a\n"  # at 0, or after a user block of 512, 1024, 2048 ... bytes
_PIECE = 16 << 20  # bytes read at a time
_HARMLESS = 64 << 20  # bytes: below this nothing is said about the ratio of unpacked to packed
_WORDS = 1 << 28  # bytes that the texts read at a time may need at most
_DEFLATE = 1  # id of the filter
_INFLATES = 1032  # no deflate stream grows by more


class Hdf5:
    """Datasets by their place (``fit/parameters``; of a table ``events.px``), attributes (``fit@author``), links."""

    name = "hdf5"

    def sniff(self, head: bytes, name: str) -> int:
        """Sure by the signature."""
        places = (0, *(512 << power for power in range(7)))
        return 95 if any(head[place : place + len(_SIGNATURE)] == _SIGNATURE for place in places) else 0

    def leaves(self, file: Path, limits: Limits) -> Iterator[Leaf]:
        """Yield the leaves of every group and dataset.

        Raises:
            TooMuch: a limit was passed.
            Unreadable: the file is broken.
            MissingExtra: h5py is not installed.
        """
        survive(self.name, file, limits)
        return kept(_File(file, limits).leaves(), limits)

    def attempt(self, file: Path, limits: Limits) -> Iterator[Leaf]:
        """Yield what may harm whoever reads it: for the other process (trial.py)."""
        return kept(_File(file, limits, attempt=True).leaves(), limits)


class _File:
    """One pass over a file. Every dataset is opened anew when it is loaded, so that no file stays open."""

    def __init__(self, file: Path, limits: Limits, *, attempt: bool = False) -> None:
        self._attempt = attempt
        self._h5py = library("h5py", "hdf5")
        self._file, self._limits = file, limits
        self._size = file.stat().st_size
        self._met: dict[Any, str] = {}

    def leaves(self) -> Iterator[Leaf]:
        try:
            with self._open() as root:
                if root.userblock_size:
                    with self._file.open("rb") as stream:
                        yield opaque("user block", stream.read(root.userblock_size))
                yield from self._node("", root, 0)
        except (OSError, RuntimeError, KeyError) as error:
            raise Unreadable(f"is no HDF5 that can be read: {error}") from error

    def _open(self) -> Any:
        return self._h5py.File(self._file, "r", locking=False)

    def _node(self, path: str, node: Any, depth: int) -> Iterator[Leaf]:
        if depth > self._limits.depth:
            raise TooMuch(f"nested more than {self._limits.depth} deep at {path[:80]}")
        about = self._h5py.h5o.get_info(node.id)
        first = self._met.setdefault((about.fileno, about.addr), path)
        if first != path:
            yield text(f"{path}:link", f"hard link to {first or '/'}")
            return
        yield from self._attributes(path, node)
        if isinstance(node, self._h5py.Dataset):
            yield from self._dataset(path, node)
        elif isinstance(node, self._h5py.Group):
            yield text(f"{path}:class", "group")
            yield from self._members(path, node, depth)
        else:
            yield text(f"{path}:class", f"named type {_type(node.id)}")

    def _members(self, path: str, group: Any, depth: int) -> Iterator[Leaf]:
        for name in sorted(group):
            inner = f"{path}/{name}" if path else name
            link = group.get(name, getlink=True)
            if isinstance(link, self._h5py.SoftLink):
                yield text(f"{inner}:link", f"soft link to {link.path}")
            elif isinstance(link, self._h5py.ExternalLink):
                yield text(f"{inner}:link", f"external link to {link.path} in {link.filename}, not followed")
            else:
                yield from self._node(inner, group[name], depth + 1)

    def _attributes(self, path: str, node: Any) -> Iterator[Leaf]:
        for name in sorted(node.attrs):
            inner = f"{path}@{name}"
            attribute = node.attrs.get_id(name)
            if np.prod(attribute.shape or (), dtype=float) * attribute.dtype.itemsize > self._limits.bytes:
                raise TooMuch(f"{inner} is longer than {self._limits.bytes} bytes")
            try:
                yield from self._value(inner, node.attrs[name], attribute)
            except (OSError, TypeError, ValueError) as error:
                yield unreadable(inner, str(error))

    def _value(self, path: str, value: Any, where: Any) -> Iterator[Leaf]:
        """Yield the leaves of an attribute's value, which is at hand."""
        if isinstance(value, self._h5py.Empty):
            yield text(path, f"empty {_type(where)}")
        elif isinstance(value, str | bytes) or _holds_objects(value):
            yield text(path, self._words(np.asarray(value, dtype=object), path))
        else:
            yield text(f"{path}:type", _type(where))
            yield from (number(path + part, column) for part, column in _columns("", np.asarray(value)))

    def _dataset(self, path: str, dataset: Any) -> Iterator[Leaf]:
        reason = _leaves_the_file(dataset)
        if reason:
            yield unreadable(path, reason)
            return
        yield text(f"{path}:type", _type(dataset.id))
        yield text(f"{path}:storage", _storage(dataset), volatile=True)
        if dataset.shape is None:
            yield text(path, "empty")
            return
        yield text(f"{path}:shape", str(dataset.shape))
        self._check_size(path, dataset)
        if self._attempt and not dataset.dtype.hasobject:  # plain numbers, which harm nobody once they are found
            yield text(f"{path}:chunks", str(dataset.id.get_num_chunks() if dataset.chunks else 0))
            return
        if dataset.nbytes <= SHORT and dataset.dtype.kind in "biufc":
            yield leaf_of_pieces(path, lambda: self._pieces(path))
            return
        try:
            yield from leaves_of_pieces(path, lambda: self._pieces(path), self._limits)
        except (OSError, TypeError, ValueError, RuntimeError) as error:
            yield unreadable(path, str(error))

    def _check_size(self, path: str, dataset: Any) -> None:
        if dataset.nbytes > self._limits.bytes:
            raise TooMuch(f"{path} is longer than {self._limits.bytes} bytes")
        if dataset.nbytes > max(_HARMLESS, self._limits.ratio * dataset.id.get_storage_size()):
            raise TooMuch(f"{path} says that it unpacks to more than {self._limits.ratio} times its size")
        if dataset.chunks and np.prod(dataset.chunks, dtype=float) * dataset.dtype.itemsize > self._limits.bytes:
            raise TooMuch(f"{path} has chunks longer than {self._limits.bytes} bytes")
        _check_inflating(path, dataset)

    def _pieces(self, path: str) -> Iterator[Piece]:
        with self._open() as root:
            dataset = root[path]
            if not dataset.shape:
                yield self._piece(dataset[()], path)
                return
            rows = self._rows(dataset)
            for start in range(0, max(1, len(dataset)), rows):
                yield self._piece(dataset[start : start + rows], path)

    def _piece(self, values: Any, path: str) -> Piece:
        array = values if isinstance(values, np.ndarray) else np.asarray(values, dtype=_object_or_own(values))
        return {
            name: self._words(column, path) if column.dtype.hasobject else column
            for name, column in _columns("", array)
        }

    def _rows(self, dataset: Any) -> int:
        """How many rows at a time: whole chunks where that is not too much; few where a text may be the whole file."""
        row = max(1, int(np.prod(dataset.shape[1:], dtype=float))) * int(dataset.dtype.itemsize)
        if dataset.dtype.hasobject:
            return max(1, min(4096, _WORDS // max(1, self._size), _PIECE // row))
        rows = max(1, _PIECE // row)
        chunk = int(dataset.chunks[0]) if dataset.chunks else 1
        return max(chunk, rows - rows % chunk) if rows > chunk else rows

    def _words(self, values: np.ndarray[Any, Any], path: str) -> str:
        """Give texts, references and lists of varying length, one a line; nothing is unpickled."""
        lines, length = [], 0
        for value in values.reshape(-1):
            lines.append(self._word(value, path) + "\n")
            length += len(lines[-1])
            if length > self._limits.bytes:
                raise TooMuch(f"{path} is longer than {self._limits.bytes} bytes")
        return "".join(lines)

    def _word(self, value: Any, path: str) -> str:
        if isinstance(value, bytes):
            return json.dumps(value.decode("utf-8", "surrogateescape"))
        if isinstance(value, str):
            return json.dumps(value)
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            return f"{value.dtype.str} {value.shape} {value.tobytes().hex()}"
        if isinstance(value, np.ndarray):
            return json.dumps([self._word(inner, path) for inner in value])
        if isinstance(value, self._h5py.Reference | self._h5py.RegionReference):
            return self._reference(value)
        raise TypeError(f"{path} holds a {type(value).__name__}, which is not read")

    def _reference(self, value: Any) -> str:
        if not value:
            return "null reference"
        with self._open() as root:
            name = self._h5py.h5r.get_name(value, root.id)
            kind = type(value).__name__
            if isinstance(value, self._h5py.RegionReference):
                selected = self._h5py.h5r.get_region(value, root.id)
                return f"{kind} {name!r} {selected.get_select_bounds()} {selected.get_select_npoints()}"
            return f"{kind} {name!r}"


def _holds_objects(value: Any) -> bool:
    return not hasattr(value, "dtype") or bool(value.dtype.hasobject)


def _object_or_own(values: Any) -> Any:
    return object if _holds_objects(values) else values.dtype


def _columns(name: str, array: np.ndarray[Any, Any]) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Take a table apart into its columns, however deep they are."""
    if array.dtype.names is None:
        if array.dtype.kind == "V":  # bytes of no known meaning
            array = np.frombuffer(array.tobytes(), np.uint8).reshape(*array.shape, array.dtype.itemsize)
        yield name, array
        return
    for field in array.dtype.names:
        yield from _columns(f"{name}.{field}", np.ascontiguousarray(array[field]))


def _type(where: Any) -> str:
    """What the file says of a type: names of an enumeration, character set, references, but not the byte order."""
    kind = where if hasattr(where, "get_class") else where.get_type()
    dtype = kind.dtype if hasattr(kind, "dtype") else kind
    return f"{np.dtype(dtype).newbyteorder('<').descr} {dict(dtype.metadata or {})}"


def _leaves_the_file(dataset: Any) -> str | None:
    if dataset.is_virtual:
        return "it is a view of other files, which are not opened"
    if dataset.external:
        return "its content is in another file, which is not opened"
    return None


def _storage(dataset: Any) -> str:
    return f"chunks {dataset.chunks}, {dataset.compression}, shuffle {dataset.shuffle}, up to {dataset.maxshape}"


def _check_inflating(path: str, dataset: Any) -> None:
    """Inflate long chunks with an end in sight: HDF5 itself would go on until the stream ends or memory does.

    Raises:
        TooMuch: a chunk holds more than the file says.
    """
    creation = dataset.id.get_create_plist()
    filters = [creation.get_filter(place)[0] for place in range(creation.get_nfilters())]
    if not dataset.chunks or _DEFLATE not in filters:
        return
    nominal = int(np.prod(dataset.chunks)) * dataset.dtype.itemsize
    for place in range(dataset.id.get_num_chunks()):
        chunk = dataset.id.get_chunk_info(place)
        if chunk.size * _INFLATES < max(_HARMLESS, nominal):
            continue
        _, packed = dataset.id.read_direct_chunk(chunk.chunk_offset)
        if len(zlib.decompressobj().decompress(packed, nominal + 1024)) > nominal + 512:
            raise TooMuch(f"{path} has a chunk that unpacks to more than its {nominal} bytes")
