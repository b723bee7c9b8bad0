"""The probe's document: written, read, and asked what a difference is like; the rules that it suggests."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from preserve.documents.calibration import proposed_rules
from preserve.documents.policy import read_policy
from preserve.documents.probe import Finding, Movement, Probe, ProbedStep, Untried, explanations, read_probe
from preserve.documents.reach import Reach, read_reach, unopened_inputs
from preserve.documents.reading import read_workflow
from preserve.documents.record import EngineUsed, Machine
from preserve.errors import UserError

FIT = "fit/mass.json"
MASS = Movement(product=FIT, leaf="/mass", kind="numbers", max_abs=4.0e-6, max_rel=4.4e-8)
DATE = Movement(product=FIT, leaf="/date", kind="content")
NEAR_ZERO = Movement(product=FIT, leaf="/shift", kind="numbers", max_abs=6.0e-19, max_rel=1.0)


def finding(variation: str, *movements: Movement) -> Finding:
    return Finding(variation=variation, setting="x", held=False, confirmed=True, movements=movements)


def probe(*findings: Finding, results: tuple[Finding, ...] = ()) -> Probe:
    untried = (Untried(variation="user", reason="as the caller"),)
    step = ProbedStep(step="fit", runs=3, network_attempts=0, tried=("unchanged",), findings=findings, untried=untried)
    return Probe(
        run="20261123T120000.000000Z",
        engine=EngineUsed(name="docker", version="20.10"),
        machine=Machine(
            architecture="x86_64",
            cpu_model="a CPU",
            cpu_id="AuthenticAMD-25-11-1",
            cpu_flags=("avx2",),
            cpus=2,
            kernel="Linux 6",
        ),
        started="2026-11-23T12:00:00Z",
        ended="2026-11-23T12:01:00Z",
        steps=(step,),
        results=results,
    )


def test_round_trip() -> None:
    made = probe(finding("clock", DATE), results=(finding("clock", DATE),))
    assert read_probe(made.to_bytes(), "probe.json") == made


@pytest.mark.parametrize(
    ("key", "value"),
    [("steps", 3), ("steps", [{}]), ("results", [{"variation": "x"}]), ("run", 7), ("engine", None), ("more", 1)],
)
def test_damage_is_named(key: str, value: object) -> None:
    document = json.loads(probe(finding("clock", DATE)).to_bytes())
    with pytest.raises(UserError, match=r"probe\.json: damaged"):
        read_probe(json.dumps({**document, key: value}).encode(), "probe.json")


def test_wrong_types_inside_are_refused() -> None:
    document = json.loads(probe(finding("clock", DATE)).to_bytes())
    document["steps"][0]["findings"][0]["movements"][0]["max_abs"] = "much"
    with pytest.raises(UserError, match="damaged"):
        read_probe(json.dumps(document).encode(), "probe.json")


class TestExplanations:
    KNOWN = probe(
        finding("clock", DATE),
        finding("blas-kernel", MASS),
        finding("threads", replace(MASS, max_abs=1.0e-6)),
        finding("input-order", replace(MASS, max_abs=4.0e-6), NEAR_ZERO),
    )

    def names(self, *moved: Movement) -> list[str]:
        return [one.variation for one in explanations(self.KNOWN, FIT, moved)]

    def test_the_closest_comes_first(self) -> None:
        assert self.names(replace(MASS, max_abs=3.9e-6)) == ["blas-kernel", "threads", "input-order"]
        assert self.names(replace(MASS, max_abs=1.1e-6))[0] == "threads"

    def test_content_is_explained_by_content_alone(self) -> None:
        assert self.names(DATE) == ["clock"]
        assert self.names(replace(MASS, kind="content", max_abs=None)) == []

    def test_ten_times_as_far_is_another_thing(self) -> None:
        assert self.names(replace(MASS, max_abs=9.0e-6)) == ["blas-kernel", "threads", "input-order"]
        assert self.names(replace(MASS, max_abs=4.1e-5)) == []

    def test_every_leaf_must_have_moved_there(self) -> None:
        assert self.names(MASS, DATE) == []
        assert self.names(MASS, NEAR_ZERO) == ["input-order"]

    def test_other_products_and_no_movement_have_no_explanation(self) -> None:
        assert self.names(replace(DATE, product="other.json")) == []
        assert self.names() == []

    def test_what_was_carried_to_a_result_counts(self) -> None:
        result = replace(MASS, product="results/mass.json")
        known = probe(finding("blas-kernel", MASS), results=(finding("blas-kernel", result),))
        assert [one.variation for one in explanations(known, "results/mass.json", (result,))] == ["blas-kernel"]


class TestCalibration:
    def rules(self, *findings: Finding) -> str:
        return proposed_rules(probe(results=findings))

    def test_nothing_moves(self) -> None:
        assert self.rules() == "# nothing moves in the results: no rule is needed\n"

    def test_ten_times_the_largest_movement_as_yaml_that_is_read_again(self) -> None:
        text = self.rules(finding("threads", replace(MASS, max_rel=1.2e-8)), finding("blas-kernel", MASS, NEAR_ZERO))
        workflow = read_workflow((WORKFLOW + text).encode(), "preserve.yaml")
        policy = read_policy(workflow.results[FIT].text)
        assert policy.require == "tolerated"
        rules = {rule.match: rule for rule in policy.rules}
        assert (rules["/mass"].rtol, rules["/mass"].atol) == (5e-7, 0.0)
        assert rules["/mass"].because == "probed: moves by 4.4e-08 of its value under threads, blas-kernel"
        assert (rules["/shift"].rtol, rules["/shift"].atol) == (0.0, 6e-18)

    def test_no_tolerance_for_what_is_no_number(self) -> None:
        text = self.rules(finding("clock", DATE, MASS))
        assert '    # "/date" differs under clock: no tolerance covers that' in text
        policy = read_policy(read_workflow((WORKFLOW + text).encode(), "w").results[FIT].text)
        assert [rule.match for rule in policy.rules] == ["/mass"]

    def test_only_what_is_no_number(self) -> None:
        workflow = read_workflow((WORKFLOW + self.rules(finding("clock", DATE))).encode(), "preserve.yaml")
        assert read_policy(workflow.results[FIT].text).rules == ()

    @pytest.mark.parametrize(("moved", "wanted"), [(1e-300, 1e-299), (4.4e-8, 5e-7), (9.5e-8, 1e-6), (1e-8, 1e-7)])
    def test_rounding_goes_up(self, moved: float, wanted: float) -> None:
        text = self.rules(finding("x", replace(MASS, max_rel=moved)))
        policy = read_policy(read_workflow((WORKFLOW + text).encode(), "w").results[FIT].text)
        assert policy.rules[0].rtol == pytest.approx(wanted)
        assert policy.rules[0].rtol >= 9.99 * moved


WORKFLOW = """\
format: 1
title: x
images: {a: "oci:a"}
steps:
  - {name: fit, stage: processing, image: a, outputs: [fit/mass.json], command: [x]}
"""


class TestReach:
    def test_round_trip_and_words(self) -> None:
        made = Reach(step="fit", unopened=("a", "b", "c", "d"), strays=("e",))
        assert read_reach(made.to_bytes(), "reach") == made
        assert made.lines == (
            "step fit never opened an input it declares: a, b, c and 1 more",
            "step fit wrote what it does not declare, and that is gone: e",
        )
        assert Reach(step="fit").lines == ()

    def test_damage(self) -> None:
        with pytest.raises(UserError, match="damaged"):
            read_reach(b'{"schema": "preserve/reach/1", "step": "x", "unopened": [3], "strays": []}', "reach")

    def test_a_folder_is_opened_if_one_of_its_files_is(self) -> None:
        files = ("a/1", "a/2", "b/1", "c")
        assert unopened_inputs(("a/", "b/", "c"), ("a/1", "b/1"), files) == ("b/",)
