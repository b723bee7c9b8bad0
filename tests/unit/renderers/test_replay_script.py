"""replay.sh as text: whatever a plan holds arrives in the step as it is, and never as shell."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small_archive
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preserve.documents.archive import Contents
from preserve.documents.plan import PlannedInput, PlannedStep
from preserve.documents.workflow import Resources
from preserve.errors import UserError
from preserve.renderers import replay_script

SHELLS = [pytest.param(("sh",), id="sh"), pytest.param(("busybox", "sh"), id="busybox")]
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
TRICKY = TEXT | st.text(alphabet="'\"\\$`!*?[]{}()<>|&;#~ \n\r\t-=%äÁ\x80\x81\x88é€𝄞", max_size=40)
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def shell(program: tuple[str, ...], script: bytes) -> bytes:
    """What a script, read from standard input, prints; it must end well."""
    done = subprocess.run([*program, "-s"], check=False, input=script, capture_output=True, env=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def functions(script: bytes) -> bytes:
    """The script without its last line, which starts it."""
    body, _, last = script.rstrip(b"\n").rpartition(b"\n")
    assert last == b'main "$@" </dev/null'
    return body + b"\n"


def called(script: bytes, verb: str, program: tuple[str, ...] = ("sh",)) -> list[tuple[str, ...]]:
    """The words with which the script's steps call ``verb``, call by call."""
    verbs = ("step", "setting", "limits", "uses_network", "reads", "writes", "also_makes", "protects", "runs", "makes")
    silent = "".join(f"{name}() {{ :; }}\n" for name in (*verbs, "makes_folder", "compare", "nothing_else"))
    spoken = verb + '() { printf \'%s\\0\' "$#" "$@"; }\n'
    words = shell(program, functions(script) + f"{silent}{spoken}steps\n".encode()).decode().split("\0")[:-1]
    calls = []
    while words:
        count = int(words[0])
        calls.append(tuple(words[1 : count + 1]))
        words = words[count + 1 :]
    return calls


def with_step(**changes: Any) -> Contents:
    """The small archive, its first step changed."""
    first, *others = small_archive.STEPS
    return small_archive.contents(changes={"steps": (replace(first, **changes), *others)})


class TestWords:
    @pytest.mark.parametrize("program", SHELLS)
    @FEW
    @given(command=st.lists(TRICKY, min_size=1, max_size=6))
    def test_a_command_arrives_word_by_word(self, program: tuple[str, ...], command: list[str]) -> None:
        script = replay_script.render(with_step(command=tuple(command)))
        assert called(script, "runs", program)[0] == tuple(command)

    @pytest.mark.parametrize("program", SHELLS)
    @FEW
    @given(value=TRICKY)
    def test_so_do_the_variables_and_paths(self, program: tuple[str, ...], value: str) -> None:
        first = small_archive.STEPS[0]
        script = replay_script.render(
            with_step(environment={"X": value}, inputs=(*first.inputs, PlannedInput(path=f"selected/{value}")))
        )
        assert ("X", value) in called(script, "setting", program)
        assert called(script, "reads", program)[0][-1] == f"selected/{value}"

    @FEW
    @given(text=st.text() | TRICKY | st.text(alphabet="\n\r\x85\u2028\x0b\x0c\ud800x$`"))
    def test_titles_and_origins_stay_in_their_line(self, text: str) -> None:
        image = replace(small_archive.IMAGE, reference=f"oci:{text}")
        script = replay_script.render(
            small_archive.contents(changes={"title": text, "images": {"tiny": image}}, without="inputs")
        )
        head = script.partition(b"# How to use it:")[0]
        assert all(line.startswith(b"#") for line in head.splitlines())
        defined = functions(script) + b'image() { printf "%s\\0" "$6"; }\nimages\n'
        assert shell(("sh",), defined).decode() == "".join(c if c.isprintable() else "?" for c in f"oci:{text}") + "\0"

    @pytest.mark.parametrize("word", ["a\0b", "\ud800"])
    def test_what_no_program_can_be_given_is_refused(self, word: str) -> None:
        contents = small_archive.contents()
        steps = (replace(contents.plan.steps[0], command=("echo", word)), *contents.plan.steps[1:])
        with pytest.raises(UserError, match="no program can be given"):
            replay_script.render(replace(contents, plan=replace(contents.plan, steps=steps)))


