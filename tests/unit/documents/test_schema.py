"""The published JSON Schema of preserve.yaml and the reader say the same, as far as a schema can say it."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from preserve.documents import rules, steps
from preserve.documents.faults import Faults
from preserve.documents.reading import KEYS, read_workflow
from preserve.documents.yaml12 import decode, plain, read_tree
from preserve.errors import DocumentError

DATA = Path(__file__).parents[2] / "data"
SCHEMA = json.loads(resources.files("preserve.documents").joinpath("preserve.schema.json").read_text(encoding="utf-8"))

# Faults of YAML itself: there is no value that a schema could judge.
NOT_READABLE = {
    "alias", "anchor", "bracket-open", "bracket-open-above-run", "bytes-control", "bytes-not-utf8", "colon-in-text",
    "directive", "document-second", "escape-unknown", "expression-in-flow", "indentation", "key-twice",
    "key-without-colon", "merge-conflict", "merge-key", "nesting", "quote-open", "script-colon", "script-quote",
    "special-sign", "tab", "tag",
}  # fmt: skip
# What needs other parts of the file, the repository's files, or arithmetic.
NOT_EXPRESSIBLE = {
    "cycle", "cycle-self", "digest-short", "expression-form", "expression-heredoc",
    "expression-index", "expression-list-quoted", "expression-name", "expression-one-brace", "expression-output",
    "expression-one-brace-command", "expression-path-value", "expression-unclosed",
    "folder-without-slash", "for-each-collide", "for-each-not-list", "image-capitals", "image-folder",
    "image-reference-inline", "image-scheme", "image-undeclared", "image-unused", "input-nobody",
    "output-inside-folder", "output-is-tracked", "output-tracked", "output-twice", "pattern-nothing", "pattern-range",
    "script-comment", "script-comment-below", "stage-later", "step-name-twice", "for-each-twice", "infinite",
}  # fmt: skip
FAULTY = sorted(path.stem for path in (DATA / "faulty").glob("*.yaml"))


def value(data: bytes) -> Any:
    """What a schema-aware editor sees of a file."""
    faults = Faults("preserve.yaml")
    return plain(read_tree(decode(data, faults), faults))


def allows(data: bytes) -> bool:
    return bool(jsonschema.Draft202012Validator(SCHEMA).is_valid(value(data)))


def test_the_lists_name_examples() -> None:
    assert set(FAULTY) >= NOT_READABLE | NOT_EXPRESSIBLE


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", sorted((DATA / "valid").glob("*.yaml")), ids=lambda path: path.stem)
def test_what_is_read_is_allowed(path: Path) -> None:
    read_workflow(path.read_bytes(), path.name)
    assert allows(path.read_bytes())


@pytest.mark.parametrize("name", [name for name in FAULTY if name not in NOT_READABLE | NOT_EXPRESSIBLE])
def test_what_is_refused_is_not_allowed(name: str) -> None:
    data = (DATA / "faulty" / f"{name}.yaml").read_bytes()
    with pytest.raises(DocumentError):
        read_workflow(data, name)
    assert not allows(data)


@pytest.mark.parametrize("name", [name for name in FAULTY if name in NOT_EXPRESSIBLE])
def test_the_list_of_what_a_schema_cannot_say_is_no_longer_than_needed(name: str) -> None:
    assert allows((DATA / "faulty" / f"{name}.yaml").read_bytes())


def test_both_know_the_same_keys() -> None:
    definitions = SCHEMA["$defs"]
    assert tuple(SCHEMA["properties"]) == KEYS
    assert tuple(definitions["step"]["properties"]) == steps.KEYS
    assert tuple(definitions["step"]["properties"]["resources"]["properties"]) == steps.RESOURCE_KEYS
    assert tuple(definitions["result"]["properties"]) == rules.RESULT_KEYS
    assert tuple(definitions["rule"]["properties"]) == rules.RULE_KEYS


@pytest.mark.parametrize(
    "change",
    [
        ("memory: 2 GB", "memory: 2 gb"),
        ("stage: assembly", "stage: last"),
        ("format: 1", "format: '1'"),
        ("network: true", "network: on"),
        ("outputs: [fit/mass.json, fit/log/]", "outputs: []"),
        ("data/local.txt: {}", "data/local/: {}"),
        ("low: 60.0", "low: {a: 1}"),
        ("because:", "reason:"),
        ("build: image/", "build: image"),
        ("code/select.py]", "/code/select.py]"),
    ],
)
def test_a_change_is_refused_by_both(change: tuple[str, str]) -> None:
    text = (DATA / "valid" / "full.yaml").read_text(encoding="utf-8")
    assert change[0] in text
    data = text.replace(*change).encode()
    assert not allows(data)
    with pytest.raises(DocumentError):
        read_workflow(data, "preserve.yaml")
