"""What is said of files that stand where products belong."""

from __future__ import annotations

from preserve.operations.placing import NAMED, in_the_way


def test_one_file() -> None:
    assert in_the_way(["results/mass.json"]) == (
        "results/mass.json stands where a step puts its product, and no run of preserve made it",
        "move it away; or, if it is of a run whose .preserve/ is gone: rm results/mass.json",
    )


def test_the_products_of_a_folder_that_lost_its_state() -> None:
    """One line to copy, safe for a shell; not of hundreds of files."""
    message, hint = in_the_way(["a b.txt", "c.txt"])
    assert message.startswith("a b.txt and 1 more stand where")
    assert hint == "move them away; or, if they are of a run whose .preserve/ is gone: rm 'a b.txt' c.txt"
    assert in_the_way(["x"] * (NAMED + 1))[1].endswith("is gone: remove them")
