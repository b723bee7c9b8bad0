"""What preserve.yaml's values mean, and what -p means."""

from __future__ import annotations

from pathlib import Path

import pytest

from preserve.documents import forms, yaml12
from preserve.documents.faults import Faults
from preserve.documents.reading import parse_parameter, read_workflow
from preserve.documents.workflow import Value, Workflow
from preserve.errors import DocumentError, UserError

VALID = Path(__file__).parents[2] / "data" / "valid"
MINIMAL = """format: 1
title: t
images: {i: h.example/i}
parameters: {p: PLACE}
steps: [{name: s, stage: assembly, image: i, run: "true", outputs: [o]}]
"""


def read(name: str) -> Workflow:
    return read_workflow((VALID / f"{name}.yaml").read_bytes(), f"{name}.yaml")


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e3", 1000.0), ("1.0e-6", 1e-6), (".5", 0.5), ("5.", 5.0), ("+1.5", 1.5), ("-0", 0), ("010", 10),
        ("0o17", 15), ("0x1f", 31), ("0b1", "0b1"), ("1_000", "1_000"), ("22:22", "22:22"), ("no", "no"),
        ("yes", "yes"), ("on", "on"), ("Off", "Off"), ("y", "y"), ("2026-01-01", "2026-01-01"), ("true", True),
        ("False", False), ("tRue", "tRue"), ("'1'", "1"), ('"true"', "true"), ("1.2.3", "1.2.3"), ("=", "="),
        ("1e", "1e"), ("0x", "0x"), ("[1, a, 2.0]", (1, "a", 2.0)), ("18446744073709551615", 2**64 - 1),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(written: str, value: Value) -> None:
    found = read_workflow(MINIMAL.replace("PLACE", written).encode(), "p.yaml").parameters["p"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("written", [".inf", "-.INF", ".nan", "1e400", "18446744073709551616", "9" * 5000, "~", "null"])
def test_numbers_are_finite_and_values_are_there(written: str) -> None:
    with pytest.raises(DocumentError) as caught:
        read_workflow(MINIMAL.replace("PLACE", written).encode(), "p.yaml")
    assert [(fault.line, fault.column) for fault in caught.value.faults] == [(4, 17)]


def test_the_full_example() -> None:
    workflow = read("full")
    assert [step.name for step in workflow.steps] == ["environment", "select", "histogram", "fit", "assemble"]
    histogram = workflow.steps[2]
    assert histogram.resources.memory == 2_000_000_000
    assert histogram.resources.time == 600
    assert histogram.network
    assert histogram.for_each == {"category": "${{ parameters.categories }}"}
    assert workflow.images["athena"].setup == "source /release_setup.sh"
    assert workflow.inputs["data/Zmumu.root"].sha256 is not None
    assert workflow.results["results/mass.png"].text == '{"pixels":{"fraction":0.0001,"level":8},"require":"advisory"}'
    assert workflow.authors[0].orcid == "0000-0002-1825-0097"


def test_the_unusual_example() -> None:
    workflow = read("unusual")
    assert workflow.title == "A title on two lines"
    assert workflow.parameters["few"] == 10
    assert workflow.parameters["none"] == ()
    assert workflow.steps[1].command == ("prog", "-1", "2.5", *workflow.steps[1].command[3:])  # type: ignore[index]
    assert workflow.steps[1].resources.memory == 3 << 29
    assert workflow.steps[1].resources.time == 1800


def test_crlf_and_a_byte_order_mark_change_nothing() -> None:
    data = (VALID / "full.yaml").read_bytes()
    one = read_workflow(data, "a.yaml")
    other = read_workflow(b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"), "a.yaml")
    assert one.steps == other.steps


def test_a_file_that_is_too_large() -> None:
    with pytest.raises(DocumentError, match="more than 16777216"):
        read_workflow(b"#" * (yaml12.MAX_BYTES + 1), "p.yaml")


def test_a_file_of_too_many_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml12, "MAX_NODES", 1000)
    with pytest.raises(DocumentError, match="more than 1000 entries"):
        read_workflow(b"a: [" + b"1," * 1001 + b"]", "p.yaml")


def test_a_file_nested_100000_deep() -> None:
    with pytest.raises(DocumentError, match="nested deeper"):
        read_workflow(b"[" * 100_000, "p.yaml")


def test_both_parsers_of_pyyaml_give_the_same_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (VALID / "unusual.yaml").read_text(encoding="utf-8")
    fast = yaml12.read_tree(text, Faults("a"))
    monkeypatch.setattr(yaml12, "_EVENTS", yaml12.yaml.BaseLoader)
    assert yaml12.read_tree(text, Faults("a")) == fast


@pytest.mark.parametrize(
    ("reference", "right"),
    [
        ("docker://h.example/a/b:1", True), ("h.example:5000/a", True), ("python:3.12", True), ("[::1]:5000/a", True),
        ("docker-daemon:a/b:1", True), ("docker-daemon:sha256:" + "a" * 64, True), ("oci:some/path:tag", True),
        ("h.example/a@sha256:" + "0" * 64, True), ("h.example/a:1@sha256:" + "0" * 64, True),
        ("h.example/a@sha256:" + "0" * 63, False), ("h.example/a@sha256:" + "A" * 64, False),
        ("h.example/a@md5:00", False), ("h.example/a@", False), ("h.example/A", False), ("h.example/a:b:c", False),
        ("oras://h/a", False), ("oci:", False), ("docker://", False), ("a b", False), ("docker:a", True),
    ],
)  # fmt: skip
def test_image_references(reference: str, right: bool) -> None:
    assert (forms.problem_of_reference(reference) is None) is right


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("2 GB", 2 * 10**9),
        ("1kB", 1000),
        ("1.5 MiB", 3 << 19),
        ("2", None),
        ("2 gb", None),
        ("-1 GB", None),
        ("0 B", None),
    ],
)
def test_memory(text: str, amount: int | None) -> None:
    assert forms.memory(text) == amount


