"""The crate, entity by entity; whether other programs accept it is judged in tests/contract/test_judges.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import small_archive
from hypothesis import given
from hypothesis import strategies as st

from preserve.digest import Digest
from preserve.documents import archive
from preserve.documents.archive import Contents
from preserve.renderers import crate_entities, crate_workflow, ro_crate

Graph = dict[str, dict[str, Any]]
AWKWARD_INPUT = crate_entities.formal_id("input", small_archive.AWKWARD)


def _graph(contents: Contents) -> Graph:
    entities = json.loads(ro_crate.render(contents))["@graph"]
    graph = {entity["@id"]: entity for entity in entities}
    assert len(graph) == len(entities), "an @id stands twice"
    return graph


@pytest.fixture(scope="module")
def graph() -> Graph:
    return _graph(small_archive.contents())


def _ids(value: Any) -> list[str]:
    if value is None:
        return []
    return [entry["@id"] for entry in (value if isinstance(value, list) else [value])]


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for entry in value:
            yield from _references(entry)
    elif isinstance(value, dict):
        yield value["@id"]


def test_one_form() -> None:
    data = ro_crate.render(small_archive.contents())
    assert data == ro_crate.render(small_archive.contents())
    assert data.endswith(b"}\n")
    names = [entity["@id"] for entity in json.loads(data)["@graph"]]
    assert names[:2] == [archive.CRATE, "./"]
    assert names[2:] == sorted(names[2:])


def test_the_order_in_which_documents_were_read_does_not_matter() -> None:
    contents = small_archive.contents()
    turned = replace(
        contents,
        records=dict(reversed(contents.records.items())),
        payload=dict(reversed(contents.payload.items())),
        names=dict(reversed(contents.names.items())),
        plan=replace(
            contents.plan,
            images=dict(reversed(contents.plan.images.items())),
            inputs=dict(reversed(contents.plan.inputs.items())),
            parameters=dict(reversed(contents.plan.parameters.items())),
            results=dict(reversed(contents.plan.results.items())),
        ),
    )
    assert ro_crate.render(turned) == ro_crate.render(contents)


def test_every_reference_leads_somewhere(graph: Graph) -> None:
    outside = {
        ro_crate.RO_CRATE,
        crate_workflow.BIOSCHEMAS,
        crate_entities.PARAMETER,
        crate_entities.RUN_TERMS + "DockerImage",
    }
    for entity in graph.values():
        for term, value in entity.items():
            missing = set(_references(value)) - set(graph) - outside
            assert not missing, f"{entity['@id']}: {term} refers to {missing}"


def test_single_values_stand_bare_and_nothing_is_empty(graph: Graph) -> None:
    for entity in graph.values():
        for term, value in entity.items():
            if isinstance(value, list):
                assert len(value) > 1, f"{entity['@id']}: {term}"
            assert value not in ("", None)


def test_root(graph: Graph) -> None:
    root = graph["./"]
    assert root["name"] == small_archive.TITLE
    assert set(_ids(root["conformsTo"])) == set(ro_crate.PROFILES)
    assert root["datePublished"] == "2026-11-23T09:03:01.500+00:00"
    assert root["license"] == {"@id": "https://spdx.org/licenses/CC0-1.0"}
    assert [graph[name]["name"] for name in _ids(root["author"])] == ["A. Physicist", "B. <i>Other</i>"]
    assert _ids(root["author"])[0] == "https://orcid.org/0000-0002-1825-0097"
    assert root["mainEntity"] == {"@id": archive.WORKFLOW}


def test_every_payload_file_is_part_of_the_root() -> None:
    contents = small_archive.contents()
    parts = set(_ids(_graph(contents)["./"]["hasPart"]))
    assert {name for name in contents.payload if not name.startswith(archive.OCI)} <= parts
    assert archive.OCI in parts


def test_files_are_described_by_their_content() -> None:
    contents = small_archive.contents()
    graph = _graph(contents)
    for name, pin in contents.payload.items():
        if not name.startswith(archive.OCI):
            assert graph[name]["sha256"] == pin.sha256.hex
            assert graph[name]["contentSize"] == str(pin.size)


def test_a_name_that_did_not_fit_is_kept(graph: Graph) -> None:
    renamed = [entity for entity in graph.values() if "alternateName" in entity]
    assert [entity["alternateName"] for entity in renamed] == [small_archive.AWKWARD, "counts/end cap.txt"]
    assert all(not archive.name_fault(entity["@id"]) for entity in renamed)


def test_actions_say_what_was_read_and_made() -> None:
    contents = small_archive.contents()
    graph = _graph(contents)
    for step, record in contents.records.items():
        action = graph[crate_entities.action_id(step)]
        assert [graph[name]["sha256"] for name in _ids(action["object"])] == [m.sha256.hex for m in record.materials]
        assert [graph[name]["sha256"] for name in _ids(action["result"])] == [p.sha256.hex for p in record.products]
        assert graph[action["containerImage"]["@id"]]["sha256"] == small_archive.IMAGE.manifest_digest.hex
        assert action["startTime"] == record.started.replace("456Z", "+00:00")


def test_a_step_with_values_is_one_step_and_an_action_each(graph: Graph) -> None:
    workflow = graph[archive.WORKFLOW]
    assert _ids(workflow["step"]) == ["#step/select", "#step/count", "#step/fit"]
    assert [graph[name]["position"] for name in _ids(workflow["step"])] == ["1", "2", "3"]
    assert len(_ids(graph["#control/count"]["object"])) == 2
    assert graph["#control/count"]["instrument"] == {"@id": "#step/count"}


def test_the_run_reads_inputs_and_parameters_and_makes_results(graph: Graph) -> None:
    run = graph["#run"]
    read = {graph[name]["name"] for name in _ids(run["object"])}
    assert read == {small_archive.AWKWARD, "data/remote.root", "code/fit.py", *small_archive.plan().parameters}
    made = [graph[name]["name"] for name in _ids(run["result"])]
    assert made == ["results/mass.json", "results/plots/a.png", "results/plots/b.png"]
    assert _ids(graph["./"]["mentions"])[0] == "#run"


def test_formal_parameters_have_kinds_and_examples(graph: Graph) -> None:
    workflow = graph[archive.WORKFLOW]
    formal = [graph[name] for name in (*_ids(workflow["input"]), *_ids(workflow["output"]))]
    kinds = {entity["name"]: entity["additionalType"] for entity in formal}
    assert kinds == {
        "low": "Float",
        "categories": "PropertyValue",
        "blind": "Boolean",
        "bins": "Integer",
        "label": "Text",
        small_archive.AWKWARD: "File",
        "data/remote.root": "File",
        "results/mass.json": "File",
        "results/plots/": "File",
    }
    examples = {name for entity in graph.values() for name in _ids(entity.get("exampleOfWork"))}
    assert examples == {name for name, entity in graph.items() if entity["@type"] == "FormalParameter"}
    assert graph["#value/categories"]["value"] == ["barrel", "end cap"]


def test_connections_follow_the_products() -> None:
    graph = _graph(small_archive.contents())
    connections = [entity for entity in graph.values() if entity["@type"] == "ParameterConnection"]
    assert {(c["sourceParameter"]["@id"], c["targetParameter"]["@id"]) for c in connections} == {
        ("#input/data/remote.root", "#input-of/select/input/data/remote.root"),
        (AWKWARD_INPUT, AWKWARD_INPUT.replace("#", "#input-of/select/")),
        ("#output/select/1", "#input-of/count/output/select/1"),
        ("#output/count/1", "#input-of/fit/output/count/1"),
        ("#output/fit/1", "#result/results/mass.json"),
        ("#output/fit/2", "#result/results/plots/"),
    }
    assert _ids(graph["#step/fit"]["connection"]) == ["#connection/input-of/fit/output/count/1"]
    assert _ids(graph["#tool/count"]["input"]) == ["#input-of/count/output/select/1"]
    assert _ids(graph["#tool/fit"]["output"]) == ["#output/fit/1", "#output/fit/2"]
    to_results = [entity["@id"] for entity in connections if "/result/" in entity["@id"]]
    assert _ids(graph[archive.WORKFLOW]["connection"]) == to_results


def test_only_what_a_step_reads_is_an_example_of_its_input(graph: Graph) -> None:
    of_fit = "#input-of/fit/output/count/1"
    named = [e["name"] for e in graph.values() if of_fit in _ids(e.get("exampleOfWork"))]
    assert named == ["counts/barrel.txt"]


def test_a_file_inside_a_folder_product_comes_from_the_folder() -> None:
    reader = small_archive.planned(
        "view", "assembly", {"results/plots/a.png": "fit", "results/plots/": "fit"}, ("seen.txt",)
    )
    contents = small_archive.contents()
    record = small_archive.record(reader, 9, reader.outputs)
    plan = replace(contents.plan, steps=(*contents.plan.steps, reader))
    graph = _graph(replace(contents, plan=plan, records={**contents.records, "view": record}))
    assert _ids(graph["#tool/view"]["input"]) == ["#input-of/view/output/fit/2"]
    named = [e["name"] for e in graph.values() if "#input-of/view/output/fit/2" in _ids(e.get("exampleOfWork"))]
    assert named == ["results/plots/a.png", "results/plots/b.png"]


def test_what_was_not_measured_is_left_out(graph: Graph) -> None:
    assert len(_ids(graph["#run/select"]["resourceUsage"])) == 2
    usage = _ids(graph["#run/fit"]["resourceUsage"])
    assert {graph[name]["propertyID"]: graph[name]["value"] for name in usage} == {
        "wall_seconds": "1.376544",
        "cpu_seconds": "0.25",
        "peak_memory": "12000000",
    }


def test_what_was_left_out_is_known_by_digest() -> None:
    contents = small_archive.contents(without="inputs,images")
    graph = _graph(contents)
    absent = graph["#file/data/remote.root"]
    assert absent["sha256"] == Digest.of(b"remote").hex
    assert absent["url"] == "https://data.example.org/remote.root"
    assert contents.names["data/remote.root"] not in graph
    assert archive.OCI not in graph
    assert "images, inputs" in graph["./"]["description"]
    assert "#file/data/remote.root" in _ids(graph["#run/select"]["object"])


def test_a_recast_names_its_parent() -> None:
    parent = Digest.of(b"parent")
    graph = _graph(small_archive.contents(parent=parent))
    assert graph[graph["./"]["isBasedOn"]["@id"]]["identifier"] == parent
    assert "isBasedOn" not in _graph(small_archive.contents())["./"]


@pytest.mark.parametrize(
    ("changes", "error"),
    [({"exit_code": 3}, "exit code 3"), ({"failure": "made no results/mass.json"}, "made no results/mass.json")],
)
def test_a_failure_is_a_failure(changes: dict[str, Any], error: str) -> None:
    contents = small_archive.contents()
    failed = replace(contents.records["fit"], **changes)
    graph = _graph(replace(contents, records={**contents.records, "fit": failed}))
    for name in ("#run/fit", "#run"):
        assert graph[name]["error"] == error
        assert graph[name]["actionStatus"] == "http://schema.org/FailedActionStatus"
    assert "error" not in graph["#run/select"]


def test_without_author_licence_and_git() -> None:
    graph = _graph(small_archive.contents(changes={"authors": (), "license": None, "source": None, "parameters": {}}))
    assert graph["./"]["license"] == ro_crate.NO_LICENSE
    assert "author" not in graph["./"]
    assert graph[archive.WORKFLOW]["version"].startswith("sha256:")


def test_a_licence_of_ones_own_is_a_text() -> None:
    graph = _graph(small_archive.contents(changes={"license": "Ask us"}))
    assert graph["./"]["license"] == "Ask us"


@pytest.mark.parametrize(
    ("reference", "members"),
    [
        ("docker://h.example.org:5000/a/b:1", {"registry": "h.example.org:5000", "name": "a/b", "tag": "1"}),
        ("docker://localhost/a@sha256:" + "0" * 64, {"registry": "localhost", "name": "a"}),
        ("docker://hep/tiny:2", {"registry": "docker.io", "name": "hep/tiny", "tag": "2"}),
        ("docker://python", {"registry": "docker.io", "name": "python"}),
        ("h.example.org/a/b", {"registry": "h.example.org", "name": "a/b"}),
        ("python:3.12", {"registry": "docker.io", "name": "python", "tag": "3.12"}),
        ("build:image/", {"name": "build:image/"}),
        ("oci:images:tiny", {"name": "oci:images:tiny"}),
        ("docker-daemon:tiny:1", {"name": "docker-daemon:tiny:1"}),
    ],
)
def test_where_an_image_comes_from(reference: str, members: dict[str, str]) -> None:
    image = replace(small_archive.IMAGE, reference=reference)
    entity = _graph(small_archive.contents(changes={"images": {"tiny": image}}))["#image/tiny"]
    assert {term: entity[term] for term in ("registry", "name", "tag") if term in entity} == members
    assert entity["sha256"] == image.manifest_digest.hex


def test_a_file_that_only_a_record_names_is_passed_over() -> None:
    contents = small_archive.contents()
    stray = replace(contents.records["fit"], materials=(small_archive.artifact("elsewhere", b"x"),))
    graph = _graph(replace(contents, records={**contents.records, "fit": stray}))
    assert "object" not in graph["#run/fit"]


@given(title=st.text(), author=st.text(min_size=1))
def test_any_title_and_name_can_be_written(title: str, author: str) -> None:
    who = replace(small_archive.plan().authors[0], name=author, orcid=None)
    root = _graph(small_archive.contents(changes={"title": title, "authors": (who,)}))["./"]
    assert root["name"] == title


def test_a_lone_surrogate_does_not_stop_it() -> None:
    assert _graph(small_archive.contents(changes={"title": "\ud800"}))["./"]["name"] == "?"