class TestWhatTheScriptSays:
    def test_the_payload_beside_it_changes_nothing(self) -> None:
        contents = small_archive.contents()
        assert replay_script.render(contents) == replay_script.render(replace(contents, payload={}))

    def test_products_have_their_recorded_digests_and_results_their_rule(self) -> None:
        script = replay_script.render(small_archive.contents())
        digest = small_archive.artifact("", b"results/mass.json").sha256.hex
        assert ("results/mass.json", digest, "identical") in called(script, "makes")
        assert [call[0] for call in called(script, "compare")] == ["results/plots/a.png", "results/plots/b.png"]
        assert called(script, "nothing_else") == [("results/plots/", "2", "advisory")]
        assert called(script, "limits") == [("2", "2000000000", "600")] * 4

    def test_a_result_whose_name_begins_as_another_has_its_own_rule(self) -> None:
        """results/plots/a is a result that is asked more of; results/plots/a.png is one of the folder's."""
        rules = {"results/plots/a": '{"require":"identical"}', "results/plots/": '{"require":"advisory"}'}
        script = replay_script.render(small_archive.contents(changes={"results": rules}))
        assert [call[2] for call in called(script, "compare")] == ["advisory", "advisory"]

    def test_no_limit_is_an_empty_word(self) -> None:
        script = replay_script.render(with_step(resources=Resources(cpus=3)))
        assert called(script, "limits")[0] == ("3", "", "")

    def test_an_input_beside_an_output_is_protected(self) -> None:
        reads = (PlannedInput(path="out/deep/in.txt"), PlannedInput(path="other.txt"))
        script = replay_script.render(with_step(inputs=reads, outputs=("out/a.txt", "out/b/c.txt")))
        assert called(script, "writes")[0] == ("out",)
        assert called(script, "also_makes")[0] == ("out/b",)
        assert called(script, "protects") == [("out/deep",)]

    def test_inputs_that_were_left_out_say_where_they_came_from(self) -> None:
        script = replay_script.render(small_archive.contents(without="inputs")).decode()
        pin = small_archive.INPUTS["data/remote.root"]
        assert f"absent data/remote.root {pin.sha256.hex} 6 https://data.example.org/remote.root\n" in script
        assert "inside code/fit.py data/inputs/code/fit.py" in script

    @pytest.mark.parametrize(
        ("reference", "registry"),
        [
            ("docker://registry.example.org:5000/hep/tiny:2026.1", "registry.example.org:5000/hep/tiny"),
            ("docker://registry.example.org/hep/tiny", "registry.example.org/hep/tiny"),
            ("docker://python:3.12@sha256:" + "a" * 64, "python"),
            ("build:image/", ""),
            ("oci:layout@sha256:" + "a" * 64, ""),
        ],
    )
    def test_only_an_image_of_a_registry_can_be_fetched(self, reference: str, registry: str) -> None:
        image = replace(small_archive.IMAGE, reference=reference)
        script = replay_script.render(small_archive.contents(changes={"images": {"tiny": image}}))
        said = shell(("sh",), functions(script) + b'image() { printf "%s\\n" "$2" "$5" "$6"; }\nimages\n')
        assert said.decode().splitlines() == ["tiny", registry, reference]

    def test_ten_thousand_steps_make_a_script_that_a_shell_reads(self, tmp_path: Path) -> None:
        contents = many_steps(10_000)
        script = replay_script.render(contents)
        assert len(script) < 5_000_000
        place = tmp_path / "replay.sh"
        place.write_bytes(script)
        for program in (("sh",), ("busybox", "sh")):
            done = subprocess.run([*program, str(place), "-h"], check=False, capture_output=True, env=ENVIRONMENT)
            assert (done.returncode, done.stdout[:6]) == (0, b"usage:")


def many_steps(count: int) -> Contents:
    """The small archive, its last step's place taken by many."""
    step, record = small_archive.STEPS[1], small_archive.record(small_archive.STEPS[1], 1, ("counts/barrel.txt",))
    steps, records = [small_archive.STEPS[0]], {}
    for number in range(count):
        job = replace(step, id=f"count@number={number}", outputs=(f"counts/{number}.txt",))
        steps.append(job)
        product = replace(record.products[0], path=f"counts/{number}.txt")
        records[job.id] = replace(record, step=job.id, products=(product,))
    small = small_archive.contents()
    names = {f"counts/{number}.txt": f"data/products/counts/{number}.txt" for number in range(count)}
    pins = dict.fromkeys(names, small.pins["counts/barrel.txt"])
    return replace(
        small,
        plan=replace(small.plan, steps=tuple(steps)),
        records={**small.records, **records},
        names={**small.names, **names},
        pins={**small.pins, **pins},
    )


class TestTheImagesEnvironment:
    """An image's own variables stand in its config; no JSON reader is at hand in a shell."""

    @pytest.mark.parametrize("awk", [("awk",), ("busybox", "awk")], ids=lambda names: names[0])
    @FEW
    @given(values=st.lists(TRICKY, max_size=4), ascii_only=st.booleans(), indent=st.none() | st.just(2))
    def test_is_read_as_it_is(
        self, tmp_path: Path, awk: tuple[str, ...], values: list[str], ascii_only: bool, indent: int | None
    ) -> None:
        entries = [f"V{number}={value}" for number, value in enumerate(values)]
        config = {
            "Env": ["NOT=here"],
            "config": {"Cmd": ["Env", "A=1"], "Labels": {"Env": "L=1"}, "Env": entries, "Volumes": {"/v": {}}},
            "container_config": {"Env": ["NEITHER=here"]},
            "history": [{"Env": ["NOR=here"], "config": {"Env": ["OR=here"]}}],
        }
        place = tmp_path / "config.json"
        place.write_text(json.dumps(config, ensure_ascii=ascii_only, indent=indent), encoding="utf-8")
        programs = tmp_path / "bin"
        if not programs.exists():
            programs.mkdir()
            program = shutil.which(awk[0], path=ENVIRONMENT["PATH"])
            (programs / "awk").symlink_to(str(program))
        script = (
            functions(replay_script.render(small_archive.contents()))
            + (
                f"PATH={programs}:$PATH\nread_environment {place} > {tmp_path}/read\n"
                f'setting() {{ printf \'%s=%s\\0\' "$1" "$2"; }}\n. {tmp_path}/read\n'
            ).encode()
        )
        assert shell(("sh",), script).decode().split("\0")[:-1] == entries


def test_steps_of_the_small_archive_are_planned_steps() -> None:
    """The script has one call of ``step`` for each job, in the plan's order."""
    steps: tuple[PlannedStep, ...] = small_archive.STEPS
    script = replay_script.render(small_archive.contents())
    assert [call[0] for call in called(script, "step")] == [step.id for step in steps]
