"""How a replay judges a result, as declared under ``results:``: its form (docs/reference/preserve-yaml.md)."""

from __future__ import annotations

import re

from preserve.documents import fields, jsonform, paths
from preserve.documents.faults import Faults
from preserve.documents.workflow import Position, ResultRule
from preserve.documents.yaml12 import Node, ScalarNode, plain

REQUIRE = ("identical", "equivalent", "tolerated", "compatible", "advisory")
RESULT_KEYS = ("require", "rules", "pixels", "command", "because")
RULE_KEYS = ("match", "rtol", "atol", "ulp", "statistical", "exclude", "because")
LOOSER = ("rtol", "atol", "ulp", "statistical", "exclude")
STATISTICAL_KEYS = ("test", "alpha", "max_yield_shift")
PIXEL_KEYS = ("level", "fraction")
TESTS = ("chi2", "ks")


def read_results(node: Node | None, faults: Faults) -> dict[str, ResultRule]:
    """Read ``results:``; whether they are products is known only to the plan."""
    results = {}
    for key, value in fields.keyed(node, "results", faults, hint="write path: {}, or path: {require: …}"):
        if found := paths.problem_of_product(key.text):
            faults.add(key, *found)
        results[key.text] = _result(key, value, faults)
    return results


def _result(key: ScalarNode, node: Node, faults: Faults) -> ResultRule:
    what = f'the result "{key.text}"'
    found = fields.record(node, what, faults, known=RESULT_KEYS)
    require = fields.chosen(found.get("require"), "require", faults, REQUIRE)
    for rule in fields.items(found.get("rules"), "rules", faults):
        _rule(rule, faults)
    if "pixels" in found:
        pixels = fields.record(found["pixels"], "pixels", faults, known=PIXEL_KEYS, required=PIXEL_KEYS)
        _fraction(pixels.get("fraction"), "fraction", faults)
        fields.integer(pixels.get("level"), "level", faults, least=0)
    for argument in fields.items(found.get("command"), "command", faults):
        fields.text(argument, "an argument of command", faults)
    fields.line(found.get("because"), "because", faults)
    text = jsonform.canonical(plain(node)).decode() if not len(faults) else "{}"
    position = Position(line=key.line, column=key.column)
    return ResultRule(require=require or "equivalent", text=text, position=position)


def _rule(node: Node, faults: Faults) -> None:
    found = fields.record(node, "a rule", faults, known=RULE_KEYS, required=("match",))
    _match(found.get("match"), faults)
    fields.line(found.get("because"), "because", faults)
    looser = [key for key in LOOSER if key in found]
    if found and not looser:
        faults.add(node, "this rule changes nothing", f"give one of: {', '.join(LOOSER)}")
    if looser and "because" not in found:
        faults.add(node, f"{looser[0]} without because", 'say why it may differ: because: "…"')
    if "exclude" in looser and len(looser) > 1:
        faults.add(found["exclude"], f"exclude together with {looser[0]}", "what is excluded is not compared at all")
    for key in ("rtol", "atol"):
        fields.number(found.get(key), key, faults)
    fields.integer(found.get("ulp"), "ulp", faults, least=0)
    fields.flag(found.get("exclude"), "exclude", faults)
    if "statistical" in found:
        _statistical(found["statistical"], faults)


def _match(node: Node | None, faults: Faults) -> None:
    pattern = fields.line(node, "match", faults)
    if pattern is None or node is None:
        return
    try:
        paths.compile_pattern(pattern)
    except re.error as error:
        faults.add(
            node, f'the pattern "{pattern}" can not be read: {error.msg}', "write a range from low to high: [a-z]"
        )


def _statistical(node: Node, faults: Faults) -> None:
    found = fields.record(node, "statistical", faults, known=STATISTICAL_KEYS, required=STATISTICAL_KEYS)
    fields.chosen(found.get("test"), "test", faults, TESTS)
    _fraction(found.get("alpha"), "alpha", faults)
    _fraction(found.get("max_yield_shift"), "max_yield_shift", faults)


def _fraction(node: Node | None, what: str, faults: Faults) -> None:
    value = fields.number(node, what, faults)
    if node is not None and value is not None and value > 1:
        faults.add(node, f"{what} must be between 0 and 1", "write a fraction: 0.01 for one percent")
