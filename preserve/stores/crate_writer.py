"""Write an archive in one pass over its files: hashing and copying overlap, memory does not grow with size."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, TypeVar

from preserve.digest import CHUNK, Digest, FilePin
from preserve.documents.archive import SIGNATURES
from preserve.errors import DigestMismatch, MachineError, UserError
from preserve.interfaces import Progress, Silent
from preserve.stores.beside import write_all, written_beside
from preserve.stores.crate_zip import CrateZip
from preserve.stores.zip_form import (
    MAX_ENTRIES,
    End,
    Entry,
    central_header,
    end_records,
    laid_out,
    local_header,
    name_problems,
)

BUFFERS = 4
SMALL = 1 << 16  # bytes: handing such a file to another thread takes longer than writing it
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A file to be archived as ``name``: its content as pinned, and where its bytes are."""

    name: str
    pin: FilePin
    source: Path | bytes


def write_crate(path: Path, items: Sequence[Item], *, progress: Progress | None = None) -> None:
    """Write the archive ``path`` of all ``items``, in the order of entries that archives have.

    Raises:
        DigestMismatch: a file is not what its pin says (any more). Nothing was written.
        MachineError: a file cannot be read, or the archive not written. Nothing was written.
        ValueError: names or order are not an archive's: a fault of the caller.
    """
    for name, problem in name_problems(item.name for item in items):
        raise ValueError(f"{name} {problem}")
    if len(items) > MAX_ENTRIES:
        raise UserError(
            f"an archive holds at most {MAX_ENTRIES} files, not {len(items)}", hint="archive folders as tar"
        )
    entries = laid_out((item.name, item.pin.size, item.pin.executable) for item in items)
    size = _whole_size(entries)
    with written_beside(path, size) as descriptor, _Copying(descriptor, size, progress or Silent()) as copying:
        for item, entry in zip(items, entries, strict=True):
            copying.copy(item, entry)
        copying.finish()


def write_more(path: Path, target: Path, additions: Sequence[tuple[str, bytes]]) -> None:
    """Write to ``target`` (which may be ``path``) the archive ``path`` with signatures added.

    All other entries keep their bytes, and the archive its id.

    Raises:
        UserError: one of these signatures is there already.
        Damaged: ``path`` is not a canonical archive.
        MachineError: it cannot be read, or ``target`` not written.
    """
    with CrateZip(path) as archive:
        kept = tuple(entry for entry in archive.entries() if not entry.name.startswith(SIGNATURES))
        signatures = {name: b"".join(archive.chunks(name)) for name in archive.files() if name.startswith(SIGNATURES)}
        for name, data in additions:
            if name in signatures:
                raise UserError(f"{path}: {name} is there already", hint="sign with another name or key")
            signatures[name] = data
        added = _entries_of(signatures, kept)
        entries = (*kept, *added)
        for name, problem in name_problems(entry.name for entry in entries):
            raise ValueError(f"{name} {problem}")
        with written_beside(target, _whole_size(entries)) as descriptor:
            os.fchmod(descriptor, stat.S_IMODE(os.fstat(archive.descriptor).st_mode))  # who may read it stays
            _copy_range(archive, descriptor, _end(kept))
            for entry in added:
                write_all(descriptor, local_header(entry) + signatures[entry.name], entry.offset)
            write_all(descriptor, _directory(entries), _end(entries))


