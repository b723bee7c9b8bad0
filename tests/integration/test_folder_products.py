"""Products in the analysis folder: always those of the last run, and never over what somebody else put there."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from conftest import ENGINES, TinyImage
from sessions import Analysis, lock_analysis, own_copy

STEPS = """\
format: 1
title: A folder of plots, and a table
images: {tiny: oci:image}
parameters: {names: [a, b], unit: GeV}
steps:
  - name: plot
    stage: processing
    image: tiny
    outputs: [plots/]
    run: for name in ${{ parameters.names }}; do echo $name > plots/$name.txt; done
  - name: tell
    stage: assembly
    image: tiny
    inputs: [code/words.txt]
    outputs: [table/table.txt]
    run: cat ${{ inputs[0] }} > ${{ outputs[0] }}; echo ${{ parameters.unit }} >> ${{ outputs[0] }}
"""

pytestmark = pytest.mark.parametrize("engine", ENGINES[1:], indirect=True)  # what is done here is not the engine's


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_image: TinyImage) -> Path:
    """The analysis, committed and locked."""
    root = tmp_path_factory.mktemp("products") / "template"
    return lock_analysis(root, tiny_image.layout, {"preserve.yaml": STEPS, "code/words.txt": "in\n"})


@pytest.fixture
def plots(engine: str, docker_address: str, template: Path, tmp_path: Path) -> Analysis:
    """The analysis on an engine."""
    return own_copy(template, tmp_path / "plots", engine, docker_address)


def plain(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def displaced(analysis: Analysis) -> dict[str, str]:
    """What was kept aside, by path."""
    top = analysis.root / ".preserve" / "displaced"
    return {"/".join(path.relative_to(top).parts[1:]): path.read_text() for path in top.rglob("*.txt")}


def test_a_folder_has_the_files_of_the_last_run_only(plots: Analysis) -> None:
    plots.run()
    (plots.root / "plots" / "mine.txt").write_text("mine")
    both, one = {"a.txt": "a\n", "b.txt": "b\n", "mine.txt": "mine"}, {"a.txt": "a\n", "mine.txt": "mine"}
    assert plain(plots.root / "plots") == both
    said = plots("run", "-n", "-p", "names=[a]").stderr
    assert "removed" not in said  # what the step will make is not known yet
    notes = plots.run("-p", "names=[a]")["notes"]
    assert notes == ["plots/b.txt removed: an earlier run made it, step plot makes it no more"]
    assert plain(plots.root / "plots") == one
    assert plots.run()["notes"] == []
    assert plain(plots.root / "plots") == both
    said = plots("run", "-n", "-p", "names=[a]").stderr
    assert "note: plots/b.txt would be removed: made by an earlier run, and no more\nno step has to run" in said
    assert "no step has to run" in plots("run", "-p", "names=[a]").stderr
    assert plain(plots.root / "plots") == one
    plots.run()
    (plots.root / "plots" / "b.txt").unlink()
    (plots.root / "plots" / "b.txt").write_text("edited")
    plots.run("-p", "names=[a]")
    assert plain(plots.root / "plots") == {**one, "b.txt": "edited"}


def test_a_dry_run_says_what_a_run_would_do_in_the_folder(plots: Analysis) -> None:
    plots.run()
    (plots.root / "plots" / "a.txt").unlink()
    (plots.root / "table" / "table.txt").unlink()
    (plots.root / "table" / "table.txt").write_text("junk")
    said = plots("run", "-n")
    assert said.stderr.splitlines()[-3:] == [
        "note: table/table.txt changed by hand: a run puts the product there, and keeps what it finds",
        "note: 1 missing product would be put back",
        "no step has to run: all 2 steps are done",
    ]
    assert (plots.root / "table" / "table.txt").read_text() == "junk"
    said = plots("run")
    assert said.stderr.splitlines()[-2:] == [
        "note: 1 missing product put back",
        "no step has to run: all 2 steps are done",
    ]
    assert "table/table.txt was changed after it was made; the product is in its place, what stood" in said.stderr
    assert displaced(plots) == {"table/table.txt": "junk"}
    plots.assert_nothing_to_do()


def test_a_file_of_the_users_where_a_folder_gets_one_is_kept_and_said(plots: Analysis) -> None:
    (plots.root / "plots").mkdir()
    (plots.root / "plots" / "a.txt").write_text("mine")
    (note,) = plots.run()["notes"]
    assert note.startswith("plots/a.txt stood where a product belongs, and no run of preserve made it; the product is")
    assert displaced(plots) == {"plots/a.txt": "mine"}


def test_a_file_put_there_after_a_run_that_failed_is_refused(plots: Analysis) -> None:
    workflow = plots.root / "preserve.yaml"
    good = workflow.read_text()
    workflow.write_text(good.replace("run: cat", "run: exit 3; cat"))
    assert plots("run").returncode == 4
    (plots.root / "table").mkdir(exist_ok=True)
    (plots.root / "table" / "table.txt").write_text("mine")
    workflow.write_text(good)
    refused = plots("run")
    assert (refused.returncode, "table/table.txt stands where" in refused.stderr) == (2, True), refused.stderr
    assert (plots.root / "table" / "table.txt").read_text() == "mine"


def test_an_edited_product_on_another_disk_is_kept_too(plots: Analysis) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as scratch:
        (plots.root / "table").symlink_to(scratch)
        assert plots.run()["notes"] == []
        (Path(scratch) / "table.txt").write_text("edited")
        assert plots("run").returncode == 0
        assert displaced(plots) == {"table/table.txt": "edited"}
        assert (Path(scratch) / "table.txt").read_text() == "in\nGeV\n"


@pytest.mark.parametrize(
    ("old", "new", "step", "reason"),
    [
        ("outputs: [table/", "network: true\n    outputs: [table/", "tell", "network is true now"),
        ("outputs: [plots/]", "outputs: [plots/, more/]", "plot", "its outputs changed"),
        (
            "outputs: [plots/]",
            "outputs: [plots/]\n    resources: {cpus: 2}",
            "plot",
            "its environment changed (OMP_NUM_THREADS)",
        ),
    ],
)
def test_reasons_name_what_is_new(plots: Analysis, old: str, new: str, step: str, reason: str) -> None:
    plots.run()
    workflow = plots.root / "preserve.yaml"
    workflow.write_text(workflow.read_text().replace(old, new))
    assert plots.run("-n")["reasons"] == {step: reason}


def test_reasons_know_earlier_runs_and_rights(plots: Analysis) -> None:
    plots.run()
    plots.run("--step", "plot", "--no-cache")
    words = plots.root / "code" / "words.txt"
    words.chmod(0o755)
    assert plots.run("-n")["reasons"] == {"tell": "code/words.txt may be executed now"}
    words.chmod(0o644)
    words.write_text("other\n")
    assert plots.run("-n")["reasons"] == {"tell": "code/words.txt changed"}
    shutil.rmtree(plots.root / ".preserve" / "objects")
    words.write_text("in\n")
    reason = "a product was changed or is gone from the store"
    assert plots.run("-n")["reasons"] == {"plot": reason, "tell": reason}


def test_what_a_killed_run_left_is_removed_by_the_next(plots: Analysis) -> None:
    state = plots.root / ".preserve"
    plots.run()
    left = [state / "runs" / "20260101T000000.000000Z" / name for name in ("work", "scheduler")]
    left += [state / name for name in ("archive-x", "dumps-x")]
    for folder in left:
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "file").touch()
        (folder / "deep").chmod(0o500)
        if folder != left[-1]:
            os.utime(folder, (0, 0))
    plots.run("--no-cache")
    assert [folder for folder in left if folder.exists()] == [left[-1]]  # which may be of one that goes on elsewhere


def test_a_record_that_a_power_cut_emptied_is_written_again(plots: Analysis) -> None:
    plots.run()
    run = max((plots.root / ".preserve" / "runs").iterdir())
    record = run / "records" / "tell.json"
    record.unlink()
    record.touch()
    plots.assert_nothing_to_do()
    assert plots("status").returncode == 0