@pytest.mark.parametrize(
    ("text", "amount"), [("10 min", 600), ("1.5h", 5400), ("2 d", 172800), ("0.1 s", 1), ("5 m", None)]
)
def test_duration(text: str, amount: int | None) -> None:
    assert forms.duration(text) == amount


@pytest.mark.parametrize(
    ("orcid", "right"),
    [
        ("0000-0002-1825-0097", True),
        ("0000-0002-1694-233X", True),
        ("0000-0002-1825-0098", False),
        ("٠000-0002-1825-0097", False),
    ],
)
def test_orcid(orcid: str, right: bool) -> None:
    assert (forms.problem_of_orcid(orcid) is None) is right


PARAMETERS = MINIMAL.replace("{p: PLACE}", "{low: 60.0, n: 3, cut: a, flag: false, bins: [1.5, 2.5], mixed: [a, 1]}")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("low=1e2", 100.0), ("low=61", 61.0), ("n=010", 10), ("cut=pt > 20 # x: [", "pt > 20 # x: ["), ("cut=", ""),
        ("cut=7", "7"), ("cut='7'", "7"), ("cut=a=b", "a=b"), ("flag=true", True), ("bins=[1, 2]", (1.0, 2.0)),
        ("bins=[]", ()), ("mixed=[true, b]", (True, "b")), ("cut=größe", "größe"),
    ],
)  # fmt: skip
def test_parameters_of_the_command_line(text: str, value: Value) -> None:
    found = parse_parameter(text, read_workflow(PARAMETERS.encode(), "p.yaml"))
    assert found == (text.partition("=")[0], value)
    assert type(found[1]) is type(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("low", "no value"), ("lwo=1", "no parameter 'lwo'"), ("low=a", "declared as a number, this is a text"),
        ("n=1.5", "declared as a whole number"), ("n=true", "declared as a whole number"), ("flag=1", "true or false"),
        ("bins=1", "declared as a list"), ("bins=[a]", "declared as a list"), ("n=[", "a value is missing"),
        ("n=", "no value"),
        ("low=.inf", "not a finite number"), ("low=*a", "alias"), ("low=!!float 1", "tag"), ("cut=\udcff", "not UTF-8"),
        ("n=[1]", "this is a list"), ("cut=a\0b", "not UTF-8 text"),
    ],
)  # fmt: skip
def test_wrong_parameters_of_the_command_line(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("[", r"\[")) as caught:
        parse_parameter(text, read_workflow(PARAMETERS.encode(), "p.yaml"))
    assert caught.value.hint