class _Copying:
    """The caller's thread reads and hashes, another takes CRCs and writes; buffers go round between the two."""

    def __init__(self, descriptor: int, total: int, progress: Progress) -> None:
        self._descriptor, self._total, self._progress = descriptor, total, progress
        self._done, self._crc, self._entries = 0, 0, list[Entry]()
        self._crcs: dict[str, int] = {}
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="archive")
        self._round = deque((bytearray(CHUNK), _nothing()) for _ in range(BUFFERS))

    def __enter__(self) -> _Copying:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.shutdown(cancel_futures=True)

    def copy(self, item: Item, entry: Entry) -> None:
        """Copy one file to its place; what it hashes to must be what was pinned."""
        with _source(item) as stream:
            if entry.size > SMALL:
                self._copy_large(stream, item, entry)
            else:
                self._copy_small(stream, item, entry)
        self._entries.append(entry)

    def finish(self) -> None:
        """Wait for all that is under way and write the central directory."""
        for _, future in self._round:
            future.result()
        entries = tuple(replace(entry, crc=self._crcs[entry.name]) for entry in self._entries)
        write_all(self._descriptor, _directory(entries), _end(entries))
        self._progress.bytes_done("archive", self._total, self._total)

    def _copy_small(self, stream: BinaryIO, item: Item, entry: Entry) -> None:
        data = _guarded(item, lambda: stream.read(entry.size + 1))
        _compare(item, Digest.of(data), len(data))
        self._crcs[entry.name] = zlib.crc32(data)
        write_all(self._descriptor, local_header(replace(entry, crc=self._crcs[entry.name])) + data, entry.offset)
        self._tell(len(data))

    def _copy_large(self, stream: BinaryIO, item: Item, entry: Entry) -> None:
        state, done = hashlib.sha256(), 0
        while view := self._filled(stream, entry.size - done, item):
            self._then(self._write, view, entry.start + done)
            state.update(view)
            done += len(view)
            self._tell(len(view))
        done += len(_guarded(item, lambda: stream.read(1)))
        _compare(item, Digest("sha256:" + state.hexdigest()), done)
        self._then(self._end_entry, entry)

    def _filled(self, stream: BinaryIO, left: int, item: Item) -> memoryview:
        buffer, future = self._round[0]
        future.result()
        room = memoryview(buffer)[: min(left, CHUNK)]
        return room[: _guarded(item, lambda: stream.readinto(room))] if room else room  # type: ignore[attr-defined]

    def _then(self, call: Callable[..., None], *arguments: object) -> None:
        buffer, before = self._round.popleft()
        before.result()
        self._round.append((buffer, self._writer.submit(call, *arguments)))

    def _write(self, view: memoryview, offset: int) -> None:
        self._crc = zlib.crc32(view, self._crc)
        write_all(self._descriptor, view, offset)

    def _end_entry(self, entry: Entry) -> None:
        self._crcs[entry.name], self._crc = self._crc, 0
        write_all(self._descriptor, local_header(replace(entry, crc=self._crcs[entry.name])), entry.offset)

    def _tell(self, count: int) -> None:
        self._done += count
        self._progress.bytes_done("archive", self._done, self._total)


def _nothing() -> Future[None]:
    future: Future[None] = Future()
    future.set_result(None)
    return future


@contextlib.contextmanager
def _source(item: Item) -> Iterator[BinaryIO]:
    if isinstance(item.source, bytes):
        if len(item.source) != item.pin.size:
            raise _changed(item, f"{len(item.source)} bytes")
        yield io.BytesIO(item.source)
        return
    source = item.source
    with _guarded(item, lambda: open(source, "rb", buffering=0, opener=_without_waiting)) as stream:
        about = os.fstat(stream.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise _changed(item, "no regular file")
        if about.st_size != item.pin.size:
            raise _changed(item, f"{about.st_size} bytes")
        yield stream


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO in a product's place would wait for ever


def _guarded(item: Item, read: Callable[[], T]) -> T:
    try:
        return read()
    except OSError as error:
        raise MachineError(
            f"cannot read {item.source!s}: {error.strerror}", hint="see to its rights and the disk"
        ) from error


def _compare(item: Item, found: Digest, size: int) -> None:
    if size != item.pin.size:
        raise _changed(item, "more bytes" if size > item.pin.size else f"{size} bytes")
    if found != item.pin.sha256:
        raise _changed(item, found)


def _changed(item: Item, found: str) -> DigestMismatch:
    where = f" ({item.source})" if isinstance(item.source, Path) else ""
    return DigestMismatch(
        f"{item.name}{where} changed: expected {item.pin.sha256}, {item.pin.size} bytes; found {found}",
        hint="preserve run makes or fetches again what is not as it was",
    )


def _entries_of(files: dict[str, bytes], behind: tuple[Entry, ...]) -> tuple[Entry, ...]:
    entries, offset = [], _end(behind)
    for name in sorted(files):
        entry = Entry(name=name, size=len(files[name]), crc=zlib.crc32(files[name]), offset=offset)
        entries.append(entry)
        offset = entry.end
    return tuple(entries)


def _end(entries: tuple[Entry, ...]) -> int:
    return entries[-1].end if entries else 0


def _directory(entries: tuple[Entry, ...]) -> bytes:
    headers = b"".join(central_header(entry) for entry in entries)
    end = End(count=len(entries), directory_size=len(headers), directory_offset=_end(entries))
    return headers + end_records(end)


def _whole_size(entries: tuple[Entry, ...]) -> int:
    return _end(entries) + len(_directory(entries))


def _copy_range(archive: CrateZip, descriptor: int, size: int) -> None:
    copied = 0
    while copied < size:
        count = _copy_some(archive.descriptor, descriptor, size - copied, copied)
        if not count:
            raise MachineError(f"{archive.path} became shorter while it was copied", hint="leave it alone meanwhile")
        copied += count


def _copy_some(source: int, descriptor: int, size: int, offset: int) -> int:
    with contextlib.suppress(OSError):  # other file systems, older kernels: copy by hand
        return os.copy_file_range(source, descriptor, min(size, 1 << 30), offset, offset)
    chunk = os.pread(source, min(size, CHUNK), offset)
    write_all(descriptor, chunk, offset)
    return len(chunk)
