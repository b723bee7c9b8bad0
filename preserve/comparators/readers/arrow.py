"""Parquet and Feather: every column of every row; how it was cut into groups and compressed never decides."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from preserve.comparators.extras import library
from preserve.comparators.leaves import Leaf, Limits, TooMuch, Unreadable
from preserve.comparators.making import kept, text
from preserve.comparators.pieces import VALID, Piece, leaves_of_pieces
from preserve.comparators.trial import survive

_ROWS = 1 << 16  # at a time
_UNFOLDED = 256 << 20  # bytes of texts at a time
_HARMLESS = 64 << 20  # bytes: below this nothing is said about the ratio of unpacked to packed


class Arrow:
    """Columns by name: ``px``; where values are missing ``px:valid``; of lists ``px:counts`` and ``px/item``."""

    name = "arrow"

    def sniff(self, head: bytes, name: str) -> int:
        """Sure by the first bytes."""
        return 95 if head.startswith((b"PAR1", b"ARROW1")) else 0

    def leaves(self, file: Path, limits: Limits) -> Iterator[Leaf]:
        """Yield the schema and every column.

        Raises:
            TooMuch: a limit was passed.
            Unreadable: the file is broken.
            MissingExtra: pyarrow is not installed.
        """
        survive(self.name, file, limits)
        return self.attempt(file, limits)

    def attempt(self, file: Path, limits: Limits) -> Iterator[Leaf]:
        """Yield what may harm whoever reads it: for the other process (trial.py)."""
        return kept(_table(file, limits), limits)


def _table(file: Path, limits: Limits) -> Iterator[Leaf]:
    arrow = library("pyarrow", "arrow")
    with file.open("rb") as stream:
        opened: Any = _Parquet if stream.read(4) == b"PAR1" else _Feather
    try:
        table = opened(file, limits)
        yield from _about(table)
        for place in range(len(table.schema)):
            yield from _column(table, place, limits)
    except (arrow.ArrowException, OSError, MemoryError) as error:
        raise Unreadable(f"cannot be read as {opened.__name__.strip('_')}: {error}") from error


def _about(table: Any) -> Iterator[Leaf]:
    yield text("columns", json.dumps([(field.name, str(field.type), field.nullable) for field in table.schema]))
    yield text("rows", str(table.rows))
    yield text("made by", table.made_by, volatile=True)
    for key, value in (table.schema.metadata or {}).items():
        name, content = key.decode(errors="replace"), value.decode(errors="replace")
        derived = name == "ARROW:schema"  # says the columns again, in a form that depends on the version
        yield text(f"metadata/{name}", _without_versions(content), volatile=derived)


def _without_versions(content: str) -> str:
    """What pandas notes about a table, without the versions of pandas and of the library that wrote it."""
    try:
        noted = json.loads(content)
    except ValueError:
        return content
    if not isinstance(noted, dict) or "pandas_version" not in noted:
        return content
    return json.dumps({key: noted[key] for key in sorted(noted) if key not in ("pandas_version", "creator")})


class _Parquet:
    """A Parquet file: batches of one column at a time."""

    def __init__(self, file: Path, limits: Limits) -> None:
        parquet = library("pyarrow.parquet", "arrow")
        described = parquet.ParquetFile(file)
        about = described.metadata
        self.schema, self.rows = described.schema_arrow, about.num_rows
        self.made_by = f"{about.created_by}, format {about.format_version}, {about.num_row_groups} groups of rows"
        unpacked = sum(about.row_group(place).total_byte_size for place in range(about.num_row_groups))
        _harmless(max(unpacked, self.rows * _width(self.schema)), file.stat().st_size, limits)
        # A long text that comes a million times is in the file once: it is not unfolded before it is known how long.
        words = [field.name for field in self.schema if _is_words(field.type)]
        self._file = parquet.ParquetFile(file, read_dictionary=words)

    def batches(self, place: int) -> Iterator[Any]:
        """Yield one column's arrays."""
        name = self.schema.field(place).name
        for batch in self._file.iter_batches(batch_size=_ROWS, columns=[name], use_threads=False):
            if batch.schema.names != [name]:  # "a.b" is also a field of a
                raise Unreadable(f"{name} names more than one column")
            yield batch.column(0)


