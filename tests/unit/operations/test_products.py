"""What may be taken for a step's product: plain files in plain folders, and nothing that leads elsewhere."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from preserve.digest import FilePin
from preserve.operations.run_step import product_files
from preserve.stores.hashes import HashMemory
from preserve.stores.objects import ObjectStore


def link(path: Path) -> None:
    """A symbolic link to a file that is there."""
    (path.parent.parent / "elsewhere").write_text("of the host")
    path.symlink_to("../elsewhere")


def listen(path: Path) -> None:
    """A socket."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


MADE: dict[str, Callable[[Path], object]] = {"link": link, "fifo": os.mkfifo, "socket": listen, "folder": Path.mkdir}


@pytest.mark.parametrize(
    ("make", "output"),
    [(make, output) for name, make in MADE.items() for output in ("d/x", "d/") if (name, output) != ("folder", "d/")],
)
def test_what_is_no_plain_file_is_no_product(tmp_path: Path, make: Callable[[Path], object], output: str) -> None:
    """Named, whether it is the product or lies in it."""
    (tmp_path / "out" / "d").mkdir(parents=True)
    make(tmp_path / "out" / "d" / "x")
    files, problem = product_files(tmp_path / "out", output)
    assert not files
    assert problem is not None
    assert "d/x is not a plain file" in problem


@pytest.mark.parametrize("output", ["d/x", "d/e/x", "d/", "d/e/"])
def test_a_link_in_place_of_a_folder_leads_nowhere(tmp_path: Path, output: str) -> None:
    """A step that may write around its product's folder can replace it: the host's file stays where it is."""
    (tmp_path / "host" / "e").mkdir(parents=True)
    (tmp_path / "host" / "x").write_text("mine")
    (tmp_path / "host" / "e" / "x").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "d").symlink_to(tmp_path / "host")
    files, problem = product_files(tmp_path / "out", output)
    assert not files
    assert problem == f"the step put a link in place of the folder d, where its product {output} was to be"


def test_a_name_that_no_document_can_hold(tmp_path: Path) -> None:
    """Records are UTF-8, names of files any bytes: said, and nothing is made of it."""
    (tmp_path / "out" / "d").mkdir(parents=True)
    (tmp_path / "out" / "d" / os.fsdecode(b"caf\xe9")).touch()
    files, problem = product_files(tmp_path / "out", "d/")
    assert not files
    assert problem == "its product d/caf\\xe9 has a name that is not UTF-8: give it another one"


def test_a_product_keeps_no_setuid(tmp_path: Path) -> None:
    """The store keeps content and whether it is a program."""
    (tmp_path / "out").mkdir()
    made = tmp_path / "out" / "x"
    made.write_text("echo")
    made.chmod(0o6755)
    store = ObjectStore(tmp_path / "objects", HashMemory(tmp_path / "hashes.json"))
    pin = store.take(made)
    assert isinstance(pin, FilePin)
    assert store.path(pin).stat().st_mode & 0o7777 == 0o555
