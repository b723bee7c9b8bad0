"""What ``preserve verify`` prints for a person."""

from __future__ import annotations

from pathlib import Path

from archived import here


def test_of_a_file_that_is_no_archive(tmp_path: Path) -> None:
    """Damaged, and nothing is said of what it holds: nobody knows."""
    file = tmp_path / "x.crate.zip"
    file.write_bytes(b"cut short")
    done = here("verify", str(file))
    assert done.code == 1
    problem, verdict, name, remedy = done.out.splitlines()
    assert problem.startswith("x.crate.zip: does not end as a ZIP does")
    assert (verdict, name) == (f"{file}: damaged", "archive id: none")
    assert remedy == "if another program packed it again: unzip it, and verify the folder"