class _Feather:
    """A Feather (Arrow IPC) file: its batches, mapped into memory."""

    def __init__(self, file: Path, limits: Limits) -> None:
        arrow = library("pyarrow", "arrow")
        self._file = library("pyarrow.ipc", "arrow").open_file(arrow.memory_map(str(file)))
        self.schema = self._file.schema
        if self._file.num_record_batches > limits.members:
            raise TooMuch(f"more than {limits.members} batches of rows")
        self.rows = 0
        for place in range(self._file.num_record_batches):
            self.rows += self._file.get_batch(place).num_rows
            _harmless(self.rows * max(1, _width(self.schema)), file.stat().st_size, limits)
        self.made_by = f"{self._file.num_record_batches} batches of rows"

    def batches(self, place: int) -> Iterator[Any]:
        """Yield one column's arrays."""
        for number in range(self._file.num_record_batches):
            yield self._file.get_batch(number).column(place)


def _is_words(kind: Any) -> bool:
    types = library("pyarrow", "arrow").types
    return bool(types.is_string(kind) or types.is_binary(kind))


def _width(schema: Any) -> int:
    """Bytes of a row, as far as its columns have a fixed width."""
    types = library("pyarrow", "arrow").types
    return sum(max(1, kind.bit_width // 8) for kind in schema.types if types.is_primitive(kind))


def _check_unfolded(path: str, array: Any, limits: Limits) -> None:
    """See how long the texts of a dictionary are when every row has its own.

    Raises:
        TooMuch: together they are too long.
    """
    if not _is_words(array.dictionary.type) or not len(array.dictionary):
        return
    compute = library("pyarrow.compute", "arrow")
    lengths = compute.binary_length(array.dictionary).fill_null(0)
    total = compute.sum(lengths.cast("int64").take(array.indices)).as_py() or 0
    if total > min(limits.bytes, _UNFOLDED):
        raise TooMuch(f"{path}: {len(array)} rows unfold to {total} bytes of text")


def _harmless(unpacked: int, packed: int, limits: Limits) -> None:
    if unpacked > limits.bytes:
        raise TooMuch(f"it unpacks to more than {limits.bytes} bytes")
    if unpacked > max(_HARMLESS, limits.ratio * packed):
        raise TooMuch(f"it unpacks to more than {limits.ratio} times its size")


def _column(table: Any, place: int, limits: Limits) -> Iterator[Leaf]:
    name = table.schema.field(place).name.replace("/", "%2F")

    def pieces() -> Iterator[Piece]:
        for array in table.batches(place):
            yield _parts("", array, replace(limits, depth=limits.depth - 1))

    return leaves_of_pieces(name, pieces, limits)


def _parts(path: str, array: Any, limits: Limits) -> dict[str, Any]:
    """Give the arrays and texts that an Arrow array is made of."""
    types = library("pyarrow", "arrow").types
    if limits.depth < 0:
        raise TooMuch(f"nested too deeply at {path[:80]}")
    inner = replace(limits, depth=limits.depth - 1)
    parts: dict[str, Any] = {f"{path}{VALID}": array.is_valid().to_numpy(zero_copy_only=False)}
    kind = array.type
    if isinstance(kind, library("pyarrow", "arrow").BaseExtensionType):
        return _parts(path, array.storage, inner)
    if types.is_dictionary(kind):
        _check_unfolded(path, array, limits)
        return _parts(path, array.dictionary_decode(), inner)
    if types.is_struct(kind):
        for field, values in zip(kind, array.flatten(), strict=True):
            parts |= _parts(f"{path}/{field.name.replace('/', '%2F')}", values, inner)
    elif types.is_list(kind) or types.is_large_list(kind):
        parts[f"{path}:counts"] = _flat(array.value_lengths())
        parts |= _parts(f"{path}/item", array.flatten(), inner)
    elif types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind):
        parts[path] = _flat(array)
    elif types.is_temporal(kind) and not types.is_interval(kind):
        parts[path] = _flat(array.view(f"int{kind.bit_width}"))
    else:
        parts[path] = "".join(f"{value!r}\n" for value in array.to_pylist())
    return parts


def _flat(array: Any) -> np.ndarray[Any, Any]:
    """Give numbers without the missing ones, whose bytes mean nothing."""
    made: np.ndarray[Any, Any] = array.drop_null().to_numpy(zero_copy_only=False)
    return made
