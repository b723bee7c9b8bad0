"""preserve lock in this process: several inputs at a time, what a failure leaves, the same bytes for the same files."""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from conftest import TinyImage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preserve.documents.lockfile import Lock, read_lock
from preserve.errors import DocumentError, MachineError, UserError
from preserve.interfaces import Silent
from preserve.operations.folder import Folder
from preserve.operations.lock import lock
from preserve.operations.places import Settings

MANY = tuple(f"data/{number:02}.dat" for number in range(20))
WORKFLOW = """\
format: 1
title: Inputs
images: {{tiny: "oci:{layout}"}}
inputs:
{inputs}
steps:
  - name: read
    stage: preparation
    image: tiny
    inputs: [{paths}]
    outputs: [made/all.txt]
    run: cat data/* > ${{{{ outputs[0] }}}}
"""


class Heard(Silent):
    """A progress that remembers the last word on each transfer."""

    def __init__(self) -> None:
        self.last: dict[str, tuple[int, int | None]] = {}

    def bytes_done(self, what: str, done: int, total: int | None) -> None:
        self.last[what] = (done, total)


Make = Callable[..., Folder]


@pytest.fixture
def make(tmp_path: Path, tiny_image: TinyImage) -> Make:
    """An analysis (in ``root``) whose inputs are fetched from files beside it, or lie there (address ``None``)."""

    def analysis(inputs: dict[str, str | None], root: Path = tmp_path / "analysis") -> Folder:
        root.mkdir(exist_ok=True)
        lines = [f'  {path}: {{url: "{url}"}}' if url else f"  {path}: {{}}" for path, url in inputs.items()]
        text = WORKFLOW.format(layout=tiny_image.layout, inputs="\n".join(lines), paths=", ".join(inputs))
        (root / "preserve.yaml").write_text(text)
        return Folder(root=root)

    return analysis


def lock_it(folder: Folder, progress: Silent | None = None) -> tuple[Lock, bool]:
    return lock(folder, Settings(), update=None, progress=progress or Silent())


def test_many_inputs_are_pinned_each_as_itself(make: Make, tmp_path: Path) -> None:
    for number, path in enumerate(MANY):
        (tmp_path / Path(path).name).write_bytes(bytes([number]) * number * 1000)
    folder, heard = make({path: f"file:../{Path(path).name}" for path in MANY}), Heard()

    made, changed = lock_it(folder, heard)

    assert changed
    assert tuple(made.inputs) == MANY
    for number, (path, pin) in enumerate(made.inputs.items()):
        assert pin.size == (folder.root / path).stat().st_size == number * 1000
        assert pin.sha256.hex == sha256(bytes([number]) * number * 1000).hexdigest()
        assert heard.last[path] == (pin.size, pin.size)
    assert read_lock(folder.lock_file.read_bytes(), "preserve.lock") == made


def test_one_that_fails_leaves_no_lock_and_the_others_are_kept(make: Make, tmp_path: Path) -> None:
    for path in MANY[:-1]:
        (tmp_path / Path(path).name).write_bytes(b"data")
    folder = make({path: f"file:../{Path(path).name}" for path in MANY})
    with pytest.raises(UserError, match=f"input {MANY[-1]}: there is nothing at"):
        lock_it(folder)
    assert not folder.lock_file.exists()

    kept = {path: (folder.root / path).stat().st_ino for path in MANY if (folder.root / path).exists()}
    assert kept
    (tmp_path / Path(MANY[-1]).name).write_bytes(b"data")
    made, _ = lock_it(folder)
    assert tuple(made.inputs) == MANY
    assert {path: (folder.root / path).stat().st_ino for path in kept} == kept
    assert not list((folder.root / "data").glob(".fetching-*"))


def test_a_faulty_file_leaves_nothing(make: Make) -> None:
    folder = make({})
    with pytest.raises(DocumentError):
        lock_it(folder)
    assert [path.name for path in folder.root.iterdir()] == ["preserve.yaml"]


@pytest.mark.parametrize("kind", ["missing", "a folder", "a dangling link"])
def test_a_local_input_that_is_no_file(make: Make, kind: str) -> None:
    folder = make({"data/a": None})
    (folder.root / "data").mkdir()
    if kind == "a folder":
        (folder.root / "data" / "a").mkdir()
    elif kind == "a dangling link":
        (folder.root / "data" / "a").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"^preserve\.yaml:5:3: input data/a: ") as caught:
        lock_it(folder)
    assert caught.value.hint == "put the file there, or give its url"
    assert not folder.lock_file.exists()


def test_no_room_for_the_file(make: Make, tmp_path: Path) -> None:
    """The folder that it belongs in is a file."""
    (tmp_path / "a").write_bytes(b"data")
    folder = make({"data/a": "file:../a"})
    (folder.root / "data").write_text("in the way\n")
    with pytest.raises(MachineError, match="input data/a: cannot fetch"):
        lock_it(folder)
    assert (folder.root / "data").read_text() == "in the way\n"


def test_what_is_left_of_a_killed_transfer_is_not_the_file(make: Make, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"the whole")
    folder = make({"data/a": "file:../a"})
    (folder.root / "data").mkdir()
    (folder.root / "data" / ".fetching-a").write_bytes(b"the whole and what a longer one left behind")
    made, _ = lock_it(folder)
    assert (folder.root / "data" / "a").read_bytes() == b"the whole"
    assert made.inputs["data/a"].size == 9
    assert os.listdir(folder.root / "data") == ["a"]  # noqa: PTH208 (names alone)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.from_regex(r"[a-z0-9_+=@-]{1,20}", fullmatch=True), st.binary(max_size=100), min_size=1))
def test_the_same_files_give_the_same_bytes_in_any_order(make: Make, files: dict[str, bytes]) -> None:
    with TemporaryDirectory() as place:
        written = []
        for order in (files, dict(reversed(files.items()))):
            folder = make({f'"data/{name}"': None for name in order}, Path(place))
            (folder.root / "data").mkdir(exist_ok=True)
            for name, data in order.items():
                (folder.root / "data" / name).write_bytes(data)
            lock_it(folder)
            written.append(folder.lock_file.read_bytes())
            made, changed = lock_it(folder)
            assert not changed
            assert made.to_bytes() == written[-1]
        assert written[0] == written[1]
