"""What a step sees at /work: only its inputs, read-only, and the folders of its outputs."""

from __future__ import annotations

from pathlib import Path

from preserve.documents.plan import PlannedInput, PlannedStep
from preserve.documents.workflow import Resources
from preserve.operations.run_step import lay_out


def step(inputs: tuple[str, ...], outputs: tuple[str, ...]) -> PlannedStep:
    """A step that reads and makes these paths."""
    return PlannedStep(
        id="s",
        name="s",
        stage="processing",
        image="i",
        command=("true",),
        environment={},
        inputs=tuple(PlannedInput(path=path) for path in inputs),
        outputs=outputs,
        network=False,
        resources=Resources(),
        values={},
    )


def seen(tmp_path: Path, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> list[tuple[str, bool]]:
    """Targets of the mounts and whether they are read-only."""
    sources = {}
    for number, path in enumerate(inputs):
        sources[path] = tmp_path / f"source{number}"
        sources[path].write_text(path)
    return [(m.target, m.read_only) for m in lay_out(step(inputs, outputs), sources, tmp_path / "work")]


def test_inputs_and_outputs_in_folders_of_their_own(tmp_path: Path) -> None:
    """Everything is read-only but the outputs' folders."""
    found = seen(tmp_path, ("data/a", "code/x.py"), ("fit/mass.json", "plots/deep/p.png"))
    assert found == [("/work", True), ("/work/fit", False), ("/work/plots/deep", False)]


def test_an_input_beside_an_output_is_mounted_over_it(tmp_path: Path) -> None:
    """The folder is writable, the input in it is not."""
    assert seen(tmp_path, ("d/in",), ("d/out",)) == [("/work", True), ("/work/d", False), ("/work/d/in", True)]


def test_an_output_at_the_top_makes_all_but_the_inputs_writable(tmp_path: Path) -> None:
    """Folders that hold only inputs are one mount each."""
    found = seen(tmp_path, ("data/deep/a", "data/b", "x"), ("result",))
    assert found == [("/work", False), ("/work/data", True), ("/work/x", True)]


def test_nested_output_folders_are_one_mount(tmp_path: Path) -> None:
    """What lies in a writable folder is writable already."""
    found = seen(tmp_path, ("o/deep/in",), ("o/a", "o/deep/b"))
    assert found == [("/work", True), ("/work/o", False), ("/work/o/deep/in", True)]


def test_inputs_are_links_not_copies(tmp_path: Path) -> None:
    """A step that reads much costs no room."""
    seen(tmp_path, ("data/a",), ("o/x",))
    assert (tmp_path / "work/in/data/a").samefile(tmp_path / "source0")
