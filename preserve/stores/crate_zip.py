"""Read an archive: a ZIP in one form only, so that every program sees the same files and no byte can hide."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Self

from preserve.digest import CHUNK
from preserve.documents.archive import MAX_NAME
from preserve.documents.verification import Finding
from preserve.errors import MachineError, UserError
from preserve.stores.damage import Damaged, damaged, fault
from preserve.stores.window import OpenFile, Window
from preserve.stores.zip_form import (
    CENTRAL_SIZE,
    LONGEST_END,
    LONGEST_EXTRA,
    MAX_ENTRIES,
    End,
    Entry,
    central_header,
    difference,
    end_records,
    lengths,
    local_header,
    name_problems,
    read_central,
    read_end,
)

LARGE = 1 << 28  # bytes: for so large a file the CRC is taken in another thread; smaller ones go side by side anyway


class CrateZip:
    """The archive at ``path``. To be closed; meets the interface ``Archive``.

    The central directory and the end are compared with the canonical bytes when it is opened, which takes time by the
    number of entries and not by their size; an entry's local header when the entry is opened.
    """

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            UserError: there is no such file.
            MachineError: it cannot be read.
            Damaged: it is not an archive in canonical form.
        """
        self.path = path
        self._file = _opened(path)
        self._checker = ThreadPoolExecutor(1, thread_name_prefix="crc")
        try:
            end = self._read_end(self._file.size)
            self._entries = {entry.name: entry for entry in self._read_directory(end)}
            self._sizes = MappingProxyType({entry.name: entry.size for entry in self._entries.values()})
            self.directory_offset = end.directory_offset
        except OSError as error:
            self.close()
            raise _unreadable(path, error) from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; readers given out are of no use any more."""
        self._checker.shutdown()
        self._file.close()

    @property
    def descriptor(self) -> int:
        """The open file.

        Raises:
            ValueError: the archive was closed.
        """
        return self._file.descriptor

    def files(self) -> Mapping[str, int]:
        """Sizes in bytes by name, in the order of the entries."""
        return self._sizes

    def entries(self) -> tuple[Entry, ...]:
        """Give all entries in their order."""
        return tuple(self._entries.values())

    def executable(self, name: str) -> bool:
        """Whether the file may be executed.

        Raises:
            Damaged: it is not there.
        """
        return self._entry(name).executable

    def open(self, name: str) -> BinaryIO:
        """Give a seekable reader of one file, its local header checked, its CRC not.

        Raises:
            Damaged: it is not there, or its local header is not canonical.
            MachineError: it cannot be read.
        """
        entry = self._entry(name)
        for finding in self._local_faults(entry):
            raise Damaged(finding)
        return self._window(entry.start, entry.size)

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the file's bytes, a MiB at a time; size and CRC are compared at the end.

        Raises:
            Damaged: it is not there, or not what its header says.
            MachineError: it cannot be read.
        """
        entry, size = self._entry(name), 0
        crc = _Crc(self._checker if entry.size >= LARGE else None)
        with self.open(name) as stream:
            while chunk := self._read(stream, CHUNK):
                crc.take(chunk)
                size += len(chunk)
                yield chunk
        if size != entry.size:
            raise damaged(name, "is cut short", f"{entry.size} bytes", f"{size} bytes")
        if crc.value() != entry.crc:
            raise damaged(name, "has other bytes than its CRC says", f"{entry.crc:08x}", f"{crc.value():08x}")

    def check_form(self) -> Iterator[Finding]:
        """Yield the faults of all local headers; with those, every byte of the file is accounted for."""
        for entry in self._entries.values():
            yield from self._local_faults(entry)

    def _entry(self, name: str) -> Entry:
        entry = self._entries.get(name)
        if entry is None:
            raise damaged(name, "is not in the archive")
        return entry

    def _window(self, start: int, size: int) -> BinaryIO:
        return Window(self._file, start, size).buffered()

    def _read(self, stream: BinaryIO, size: int) -> bytes:
        try:
            return stream.read(size)
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def _local_faults(self, entry: Entry) -> Iterator[Finding]:
        expected = local_header(entry)
        with self._window(entry.offset, len(expected)) as stream:
            found = self._read(stream, len(expected))
        if found != expected:
            yield _form_fault(entry.name, "local header", expected, found)

    def _read_end(self, size: int) -> End:
        length = min(size, LONGEST_END)
        with self._window(size - length, length) as stream:
            tail = stream.read()
        end = read_end(tail)
        if end is None:
            raise damaged(self.path.name, "does not end as a ZIP does: it is cut short, or no archive")
        if end.directory_offset + end.directory_size > size:
            raise damaged(self.path.name, "its directory would lie behind its end: it is cut short, or no archive")
        expected = end_records(end)
        if not tail.endswith(expected):
            raise damaged(self.path.name, "its end is not canonical", expected.hex(), tail[-len(expected) :].hex())
        if end.directory_offset + end.directory_size + len(expected) != size:
            whole = end.directory_offset + end.directory_size + len(expected)
            raise damaged(self.path.name, "has bytes that are no part of it", f"{whole} bytes", f"{size} bytes")
        if not end.count * (CENTRAL_SIZE + 1) <= end.directory_size <= end.count * _LONGEST_HEADER:
            raise damaged(self.path.name, f"its directory cannot have {end.count} entries")
        if end.count > MAX_ENTRIES:
            raise damaged(self.path.name, "has too many entries", f"at most {MAX_ENTRIES}", end.count)
        return end

    def _read_directory(self, end: End) -> list[Entry]:
        entries: list[Entry] = []
        with self._window(end.directory_offset, end.directory_size) as stream:
            for _ in range(end.count):
                offset = entries[-1].end if entries else 0
                entries.append(self._read_entry(stream, offset, end.directory_offset))
            rest = len(stream.read(1))
        if rest or (entries[-1].end if entries else 0) != end.directory_offset:
            raise damaged(self.path.name, "has bytes that belong to no entry")
        for name, problem in name_problems(entry.name for entry in entries):
            raise damaged(name, problem)
        return entries

    def _read_entry(self, stream: BinaryIO, offset: int, limit: int) -> Entry:
        fixed = stream.read(CENTRAL_SIZE)
        name_length, extra_length = lengths(fixed) if len(fixed) == CENTRAL_SIZE else (0, 0)
        if not 0 < name_length <= MAX_NAME or extra_length > LONGEST_EXTRA:
            raise damaged(self.path.name, "an entry of its directory is not canonical")
        raw_name, extra = stream.read(name_length), stream.read(extra_length)
        name = raw_name.decode("latin-1")
        if not name.isascii():
            raise damaged(ascii(raw_name), "its name has characters that are not ASCII")
        entry = read_central(fixed, name, extra, offset=offset)
        expected = central_header(entry)
        if fixed + raw_name + extra != expected:
            raise Damaged(_form_fault(name, "entry in the directory", expected, fixed + raw_name + extra))
        if entry.end > limit:
            raise damaged(name, "reaches into the directory", f"at most {limit - entry.start} bytes", entry.size)
        return entry


