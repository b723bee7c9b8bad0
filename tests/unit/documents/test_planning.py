"""From a workflow to jobs: who reads what of whom, in which order, called what."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preserve.digest import Digest, FilePin
from preserve.documents import paths
from preserve.documents.faults import Faults
from preserve.documents.jobs import jobs_of
from preserve.documents.lockfile import ImagePin, InputPin, Lock, SourcePin
from preserve.documents.plan import PlannedInput, PlannedStep, read_plan
from preserve.documents.planning import expand, image_reference, make_plan
from preserve.documents.reading import read_workflow
from preserve.documents.workflow import Value, Workflow
from preserve.errors import DocumentError, UserError

VALID = Path(__file__).parents[2] / "data" / "valid"
TRACKED = ("README.md", "code/assemble.py", "code/fit.py", "code/lib/x.py", "code/select.py")
ZERO = Digest("sha256:" + "0" * 64)


def workflow(steps: str, head: str = "") -> Workflow:
    text = f"format: 1\ntitle: t\nimages: {{i: h.example/i}}\n{head}\nsteps:\n{steps}"
    return read_workflow(text.encode(), "p.yaml")


def step(name: str, outputs: str, inputs: str = "", stage: str = "processing", more: str = "run: x") -> str:
    read = f"inputs: [{inputs}]" if inputs else "network: false"
    return f"  - {{name: {name}, stage: {stage}, image: i, {read}, outputs: [{outputs}], {more}}}\n"


def planned(
    steps: str, *, head: str = "", tracked: tuple[str, ...] = TRACKED, **parameters: Value
) -> dict[str, PlannedStep]:
    found = expand(workflow(steps, head), tracked=tracked, parameters=parameters)
    return {job.id: job for job in found}


def complaint(steps: str, **more: str) -> str:
    with pytest.raises(DocumentError) as caught:
        planned(steps, **more)  # type: ignore[arg-type]
    return str(caught.value)


def full() -> Workflow:
    return read_workflow((VALID / "full.yaml").read_bytes(), "preserve.yaml")


def lock_of(declared: Workflow) -> Lock:
    images = {
        name: ImagePin(
            reference=image_reference(source),
            platform="linux/amd64",
            manifest_digest=ZERO,
            config_digest=ZERO,
            diff_ids=(ZERO,),
        )
        for name, source in declared.images.items()
    }
    inputs = {
        path: InputPin(sha256=source.sha256 or ZERO, size=1, url=source.url) for path, source in declared.inputs.items()
    }
    return Lock(images=images, inputs=inputs, source=SourcePin(commit="c", tree="t", clean=True), epoch=1234567890)


def test_the_full_example() -> None:
    jobs = {job.id: job for job in expand(full(), tracked=TRACKED)}
    assert list(jobs) == [
        "environment", "select", "histogram@category=barrel", "histogram@category=endcap", "fit", "assemble",
    ]  # fmt: skip
    barrel = jobs["histogram@category=barrel"]
    assert barrel.values == {"category": "barrel"}
    assert barrel.outputs == ("histograms/barrel.json",)
    assert [item.path for item in barrel.inputs] == ["selected/events.npz", *TRACKED[1:]]
    assert barrel.upstream == ("select",)
    assert barrel.environment == {
        "LANG": "C.UTF-8", "TZ": "UTC", "HOME": "/tmp", "SOURCE_DATE_EPOCH": "0", "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "2",
    }  # fmt: skip
    assert jobs["assemble"].inputs[1] == PlannedInput(path="fit/log/a.txt", producer="fit")
    assert jobs["select"].command == (
        "/bin/sh", "-c", 'source /release_setup.sh\nexec "$@"', "sh",
        "python", "code/select.py", "--low", "60", "data/Zmumu.root", "selected/events.npz",
    )  # fmt: skip
    assert jobs["environment"].command[:3] == ("/bin/sh", "-eu", "-c")


def test_the_unusual_example() -> None:
    declared = read_workflow((VALID / "unusual.yaml").read_bytes(), "unusual.yaml")
    jobs = {job.id: job for job in expand(declared, tracked=())}
    assert list(jobs)[1:5] == ["b@x=1+y=on", "b@x=2.5+y=on", "b@x=true+y=on", "b@x=a-b-c8687a08+y=on"]
    assert jobs["b@x=2.5+y=on"].command == (
        "/bin/sh", "-c", 'export A=b\n. /setup.sh\nexec "$@"', "sh", "prog", "-1", "2.5", "--x=2.5", "${{ literal }}",
    )  # fmt: skip
    assert jobs["c"].command == ("cat", "b/1-on.txt", "b/2.5-on.txt")
    assert [item.path for item in jobs["c"].inputs] == ["b/1-on.txt", "b/2.5-on.txt", "b/a b-on.txt", "b/true-on.txt"]
    assert jobs["b@x=1+y=on"].inputs[1:] == (
        PlannedInput(path="a/inside/of/it.txt", producer="a"),
        PlannedInput(path="a/", producer="a"),
    )


def test_parameters_replace_the_declared_ones() -> None:
    found = expand(full(), tracked=TRACKED, parameters={"categories": ("all",), "low": 61})
    assert [job.id for job in found][2] == "histogram@category=all"
    assert "--low 61.0 " in found[2].command[3]
    for wrong in ({"lwo": 1}, {"low": "a"}, {"categories": "all"}):
        with pytest.raises(UserError):
            expand(full(), tracked=TRACKED, parameters=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "said"),
    [((), "empty list"), (("a", "a"), "stands twice"), (("..",), "fit for a path"), (("*",), "wildcards")],
)
def test_a_list_that_a_parameter_brings_is_checked_like_a_declared_one(values: Value, said: str) -> None:
    with pytest.raises(DocumentError, match=said):
        expand(full(), tracked=TRACKED, parameters={"categories": values})


def test_setup_runs_before_the_script_without_its_strictness() -> None:
    declared = read_workflow(
        b"format: 1\ntitle: t\nimages: {i: {reference: h.example/i, setup: 'false; a=$none'}}\n"
        b"steps: [{name: s, stage: assembly, image: i, run: 'echo \"<$a>\"; false; echo no', outputs: [o]}]\n",
        "p.yaml",
    )
    done = subprocess.run(expand(declared, tracked=())[0].command, capture_output=True, check=False, text=True)
    assert (done.returncode, done.stdout) == (1, "<>\n")


def test_setup_runs_before_a_command_whose_arguments_stay_as_they_are() -> None:
    declared = read_workflow(
        b"format: 1\ntitle: t\nimages: {i: {reference: h.example/i, setup: 'export A=b'}}\n"
        b"steps: [{name: s, stage: assembly, image: i, command: [printf, '%s,', $A, a b, \"it's\"], outputs: [o]}]\n",
        "p.yaml",
    )
    done = subprocess.run(expand(declared, tracked=())[0].command, capture_output=True, check=True, text=True)
    assert done.stdout == "$A,a b,it's,"


def test_the_order_is_the_declared_one_where_possible() -> None:
    steps = step("d", "d", "c") + step("a", "a") + step("c", "c", "b") + step("b", "b") + step("z", "z")
    assert list(planned(steps)) == ["a", "b", "c", "d", "z"]


def test_no_input_twice_and_patterns_sorted() -> None:
    steps = step("a", "x/b, x/a, x/d/c") + step("m", "m", "x/d/c, x/*, x/, code/fit.py, code/")
    assert [item.path for item in planned(steps)["m"].inputs] == [
        "x/d/c", "x/a", "x/b", "code/fit.py", "code/assemble.py", "code/lib/x.py", "code/select.py",
    ]  # fmt: skip


def test_a_pattern_never_sees_the_repository_but_declared_inputs() -> None:
    head = "inputs: {code/data.txt: {}}"
    assert [i.path for i in planned(step("a", "o", "code/*"), head=head)["a"].inputs] == ["code/data.txt"]


def test_a_folder_product_stays_one_input() -> None:
    found = planned(step("a", "x/") + step("b", "o", "x/, x/y/, x/z.txt"))["b"].inputs
    assert found == tuple(PlannedInput(path=path, producer="a") for path in ("x/", "x/y/", "x/z.txt"))


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("x", "x", "made twice"), ("x/", "x/a", "lies inside"),
        ("x/a", "x/", "lies inside"), ("x", "x/a", "lies inside"),
        ("x/", "x", "also a folder"), ("code/fit.py", "x", "a file of the repository"), ("code", "x", "would replace"),
        ("README.md/x", "x", "lies below"), ("data/in", "x", "declared under inputs:"), ("data/", "x", "would replace"),
    ],
)  # fmt: skip
def test_products_that_touch(first: str, second: str, said: str) -> None:
    assert said in complaint(step("a", first) + step("b", second), head="inputs: {data/in: {}}")


def test_cycles_are_named_in_full_and_each_once() -> None:
    steps = (
        step("a", "a", "c") + step("b", "b", "a") + step("c", "c", "b") + step("x", "x", "y") + step("y", "y", "x, a")
    )
    message = complaint(steps)
    assert "a → b → c → a" in message
    assert "x → y → x" in message
    assert message.count("cycle") == 2


def test_a_cycle_of_3000_steps_is_found_without_recursion() -> None:
    steps = "".join(step(f"s{i}", f"o{i}", f"o{(i + 1) % 3000}") for i in range(3000))
    assert complaint(steps).count(" → ") == 3000


def test_faults_of_a_step_of_many_jobs_are_told_once() -> None:
    steps = step("a", '"o/${{ k }}"', '"in/${{ k }}"', more="for_each: {k: [1, 2, 3]}, run: x")
    assert complaint(steps).count("nobody makes") == 1


@pytest.mark.parametrize(
    ("values", "ids"),
    [
        ("[a, B]", ["s@k=a", "s@k=B"]),
        ("[a, A]", ["s@k=a-ca978112", "s@k=A-559aead0"]),
        ("['a b', a/b]", ["s@k=a-b-c8687a08", "s@k=a-b-c14cddc0"]),
        ("[1, 2.50, true]", ["s@k=1", "s@k=2.5", "s@k=true"]),
        ("['']", ["s@k=-e3b0c442"]),
        ("[größe]", ["s@k=gr--e-d353a267"]),
    ],
)
def test_ids(values: str, ids: list[str]) -> None:
    declared = workflow(
        f"  - name: s\n    stage: assembly\n    image: i\n    outputs: [o]\n    for_each: {{k: {values}}}\n    run: x\n"
    )
    found = [job.id for job in jobs_of(declared, {}, Faults("p.yaml"))]
    assert found == ids


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=300),
        min_size=1,
        max_size=6,
        unique=True,
    )
)
def test_ids_are_file_names_that_differ(values: list[str]) -> None:
    parameters: Mapping[str, Value] = {"v": tuple(values)}
    declared = workflow(step("s", "o", more='for_each: {k: "${{ parameters.v }}"}, run: x'), "parameters: {v: [a]}")
    ids = [job.id for job in jobs_of(declared, parameters, Faults("p.yaml"))]
    assert len({job_id.casefold() for job_id in ids}) == len(values)
    assert all(re.fullmatch(r"[A-Za-z0-9._+=@-]{1,200}", job_id) for job_id in ids)


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("a/*.txt", "a/b.txt", True), ("a/*.txt", "a/b/c.txt", False), ("a/**/*.txt", "a/c.txt", True),
        ("a/**/*.txt", "a/b/b/c.txt", True), ("a/**", "a/b/c", True), ("**/c", "c", True), ("a?c", "abc", True),
        ("a?c", "a/c", False), ("[ab]c", "bc", True), ("[!ab]c", "bc", False), ("[!ab]c", "cc", True),
        ("[!a]b", "/b", False), ("[]]", "]", True), ("[a-]", "-", True), ("[a--b]", "-", True),
        ("a*b*c", "aXbYbZc", True),
        ("a*b*c", "ac", False), ("*.json", ".json", True), ("a.b", "axb", False), ("x/*/", "x/y/", True),
        ("*" * 30 + "b", "a" * 200, False), ("a*" * 40 + "b", "a" * 200, False), ("[^x]*", "a\nb", True),
    ],
)  # fmt: skip
def test_patterns(pattern: str, path: str, matches: bool) -> None:
    assert bool(paths.compile_pattern(pattern).fullmatch(path)) is matches


def test_a_script_too_long_for_an_argument() -> None:
    assert "more than a program can be given" in complaint(step("a", "o", more=f"run: '{'x' * 100_001}'"))


def test_the_plan_has_everything_pinned_and_goes_to_bytes_and_back() -> None:
    declared = full()
    draft = make_plan(declared, lock_of(declared), tracked=TRACKED)
    assert draft.sources == TRACKED[1:]
    plan = draft.pinned({path: FilePin(sha256=ZERO, size=1) for path in draft.sources})
    assert list(plan.inputs) == ["data/Zmumu.root"]
    assert plan.steps[0].environment["SOURCE_DATE_EPOCH"] == "1234567890"
    assert plan.source == SourcePin(commit="c", tree="t", clean=True)
    assert set(plan.results) == {"results/mass.json", "results/mass.png"}
    assert read_plan(plan.to_bytes(), "plan.json") == plan
    with pytest.raises(ValueError, match="no pin for"):
        draft.pinned({})


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("hep/scikit-hep:2026.1", "hep/scikit-hep:2026.2", 'the image "scikit-hep" is docker://'),
        ("{build: image/}", "{build: other/}", "build:other/"),
        ("Zmumu.root\"", "Zmumu2.root\"", "comes from https://data.example.org/Zmumu2.root"),
        ("8290ddc1", "00000000", 'the input "data/Zmumu.root" has sha256:00000000'),
        ("data/local.txt: {}", "data/other.txt: {}", 'lacks the input "data/other.txt"'),
        ("  data/local.txt: {}\n", "", 'the lock has the input "data/local.txt"'),
        ("local", "mine", 'lacks the image "mine"'),
    ],
)  # fmt: skip
def test_a_lock_that_does_not_fit_is_named(old: str, new: str, said: str) -> None:
    changed = full().data.replace(old.encode(), new.encode())
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        make_plan(read_workflow(changed, "preserve.yaml"), lock_of(full()), tracked=TRACKED)
    assert caught.value.hint == "run: preserve lock"


SINGLE = """  - name: step{0}
    stage: processing
    image: i
    inputs: [code/fit.py]
    outputs: [out/{0}.json]
    run: python code/fit.py --low ${{{{ parameters.low }}}} out/{0}.json
"""


@pytest.mark.parametrize("way", ["single", "for_each"])
def test_10000_steps_and_their_merge(way: str) -> None:
    count = 10_000
    if way == "single":
        steps = "".join(SINGLE.format(i) for i in range(count))
    else:
        more = f"for_each: {{k: [{', '.join(map(str, range(count)))}]}}, command: [x, '${{{{ k }}}}']"
        steps = step("step", '"out/${{ k }}.json"', "code/", more=more)
    text = f"format: 1\ntitle: t\nimages: {{i: h.example/i}}\nparameters: {{low: 1}}\nsteps:\n{steps}"
    data = (text + step("merge", "all", "out/*.json", "assembly")).encode()
    start = time.process_time()
    found = expand(read_workflow(data, "p.yaml"), tracked=TRACKED)
    seconds = time.process_time() - start
    assert len(found) == count + 1
    assert len(found[-1].upstream) == count
    assert seconds < 10, seconds  # 2.5 s here; a quadratic one takes minutes
