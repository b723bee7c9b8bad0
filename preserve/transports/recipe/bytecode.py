"""Bytecode by the image's own Python, without a container: its interpreter is started by its own dynamic loader.

Hash-based and unchecked (PEP 552), so that no file time matters. What the interpreter has imported or compiled before
could show in the marshalled form; each process therefore starts afresh with a fixed list of files.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from preserve.errors import MachineError
from preserve.transports.recipe.child import call, said
from preserve.transports.recipe.tree import FILE, FOLDER, PROGRAM, Entry, Tree, pointed_to

_BATCH = 6 << 20  # bytes of source for one process: a fixed number, since it decides which files share one
# Runs in the image's Python, any version from 3.8: "size path" lines with contents in, the same with bytecode out.
_COMPILER = """
import importlib._bootstrap_external as external, importlib.util as util, sys
source, target = sys.stdin.buffer, sys.stdout.buffer
for line in source:
    size, _, path = line.rstrip(b"\\n").partition(b" ")
    data = source.read(int(size))
    try:
        code = compile(data, path.decode(), "exec", dont_inherit=True, optimize=0)
        answer = bytes(external._code_to_hash_pyc(code, util.source_hash(data), False))
    except (SyntaxError, ValueError, RecursionError):
        answer = b""
    target.write(b"%d %s\\n" % (len(answer), path) + answer)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """The image's Python ``3.11``, Debian's name of its libraries' folder, and its loader's path."""

    python: str
    triplet: str
    loader: str

    @property
    def sources(self) -> tuple[str, ...]:
        """Folders whose modules are compiled."""
        return (f"usr/lib/python{self.python}/", "usr/lib/python3/", f"usr/local/lib/python{self.python}/")


def compile_tree(image: Tree, bytecode: Tree, *, interpreter: Interpreter, scratch: Path) -> None:
    """Put the bytecode of all of ``image``'s modules into ``bytecode``; what does not compile has none.

    Raises:
        MachineError: the image's Python does not run on this machine.
    """
    root = scratch / "root"
    _write_interpreter(image, root, interpreter)
    batches = tuple(_batches(image, interpreter))
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="bytecode") as pool:
        jobs = [pool.submit(_compile, image, batch, root, interpreter, scratch) for batch in batches]
        for job in jobs:
            for path, data in job.result():
                bytecode.file(_cached(path, interpreter), data)


def _batches(image: Tree, interpreter: Interpreter) -> Iterator[tuple[tuple[str, Entry], ...]]:
    batch: list[tuple[str, Entry]] = []
    size = 0
    for path in sorted(image.entries):
        entry = image.entries[path]
        if entry.content is None or not path.endswith(".py") or not path.startswith(interpreter.sources):
            continue
        batch.append((path, entry))
        size += entry.content.size
        if size > _BATCH:
            yield tuple(batch)
            batch, size = [], 0
    if batch:
        yield tuple(batch)


def _compile(
    image: Tree, batch: tuple[tuple[str, Entry], ...], root: Path, interpreter: Interpreter, scratch: Path
) -> list[tuple[str, bytes]]:
    with tempfile.TemporaryFile(dir=scratch) as source, tempfile.TemporaryFile(dir=scratch) as target:
        for path, entry in batch:
            if entry.content is not None:
                source.write(f"{entry.content.size} /{path}\n".encode() + image.spool.read(entry.content))
        source.seek(0)
        process = call(
            _argv(root, interpreter),
            environment={"PYTHONHOME": str(root / "usr"), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "TZ": "UTC"},
            folder=root,
            stdin=source,
            stdout=target,
        )
        if process.returncode != 0:
            raise MachineError(f"the image's Python cannot compile its modules on this machine:\n{said(process)}")
        target.seek(0)
        return list(_answers(target))


def _argv(root: Path, interpreter: Interpreter) -> tuple[str, ...]:
    libraries = ":".join(str(root / "usr/lib" / folder) for folder in (interpreter.triplet, ""))
    python = str(root / f"usr/bin/python{interpreter.python}")
    # -S -s: no site files; -P cannot be had in all versions, so the folder it starts in has nothing to import.
    return (
        *(str(root / interpreter.loader), "--library-path", libraries, python),
        *("-S", "-s", "-B", "-W", "ignore", "-c", _COMPILER),
    )


def _answers(stream: BinaryIO) -> Iterator[tuple[str, bytes]]:
    for line in stream:
        size, _, path = line.rstrip(b"\n").partition(b" ")
        if data := stream.read(int(size)):
            yield path.decode()[1:], data


def _cached(path: str, interpreter: Interpreter) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/__pycache__/{name.removesuffix('.py')}.cpython-{interpreter.python.replace('.', '')}.pyc"


def _write_interpreter(image: Tree, root: Path, interpreter: Interpreter) -> None:
    """Write the interpreter, its libraries and its standard library; links stay inside, wherever the folder is."""
    for path, entry in image.entries.items():
        if not _belongs(path, interpreter) or entry.is_folder:
            continue
        place = root / path
        place.parent.mkdir(mode=FOLDER, parents=True, exist_ok=True)
        if entry.target is not None:
            inside = pointed_to(path, entry.target)
            place.symlink_to(os.path.relpath(root / inside, place.parent))
        elif entry.content is not None:
            place.write_bytes(image.spool.read(entry.content))
            place.chmod(PROGRAM if entry.mode == PROGRAM else FILE)
    for name in ("lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")


def _belongs(path: str, interpreter: Interpreter) -> bool:
    libraries = f"usr/lib/{interpreter.triplet}/"
    if path.startswith(libraries):
        return "/" not in path[len(libraries) :] and ".so" in path
    own = (f"usr/lib/python{interpreter.python}/", f"usr/bin/python{interpreter.python}", "usr/lib64/")
    return path.startswith((*own, interpreter.loader)) and "__pycache__" not in path
