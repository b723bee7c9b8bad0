"""Parquet and Feather by pyarrow: what is changed in them, and the verdict that it must get."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pairs import judged, loosened
from pairs import write as write_file
from pyarrow import feather, parquet

from preserve.comparators.leaves import Leaf, Limits
from preserve.comparators.readers.arrow import Arrow

EQUIVALENT, DIFFERENT, UNCOMPARABLE = "equivalent", "different", "uncomparable"
ROWS = 40
PT = np.linspace(20.0, 60.0, ROWS)
COLUMNS: dict[str, Any] = {
    "pt": PT,
    "n": pa.array([None if i % 7 == 0 else i for i in range(ROWS)], pa.int64()),
    "name": [None if i == 3 else f"event {i}" for i in range(ROWS)],
    "hits": [[float(j) for j in range(i % 4)] if i != 5 else None for i in range(ROWS)],
    "muon": [{"charge": 1 - 2 * (i % 2), "eta": i / 10} for i in range(ROWS)],
    "region": pa.array([("barrel", "endcap")[i % 2] for i in range(ROWS)]).dictionary_encode(),
    "time": pa.array([datetime.datetime(2020, 1, 1, 0, i) for i in range(ROWS)], pa.timestamp("us")),
    "good": [i % 3 == 0 for i in range(ROWS)],
    "weight": [Decimal("1.10") + i for i in range(ROWS)],
    "extra": pa.array([[("a", i)] for i in range(ROWS)], pa.map_(pa.string(), pa.int32())),
}


def table(columns: dict[str, Any] = COLUMNS, metadata: dict[str, str] | None = None) -> pa.Table:
    return pa.table(columns).replace_schema_metadata(metadata or {"dataset": "A"})


FORMATS: dict[str, Callable[..., None]] = {
    "table.parquet": parquet.write_table,
    "table.feather": feather.write_feather,
}


def write(format_: str, made: pa.Table, **options: Any) -> Callable[[Path], None]:
    return lambda path: FORMATS[format_](made, path, **options)


def put(name: str, values: Any) -> pa.Table:
    return table({**COLUMNS, name: values})


def at(values: Any, place: int, value: Any) -> list[Any]:
    made = values.to_pylist() if isinstance(values, pa.Array) else list(values)
    made[place] = value
    return made


def nan_at(place: int) -> Any:
    return np.where(np.arange(ROWS) == place, np.nan, PT)


MUTATIONS: dict[str, tuple[pa.Table, str]] = {
    "one number": (put("pt", np.where(PT[7] == PT, 1.0, PT)), DIFFERENT),
    "the last digit": (put("pt", np.where(PT[7] == PT, np.nextafter(PT, 0), PT)), DIFFERENT),
    "a NaN": (put("pt", nan_at(7)), DIFFERENT),
    "missing instead of zero": (put("n", pa.array(at(COLUMNS["n"], 1, None), pa.int64())), DIFFERENT),
    "where one is missing": (put("n", pa.array([1, None, *COLUMNS["n"].to_pylist()[2:]], pa.int64())), DIFFERENT),
    "the type": (put("pt", PT.astype("f4")), DIFFERENT),
    "the type of whole numbers": (put("n", COLUMNS["n"].cast(pa.int32())), DIFFERENT),
    "a text": (put("name", at(COLUMNS["name"], 9, "event nine")), DIFFERENT),
    "a text that is empty": (put("name", at(COLUMNS["name"], 3, "")), DIFFERENT),
    "an element of a list": (put("hits", at(COLUMNS["hits"], 7, [0.0, 1.0, 2.5])), DIFFERENT),
    "an empty list for none": (put("hits", at(COLUMNS["hits"], 5, [])), DIFFERENT),
    "a list that moved": (put("hits", [*COLUMNS["hits"][1:], []]), DIFFERENT),
    "a field of a record": (put("muon", at(COLUMNS["muon"], 2, {"charge": -1, "eta": 0.2})), DIFFERENT),
    "a category": (put("region", pa.array(["barrel"] * ROWS).dictionary_encode()), DIFFERENT),
    "a time": (
        put("time", pa.array(at(COLUMNS["time"], 0, datetime.datetime(2021, 1, 1)), pa.timestamp("us"))),
        DIFFERENT,
    ),
    "the unit of times": (put("time", COLUMNS["time"].cast(pa.timestamp("ms"))), DIFFERENT),
    "a switch": (put("good", at(COLUMNS["good"], 1, True)), DIFFERENT),
    "a decimal": (put("weight", at(COLUMNS["weight"], 1, Decimal("2.11"))), DIFFERENT),
    "a map": (put("extra", pa.array([[("b", i)] for i in range(ROWS)], COLUMNS["extra"].type)), DIFFERENT),
    "the order of rows": (table().take(list(reversed(range(ROWS)))), DIFFERENT),
    "a row less": (table().slice(0, ROWS - 1), DIFFERENT),
    "a column less": (table().drop_columns(["good"]), DIFFERENT),
    "a column more": (put("more", PT), DIFFERENT),
    "a renamed column": (table().rename_columns(["PT", *list(COLUMNS)[1:]]), DIFFERENT),
    "what the author noted": (table(metadata={"dataset": "B"}), DIFFERENT),
}


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_mutations(mutation: str, format_: str) -> None:
    found, verdict = MUTATIONS[mutation]
    assert judged(format_, write(format_, table()), write(format_, found)).verdict == verdict


STORAGE: list[tuple[str, dict[str, Any]]] = [
    ("table.parquet", {"compression": "zstd"}),
    ("table.parquet", {"row_group_size": 7}),
    ("table.parquet", {"use_dictionary": False}),
    ("table.parquet", {"write_statistics": False}),
    ("table.feather", {"compression": "zstd"}),
    ("table.feather", {"chunksize": 9}),
]


@pytest.mark.parametrize(("format_", "options"), STORAGE)
def test_how_it_is_stored_does_not_matter(format_: str, options: dict[str, Any]) -> None:
    stored = write(format_, table(), **options)
    assert judged(format_, write(format_, table()), stored).verdict == EQUIVALENT


@pytest.mark.parametrize("format_", FORMATS)
def test_the_same_content_at_another_time(format_: str) -> None:
    def later(path: Path) -> None:
        time.sleep(1.1)
        write(format_, table())(path)

    assert judged(format_, write(format_, table()), later).passed


def test_versions_that_pandas_notes_do_not_matter() -> None:
    def noted(version: str, column: str = "pt") -> Callable[[Path], None]:
        noted = f'{{"columns": ["{column}"], "creator": {{"version": "{version}"}}, "pandas_version": "{version}"}}'
        return write("table.parquet", table(metadata={"pandas": noted}))

    assert judged("table.parquet", noted("2.0"), noted("3.0")).verdict == EQUIVALENT
    assert judged("table.parquet", noted("2.0"), noted("2.0", "eta")).verdict == DIFFERENT


def read(folder: Path, fill: Callable[[Path], None], limits: Limits | None = None) -> dict[str, Leaf]:
    file = write_file(folder / "table", fill)
    return {leaf.path: leaf for leaf in Arrow().leaves(file, limits or Limits())}


@pytest.mark.parametrize("format_", FORMATS)
def test_leaves_are_columns(format_: str, tmp_path: Path) -> None:
    found = read(tmp_path, write(format_, table()))
    assert found["pt"].load().tolist() == PT.tolist()
    assert found["n"].load().tolist() == [value for value in COLUMNS["n"].to_pylist() if value is not None]
    assert found["n:valid"].load().tolist() == [value is not None for value in COLUMNS["n"].to_pylist()]
    assert found["hits:counts"].load().tolist() == [i % 4 for i in range(ROWS) if i != 5]
    assert found["muon/eta"].load().tolist() == [i / 10 for i in range(ROWS)]
    assert "pt:valid" not in found


def test_nan_is_not_missing(tmp_path: Path) -> None:
    missing = put("pt", pa.array([None if i == 7 else value for i, value in enumerate(PT)]))
    assert (
        judged("t.parquet", write("table.parquet", put("pt", nan_at(7))), write("table.parquet", missing)).passed
        is False
    )


def test_a_tolerance_on_one_column() -> None:
    recorded, close = (write("table.parquet", put("pt", PT * factor)) for factor in (1, 1 + 1e-9))
    assert judged("t.parquet", recorded, close, loosened("pt", rtol=1e-8)).verdict == "tolerated"
    assert judged("t.parquet", recorded, close, loosened("n", rtol=1e-8)).verdict == DIFFERENT


class TestHostile:
    """Broken files and files that unpack to too much are refused."""

    @pytest.mark.parametrize("format_", FORMATS)
    @pytest.mark.parametrize("part", [0.05, 0.5, 0.99])
    def test_cut_short(self, format_: str, part: float) -> None:
        def cut(path: Path) -> None:
            write(format_, table())(path)
            content = path.read_bytes()
            path.write_bytes(content[: int(len(content) * part)])

        assert judged(format_, write(format_, table()), cut).verdict == UNCOMPARABLE

    @pytest.mark.parametrize("format_", FORMATS)
    def test_many_zeros_in_few_bytes(self, format_: str) -> None:
        zeros = write(format_, pa.table({"x": np.zeros(10_000_000)}), compression="zstd")
        assert judged(format_, write(format_, table()), zeros, limits=Limits(ratio=100)).verdict == UNCOMPARABLE

    def test_one_long_text_many_times(self) -> None:
        """A dictionary of one entry makes gigabytes of text from kilobytes."""
        words = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, "i4")), pa.array(["x" * 1_000_000]))
        bomb = write("table.parquet", pa.table({"s": words}))
        begun = time.monotonic()
        result = judged("t.parquet", write("table.parquet", table()), bomb, limits=Limits(bytes=1 << 28))
        assert result.verdict == UNCOMPARABLE
        assert time.monotonic() - begun < 60

    @pytest.mark.parametrize("format_", FORMATS)
    @pytest.mark.parametrize("limits", [Limits(bytes=100), Limits(leaves=3), Limits(depth=0)])
    def test_limits(self, format_: str, limits: Limits) -> None:
        found = write(format_, put("pt", PT + 1))
        assert judged(format_, write(format_, table()), found, limits=limits).verdict == UNCOMPARABLE