class _Crc:
    """The CRC of chunks; with a pool it is taken there, while the caller hashes them or writes them."""

    def __init__(self, pool: ThreadPoolExecutor | None) -> None:
        self._pool, self._value, self._behind = pool, 0, deque[Future[None]]()

    def take(self, chunk: bytes) -> None:
        """Take one more chunk; waits if there are several that nobody has come to."""
        if self._pool is None:
            self._add(chunk)
            return
        if len(self._behind) == 4:
            self._behind.popleft().result()
        self._behind.append(self._pool.submit(self._add, chunk))

    def value(self) -> int:
        """Give the CRC of all chunks."""
        while self._behind:
            self._behind.popleft().result()
        return self._value

    def _add(self, chunk: bytes) -> None:
        self._value = zlib.crc32(chunk, self._value)


_LONGEST_HEADER = CENTRAL_SIZE + MAX_NAME + LONGEST_EXTRA


def _opened(path: Path) -> OpenFile:
    try:
        return OpenFile(path)
    except FileNotFoundError as error:
        raise UserError(f"there is no archive {path}") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> MachineError:
    return MachineError(f"cannot read {path}: {error.strerror}", hint="see to the disk and to the file's rights")


def _form_fault(name: str, what: str, expected: bytes, found: bytes) -> Finding:
    field, ours, theirs = difference(expected, found)
    return fault(name, f"its {what} is not canonical ({field})", ours, theirs)
